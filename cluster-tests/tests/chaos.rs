//! Scenarios of chaos with one fixed seed each: real processes, broken in named ways, judged by what their clients saw. All scenarios run
//! by `./scripts/chaos`; here are those that differ in kind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use cluster_tests::binary;
use cluster_tests::chaos::progress::Board;
use cluster_tests::chaos::report::told;
use cluster_tests::chaos::run::{Limits, Outcome, Setting, run};
use cluster_tests::chaos::scenario::{LYING_DISK, Phase, Scenario, Work, named};
use cluster_tests::fault::{DiskTrouble, Fault, Whom};
use cluster_tests::oracle::Promise;
use rustix::process::{Pid, Signal, kill_process};

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

/// The processes of replica 1 of the control plane that is kept there.
fn first_replicas(place: &Path) -> Vec<i32> {
    let data = place.join("cp/replica-1").display().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<i32>().ok());
    let is_one = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(" server ") && line.contains(&data)
    };
    pids.filter(is_one).collect()
}

/// A replica ends that no fault has ended. The program says FAIL with the promise, ends with 1, keeps logs, data directories and what
/// clients saw, and prints the command that repeats it.
#[test]
fn a_broken_promise_is_told_and_kept() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let place = directory.path().join("calm-4");
    let mut program = Command::new(env!("CARGO_BIN_EXE_chaos"));
    program.args(["--scenario", "calm", "--seed", "4", "--rate", "80", "--out"]).arg(directory.path());
    program.env("QUILTD_BIN", binary::quiltd()?).env("QUILTD_FAULT_SHIM", binary::shim()?);
    let mut program = program.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let (mut said, mut killed) = (String::new(), false);
    for line in BufReader::new(program.stderr.take().context("its words")?).lines() {
        let line = line?;
        if !killed && line.contains("warming up: no fault") {
            for pid in first_replicas(&place) {
                kill_process(Pid::from_raw(pid).context("a pid is positive")?, Signal::KILL)?;
                killed = true;
            }
        }
        said.push_str(&line);
        said.push('\n');
    }
    let status = program.wait()?;
    ensure!(killed, "no replica was found: {said}");
    ensure!(status.code() == Some(1), "{status}: {said}");
    for told in [
        "FAIL  calm seed 4",
        "G20 no replica stops by itself: replica 1 ended by itself",
        "again: ./scripts/chaos --scenario calm --seed 4 --replicas 3 --rate 80\n",
        &format!("kept: {}\n", place.canonicalize()?.display()),
    ] {
        ensure!(said.contains(told), "\"{told}\" is not said: {said}");
    }
    for kept in ["replica-1.log", "cp/replica-1/state", "cp/replica-3/log", "history.jsonl"] {
        let about = fs::metadata(place.join(kept)).with_context(|| kept.to_owned())?;
        ensure!(about.is_dir() || about.len() > 0, "{kept} is empty");
    }
    let report: serde_json::Value = serde_json::from_slice(&fs::read(directory.path().join("report.json"))?)?;
    ensure!(report["outcome"] == "fail" && report["runs"][0]["seed"] == 4, "{}", report["outcome"]);
    Ok(())
}

/// What cannot be run proves nothing: the program ends with 3, says why, and how to repeat it.
#[test]
fn a_void_run_is_told() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut program = Command::new(env!("CARGO_BIN_EXE_chaos"));
    program.args(["--scenario", "upgrade-rolling", "--out"]).arg(directory.path());
    program.env("QUILTD_BIN", binary::quiltd()?).env("QUILTD_FAULT_SHIM", binary::shim()?);
    let done = program.output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.code() == Some(3), "{}: {said}", done.status);
    for told in ["void  upgrade-rolling seed 1", "--previous PATH", "again: ./scripts/chaos --scenario upgrade-rolling"]
    {
        ensure!(said.contains(told), "\"{told}\" is not said: {said}");
    }
    ensure!(!said.contains("kept:"), "nothing was begun: {said}");
    Ok(())
}

/// Runs a scenario that must be void, and gives out why.
async fn void(scenario: &'static Scenario, setting: &Setting) -> Result<String> {
    let directory = tempfile::tempdir()?;
    let place = directory.path().join("run");
    let report = run(scenario, setting, SEED, place.clone(), Arc::new(Mutex::new(Board::default()))).await;
    ensure!(report.outcome == Outcome::Void, "it is not void: {}", told(&report, ""));
    ensure!(report.kept.as_ref() == Some(&place) && place.join("replica-1.log").exists(), "its logs are not kept");
    Ok(report.void.join("\n"))
}

/// A disk that is said to be full has space for more than is ever written: a fault that takes no effect makes its run void.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_without_effect_is_void() -> Result<()> {
    const ROOMY: Phase = Phase {
        faults: &[Fault::Disk(Whom::Follower, DiskTrouble::Full(1 << 40))],
        hold_ms: 300..400,
        calm_ms: 300..400,
    };
    static SCENARIO: Scenario = Scenario {
        name: "roomy",
        shows: "A full disk that is not full.",
        work: Work::Objects,
        phases: &[ROOMY],
        promises: &[],
        arguments: &[],
    };
    let why = void(&SCENARIO, &setting()?).await?;
    ensure!(why == "full disk of a follower did not take effect: no writes refused", "{why}");
    Ok(())
}

/// Processes without the layer, as those of a static binary are, whatever is set for them: faults of disks cannot be made, and a run with
/// them is void.
#[tokio::test(flavor = "multi_thread")]
async fn processes_without_the_layer_are_void() -> Result<()> {
    static SCENARIO: Scenario = LYING_DISK;
    // Some library that every process here has loaded anyhow, in the place of the layer.
    let maps = fs::read_to_string("/proc/self/maps")?;
    let libraries = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    let other = libraries.into_iter().find(|path| path.contains("libc.so")).context("a C library")?;
    let setting = Setting { shim: Some(PathBuf::from(other)), ..setting()? };
    let why = void(&SCENARIO, &setting).await?;
    ensure!(why.contains("does not run with the layer under it: is the binary linked statically?"), "{why}");
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
        "sync-fails-on-follower",
        "disk-full",
        "disk-slow-leader",
        "disk-stalls-leader",
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

/// Who belongs to the control plane changes, and one is away until only a snapshot brings it up.
#[tokio::test(flavor = "multi_thread")]
async fn members() -> Result<()> {
    pass(&[
        "members-transfer",
        "members-replaced",
        "members-grow",
        "members-demoted",
        "members-abandoned",
        "absence",
        "backups",
    ])
    .await
}

/// Faults in pairs.
#[tokio::test(flavor = "multi_thread")]
async fn pairs() -> Result<()> {
    pass(&["pause-and-kill", "cut-and-jump", "slow-and-power-cut", "rolling-under-loss"]).await
}
