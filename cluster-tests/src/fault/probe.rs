//! [`Probe`]: one client that writes all the time and sends a request once more, through another replica, when the first did not get
//! through. What such a client is not given, no client with any patience is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::task::JoinHandle;

use super::Proof;
use crate::client::Client;
use crate::oracle::Promise;
use crate::rig::Rig;
use crate::starvation::Withheld;

/// Its writes go here: no client's place.
const PATH: &str = "/api/v1/namespaces/default/configmaps";
/// The label by which they are told from all else.
const LABEL: &str = "probe";
/// Between two writes.
const PAUSE: Duration = Duration::from_millis(50);
/// A write in flight is held by the control plane while a leader is elected; nobody waits longer for it than this.
const PATIENCE: Duration = Duration::from_secs(15);

/// What fails sooner fails for no want of processors.
const PATIENT: Duration = Duration::from_secs(5);

/// What it has seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// When each write that was acknowledged began, and how long it took.
    pub(super) took: Vec<(Instant, Duration)>,
    /// Writes that failed twice: how long that took, and how.
    pub(super) failed: Vec<(Duration, String)>,
    /// Writes that had to be sent again.
    pub(super) repeated: u64,
}

impl Seen {
    /// Ninety-nine of a hundred writes that began after this took no longer.
    pub(super) fn p99_since(&self, since: Instant) -> Option<Duration> {
        let mut took: Vec<Duration> =
            self.took.iter().filter(|(began, _)| *began >= since).map(|(_, took)| *took).collect();
        took.sort_unstable();
        took.get(took.len() * 99 / 100).copied()
    }

    /// Writes that failed twice break a promise. Those that waited for long on a host that was starved all the while tell nothing.
    pub(super) fn judged(
        &self,
        mut proof: Proof,
        promise: Promise,
        check: &str,
        withheld: Withheld,
        lasted: Duration,
    ) -> Proof {
        let excused = |took: Duration| withheld.starved(lasted) && took > PATIENT;
        let (late, broken): (Vec<_>, Vec<_>) = self.failed.iter().partition(|(took, _)| excused(*took));
        if let Some((took, first)) = late.first() {
            let count = late.len();
            proof.missing.push(format!(
                "{count} writes failed twice on a host that withheld {withheld}, the first after {took:?}: {first}"
            ));
        }
        match broken.first() {
            Some((took, first)) => {
                let count = broken.len();
                let told = format!(
                    "{count} writes failed twice, the first after {took:?}: {first}; the host withheld {withheld}"
                );
                proof.broken(promise, check, told)
            }
            None => proof,
        }
    }
}

/// A client at work.
#[derive(Debug)]
pub(super) struct Probe {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Probe {
    /// Starts one that goes to these replicas.
    pub(super) fn start(rig: &Rig, ids: &[u16]) -> Result<Self> {
        let clients = ids.iter().map(|id| rig.admin(*id)).collect::<Result<Vec<Client>>>()?;
        ensure!(clients.len() > 1, "a client that may try again needs two replicas");
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            for place in 0_usize.. {
                let began = Instant::now();
                let first = write(&clients[place % clients.len()]).await;
                let again = match &first {
                    Ok(()) => None,
                    Err(_) => Some(write(&clients[(place + 1) % clients.len()]).await),
                };
                note(&noted, began, first, again);
                tokio::time::sleep(PAUSE).await;
            }
        });
        Ok(Self { seen, task })
    }

    /// Ends it.
    pub(super) fn stop(self) -> Seen {
        self.task.abort();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn note(seen: &Mutex<Seen>, began: Instant, first: Result<()>, again: Option<Result<()>>) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.repeated += u64::from(again.is_some());
    match (first, again) {
        (Err(first), Some(Err(second))) => {
            seen.failed.push((began.elapsed(), format!("{first:#}, and then {second:#}")));
        }
        _acknowledged => seen.took.push((began, began.elapsed())),
    }
}

async fn write(client: &Client) -> Result<()> {
    let metadata = json!({ "generateName": "probe-", "labels": { LABEL: "" } });
    let body = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata });
    tokio::time::timeout(PATIENCE, client.post(PATH, &body)).await.context("no answer")??.expect(201).map(drop)
}

/// Removes what was written through these: a run of hours has thousands of faults.
pub(super) async fn clear(rig: &Rig, ids: &[u16]) -> Result<()> {
    let all = format!("{PATH}?labelSelector={LABEL}");
    rig.admin(*ids.first().context("a replica")?)?.delete(&all).await?.expect(200).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A write that fails twice breaks the promise; one that waited for long does so on a host that was not starved only.
    #[test]
    fn a_starved_host_excuses_what_took_long() {
        let seconds = Duration::from_secs;
        let failed = |took| Seen { failed: vec![(seconds(took), "503".into())], ..Seen::default() };
        let busy = Withheld { ran: seconds(1), waited: seconds(9), disk: Duration::ZERO };
        let judged = |seen: &Seen, withheld| seen.judged(Proof::default(), Promise::G16, "x", withheld, seconds(60));
        assert_eq!(judged(&failed(20), Withheld::default()).broken.len(), 1);
        assert_eq!(judged(&failed(1), busy).broken.len(), 1);
        let late = judged(&failed(20), busy);
        assert_eq!((late.broken.len(), late.missing.len()), (0, 1));
        assert!(judged(&Seen::default(), busy).missing.is_empty());
    }
}
