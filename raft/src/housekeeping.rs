//! The leader's upkeep of the state: expired keys, old history, deleted clusters. Everything is a command in the log,
//! bounded, and proposed only when something is due.

use std::sync::Arc;
use std::time::Duration;

use openraft::Instant as _;
use openraft::type_config::TypeConfigExt;
use quilt_proto::state::{Compact, Expire, Sweep};
use quilt_proto::{KeyPrefix, Revision, command};
use quilt_state::limits::{COMPACT_ROWS_MAX, EXPIRE_KEYS_MAX, SWEEP_ROWS_MAX};
use quilt_state::{Family, Horizon, Step, Store, StoreError, row};

use crate::applied::Applied;
use crate::clock::{Clock, millis};
use crate::history::{Floors, Window, Written};
use crate::host::watch;
use crate::leadership::{LeaderId, Leadership};
use crate::proposer::Proposer;
use crate::types::TypeConfig;

/// How often something may become due.
const TICK: Duration = Duration::from_secs(1);
/// One command's way through the log; after a longer silence the next round looks again.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Housekeeping {
    pub(crate) applied: Arc<Applied>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// How long history is kept.
    pub(crate) window: Duration,
    /// How much of it.
    pub(crate) budget_bytes: u64,
    pub(crate) written: Arc<Written>,
}

