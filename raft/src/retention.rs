//! How much log a replica keeps. By bytes: the log is cut behind what the flushed state and the newest snapshot both
//! cover, and enough of it stays for a peer that was away to be fed from it.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::type_config::TypeConfigExt;
use quilt_state::{Store, persisted_position};
use quilt_storage::LogEngine;

use crate::admin::take_snapshot;
use crate::space::{Room, Space};
use crate::state_machine::Raft;
use crate::types::TypeConfig;

/// How often the size of the log is looked at.
const INTERVAL: Duration = Duration::from_secs(10);
/// Making a snapshot: a flush, and sums over new files.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Clone)]
pub(crate) struct Retention {
    pub(crate) raft: Raft,
    pub(crate) log: Arc<dyn LogEngine>,
    pub(crate) store: Arc<dyn Store>,
    /// Bytes of log that always stay.
    pub(crate) keep_bytes: u64,
    /// With little room on the disk, a quarter of that.
    pub(crate) space: Space,
}

impl Retention {
    /// Keeps the log in bounds until the replica stops.
    pub(crate) async fn run(self) {
        loop {
            TypeConfig::sleep(INTERVAL).await;
            let keep_bytes = match self.space.room() {
                Room::Enough => self.keep_bytes,
                Room::Low | Room::Out => self.keep_bytes / 4,
            };
            // A quarter above what stays, so that a snapshot is made for a real gain.
            if self.log.bytes() > keep_bytes.saturating_add(keep_bytes / 4)
                && let Err(error) = self.cut(keep_bytes).await
            {
                tracing::warn!(error, "the log was not cut");
            }
        }
    }

    /// Cuts the log down to about `keep_bytes`, as far as that is safe. Returns the last index that was let go.
    pub(crate) async fn cut(&self, keep_bytes: u64) -> Result<Option<u64>, String> {
        let Some(wanted) = self.log.purgeable(keep_bytes).map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let store = Arc::clone(&self.store);
        let flushed = TypeConfig::spawn_blocking(move || {
            store.flush().map_err(|error| error.to_string())?;
            persisted_position(&*store).map_err(|error| error.to_string())
        });
        let flushed = flushed.await.map_err(|error| error.to_string())??;
        let Some(flushed) = flushed else { return Ok(None) };
        let upto = wanted.min(flushed.index);
        let purged = self.raft.metrics().borrow_watched().purged.map(|id| id.index);
        if purged.is_some_and(|purged| purged >= upto) {
            return Ok(purged);
        }
        let covered = self.raft.metrics().borrow_watched().snapshot.map(|id| id.index);
        if covered.is_none_or(|covered| covered < upto) {
            take_snapshot(&self.raft, upto, SNAPSHOT_TIMEOUT).await.map_err(|error| error.to_string())?;
        }
        self.raft.trigger().purge_log(upto).await.map_err(|error| error.to_string())?;
        tracing::info!(upto, "cutting the log");
        Ok(Some(upto))
    }
}
