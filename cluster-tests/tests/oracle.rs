//! The oracle over a real cluster: clients of all kinds through three replicas, the leader killed in the middle, and every promise
//! judged afterwards. What was looked at is counted, for a verdict over nothing is none.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cluster_tests::cluster::{Cluster, Shape};
use cluster_tests::workload::{Kind, Mix, Targets};
use cluster_tests::{history, oracle, workload};

/// How long clients work before the leader is killed, and after.
const HALF: Duration = Duration::from_secs(5);

/// Kubernetes and Quilt clients work for ten seconds; the leader is killed after five and comes back. No promise is broken, in as
/// many requests, lists, events, registrations and invariants as make that worth saying; the history says the same when it is
/// read back from its file.
#[tokio::test(flavor = "multi_thread")]
async fn promises_are_kept_through_a_leader_kill() -> Result<()> {
    let mut cluster = Cluster::start(Shape { replicas: 3, agents: 0 }).await?;
    let mix = Mix { parts: vec![(Kind::Kubernetes, 40.0), (Kind::Quilt, 8.0)], ..Mix::kubernetes(0.0) };
    let load = workload::start(Targets::direct(&cluster), mix, 20).await?;
    tokio::time::sleep(HALF).await;
    ensure!(load.rate() > 5.0, "the load is {}/s before the fault: {:?}", load.rate(), load.latency());
    let leader = cluster.leader().await?;
    let killed_at = Instant::now();
    cluster.kill(leader).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.restart(leader)?;
    cluster.ready(leader).await?;
    tokio::time::sleep(HALF.saturating_sub(killed_at.elapsed())).await;
    let ended = load.ended();
    let history = load.stop().await;
    let verdict = oracle::check(&history);
    println!("{ended:?}\n{verdict}{:#?}", verdict.counts);

    let file = cluster.directory().join("history.jsonl");
    history::save(&history, &file)?;
    ensure!(verdict.passed(), "promises were broken; the history is {}\n{verdict}", file.display());
    ensure!(oracle::check(&history::load(&file)?) == verdict, "read back, the history is judged otherwise");
    let counts = &verdict.counts;
    ensure!(ended.shed == 0, "steps were left out: {ended:?}");
    for (what, seen, least) in [
        ("requests", counts.operations, 250),
        ("writes", counts.writes, 80),
        ("latest reads", counts.reads, 60),
        ("lists", counts.lists, 20),
        ("events", counts.events, 800),
        ("bookmarks", counts.bookmarks, 5),
        ("connections of watches", counts.connections, 25),
        ("changes", counts.changes, 80),
        ("registrations", counts.joins, 3),
        ("revisions with invariants", counts.invariants, 10),
    ] {
        ensure!(seen >= least, "only {seen} {what} were judged, of {least}: {counts:#?}");
    }
    cluster.passed();
    Ok(())
}