impl Housekeeping {
    /// Works whenever this replica leads, until it stops.
    pub(crate) async fn run(mut self) {
        loop {
            let held = self.leadership.wait_for(|now| now.held().is_some()).await.map(|now| now.held());
            match held {
                Ok(Some(leader)) => self.lead(leader).await,
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }

    fn leads(&self, leader: LeaderId) -> bool {
        self.leadership.borrow().held() == Some(leader)
    }

    async fn lead(&self, leader: LeaderId) {
        let mut window = Window::new(self.window, self.budget_bytes);
        let mut due = Due::default();
        // By this process's own time: cluster time may take a step when it is first stamped here, and a watch that fell
        // behind would have the less.
        let began = TypeConfig::now();
        while self.leads(leader) {
            let led_ms = millis(TypeConfig::now().saturating_duration_since(began));
            let floors = window.look(led_ms, self.applied.mark().revision, &self.written);
            if let Err(error) = self.round(leader, floors, &mut due).await {
                // Apply meets the same error and stops the replica; here it is only reported.
                tracing::error!(%error, "reading what is due");
            }
            TypeConfig::sleep(TICK).await;
        }
    }

    async fn round(&self, leader: LeaderId, floors: Floors, due: &mut Due) -> Result<(), StoreError> {
        while self.leads(leader) && due.any(&*self.applied.state().0, self.clock.now_ms())? {
            if !self.command(command::Kind::Expire(Expire { limit: EXPIRE_KEYS_MAX })).await {
                return Ok(());
            }
        }
        if let Some(floor) = floors.all {
            while self.leads(leader)
                && let (store, horizon) = self.applied.state()
                && let Some(cluster) = compactable(&*store, &horizon, floor)?
            {
                if !self.compact(cluster, floor).await {
                    return Ok(());
                }
            }
        }
        for (cluster, floor) in floors.of {
            while self.leads(leader) && self.applied.horizon().floor(&cluster) < floor {
                if !self.compact(cluster.clone(), floor).await {
                    return Ok(());
                }
            }
        }
        while self.leads(leader) && self.sweepable()? {
            if !self.command(command::Kind::Sweep(Sweep { limit: SWEEP_ROWS_MAX })).await {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn compact(&self, cluster: String, floor: Revision) -> bool {
        let compact = Compact { cluster, floor: floor.get(), limit: COMPACT_ROWS_MAX };
        self.command(command::Kind::Compact(compact)).await
    }

    async fn command(&self, kind: command::Kind) -> bool {
        match self.proposer.command(kind) {
            Ok(done) => matches!(TypeConfig::timeout(COMMAND_TIMEOUT, done).await, Ok(Ok(true))),
            Err(_) => false,
        }
    }

    /// Whether rows of deleted clusters are left.
    fn sweepable(&self) -> Result<bool, StoreError> {
        let (store, horizon) = self.applied.state();
        for cluster in horizon.dropped.iter() {
            let Ok(prefix) = KeyPrefix::cluster(cluster) else { continue };
            for family in [Family::Versions, Family::Changes] {
                let mut any = false;
                store.scan(family, prefix.bytes(), &prefix.end(), &mut |_, _| {
                    any = true;
                    Step::Stop
                })?;
                if any {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// Looks for keys that have expired. Where what expired earlier stood, RocksDB keeps marks of what is gone until it compacts, and a cursor
/// has to pass all of them, so each look begins where the last one ended.
#[derive(Default)]
struct Due {
    /// Nothing expires before this cluster time: no row did when it was looked for, and a row that came later is to expire later.
    none_before_ms: u64,
}

impl Due {
    /// Whether a key expires at this cluster time or before. The time of one leader never goes back.
    fn any(&mut self, store: &(impl Store + ?Sized), now_ms: u64) -> Result<bool, StoreError> {
        let mut next = None;
        store.scan(Family::Expiry, &row::expiry(self.none_before_ms, &[]), &[0xff; 9], &mut |key, _| {
            next = row::split_expiry(key).map(|(at, _)| at);
            Step::Stop
        })?;
        self.none_before_ms = next.unwrap_or(now_ms).min(now_ms);
        Ok(next.is_some_and(|at| at <= now_ms))
    }
}

/// A cluster with history at or below `floor` that has not been compacted so far. What was compacted is not passed again, for the same
/// reason as in [`Due`].
fn compactable(
    store: &(impl Store + ?Sized),
    horizon: &Horizon,
    floor: Revision,
) -> Result<Option<String>, StoreError> {
    let mut found = None;
    let mut look = |from: &[u8], to: &[u8]| {
        store.scan(Family::Changes, from, to, &mut |key, _| {
            let Some((cluster, revision)) = row::split_change(key) else { return Step::Stop };
            let Ok(cluster) = std::str::from_utf8(cluster) else { return Step::Stop };
            if revision <= floor && horizon.floor(cluster) < floor && !horizon.dropped.contains(cluster) {
                found = Some(cluster.to_owned());
                return Step::Stop;
            }
            KeyPrefix::cluster(cluster).map_or(Step::Stop, |prefix| Step::Seek(prefix.end().to_vec()))
        })?;
        Ok(found.take())
    };
    let mut behind = Vec::new();
    for (cluster, compacted) in horizon.floors.iter() {
        let Ok(prefix) = KeyPrefix::cluster(cluster) else { continue };
        // Clusters that have no floor so far, then this one behind its floor.
        let ranges = [
            (behind, row::change(cluster, Revision::ZERO)),
            (row::change(cluster, Revision::new(compacted + 1)).to_vec(), prefix.end().to_vec().into()),
        ];
        for (from, to) in ranges {
            if let Some(cluster) = look(&from, &to)? {
                return Ok(Some(cluster));
            }
        }
        behind = prefix.end().to_vec();
    }
    look(&behind, &[0xff; 9])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use quilt_state::{Batch, MemoryStore};

    use super::*;

    /// A store with nothing but these rows of one family.
    fn store(family: Family, keys: impl IntoIterator<Item = Bytes>) -> MemoryStore {
        let store = MemoryStore::default();
        let mut batch = Batch { writes: Vec::new() };
        keys.into_iter().for_each(|key| batch.put(family, key, Bytes::new()));
        store.write(&batch).expect("memory takes it");
        store
    }

    /// What is due is seen at its time and not before, however often it was looked for, also what came in the meantime.
    #[test]
    fn what_is_due_is_seen() {
        let mut due = Due::default();
        let keys = |times: &[u64]| times.iter().map(|at| row::expiry(*at, b"key")).collect::<Vec<_>>();
        assert!(!due.any(&store(Family::Expiry, []), 10).expect("read"));
        let rows = store(Family::Expiry, keys(&[20, 30]));
        for (now_ms, any) in [(10, false), (19, false), (20, true), (20, true), (35, true)] {
            assert_eq!(due.any(&rows, now_ms).expect("read"), any, "at {now_ms}");
        }
        let rows = store(Family::Expiry, keys(&[36, 50]));
        for (now_ms, any) in [(35, false), (36, true)] {
            assert_eq!(due.any(&rows, now_ms).expect("read"), any, "at {now_ms}");
        }
    }

    /// Every cluster with history at or below the floor is found, wherever it stands between those that were compacted, and none that
    /// has nothing there, was compacted that far, or is dropped.
    #[test]
    fn clusters_to_compact_are_found() {
        let clusters = ["a", "a-b", "b", "c"];
        // For each cluster: its floor, or none, and its first change, or none.
        let states = [
            (None, None),
            (None, Some(3)),
            (None, Some(9)),
            (Some(2), Some(3)),
            (Some(5), Some(6)),
            (Some(2), Some(9)),
        ];
        for case in 0..states.len().pow(4) {
            let state = |at: usize| states[case / states.len().pow(u32::try_from(at).expect("small")) % states.len()];
            let rows = (0..4).filter_map(|at| Some(row::change(clusters[at], Revision::new(state(at).1?))));
            let store = store(Family::Changes, rows);
            let mut floors: BTreeMap<String, u64> =
                (0..4).filter_map(|at| Some((clusters[at].to_owned(), state(at).0?))).collect();
            let mut found = Vec::new();
            loop {
                let horizon = Horizon { floors: Arc::new(floors.clone()), ..Horizon::default() };
                let Some(cluster) = compactable(&store, &horizon, Revision::new(5)).expect("read") else { break };
                floors.insert(cluster.clone(), 5);
                found.push(cluster);
            }
            let due =
                |at: &usize| state(*at).1.is_some_and(|first| first <= 5) && state(*at).0.is_none_or(|floor| floor < 5);
            let expected: Vec<&str> = (0..4).filter(due).map(|at| clusters[at]).collect();
            assert_eq!(found, expected, "case {case}");
        }
    }
}
