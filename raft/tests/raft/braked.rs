//! A log whose disk can be slowed down while it is in use, or that tells of two appends in the other order.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use quilt_storage::{Bounds, Completion, LogEngine, LogError, LogPosition, LogRecord, Loss};

/// By how much each sync takes longer, and who is told late.
#[derive(Default)]
pub(crate) struct Brake {
    millis: AtomicU64,
    /// Whether the next append is told of behind the one after it.
    swaps: AtomicBool,
    /// That one, once it is durable.
    late: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Brake {
    pub(crate) fn set(&self, longer: Duration) {
        self.millis.store(u64::try_from(longer.as_millis()).expect("not that long"), Ordering::Relaxed);
    }

    pub(crate) fn release(&self) {
        self.set(Duration::ZERO);
    }

    /// Tells of the next append only once the one after it was told of.
    pub(crate) fn swap_the_next_two(&self) {
        self.swaps.store(true, Ordering::Relaxed);
    }

    /// Whether two appends are still to be told of in the other order.
    pub(crate) fn has_swapped(&self) -> bool {
        !self.swaps.load(Ordering::Relaxed) && self.late.lock().is_none()
    }

    /// Tells late what is to be told late, and behind everything else what was.
    fn in_turn(brake: &Arc<Self>, done: Completion) -> Completion {
        let first = brake.swaps.swap(false, Ordering::Relaxed);
        let brake = Arc::clone(brake);
        Box::new(move |result| {
            if first {
                *brake.late.lock() = Some(Box::new(move || done(result)));
                return;
            }
            done(result);
            let late = brake.late.lock().take();
            if let Some(late) = late {
                late();
            }
        })
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
    /// The log as completions see it. They run on the writer's thread, and one that held the log alone would have the writer
    /// drop it, which waits for nobody: the data directory would be in use for a while yet. So they borrow it, and it is taken
    /// from them here.
    lent: Arc<Mutex<Option<Arc<dyn LogEngine>>>>,
    brake: Arc<Brake>,
    /// The sync that was held up last.
    held_up: Arc<AtomicU64>,
}

impl BrakedLog {
    pub(crate) fn new(log: Arc<dyn LogEngine>, brake: Arc<Brake>) -> Self {
        let lent = Arc::new(Mutex::new(Some(Arc::clone(&log))));
        Self { log, lent, brake, held_up: Arc::default() }
    }

    /// Tells later. The writer's thread is held up with it, as by a slow sync, once for each sync.
    fn later(&self, done: Completion) -> Completion {
        let (lent, brake, held_up) = (Arc::clone(&self.lent), Arc::clone(&self.brake), Arc::clone(&self.held_up));
        Box::new(move |result| {
            let sync = lent.lock().as_ref().map_or(0, |log| log.syncs());
            if held_up.swap(sync, Ordering::Relaxed) != sync {
                brake.wait();
            }
            done(result);
        })
    }
}

impl Drop for BrakedLog {
    fn drop(&mut self) {
        self.lent.lock().take();
    }
}

impl LogEngine for BrakedLog {
    fn append(&self, records: Vec<LogRecord>, done: Completion) {
        self.log.append(records, Brake::in_turn(&self.brake, self.later(done)));
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
