//! How much log a replica keeps. By bytes: the log is cut behind what the flushed state and the newest snapshot both
//! cover, and enough of it stays for a peer that was away to be fed from it. A peer to which a snapshot is on its way will
//! go on behind that: what it needs then stays too, within bounds, however long the way is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::type_config::TypeConfigExt;
use parking_lot::Mutex;
use quilt_state::{Store, persisted_position};
use quilt_storage::LogEngine;

use crate::admin::take_snapshot;
use crate::space::{Room, Space};
use crate::state_machine::Raft;
use crate::types::TypeConfig;

type Instant = openraft::alias::InstantOf<TypeConfig>;

/// How often the size of the log is looked at.
const INTERVAL: Duration = Duration::from_secs(10);
/// Making a snapshot: a flush, and sums over new files.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(300);
/// For snapshots under way no more than so many times what is kept otherwise.
const FOR_SNAPSHOTS_MAX: u64 = 8;
/// How long what a snapshot was sent for stays after it was: until the log flows to its receiver, or it is sent again.
const AFTER_SENDING: Duration = Duration::from_secs(60);

/// Snapshots on their way to peers: each peer will go on in the log behind what its snapshot covers.
#[derive(Default)]
pub(crate) struct OnTheirWay {
    to: Mutex<BTreeMap<u64, Needed>>,
}

struct Needed {
    /// Entries behind this one.
    index: u64,
    /// When sending ended, if it has.
    ended: Option<Instant>,
}

/// A snapshot that is being sent.
pub(crate) struct Sending<'a> {
    all: &'a OnTheirWay,
    to: u64,
}

impl OnTheirWay {
    /// A snapshot that covers `index` begins its way to a peer, or goes on.
    pub(crate) fn begin(&self, to: u64, index: u64) -> Sending<'_> {
        self.to.lock().insert(to, Needed { index, ended: None });
        Sending { all: self, to }
    }

    /// The log must not be cut behind this entry.
    fn needed(&self) -> Option<u64> {
        use openraft::Instant as _;

        let mut to = self.to.lock();
        to.retain(|_, needed| needed.ended.is_none_or(|at| at.elapsed() < AFTER_SENDING));
        to.values().map(|needed| needed.index).min()
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if let Some(needed) = self.all.to.lock().get_mut(&self.to) {
            needed.ended = Some(TypeConfig::now());
        }
    }
}

#[derive(Clone)]
pub(crate) struct Retention {
    pub(crate) raft: Raft,
    pub(crate) log: Arc<dyn LogEngine>,
    pub(crate) store: Arc<dyn Store>,
    /// Bytes of log that always stay.
    pub(crate) keep_bytes: u64,
    /// With little room on the disk, a quarter of that, and nothing for snapshots under way.
    pub(crate) space: Space,
    pub(crate) on_their_way: Arc<OnTheirWay>,
}

impl Retention {
    /// Keeps the log in bounds until the replica stops.
    pub(crate) async fn run(self) {
        loop {
            TypeConfig::sleep(INTERVAL).await;
            if let Err(error) = self.look().await {
                tracing::warn!(error, "the log was not cut");
            }
        }
    }

    /// Cuts the log if it is out of bounds. Returns the last index that was let go, if it was cut.
    pub(crate) async fn look(&self) -> Result<Option<u64>, String> {
        let bytes = self.log.bytes();
        let (keep_bytes, needed) = match self.space.room() {
            Room::Enough if bytes <= self.keep_bytes.saturating_mul(FOR_SNAPSHOTS_MAX) => {
                (self.keep_bytes, self.on_their_way.needed())
            }
            Room::Enough => (self.keep_bytes, None),
            Room::Low | Room::Out => (self.keep_bytes / 4, None),
        };
        // A quarter above what stays, so that a snapshot is made for a real gain.
        if bytes > keep_bytes.saturating_add(keep_bytes / 4) {
            return self.cut_behind(keep_bytes, needed.unwrap_or(u64::MAX)).await;
        }
        Ok(None)
    }

    /// Cuts the log down to about `keep_bytes`, as far as that is safe. Returns the last index that was let go.
    pub(crate) async fn cut(&self, keep_bytes: u64) -> Result<Option<u64>, String> {
        self.cut_behind(keep_bytes, u64::MAX).await
    }

    /// The same, but what is behind `needed` stays.
    async fn cut_behind(&self, keep_bytes: u64, needed: u64) -> Result<Option<u64>, String> {
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
        let upto = wanted.min(flushed.index).min(needed);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What snapshots under way are sent for is needed from the lowest of them on, also when one breaks off and is sent again, and
    /// for a while after.
    #[tokio::test]
    async fn what_is_on_its_way_is_needed() {
        let all = OnTheirWay::default();
        assert_eq!(all.needed(), None);
        let first = all.begin(2, 500);
        let second = all.begin(3, 300);
        assert_eq!(all.needed(), Some(300));
        drop(second);
        assert_eq!(all.needed(), Some(300), "its receiver has still to ask for the log");
        let ended = |to| all.to.lock().get_mut(&to).expect("known").ended = Some(TypeConfig::now() - AFTER_SENDING);
        ended(3);
        assert_eq!(all.needed(), Some(500));
        drop(first);
        let again = all.begin(2, 700);
        assert_eq!(all.needed(), Some(700), "a newer one took its place");
        drop(again);
        ended(2);
        assert_eq!(all.needed(), None);
    }
}
