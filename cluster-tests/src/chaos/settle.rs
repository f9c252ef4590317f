//! After the faults: everything is healed, whatever is dead is started, writes must flow and all replicas become equal.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde::Serialize;
use serde_json::json;

use super::run::Limits;
use crate::oracle::{Promise, Violation};
use crate::rig::{Rig, Seat, State};
use crate::starvation::{Canary, within};

/// The namespace of the harness's own writes: no client's.
const PATH: &str = "/api/v1/namespaces/default/configmaps";
/// A write of the harness's own that has no answer yet is sent again after this, and still waited for.
const AGAIN: Duration = Duration::from_millis(250);
/// A refusal is heard after this.
const REFUSED: Duration = Duration::from_millis(10);

/// How long the control plane took to be well again.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Settled {
    /// Until a write was acknowledged, in milliseconds.
    pub writes_ms: Option<u64>,
    /// How much of that the host withheld: somebody else had the processors, or the disk stood still.
    pub withheld_ms: u64,
    /// Until every replica served.
    pub serving_ms: Option<u64>,
    /// Until all had the same hash of the same state, once the load had ended.
    pub equal_ms: Option<u64>,
}

fn millis(since: Instant) -> u64 {
    in_millis(since.elapsed())
}

fn in_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Heals everything and waits until writes flow.
pub(super) async fn recover(rig: &mut Rig, limits: Limits, found: &mut Vec<Violation>) -> Result<Settled> {
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
    let canary = Canary::start(rig.directory(), &rig.pids())?;
    let begun = Instant::now();
    let mut settled = Settled::default();
    let flows = flows(rig, limits, &canary).await;
    let took = begun.elapsed();
    let withheld = canary.withheld(&rig.pids());
    settled.withheld_ms = in_millis(took.saturating_sub(withheld.soon(took)));
    match flows {
        Ok(()) => {
            settled.writes_ms = Some(in_millis(took));
            if withheld.soon(took) > limits.writes {
                let told = format!(
                    "the first write after the faults took {took:?}, not {:?}; the host withheld {withheld} of it",
                    limits.writes
                );
                add(found, "writes flow again in time", told);
            }
        }
        Err(why) => add(found, "writes flow again", format!("{why:#}")),
    }
    // A replica may have ended meanwhile: that is told when processes are looked after, and nobody waits for it here.
    let serve = within(limits.equal, rig, "every replica serves", || async {
        for id in rig.ids().into_iter().filter(|id| rig.at(*id).is_ok_and(Seat::is_there)) {
            rig.serves(id).await?;
        }
        Ok(())
    });
    match serve.await {
        Ok(()) => settled.serving_ms = Some(millis(begun)),
        Err(why) => add(found, "every replica serves again", format!("{why:#}")),
    }
    Ok(settled)
}

/// Waits until all replicas have the same hash of the same state.
pub(super) async fn equal(rig: &Rig, limits: Limits, settled: &mut Settled, found: &mut Vec<Violation>) {
    let begun = Instant::now();
    let all = within(limits.equal, rig, "all replicas have one hash", || async {
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

/// Waits until one write is acknowledged, through whichever replica takes it.
async fn flows(rig: &Rig, limits: Limits, canary: &Canary) -> Result<()> {
    let begun = Instant::now();
    let mut under_way = FuturesUnordered::new();
    let mut said = None;
    let mut again = tokio::time::interval(AGAIN);
    loop {
        tokio::select! {
            Some(answer) = under_way.next() => match answer {
                Ok(()) => return Ok(()),
                Err(error) => said = Some(error),
            },
            _ = again.tick() => under_way.extend(rig.running().into_iter().map(|id| write(rig, id))),
        }
        let withheld = canary.withheld(&rig.pids());
        if withheld.at_last(begun.elapsed()) > limits.give_up {
            let why = said.unwrap_or_else(|| anyhow::anyhow!("no replica answers"));
            let took = begun.elapsed();
            return Err(
                why.context(format!("no write was acknowledged in {took:?}, of which the host withheld {withheld}"))
            );
        }
    }
}

/// One write through one replica.
async fn write(rig: &Rig, id: u16) -> Result<()> {
    let body = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "generateName": "flows-" } });
    let answer = rig.admin(id)?.post(PATH, &body).await?.expect(201);
    if answer.is_err() {
        // A refusal may come at once, and again.
        tokio::time::sleep(REFUSED).await;
    }
    answer.map(drop)
}
