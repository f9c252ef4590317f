//! Scenarios of chaos with one fixed seed each: real processes, broken in named ways, judged by what their clients saw. All scenarios run
//! by `./scripts/chaos`; here are those that differ in kind.

use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use cluster_tests::binary;
use cluster_tests::chaos::progress::Board;
use cluster_tests::chaos::report::told;
use cluster_tests::chaos::run::{Limits, Outcome, Setting, run};
use cluster_tests::chaos::scenario::{LYING_DISK, Scenario, named};
use cluster_tests::oracle::Promise;

/// The seed of all these runs.
const SEED: u64 = 1;

fn setting() -> Result<Setting> {
    Ok(Setting {
        replicas: 3,
        binary: binary::quiltd()?,
        previous: None,
        shim: Some(binary::shim()?),
        rate: 80.0,
        stretch: 1,
        limits: Limits::default(),
        soak: None,
    })
}

async fn pass(names: &[&str]) -> Result<()> {
    let setting = setting()?;
    let mut bad = Vec::new();
    for name in names {
        let scenario = named(name).ok_or_else(|| anyhow::anyhow!("no scenario is called {name}"))?;
        let directory = tempfile::Builder::new().prefix("quiltd-chaos-").tempdir()?;
        let place = directory.path().join("run");
        let report = run(scenario, &setting, SEED, place, Arc::new(Mutex::new(Board::default()))).await;
        let text = told(&report, &format!("./scripts/chaos --scenario {name} --seed {SEED} --rate 80"));
        #[expect(clippy::print_stdout, reason = "a failing test shows what every run of it came to")]
        {
            print!("{text}");
        }
        if report.outcome != Outcome::Pass {
            let _kept = directory.keep();
            bad.push(text);
        }
    }
    ensure!(bad.is_empty(), "{}", bad.join("\n"));
    Ok(())
}

/// A disk that says that it has synced what it has not, and a power cut: acknowledged writes are gone, and the harness says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_loss_is_seen() -> Result<()> {
    static SCENARIO: Scenario = LYING_DISK;
    let directory = tempfile::tempdir()?;
    let place = directory.path().join("run");
    let report = run(&SCENARIO, &setting()?, SEED, place, Arc::new(Mutex::new(Board::default()))).await;
    let text = told(&report, "");
    let lost = report.violations.iter().any(|violation| violation.promise == Promise::G3);
    ensure!(report.outcome == Outcome::Fail && lost, "a loss was not seen: {text}");
    Ok(())
}

/// Processes are killed: the leader, a majority, all, under Kubernetes and Quilt clients and controllers at work.
#[tokio::test(flavor = "multi_thread")]
async fn kills() -> Result<()> {
    pass(&["calm", "kill-leader", "kill-majority", "kill-all", "kill-leader-quilt", "kill-leader-rollout"]).await
}

/// Power is lost, and what was not synced with it.
#[tokio::test(flavor = "multi_thread")]
async fn power_cuts() -> Result<()> {
    pass(&["power-cut-all", "power-cut-torn", "power-cut-leader", "power-cut-quilt"]).await
}

/// Processes stand still, or are restarted in order.
#[tokio::test(flavor = "multi_thread")]
async fn pauses_and_restarts() -> Result<()> {
    pass(&["pause-leader", "pause-majority", "pause-leader-rollout", "restart-rolling", "restart-all"]).await
}

/// Replicas do not reach each other, in one direction or both.
#[tokio::test(flavor = "multi_thread")]
async fn cuts() -> Result<()> {
    pass(&["cut-leader", "cut-to-leader", "cut-from-leader", "cut-bridge", "cut-masks", "cut-leader-rollout"]).await
}

/// Links work badly, between replicas and to clients.
#[tokio::test(flavor = "multi_thread")]
async fn links() -> Result<()> {
    pass(&[
        "links-slow",
        "links-reset",
        "links-half-closed",
        "links-corrupt",
        "clients-reset",
        "clients-reset-quilt",
        "clients-stalled",
        "clients-corrupt",
    ])
    .await
}

/// Disks fail, fill and stall; clocks jump, drift and stand still.
#[tokio::test(flavor = "multi_thread")]
async fn disks_and_clocks() -> Result<()> {
    pass(&[
        "sync-fails-on-leader",
        "disk-full",
        "disk-slow-leader",
        "disk-sick-leader",
        "clock-jumps",
        "clock-drifts",
        "clock-frozen",
    ])
    .await
}

/// Bytes change in files, of one replica, of a majority, of all: mended from whoever has good ones, and by an operator where nobody has.
#[tokio::test(flavor = "multi_thread")]
async fn rot() -> Result<()> {
    pass(&["rot-in-state", "rot-in-log", "rot-in-logs", "rot-in-logs-of-two", "rot-in-states", "rot-everywhere"]).await
}

/// Who belongs to the control plane changes.
#[tokio::test(flavor = "multi_thread")]
async fn members() -> Result<()> {
    pass(&["members-transfer", "members-replaced", "members-grow", "members-abandoned", "backups"]).await
}

/// Faults in pairs.
#[tokio::test(flavor = "multi_thread")]
async fn pairs() -> Result<()> {
    pass(&["pause-and-kill", "cut-and-jump", "slow-and-power-cut", "rolling-under-loss"]).await
}
