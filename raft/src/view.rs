//! [`View`]: the applied state at one revision, for the layers above. Every call is synchronous, bounded, and leaves
//! nothing open in the database.

use std::sync::Arc;

use quilt_proto::{Event, Key, KeyPrefix, Record, Revision};
pub use quilt_state::Page;
pub use quilt_state::view::Limit;
use quilt_state::{Expiring, Store, ViewError};

use crate::applied::Applied;
use crate::error::ReadError;

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Not older than any write acknowledged before the read began, on any replica.
    Linearizable,
    /// Whatever is applied here, but never older than the first linearizable point since this replica started.
    Stale,
    /// At least this revision.
    AtLeast(Revision),
}

/// The state at one revision. Cheap to clone. Whatever is written meanwhile, it shows the same each time, until
/// compaction has passed it.
#[derive(Clone)]
pub struct View {
    applied: Arc<Applied>,
    revision: Revision,
    expiring: Expiring,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View at {}", self.revision)
    }
}

/// What an expired floor or a storage failure means to the caller.
fn translate(error: ViewError) -> ReadError {
    match error {
        ViewError::Compacted { floor, .. } => ReadError::Compacted { floor },
        ViewError::Dropped => ReadError::Dropped,
        other => ReadError::Storage(other.to_string()),
    }
}

impl View {
    /// The newest applied state, without keys that are due by now.
    pub(crate) fn newest(applied: &Arc<Applied>) -> Self {
        let horizon = applied.horizon();
        let expiring = Expiring::UntilDueAt(horizon.cluster_time_ms);
        Self { applied: Arc::clone(applied), revision: horizon.revision, expiring }
    }

    /// The revision this view stands at: a transaction's last.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// What was written up to a revision: the same on every replica and at any time, keys that expire included until the
    /// revision that deletes them. Not for asking whether a token still counts.
    ///
    /// # Errors
    /// [`ReadError::Ahead`] when this replica has not got there. A revision below a cluster's floor shows when reading.
    pub fn at(&self, revision: Revision) -> Result<Self, ReadError> {
        let current = self.applied.horizon().revision;
        if revision > current {
            return Err(ReadError::Ahead { current });
        }
        Ok(Self { applied: Arc::clone(&self.applied), revision, expiring: Expiring::UntilDeleted })
    }

    /// The record of `key`; `None` when absent or deleted, or due when the newest state was asked for.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn get(&self, key: &Key) -> Result<Option<Record>, ReadError> {
        self.read(key.parts().cluster, self.revision, |view| view.get(key))
    }

    /// Live records under `prefix`, behind `after`, in key order.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn scan(&self, prefix: &KeyPrefix, after: Option<&Key>, limit: Limit) -> Result<Page, ReadError> {
        self.read(prefix.cluster_part(), self.revision, |view| view.scan(prefix, after, limit))
    }

    /// Changes of a cluster behind `after` up to this view, whole transactions only, about `limit` of them, and the
    /// revision up to which they are complete.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn changes(&self, cluster: &str, after: Revision, limit: usize) -> Result<(Vec<Event>, Revision), ReadError> {
        self.read(cluster, after, |view| view.changes(cluster, after, limit))
    }

    /// The oldest revision at which `cluster` can be read, and from which it can be watched.
    #[must_use]
    pub fn floor(&self, cluster: &str) -> Revision {
        self.applied.horizon().floor(cluster)
    }

    /// Reads, then checks that compaction did not pass `oldest` meanwhile: it may have removed rows under the reader.
    fn read<T>(
        &self,
        cluster: &str,
        oldest: Revision,
        read: impl FnOnce(&quilt_state::View<'_, dyn Store>) -> Result<T, ViewError>,
    ) -> Result<T, ReadError> {
        let _reading = self.applied.reading();
        let (store, horizon) = self.applied.state();
        let result = read(&quilt_state::View::new(&*store, &horizon, self.revision, self.expiring));
        let now = self.applied.horizon();
        if now.dropped.contains(cluster) {
            return Err(ReadError::Dropped);
        }
        let floor = now.floor(cluster);
        if oldest < floor {
            return Err(ReadError::Compacted { floor });
        }
        result.map_err(translate)
    }
}
