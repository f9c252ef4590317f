//! Judges a recorded history again, or records one: a cluster of its own, a load, a leader killed every few seconds.
//!
//! `oracle FILE` or `oracle --mix full --rate 100 --seconds 20 --kill 6 --seed 7 --keep FILE`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use cluster_tests::cluster::{Cluster, Shape};
use cluster_tests::workload::{self, Mix, Targets};
use cluster_tests::{history, oracle};

#[derive(Debug, Parser)]
struct Arguments {
    /// A history to be judged; without it one is recorded.
    file: Option<PathBuf>,
    /// What clients do.
    #[arg(long, default_value = "kubernetes")]
    mix: String,
    /// Steps a second.
    #[arg(long, default_value_t = 60.0)]
    rate: f64,
    /// How long.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Seconds between two kills of the leader; 0 = never.
    #[arg(long, default_value_t = 0)]
    kill: u64,
    /// Kill all replicas instead of the leader.
    #[arg(long)]
    all: bool,
    /// Stop the leader for three seconds (SIGSTOP) instead of killing it.
    #[arg(long)]
    pause: bool,
    /// Seconds of one part of the load; 0 = one part.
    #[arg(long, default_value_t = 0)]
    part: u64,
    /// Agents of the cluster.
    #[arg(long, default_value_t = 0)]
    agents: u16,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the history goes.
    #[arg(long)]
    keep: Option<PathBuf>,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "it is a command")]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let verdict = match &arguments.file {
        Some(file) => {
            let history = history::load(file)?;
            let started = Instant::now();
            let verdict = oracle::check(&history);
            println!("judged in {:?}", started.elapsed());
            verdict
        }
        None => record(&arguments).await?,
    };
    println!("{verdict}{:#?}", verdict.counts);
    ensure!(verdict.passed(), "promises were broken");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "it is a command")]
async fn record(arguments: &Arguments) -> Result<oracle::Verdict> {
    let mut cluster = Cluster::start(Shape { replicas: 3, agents: arguments.agents }).await?;
    let mix = Mix::named(&arguments.mix, arguments.rate)?;
    let load = workload::start(Targets::direct(&cluster), mix, arguments.seed).await?;
    let started = Instant::now();
    let (mut faulted, mut parted) = (Instant::now(), Instant::now());
    let mut verdict = oracle::Verdict::default();
    while started.elapsed() < Duration::from_secs(arguments.seconds) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        println!("{:?} {:.0}/s {:?}", started.elapsed(), load.rate(), load.latency());
        if arguments.kill > 0 && faulted.elapsed() > Duration::from_secs(arguments.kill) {
            fault(&mut cluster, arguments).await?;
            faulted = Instant::now();
        }
        if arguments.part > 0 && parted.elapsed() > Duration::from_secs(arguments.part) {
            judge(&load.cut().await?, arguments, &mut verdict)?;
            parted = Instant::now();
        }
    }
    println!("{:?}", load.ended());
    judge(&load.stop().await, arguments, &mut verdict)?;
    if verdict.passed() {
        cluster.passed();
    }
    Ok(verdict)
}

async fn fault(cluster: &mut Cluster, arguments: &Arguments) -> Result<()> {
    let leader = cluster.leader().await?;
    if arguments.pause {
        cluster.pause(leader)?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        return cluster.resume(leader);
    }
    let killed = if arguments.all { cluster.ids() } else { vec![leader] };
    cluster.kill_all(&killed).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for id in &killed {
        cluster.restart(*id)?;
    }
    for id in &killed {
        cluster.ready(*id).await?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "it is a command")]
fn judge(history: &history::History, arguments: &Arguments, verdict: &mut oracle::Verdict) -> Result<()> {
    let started = Instant::now();
    let found = oracle::check(history);
    println!("judged in {:?}: {} violations {:?}", started.elapsed(), found.violations.len(), history.notes);
    if let Some(keep) = arguments.keep.as_ref().filter(|_| verdict.passed()) {
        history::save(history, keep)?;
    }
    verdict.merge(found);
    Ok(())
}
