//! A log whose disk can be slowed down while it is in use.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quilt_storage::{Bounds, Completion, LogEngine, LogError, LogPosition, LogRecord, Loss};

/// By how much each sync takes longer.
#[derive(Debug, Default)]
pub(crate) struct Brake {
    millis: AtomicU64,
}

impl Brake {
    pub(crate) fn set(&self, longer: Duration) {
        self.millis.store(u64::try_from(longer.as_millis()).expect("not that long"), Ordering::Relaxed);
    }

    pub(crate) fn release(&self) {
        self.set(Duration::ZERO);
    }

    /// Waits as long as it is set to, and no longer than it is set at all.
    fn wait(&self) {
        let mut waited = 0;
        while waited < self.millis.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
            waited += 1;
        }
    }
}

/// A log behind a brake.
pub(crate) struct BrakedLog {
    log: Arc<dyn LogEngine>,
    brake: Arc<Brake>,
    /// The sync that was held up last.
    held_up: Arc<AtomicU64>,
}

impl BrakedLog {
    pub(crate) fn new(log: Arc<dyn LogEngine>, brake: Arc<Brake>) -> Self {
        Self { log, brake, held_up: Arc::default() }
    }

    /// Tells later. The writer's thread is held up with it, as by a slow sync, once for each sync.
    fn later(&self, done: Completion) -> Completion {
        let (log, brake, held_up) = (Arc::downgrade(&self.log), Arc::clone(&self.brake), Arc::clone(&self.held_up));
        Box::new(move |result| {
            let sync = log.upgrade().map_or(0, |log| log.syncs());
            if held_up.swap(sync, Ordering::Relaxed) != sync {
                brake.wait();
            }
            done(result);
        })
    }
}

impl LogEngine for BrakedLog {
    fn append(&self, records: Vec<LogRecord>, done: Completion) {
        self.log.append(records, self.later(done));
    }

    fn save_vote(&self, vote: Bytes, done: Completion) {
        self.log.save_vote(vote, self.later(done));
    }

    fn truncate_after(&self, index: Option<u64>, done: Completion) {
        self.log.truncate_after(index, self.later(done));
    }

    fn purge(&self, upto: LogPosition, done: Completion) {
        self.log.purge(upto, done);
    }

    fn save_committed(&self, committed: Bytes) {
        self.log.save_committed(committed);
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<LogRecord>, LogError> {
        self.log.read(range)
    }

    fn read_limited(&self, range: Range<u64>, max_bytes: u64) -> Result<Vec<LogRecord>, LogError> {
        self.log.read_limited(range, max_bytes)
    }

    fn bounds(&self) -> Bounds {
        self.log.bounds()
    }

    fn vote(&self) -> Option<Bytes> {
        self.log.vote()
    }

    fn committed(&self) -> Option<Bytes> {
        self.log.committed()
    }

    fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    fn pending_bytes(&self) -> u64 {
        self.log.pending_bytes()
    }

    fn purgeable(&self, keep_bytes: u64) -> Result<Option<u64>, LogError> {
        self.log.purgeable(keep_bytes)
    }

    fn syncs(&self) -> u64 {
        self.log.syncs()
    }

    fn loss(&self) -> Option<Loss> {
        self.log.loss()
    }

    fn make_good(&self, at: LogPosition, done: Completion) {
        self.log.make_good(at, done);
    }

    fn damage(&self) -> Option<String> {
        self.log.damage()
    }
}
