//! After the faults: everything is healed, whatever is dead is started, writes must flow and all replicas become equal.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::json;

use super::run::Limits;
use crate::oracle::{Promise, Violation};
use crate::rig::{Rig, State};
use crate::wait::within;

/// The namespace of the harness's own writes: no client's.
const PATH: &str = "/api/v1/namespaces/default/configmaps";
/// One write of the harness's own is given up after this, and tried again.
const TRY: Duration = Duration::from_millis(500);

/// Processes for each processor above which time proves nothing; a run by itself brings about three.
const LOAD_MAX: f64 = 4.0;

/// How long the control plane took to be well again.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Settled {
    /// Until a write was acknowledged, in milliseconds.
    pub writes_ms: Option<u64>,
    /// Until every replica served.
    pub serving_ms: Option<u64>,
    /// Until all had the same hash of the same state, once the load had ended.
    pub equal_ms: Option<u64>,
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Heals everything and waits until writes flow.
pub(super) async fn recover(
    rig: &mut Rig,
    limits: Limits,
    found: &mut Vec<Violation>,
    void: &mut Vec<String>,
) -> Result<Settled> {
    rig.network().heal();
    for id in rig.ids() {
        if let Some(layer) = rig.at(id)?.layer() {
            layer.heal()?;
        }
        match rig.at(id)?.state() {
            State::Absent => rig.launch(id)?,
            State::Paused => rig.at_mut(id)?.signal(rustix::process::Signal::CONT)?,
            State::Running => {}
        }
    }
    let begun = Instant::now();
    let mut settled = Settled::default();
    match within(limits.give_up, "a write is acknowledged", || write(rig)).await {
        Ok(()) if begun.elapsed() > limits.writes => {
            let told = format!("the first write after the faults took {:?}, not {:?}", begun.elapsed(), limits.writes);
            match too_busy() {
                Some(why) => void.push(format!("{told}, but {why}")),
                None => add(found, "writes flow again in time", told),
            }
        }
        Ok(()) => settled.writes_ms = Some(millis(begun)),
        Err(why) => add(found, "writes flow again", format!("{why:#}")),
    }
    match rig.serving(limits.equal).await {
        Ok(()) => settled.serving_ms = Some(millis(begun)),
        Err(why) => add(found, "every replica serves again", format!("{why:#}")),
    }
    Ok(settled)
}

/// Why time says nothing on this host now: so many processes wait for a processor that some wait for seconds.
fn too_busy() -> Option<String> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    let load: f64 = text.split_whitespace().next()?.parse().ok()?;
    let cores = u32::try_from(cores).ok()?;
    (load > LOAD_MAX * f64::from(cores)).then(|| format!("{load} processes share {cores} processors"))
}

/// Waits until all replicas have the same hash of the same state.
pub(super) async fn equal(rig: &Rig, limits: Limits, settled: &mut Settled, found: &mut Vec<Violation>) {
    let begun = Instant::now();
    let all = within(limits.equal, "all replicas have one hash", || async {
        let mut first = None;
        for id in rig.ids() {
            let status = rig.status(id).await?;
            let state = (status["applied_index"].as_u64(), status["state_hash"].as_str().map(str::to_owned));
            let same = first.get_or_insert_with(|| state.clone()) == &state;
            ensure!(same, "replica {id} has {state:?}, another {first:?}");
        }
        Ok(())
    })
    .await;
    match all {
        Ok(()) => settled.equal_ms = Some(millis(begun)),
        Err(why) => add(found, "all replicas become equal", format!("{why:#}")),
    }
}

fn add(found: &mut Vec<Violation>, check: &str, told: String) {
    found.push(Violation::new(Promise::G20, check, told));
}

/// One write, through whichever replica takes it.
async fn write(rig: &Rig) -> Result<()> {
    let body = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "generateName": "flows-" } });
    let tries = rig.running().into_iter().map(|id| {
        let body = &body;
        Box::pin(async move {
            let admin = rig.admin(id)?;
            tokio::time::timeout(TRY, admin.post(PATH, body)).await.context("no answer")??.expect(201)
        })
    });
    let tries: Vec<_> = tries.collect();
    ensure!(!tries.is_empty(), "no replica runs");
    futures::future::select_ok(tries).await.map(drop)
}
