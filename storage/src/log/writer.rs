//! The ordered writer: turns whatever waits into one batch, one sync, and then runs the completions.
//!
//! Group commit is open-ended: there is no delay, a group is what has queued up while the last one was synced. Knows
//! rows, not what readers see.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{DB, WriteBatch, WriteOptions};

use super::record::{COMMITTED, ENTRIES_END, LOST, PURGED, Placed, VOTE, encode_entry, encode_purge, entry_key};
use super::vote::VoteFile;
use super::{Completion, LogPosition};
use crate::db::marks;

/// Bytes in one group: keeps one write short enough that a vote behind it does not wait for long.
const GROUP_BYTES_MAX: u64 = 4 << 20;

/// Purged bytes after which whole files are dropped; each time costs a manifest sync.
const DROP_FILES_BYTES: u64 = 64 << 20;

/// One change of the log.
pub(super) enum Change {
    Append(Vec<Placed>),
    Vote(Bytes),
    Committed(Bytes),
    /// Removes entries from this index on.
    TruncateFrom(u64),
    Purge {
        upto: LogPosition,
        end_offset: u64,
    },
    /// What was lost is made good: the log goes on behind this.
    Good {
        at: LogPosition,
        end_offset: u64,
    },
    /// Keeps a place in the order.
    Nothing,
}

impl Change {
    /// What the change adds to a group.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Append(entries) => entries.iter().map(|entry| entry.record.size()).sum(),
            Self::Vote(bytes) | Self::Committed(bytes) => bytes.len() as u64,
            Self::TruncateFrom(_) | Self::Purge { .. } | Self::Good { .. } | Self::Nothing => 0,
        }
    }

    /// Whether anybody relies on the change after a crash. A purge or a committed mark that is lost costs only work.
    fn must_sync(&self) -> bool {
        matches!(self, Self::Append(_) | Self::Vote(_) | Self::TruncateFrom(_) | Self::Good { .. })
    }
}

/// A change on its way to the disk.
pub(super) struct Write {
    pub(super) number: u64,
    pub(super) change: Change,
    pub(super) done: Option<Completion>,
}

/// For the keys and marks of a group, beside what its entries hold.
const BATCH_SPARE_BYTES: usize = 4 << 10;

impl Write {
    /// Whether it is worth a write of its own.
    pub(super) const fn is_waited_for(&self) -> bool {
        !matches!(self.change, Change::Committed(_))
    }
}

/// Takes the next group off the queue.
pub(super) fn take_group(queue: &mut VecDeque<Write>) -> Vec<Write> {
    let mut bytes = 0;
    let mut taken = 0;
    for write in queue.iter() {
        bytes += write.change.size();
        if taken > 0 && bytes > GROUP_BYTES_MAX {
            break;
        }
        taken += 1;
    }
    queue.drain(..taken).collect()
}

/// Writes groups into the database.
pub(super) struct Writer {
    db: Arc<DB>,
    vote: VoteFile,
    scratch: Vec<u8>,
    /// Offset up to which files have been dropped.
    dropped_offset: u64,
}

/// Why a group was not written.
pub(super) enum WriteError {
    Database(rocksdb::Error),
    Other(String),
}

/// Whether a group was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    Done,
    NotNeeded,
}

impl Writer {
    pub(super) fn new(db: Arc<DB>, vote: VoteFile) -> Self {
        Self { db, vote, scratch: Vec::new(), dropped_offset: 0 }
    }

    /// Applies a group in order, all or nothing.
    pub(super) fn write(&mut self, group: &[Write]) -> Result<Sync, WriteError> {
        let marks = marks(&self.db).map_err(WriteError::Other)?;
        // Grown step by step it would be copied over and over.
        let bytes: u64 = group.iter().map(|write| write.change.size()).sum();
        let mut batch = WriteBatch::with_capacity_bytes(usize::try_from(bytes).unwrap_or(0) + BATCH_SPARE_BYTES);
        // Only the newest mark counts, and it may come before any entry of the group.
        let mut committed = None;
        let mut voted = None;
        let mut sync = Sync::NotNeeded;
        let mut purged = None;
        for write in group {
            if write.change.must_sync() {
                sync = Sync::Done;
            }
            match &write.change {
                Change::Append(entries) => {
                    for placed in entries {
                        encode_entry(placed, &mut self.scratch);
                        batch.put(entry_key(placed.record.index), &self.scratch);
                    }
                }
                Change::Vote(vote) => {
                    batch.put_cf(marks, VOTE, vote);
                    voted = Some(vote);
                }
                Change::Committed(mark) => committed = Some(mark),
                Change::Nothing => {}
                Change::TruncateFrom(index) => {
                    batch.delete_range(&entry_key(*index)[..], &ENTRIES_END[..]);
                }
                Change::Purge { upto, end_offset } => {
                    // The mark is what purges. A deletion of the rows would span all files, and have them rewritten.
                    batch.put_cf(marks, PURGED, encode_purge(*upto, *end_offset));
                    purged = Some((upto.index, *end_offset));
                }
                Change::Good { at, end_offset } => {
                    batch.put_cf(marks, PURGED, encode_purge(*at, *end_offset));
                    batch.delete_cf(marks, LOST);
                }
            }
        }
        if let Some(mark) = committed {
            batch.put_cf(marks, COMMITTED, mark);
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync == Sync::Done);
        self.db.write_opt(batch, &options).map_err(WriteError::Database)?;
        // After the database and before anybody is told: a crash in between leaves one there that nobody knows of.
        if let Some(vote) = voted {
            self.vote.write(Some(vote)).map_err(|error| WriteError::Other(format!("the vote's own file: {error}")))?;
        }
        if let Some((index, end_offset)) = purged {
            self.drop_files(index, end_offset);
        }
        Ok(sync)
    }

    /// Gives the space of purged entries back: files that hold nothing else go as a whole, and none is rewritten.
    /// Failing costs space until the next time, nothing else.
    fn drop_files(&mut self, index: u64, end_offset: u64) {
        if end_offset - self.dropped_offset.min(end_offset) < DROP_FILES_BYTES {
            return;
        }
        self.dropped_offset = end_offset;
        if let Err(error) = self.db.delete_file_in_range(entry_key(0), entry_key(index)) {
            tracing::warn!(%error, index, "files of purged log entries stay for now");
        }
    }
}
