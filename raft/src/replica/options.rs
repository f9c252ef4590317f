//! What a replica is opened with: who it is, how it behaves, what it keeps its data in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quilt_proto::ReplicaId;
use quilt_state::{MemoryStore, Store};
use quilt_storage::{LogEngine, MemoryLog};

use crate::scan::ScanPace;
use crate::settings::Timing;
use crate::snapshot::{MemorySnapshots, SnapshotHome};

/// Who a replica is and how it behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its id within the control plane.
    pub id: ReplicaId,
    /// Id of the control plane; peers of another one are refused.
    pub cluster: String,
    /// Raised by every restore; peers of another epoch are refused.
    pub epoch: u64,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// Bytes of events held for watchers.
    pub event_ring_bytes: usize,
    /// How long history is kept for watches and old reads; never less than 75 s.
    pub history_window: Duration,
    /// How much of it is kept, in bytes; above it, clusters with more than their share keep less, but never less than 75 s.
    pub history_budget_bytes: u64,
    /// Bytes of log that stay for peers that were away.
    pub log_keep_bytes: u64,
    /// Bytes of the disk that are kept free: below, new objects are refused. Of a small disk no more than a twentieth.
    pub disk_reserve_bytes: u64,
    /// Peers as they were configured: who is asked for a state when the own one is lost and no members were noted.
    pub peers: BTreeMap<ReplicaId, String>,
    /// A log of which nothing becomes durable for so long stops the replica: its disk has stalled.
    pub disk_stalled: Duration,
    /// How fast, and how often, the whole state is read and compared with its hash.
    pub scan: ScanPace,
}

impl Options {
    /// The usual settings.
    #[must_use]
    pub fn new(id: ReplicaId, cluster: impl Into<String>) -> Self {
        Self {
            id,
            cluster: cluster.into(),
            epoch: 0,
            timing: Timing::default(),
            event_ring_bytes: 64 << 20,
            history_window: Duration::from_secs(600),
            history_budget_bytes: 1 << 30,
            log_keep_bytes: 256 << 20,
            disk_reserve_bytes: 256 << 20,
            peers: BTreeMap::new(),
            disk_stalled: Duration::from_secs(30),
            scan: ScanPace::default(),
        }
    }
}

/// What a replica keeps its data in.
pub struct Parts {
    /// The state machine's rows.
    pub store: Arc<dyn Store>,
    /// The raft log.
    pub log: Arc<dyn LogEngine>,
    /// Its snapshots.
    pub snapshots: Arc<dyn SnapshotHome>,
}

impl Parts {
    /// A data directory.
    #[must_use]
    pub fn of(home: &quilt_storage::Home) -> Self {
        let log: Arc<dyn LogEngine> = home.log.clone();
        Self { store: Arc::new(home.state.clone()), log, snapshots: Arc::new(home.snapshots.clone()) }
    }

    /// Memory only: everything is gone with the process.
    #[must_use]
    pub fn memory() -> Self {
        let store = Arc::new(MemoryStore::new());
        let snapshots = Arc::new(MemorySnapshots::new(Arc::clone(&store)));
        Self { store, log: Arc::new(MemoryLog::new()), snapshots }
    }
}
