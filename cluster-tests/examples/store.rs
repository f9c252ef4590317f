//! Measures the store side by side with etcd. `./scripts/bench store` builds what is needed and runs this; run by hand:
//!
//! `QUILTD_BIN=target/release/quiltd cargo run --release -p cluster-tests --example store -- --etcd /usr/bin/etcd --quick`
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures are for the person who asked for them")]

use std::io::Read as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use cluster_tests::bench::run::{self, Peer, Plan};
use cluster_tests::bench::{etcd, load, report};
use cluster_tests::binary;
use serde_json::json;

/// Measure the store of three replicas of quiltd side by side with three members of etcd.
///
/// Slices of both alternate on the same disk; what is told are medians of the ratios of neighbouring slices with their
/// 95 % interval, and counts. Closed loop unless --rate is given.
#[derive(Debug, Parser)]
#[command(name = "store", bin_name = "./scripts/bench store", max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// Only rows with this in their name; * stands for anything. May be given several times.
    #[arg(long = "row", value_name = "PATTERN")]
    rows: Vec<String>,
    /// Few and short slices: a first look, not a result to quote.
    #[arg(long)]
    quick: bool,
    /// Fit the run into about so much time: slices get shorter, then fewer.
    #[arg(long, value_name = "N")]
    minutes: Option<u64>,
    /// Requests due per second over all clients (open loop); latency counts from when a request was due.
    #[arg(long, value_name = "N")]
    rate: Option<u64>,
    /// Losses of a leader of each kind (kill, pause, hand-over), on each side.
    #[arg(long, value_name = "N")]
    losses: Option<usize>,
    /// Keys that clients choose from.
    #[arg(long, value_name = "N")]
    keys: Option<u64>,
    /// The etcd to compare with; without it there is no peer.
    #[arg(long, value_name = "PATH")]
    etcd: Option<PathBuf>,
    /// Another build of quiltd to compare with, in the place of etcd: what a change is worth.
    #[arg(long, value_name = "PATH", conflicts_with = "etcd")]
    against: Option<PathBuf>,
    /// Where the servers keep their data: what is measured is this disk.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write the rows there too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How the binaries were built, to be printed with the result.
    #[arg(long, value_name = "TEXT", default_value = "as given by QUILTD_BIN")]
    built: String,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// One slice of load, as standard input says.
    #[command(hide = true)]
    Load,
}

/// Measured time of a slice of a full run, of a quick one, and never less than.
const SLICE: Duration = Duration::from_secs(6);
const SLICE_QUICK: Duration = Duration::from_secs(4);
const SLICE_MIN: Duration = Duration::from_secs(2);
const PAIRS: usize = 20;
const PAIRS_QUICK: usize = 5;
const PAIRS_MIN: usize = 3;
const LOSSES: usize = 50;
const LOSSES_QUICK: usize = 5;
const KEYS: u64 = 100_000;
const KEYS_QUICK: u64 = 20_000;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Role::Load) = arguments.role {
        let mut spec = String::new();
        std::io::stdin().read_to_string(&mut spec)?;
        let told = load::run(serde_json::from_str(&spec)?).await?;
        println!("{}", serde_json::to_string(&told)?);
        return Ok(());
    }
    let under = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    let directory = run::directory(&under)?;
    let plan = plan(&arguments, directory.path().to_owned());
    let about = about(&arguments, &plan)?;
    println!("{}\n", about["text"].as_str().unwrap_or_default());
    let results = run::run(&plan, &mut |line| println!("{line}")).await?;
    println!("\n{}", report::table(&results));
    if let Some(method) = results.syncs {
        println!("Syncs were counted by {method}.");
    }
    if results.peer.is_none() {
        println!("etcd was absent: nothing here is a comparison.");
    }
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report::json(&results, &about))?;
        std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

fn plan(arguments: &Arguments, under: PathBuf) -> Plan {
    let quick = arguments.quick;
    let mut plan = Plan {
        patterns: arguments.rows.clone(),
        pairs: if quick { PAIRS_QUICK } else { PAIRS },
        slice: if quick { SLICE_QUICK } else { SLICE },
        keys: arguments.keys.unwrap_or(if quick { KEYS_QUICK } else { KEYS }).max(1),
        losses: arguments.losses.unwrap_or(if quick { LOSSES_QUICK } else { LOSSES }),
        long: !quick && arguments.minutes.is_none(),
        rate: arguments.rate,
        under,
        peer: arguments.against.clone().map(Peer::Quiltd).or_else(|| arguments.etcd.clone().map(Peer::Etcd)),
    };
    if let Some(minutes) = arguments.minutes {
        let limit = Duration::from_secs(60 * minutes);
        while plan.estimate() > limit && plan.slice > SLICE_MIN {
            plan.slice -= Duration::from_millis(500);
        }
        while plan.estimate() > limit && plan.pairs > PAIRS_MIN {
            plan.pairs -= 1;
        }
        while plan.estimate() > limit && arguments.losses.is_none() && plan.losses > PAIRS_MIN {
            plan.losses -= 1;
        }
    }
    plan
}

/// What a reader must know to judge and to repeat the run.
fn about(arguments: &Arguments, plan: &Plan) -> Result<serde_json::Value> {
    let quiltd = binary::quiltd()?;
    let version = Command::new(&quiltd).arg("--version").output().context("quiltd does not run")?;
    ensure!(version.status.success(), "quiltd does not run");
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let peer = match &plan.peer {
        Some(Peer::Etcd(path)) => format!("etcd {} {}", etcd::version(path)?, etcd::FLAGS.join(" ")),
        Some(Peer::Quiltd(path)) => format!("another build: {}", path.display()),
        None => "etcd: absent".to_owned(),
    };
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let kind = if arguments.quick { "quick run, a first look only" } else { "run" };
    let text = format!(
        "{kind}: {} pairs of slices of {:?} per case, {} keys, {} loop, about {} minutes\n\
         {version} ({}), server --kv-api, else as installed\n{peer}\n\
         TLS on both sides, 10 clients a connection; {processors} processors, load before the run {load}; data in {}",
        plan.pairs,
        plan.slice,
        plan.keys,
        plan.rate.map_or_else(|| "closed".to_owned(), |rate| format!("open ({rate}/s)")),
        plan.estimate().as_secs().div_ceil(60),
        arguments.built,
        arguments.dir.clone().unwrap_or_else(std::env::temp_dir).display(),
    );
    Ok(json!({
        "text": text, "quick": arguments.quick, "quiltd": version, "built": arguments.built, "peer": peer,
        "pairs": plan.pairs, "slice_ms": plan.slice.as_millis(), "keys": plan.keys, "rate": plan.rate,
        "processors": processors, "load_before": load,
    }))
}
