//! [`Horizon`]: what a reader must know besides the rows: how far the state has come, what history still stands, and
//! which clusters are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use quilt_proto::Revision;

/// The state's edge after one apply. Cheap to clone; published whole, so its parts agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Horizon {
    /// Last revision, always a transaction's last.
    pub revision: Revision,
    /// Cluster time of the last applied entry, in milliseconds.
    pub cluster_time_ms: u64,
    /// Wall time of the last applied entry, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// Index of the last applied log entry.
    pub applied_index: u64,
    /// Per cluster, the oldest revision that can still be read at, and watched from.
    pub floors: Arc<BTreeMap<String, u64>>,
    /// Clusters whose keys count as absent.
    pub dropped: Arc<BTreeSet<String>>,
    /// Replicas that have ever been at work in this epoch.
    pub replicas: Arc<BTreeSet<u64>>,
}

impl Horizon {
    /// The oldest revision `cluster` can still be read at.
    #[must_use]
    pub fn floor(&self, cluster: &str) -> Revision {
        Revision::new(self.floors.get(cluster).copied().unwrap_or(0))
    }
}
