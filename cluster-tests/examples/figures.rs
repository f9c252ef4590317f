//! Measures a control plane of three real replicas on this host and prints the figures its notes quote.
//!
//! `QUILTD_BIN=target/release/quiltd cargo run --profile ci -p cluster-tests --example figures -- [kills]`
#![allow(clippy::print_stdout, reason = "figures are for the person who asked for them")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cluster_tests::cluster::{Cluster, Shape, items, text};
use cluster_tests::wait::until;
use cluster_tests::watch::Watch;
use cluster_tests::writers::{self, Acknowledged, Record, Writers};
use serde_json::json;

const PODS: &str = "/api/v1/namespaces/default/pods?labelSelector=app%3Dfigures";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const IDLE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<()> {
    let kills: usize = std::env::args().nth(1).map_or(Ok(20), |kills| kills.parse())?;
    let asked = Instant::now();
    let mut cluster = Cluster::start(Shape { replicas: 3, agents: 2 }).await?;
    println!("dev to ready nodes           {:?}", asked.elapsed());
    idle(&cluster).await?;
    single_client(&cluster).await?;
    failovers(&mut cluster, kills).await?;
    cluster.passed();
    Ok(())
}

/// Memory and CPU of each replica when nobody asks for anything.
async fn idle(cluster: &Cluster) -> Result<()> {
    let pids: Vec<i32> = cluster.manifest().replicas.iter().filter_map(|replica| replica.pid).collect();
    let before = pids.iter().map(|pid| cpu_ticks(*pid)).collect::<Result<Vec<_>>>()?;
    // The measurement is the time: nothing is waited for.
    tokio::time::sleep(IDLE).await;
    for (pid, before) in pids.iter().zip(before) {
        let ticks = cpu_ticks(*pid)? - before;
        // A tick is a hundredth of a second on Linux, whatever the kernel's own.
        let percent_hundredths = u128::from(ticks) * 100 * 1000 / IDLE.as_millis();
        println!(
            "idle replica {pid:<8}        {} MiB, {}.{:02} % CPU",
            resident_kib(*pid)? / 1024,
            percent_hundredths / 100,
            percent_hundredths % 100
        );
    }
    Ok(())
}

fn cpu_ticks(pid: i32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("a stat line")?;
    let fields: Vec<u64> = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    Ok(fields.iter().sum())
}

fn resident_kib(pid: i32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("a VmRSS line")?;
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).context("a number of KiB")
}

/// One client that creates ConfigMaps one after the other, through the leader and through a follower.
async fn single_client(cluster: &Cluster) -> Result<()> {
    let leader = cluster.leader().await?;
    let follower = cluster.ids().into_iter().find(|id| *id != leader).context("a follower")?;
    for (role, id) in [("leader", leader), ("follower", follower)] {
        let started = Instant::now();
        let writers = Writers::start([(id, cluster.admin(id)?)])?;
        writers.progress(&[id], 1000).await?;
        let record = writers.stop().await?.remove(&id).context("its record")?;
        let count = record.acknowledged.len() as u128;
        let (longest, median) = writers::pause_and_median(&record);
        let rate = count * 1000 / started.elapsed().as_millis().max(1);
        println!("one client, {role:<9}        {rate} creates/s, p50 {median:?}, longest {longest:?}");
    }
    Ok(())
}

fn first_after(record: &Record, moment: Instant) -> Option<&Acknowledged> {
    record.acknowledged.iter().find(|write| write.at > moment)
}

/// The leader is killed again and again: time to the next acknowledged write, and to the next thing a controller does.
async fn failovers(cluster: &mut Cluster, kills: usize) -> Result<()> {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "figures"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "figures"}},
            "template": {"metadata": {"labels": {"app": "figures"}}, "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "main", "image": "none", "command": ["/bin/sleep", "100000"]}],
            }},
        },
    });
    let any = cluster.admin(cluster.ids()[0])?;
    any.post(DEPLOYMENTS, &deployment).await?.expect(201)?;
    let (mut write_gaps, mut control_gaps) = (Vec::new(), Vec::new());
    for kill in 0..kills {
        let leader = cluster.leader().await?;
        let live = cluster.ids().into_iter().find(|id| *id != leader).context("a follower")?;
        let client = cluster.admin(live)?;
        let wanted = 1 + kill % 2;
        until("the deployment is as wanted", || async {
            let list = client.get(PODS).await?.expect(200)?;
            anyhow::ensure!(items(&list).count() == wanted, "not yet");
            Ok(())
        })
        .await?;
        let list = client.get(PODS).await?.expect(200)?;
        let mut watch = Watch::open(&client.separate()?, PODS, &text(&list["metadata"]["resourceVersion"])).await?;
        let writers = Writers::start([(live, client.clone())])?;
        writers.progress(&[live], 20).await?;

        let killed_at = Instant::now();
        cluster.kill(leader).await?;
        let other = json!({"spec": {"replicas": 1 + (kill + 1) % 2}});
        let scale = format!("{DEPLOYMENTS}/figures/scale");
        client.patch(&scale, &other).await?.expect(200)?;
        watch.until("a controller's change", |events| (!events.is_empty()).then_some(())).await?;
        control_gaps.push(killed_at.elapsed());
        writers.progress(&[live], 1).await?;
        let record = writers.stop().await?.remove(&live).context("its record")?;
        let first = first_after(&record, killed_at).context("a write after the kill")?;
        write_gaps.push(first.at - killed_at);
        anyhow::ensure!(record.errors.is_empty(), "a client of a live replica saw {:?}", record.errors);
        cluster.restart(leader)?;
        cluster.ready(leader).await?;
        cluster.converged("/api/v1/namespaces").await?;
    }
    for (what, mut gaps) in [("acknowledged write", write_gaps), ("controller action", control_gaps)] {
        gaps.sort();
        let median = gaps.get(gaps.len() / 2).copied().unwrap_or_default();
        let longest = gaps.last().copied().unwrap_or_default();
        println!("kill to {what:<20} median {median:?}, max {longest:?} of {} kills", gaps.len());
    }
    any.delete(&format!("{DEPLOYMENTS}/figures")).await?;
    Ok(())
}
