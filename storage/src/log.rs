//! [`LogEngine`]: the ordered, durable log of one replica, and the vote that belongs to it.
//!
//! Writes only enqueue; a completion tells when they are durable. Votes and entries keep the order of the calls. Reads
//! see what has been enqueued, synced or not. The engine knows positions and payload bytes, nothing of what a payload
//! means and nothing of the library that decides what to write.
//!
//! A failed write or sync is final: the pages may already count as clean, so trying again could report success for
//! data that is not there. The engine answers everything afterwards with [`LogError::Stopped`] and the process ends.

mod memory;
mod record;
mod rocks;
mod salvage;
mod torn;
mod view;
mod vote;
mod writer;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

pub use memory::MemoryLog;
/// Where an entry stands: its index and the leadership that made it.
pub use quilt_state::Position as LogPosition;
pub use rocks::RocksLog;
pub(crate) use rocks::{check_entries, loss_of, mark_of};
pub(crate) use salvage::{finish, is_salvageable, salvage};
pub(crate) use torn::{Tail, damage_in_manifest, damaged_at, inspect};

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Index in the log.
    pub index: u64,
    /// Term of the leader that appended it.
    pub term: u64,
    /// That leader.
    pub leader: u64,
    /// The entry, opaque here.
    pub payload: Bytes,
}

impl LogRecord {
    /// Where the record stands.
    #[must_use]
    pub const fn position(&self) -> LogPosition {
        LogPosition { index: self.index, term: self.term, leader: self.leader }
    }

    /// What the record counts for in byte limits: its payload and what surrounds it.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.payload.len() as u64 + RECORD_OVERHEAD_BYTES
    }
}

/// Key, term, leader, offset and framing of one record on disk, rounded up.
const RECORD_OVERHEAD_BYTES: u64 = 48;

/// The ends of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Last entry that was purged; the first one held follows it.
    pub purged: Option<LogPosition>,
    /// Last entry; `purged` when nothing is held.
    pub last: Option<LogPosition>,
}

/// What a log has lost of what it held. Until that is made good nobody may count on the replica: neither on its vote nor on
/// what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Entries up to this index, or some of them; those behind it are whole, and so is the end of the log.
    Upto(u64),
    /// Nobody knows which, nor where the log ended.
    Unknown,
}

/// Called once, when a write is durable or has failed. Runs on the writer's thread: it must be short and not block.
pub type Completion = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// What went wrong in the log.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// The range asked for is not wholly held.
    #[error("log entries {from}..{to} are not all held: the log is {first}..{end}")]
    Missing {
        /// First index asked for.
        from: u64,
        /// End of the range asked for.
        to: u64,
        /// First index held.
        first: u64,
        /// End of what is held.
        end: u64,
    },
    /// An append that does not follow the last entry.
    #[error("appending index {found} would leave a hole: the next index is {expected}")]
    Hole {
        /// The index that has to come next.
        expected: u64,
        /// The index given.
        found: u64,
    },
    /// A truncation that would remove purged entries.
    #[error("cannot truncate after {index}: entries up to {purged} are purged")]
    Purged {
        /// The index given.
        index: u64,
        /// Last purged index.
        purged: u64,
    },
    /// A stored record or row is not what was written.
    #[error("log record {what} is damaged: {reason}")]
    Damaged {
        /// Which record.
        what: String,
        /// What does not fit.
        reason: String,
    },
    /// What is stored cannot be relied on: the replica may have voted for or acknowledged what it does not hold any more.
    #[error(
        "the log in {dir} is damaged: {reason}. This replica may have promised what it does not hold any more, so it stays \
         out: remove it, and let an empty directory join under a new number (docs/operate/recovery.md)"
    )]
    Lost {
        /// Where the log is.
        dir: PathBuf,
        /// What is damaged.
        reason: String,
    },
    /// The database could not be read.
    #[error("reading the log: {0}")]
    Read(String),
    /// The database could not be opened.
    #[error("opening the log: {0}")]
    Open(String),
    /// A write or sync failed, or the engine was closed. Nothing is accepted any more.
    #[error("the log has stopped: {0}")]
    Stopped(Arc<str>),
}

/// The log of one replica. See the module for its promises.
pub trait LogEngine: Send + Sync + 'static {
    /// Appends entries behind the last one; `done` runs once they are durable.
    fn append(&self, records: Vec<LogRecord>, done: Completion);

    /// Replaces the vote; `done` runs once it is durable.
    fn save_vote(&self, vote: Bytes, done: Completion);

    /// Removes all entries behind `index`; `None` removes all. `done` runs once that is durable.
    fn truncate_after(&self, index: Option<u64>, done: Completion);

    /// Removes all entries up to and with `upto`, which may lie behind the last one: then the log is empty and goes on
    /// after `upto`. `done` runs once it is ordered; a purge lost in a crash is only a longer log.
    fn purge(&self, upto: LogPosition, done: Completion);

    /// Notes how far the log is known to be committed: a hint for recovery, made durable by the next synced write.
    fn save_committed(&self, committed: Bytes);

    /// All entries of a range.
    ///
    /// # Errors
    /// Any of them is not held, or could not be read. Never a part.
    fn read(&self, range: Range<u64>) -> Result<Vec<LogRecord>, LogError>;

    /// The first entries of a non-empty range: at least one, and no more than `max_bytes` beyond the first.
    ///
    /// # Errors
    /// The first entry is not held, or could not be read.
    fn read_limited(&self, range: Range<u64>, max_bytes: u64) -> Result<Vec<LogRecord>, LogError>;

    /// The ends of the log.
    fn bounds(&self) -> Bounds;

    /// The vote as last saved.
    fn vote(&self) -> Option<Bytes>;

    /// The committed mark as last saved.
    fn committed(&self) -> Option<Bytes>;

    /// Bytes held, purged ones not counted.
    fn bytes(&self) -> u64;

    /// Bytes enqueued and not yet durable: what a proposer looks at before it adds more.
    fn pending_bytes(&self) -> u64;

    /// The last index whose removal leaves at least `keep_bytes`, if any.
    ///
    /// # Errors
    /// The log could not be read.
    fn purgeable(&self, keep_bytes: u64) -> Result<Option<u64>, LogError>;

    /// Syncs done since the engine was opened.
    fn syncs(&self) -> u64;

    /// What this log has lost.
    fn loss(&self) -> Option<Loss> {
        None
    }

    /// The loss is made good: everything up to `at` is in a durable state, and the log goes on from there. `done` runs once
    /// that is durable.
    fn make_good(&self, _at: LogPosition, done: Completion) {
        done(Ok(()));
    }

    /// What was found damaged while it was read, if anything was. The next start sets it aside.
    fn damage(&self) -> Option<String> {
        None
    }
}
