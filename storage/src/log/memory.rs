//! [`MemoryLog`]: the log of a single replica that keeps nothing, and of tests. Every write counts as durable at once.

use std::ops::Range;

use bytes::Bytes;
use parking_lot::Mutex;

use super::record::Placed;
use super::view::View;
use super::{Bounds, Completion, LogEngine, LogError, LogPosition, LogRecord};

/// A log in memory.
#[derive(Debug, Default)]
pub struct MemoryLog {
    view: Mutex<View>,
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The change is made and the lock free again before anybody is told.
    fn change(&self, done: Completion, change: impl FnOnce(&mut View) -> Result<(), LogError>) {
        let result = change(&mut self.view.lock());
        done(result);
    }
}

/// Nothing is ever evicted here, so an entry that is held is decoded.
fn stored(index: u64) -> Result<Placed, LogError> {
    Err(LogError::Damaged { what: index.to_string(), reason: "it is not in memory".into() })
}

impl LogEngine for MemoryLog {
    fn append(&self, records: Vec<LogRecord>, done: Completion) {
        self.change(done, |view| view.append(records, 0).map(drop));
    }

    fn save_vote(&self, vote: Bytes, done: Completion) {
        self.change(done, |view| {
            view.vote = Some(vote);
            Ok(())
        });
    }

    fn truncate_after(&self, index: Option<u64>, done: Completion) {
        self.change(done, |view| {
            let cut = view.cut_after(index, stored)?;
            view.truncate(&cut);
            Ok(())
        });
    }

    fn purge(&self, upto: LogPosition, done: Completion) {
        self.change(done, |view| {
            if let Some(offset) = view.purged_offset(upto, stored)? {
                view.purge(upto, offset);
            }
            Ok(())
        });
    }

    fn save_committed(&self, committed: Bytes) {
        self.view.lock().committed = Some(committed);
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<LogRecord>, LogError> {
        self.read_limited(range, u64::MAX)
    }

    fn read_limited(&self, range: Range<u64>, max_bytes: u64) -> Result<Vec<LogRecord>, LogError> {
        let view = self.view.lock();
        view.check_range(&range)?;
        Ok(view.decoded(range, max_bytes))
    }

    fn bounds(&self) -> Bounds {
        self.view.lock().bounds
    }

    fn vote(&self) -> Option<Bytes> {
        self.view.lock().vote.clone()
    }

    fn committed(&self) -> Option<Bytes> {
        self.view.lock().committed.clone()
    }

    fn bytes(&self) -> u64 {
        self.view.lock().bytes()
    }

    fn pending_bytes(&self) -> u64 {
        0
    }

    fn purgeable(&self, keep_bytes: u64) -> Result<Option<u64>, LogError> {
        self.view.lock().purgeable(keep_bytes, stored)
    }

    fn syncs(&self) -> u64 {
        0
    }
}
