//! openraft's log storage over a [`LogEngine`]. Translates positions and payloads; durability and order are the
//! engine's promises.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{Stream, StreamExt, stream};
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use quilt_storage::{LogEngine, LogError, LogPosition};
use tokio::sync::oneshot;

use crate::codec;
use crate::disk::Disk;
use crate::types::{Entry, LogId, TypeConfig, Vote, log_id};

/// Bytes of entries read at a time for replication and apply: openraft itself limits by count only.
const READ_BYTES_MAX: u64 = 1 << 20;

/// The log as openraft sees it; also its own reader. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LogStore {
    engine: Arc<dyn LogEngine>,
    disk: Arc<Disk>,
    /// Whether an append has failed: the log may be shorter then than openraft believes until it has heard of that.
    refused: Arc<AtomicBool>,
}

fn failed(error: &LogError) -> io::Error {
    io::Error::other(error.to_string())
}

fn id(position: LogPosition) -> LogId {
    log_id(position.term, position.index)
}

/// The write was only enqueued; when it fails the engine accepts nothing any more, so the next awaited call reports it.
fn report(what: &'static str) -> quilt_storage::Completion {
    Box::new(move |result| {
        if let Err(error) = result {
            tracing::error!(%error, what, "log write failed");
        }
    })
}

impl LogStore {
    pub(crate) fn new(engine: Arc<dyn LogEngine>, disk: Arc<Disk>) -> Self {
        Self { engine, disk, refused: Arc::default() }
    }

    /// What is called when a write is durable; from now on it counts as on its way to the disk.
    fn timed(&self, done: impl FnOnce(Result<(), LogError>) + Send + 'static) -> quilt_storage::Completion {
        let disk = Arc::clone(&self.disk);
        disk.pace.begin();
        Box::new(move |result| {
            disk.pace.end();
            done(result);
        })
    }

    /// First and one-past-last index of `range`, open ends closed by what is held.
    fn range<R: RangeBounds<u64>>(&self, range: &R) -> Range<u64> {
        let bounds = self.engine.bounds();
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => bounds.purged.map_or(0, |position| position.index + 1),
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => bounds.last.map_or(0, |position| position.index + 1),
        };
        start..end
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn entries_stream<R>(&mut self, range: R) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // Apply may be far behind: read what it asks for in pieces instead of as one vector.
        let engine = Arc::clone(&self.engine);
        let held = self.range(&..);
        let mut range = self.range(&range);
        // Behind the last entry the stream just ends. What was purged is not left out: apply must never skip an entry.
        // An entry that follows a missing one is refused there as well.
        let ends_early = range.end > held.end && self.refused.load(Ordering::Relaxed);
        // What was refused must not pass for applied in the moment before openraft stops.
        let refused = ends_early.then(|| Err(io::Error::other("the log has refused what is to be read")));
        range.end = range.end.min(held.end);
        stream::unfold(range, move |range| {
            let engine = Arc::clone(&engine);
            async move {
                if range.is_empty() {
                    return None;
                }
                let (start, end) = (range.start, range.end);
                match engine.read_limited(range, READ_BYTES_MAX) {
                    Ok(records) => {
                        let next = start + records.len() as u64;
                        let entries = records.into_iter().map(|record| codec::from_record(record).map_err(Into::into));
                        Some((entries.collect::<Vec<Result<Entry, io::Error>>>(), next..end))
                    }
                    Err(error) => Some((vec![Err(failed(&error))], end..end)),
                }
            }
        })
        .flat_map(stream::iter)
        .chain(stream::iter(refused))
        .boxed()
    }

    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        // What was purged, or not yet appended, may be asked for; everything held of the range is given, or an error.
        let range = self.range(&range);
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let records = match self.engine.read(range.clone()) {
            Err(LogError::Missing { first, end, .. }) => {
                let held = range.start.max(first)..range.end.min(end);
                if held.is_empty() {
                    return Ok(Vec::new());
                }
                self.engine.read(held)
            }
            read => read,
        };
        let records = records.map_err(|error| failed(&error))?;
        records.into_iter().map(|record| codec::from_record(record).map_err(Into::into)).collect()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let vote = self.engine.vote().map(|bytes| codec::decode_vote(&bytes)).transpose()?;
        self.disk.note_vote(vote);
        Ok(vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        if start >= end {
            return Ok(Vec::new());
        }
        let records = match self.engine.read_limited(start..end, READ_BYTES_MAX) {
            // Only replication asks, and openraft lets go of nothing a leader still sends: whoever asks for it led until a
            // snapshot of another leader took its place, a moment ago. openraft notices that once it has something to send,
            // and takes an error for a broken disk.
            Err(LogError::Missing { first, .. }) if start < first => {
                tracing::info!(start, first, "entries to be sent were let go of behind a snapshot");
                return Ok(Vec::new());
            }
            read => read.map_err(|error| failed(&error))?,
        };
        records.into_iter().map(|record| codec::from_record(record).map_err(Into::into)).collect()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let bounds = self.engine.bounds();
        Ok(LogState { last_purged_log_id: bounds.purged.map(id), last_log_id: bounds.last.map(id) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, durable) = oneshot::channel();
        let done = self.timed(move |result| {
            // The receiver is gone only when the replica has stopped.
            let _ = done.send(result);
        });
        // Until the next one is durable nothing may be said on the strength of any.
        self.disk.note_vote(None);
        self.engine.save_vote(codec::encode_vote(vote), done);
        match durable.await {
            Ok(Ok(())) => {
                self.disk.note_vote(Some(*vote));
                Ok(())
            }
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(io::Error::other("the log dropped a vote")),
        }
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            self.engine.save_committed(codec::encode_log_id(&committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let committed = self.engine.committed().map(|bytes| codec::decode_log_id(&bytes)).transpose()?;
        // The mark is only a hint. Entries behind the end of the log cannot be applied again from here.
        let last = self.engine.bounds().last.map(id);
        Ok(committed.filter(|committed| Some(*committed) <= last))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records = entries.into_iter().map(|entry| codec::to_record(&entry)).collect();
        let refused = Arc::clone(&self.refused);
        let done = self.timed(move |result| {
            refused.fetch_or(result.is_err(), Ordering::Relaxed);
            callback.io_completed(result.map_err(|error| failed(&error)));
        });
        self.engine.append(records, done);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.engine.truncate_after(last.map(|id| id.index), self.timed(report("truncate")));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let position = LogPosition { index: upto.index, term: *upto.leader_id, leader: 0 };
        self.engine.purge(position, report("purge"));
        Ok(())
    }
}
