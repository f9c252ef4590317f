//! [`Applied`]: the edge of the applied state, shared between apply (one writer) and everybody who reads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use quilt_proto::state::command::Kind;
use quilt_proto::{Entry, Revision};
use quilt_state::{Horizon, Store};

use crate::host::watch;

use crate::ballot::{Hash, MILESTONE};

/// Milestones kept: at the pace of a busy control plane those of the last seconds.
const MILESTONES_KEPT: usize = 16;

/// How far apply has come. Published after the rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) revision: Revision,
    pub(crate) cluster_time_ms: u64,
    /// Hash of live rows, as two halves.
    pub(crate) hash: (u64, u64),
}

#[derive(Clone)]
struct Current {
    store: Arc<dyn Store>,
    horizon: Horizon,
}

/// The applied state: its store, what readers must know about it, and a signal when it moves.
pub(crate) struct Applied {
    current: RwLock<Current>,
    mark: watch::Sender<Mark>,
    /// The last marks at which all replicas take note of their hash.
    milestones: Mutex<VecDeque<(u64, Hash)>>,
    /// Held for reading by every read, for writing while a snapshot takes the state's place: rows of one state must
    /// not be judged by the horizon of the other.
    gate: RwLock<()>,
}

impl Applied {
    pub(crate) fn new(store: Arc<dyn Store>, horizon: Horizon, term: u64, hash: (u64, u64)) -> Self {
        let mark = watch::Sender::new(mark(&horizon, term, hash));
        let milestones = Mutex::default();
        Self { current: RwLock::new(Current { store, horizon }), mark, milestones, gate: RwLock::new(()) }
    }

    /// The log entries at which this replica has taken note of its hash, the newest last.
    pub(crate) fn milestones(&self) -> Vec<(u64, Hash)> {
        self.milestones.lock().iter().copied().collect()
    }

    /// Keeps the state from being replaced while a read is on its way.
    pub(crate) fn reading(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read()
    }

    /// Keeps readers away while the state is being replaced.
    pub(crate) fn replacing(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write()
    }

    /// Store and horizon that belong together.
    pub(crate) fn state(&self) -> (Arc<dyn Store>, Horizon) {
        let current = self.current.read().clone();
        (current.store, current.horizon)
    }

    pub(crate) fn horizon(&self) -> Horizon {
        self.current.read().horizon.clone()
    }

    pub(crate) fn mark(&self) -> Mark {
        *self.mark.borrow()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Mark> {
        self.mark.subscribe()
    }

    /// Announces what the coming entries will remove, before they remove it: a reader that meets missing rows then
    /// finds the raised floor when it checks again after reading, instead of taking the gap for the truth.
    pub(crate) fn herald<'a>(&self, entries: impl Iterator<Item = &'a Entry>) {
        let mut raised: BTreeMap<&str, u64> = BTreeMap::new();
        let mut gone: BTreeSet<&str> = BTreeSet::new();
        for command in entries.flat_map(|entry| &entry.commands) {
            match &command.kind {
                Some(Kind::Compact(compact)) => {
                    let floor = raised.entry(&compact.cluster).or_default();
                    *floor = (*floor).max(compact.floor);
                }
                Some(Kind::DropCluster(drop)) if !drop.cluster.is_empty() => {
                    gone.insert(&drop.cluster);
                }
                _ => {}
            }
        }
        if raised.is_empty() && gone.is_empty() {
            return;
        }
        let mut current = self.current.write();
        let newest = current.horizon.revision.get();
        let floors = Arc::make_mut(&mut current.horizon.floors);
        for (cluster, floor) in raised {
            let held = floors.entry(cluster.to_owned()).or_default();
            *held = (*held).max(floor.min(newest));
        }
        let dropped = Arc::make_mut(&mut current.horizon.dropped);
        dropped.extend(gone.into_iter().map(str::to_owned));
    }

    /// Entries up to `horizon` are written.
    pub(crate) fn publish(&self, horizon: Horizon, term: u64, hash: (u64, u64)) {
        let mark = mark(&horizon, term, hash);
        if mark.index.is_multiple_of(MILESTONE) {
            let mut milestones = self.milestones.lock();
            milestones.push_back((mark.index, hash));
            if milestones.len() > MILESTONES_KEPT {
                milestones.pop_front();
            }
        }
        self.current.write().horizon = horizon;
        self.mark.send_replace(mark);
    }

    /// A snapshot has replaced the whole state.
    pub(crate) fn replace(&self, store: Arc<dyn Store>, horizon: Horizon, term: u64, hash: (u64, u64)) {
        let mark = mark(&horizon, term, hash);
        self.milestones.lock().clear();
        *self.current.write() = Current { store, horizon };
        self.mark.send_replace(mark);
    }
}

const fn mark(horizon: &Horizon, term: u64, hash: (u64, u64)) -> Mark {
    Mark {
        index: horizon.applied_index,
        term,
        revision: horizon.revision,
        cluster_time_ms: horizon.cluster_time_ms,
        hash,
    }
}
