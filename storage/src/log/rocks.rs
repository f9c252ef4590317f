//! [`RocksLog`]: the log in a RocksDB database, with one writer thread. Knows no RocksDB option; those are in `db`.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use rocksdb::{DB, Direction, ErrorKind, IteratorMode, ReadOptions};

use super::record::{
    COMMITTED, ENTRIES_END, LOST, PURGED, Placed, VOTE, decode_entry, decode_loss, decode_purge, entry_index, entry_key,
};
use super::torn::{Tail, damage_in_manifest, damaged_at, inspect};
use super::view::View;
use super::vote::{self, VoteFile};
use super::writer::{Change, Sync, Write, WriteError, Writer, take_group};
use super::{Bounds, Completion, LogEngine, LogError, LogPosition, LogRecord, Loss};
use crate::damage::is_damage;
use crate::db::{Memory, marks};
use crate::files;

/// In the directory of the log: what in it was found damaged while it was in use. The next start sets it aside.
const MARK: &str = "DAMAGED";

/// How long the committed mark of the last write waits for another write to go with.
const HINT_LINGERS: Duration = Duration::from_secs(1);

/// The durable log of one replica.
pub struct RocksLog {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

struct Inner {
    db: Arc<DB>,
    dir: PathBuf,
    damage: Mutex<Option<String>>,
    shared: Mutex<Shared>,
    work: Condvar,
    syncs: AtomicU64,
    tail_bytes_max: u64,
    /// The lock of the data directory, given back behind the database.
    lock: OnceLock<Arc<File>>,
}

struct Shared {
    view: View,
    queue: VecDeque<Write>,
    /// Number of the newest write, and of the newest one that is in the database.
    enqueued: u64,
    written: u64,
    pending_bytes: u64,
    stopped: Option<Arc<str>>,
    closing: bool,
}

impl RocksLog {
    /// Opens the log in `dir`, creating it when it is not there, and starts its writer.
    ///
    /// # Errors
    /// The database does not open, or its content has a hole or a damaged record.
    pub fn open(dir: &Path, memory: &Memory) -> Result<Self, LogError> {
        let failed = |error: std::io::Error| LogError::Open(format!("{}: {error}", dir.display()));
        if let Some(reason) = marked(dir).map_err(failed)? {
            return Err(LogError::Lost { dir: dir.to_owned(), reason });
        }
        cut_torn_tail(dir)?;
        let db = crate::db::open_log(dir, memory);
        let db = db.map_err(|error| match is_damage(&error) || error.kind() == ErrorKind::InvalidArgument {
            true => LogError::Lost { dir: dir.to_owned(), reason: error.to_string() },
            false => failed(std::io::Error::other(error)),
        })?;
        Self::start(dir, Arc::new(db), memory).map_err(|error| match error {
            LogError::Damaged { .. } | LogError::Hole { .. } | LogError::Read(_) => {
                LogError::Lost { dir: dir.to_owned(), reason: error.to_string() }
            }
            other => other,
        })
    }

    /// Keeps the lock of the data directory for as long as this log can be written to, whoever holds it last: a log that is
    /// made good meanwhile would lack what is acknowledged by this one.
    pub(crate) fn hold(&self, lock: Arc<File>) {
        // There is one lock, and it is given once.
        self.inner.lock.get_or_init(|| lock);
    }

    fn start(dir: &Path, db: Arc<DB>, memory: &Memory) -> Result<Self, LogError> {
        let view = load(&db)?;
        let kept = vote::read(dir).map_err(|error| LogError::Open(format!("{}: {error}", dir.display())))?;
        if view.vote.is_none() && matches!(kept, vote::Found::Vote(Some(_))) {
            return Err(LogError::Damaged { what: "of the vote".into(), reason: "it is not there any more".into() });
        }
        let vote = VoteFile::open(dir, view.vote.as_deref());
        let vote =
            vote.map_err(|error| LogError::Open(format!("the vote's own file in {}: {error}", dir.display())))?;
        let inner = Arc::new(Inner {
            db: db.clone(),
            dir: dir.to_owned(),
            damage: Mutex::default(),
            shared: Mutex::new(Shared {
                view,
                queue: VecDeque::new(),
                enqueued: 0,
                written: 0,
                pending_bytes: 0,
                stopped: None,
                closing: false,
            }),
            work: Condvar::new(),
            syncs: AtomicU64::new(0),
            tail_bytes_max: memory.log_tail_bytes as u64,
            lock: OnceLock::new(),
        });
        let of_writer = inner.clone();
        let thread = std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(move || of_writer.run(Writer::new(db, vote)))
            .map_err(|error| LogError::Open(format!("cannot start the writer: {error}")))?;
        Ok(Self { inner, thread: Some(thread) })
    }
}

impl Drop for RocksLog {
    fn drop(&mut self) {
        self.inner.shared.lock().closing = true;
        self.inner.work.notify_all();
        if let Some(thread) = self.thread.take() {
            // A completion may hold the last handle: then the writer is the one that drops it, and cannot wait for itself.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("the log writer panicked");
            }
        }
    }
}

/// Cuts off what a power cut left of the last write; refuses what is damaged before that.
fn cut_torn_tail(dir: &Path) -> Result<(), LogError> {
    let failed = |error: std::io::Error| LogError::Open(format!("{}: {error}", dir.display()));
    if !dir.join("CURRENT").exists() && has_content(dir).map_err(failed)? {
        // A new one would be made beside what is there.
        return Err(LogError::Lost { dir: dir.to_owned(), reason: "CURRENT is missing".into() });
    }
    if lacks_writes(dir).map_err(failed)? {
        return Err(LogError::Lost { dir: dir.to_owned(), reason: "its write-ahead log is missing".into() });
    }
    if let Some(reason) = damage_in_manifest(dir).map_err(failed)? {
        return Err(LogError::Lost { dir: dir.to_owned(), reason });
    }
    match inspect(dir).map_err(failed)? {
        Tail::Whole => Ok(()),
        Tail::Torn(cut) => {
            cut.off().map_err(failed)?;
            let (file, end, removed) = (cut.file.display(), cut.end, cut.removed_bytes);
            tracing::warn!(%file, end, removed, "the last write of the log was torn and has been cut off");
            Ok(())
        }
        Tail::Damaged { file, at } => Err(LogError::Lost { dir: dir.to_owned(), reason: damaged_at(&file, at) }),
    }
}

/// Whether a log has tables and nothing that was written since. Every open begins a new write-ahead log before it lets go of
/// the one before, and RocksDB takes a missing one for an empty one.
pub(super) fn lacks_writes(dir: &Path) -> std::io::Result<bool> {
    let mut tables = false;
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name().into_encoded_bytes();
        if name.ends_with(b".log") {
            return Ok(false);
        }
        tables |= name.ends_with(b".sst");
    }
    Ok(tables)
}

/// Whether a directory holds rows of a log, whatever else is missing. A first start that was broken off has left none.
fn has_content(dir: &Path) -> std::io::Result<bool> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().into_encoded_bytes();
        if name.ends_with(b".sst") || (name.ends_with(b".log") && entry.metadata()?.len() > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads both ends of a log and what is kept beside the entries.
fn load(db: &DB) -> Result<View, LogError> {
    let marks = marks(db).map_err(LogError::Read)?;
    let row = |key: &[u8]| db.get_cf(marks, key).map_err(read_error);
    let purged = row(PURGED)?.map(|bytes| decode_purge(&bytes)).transpose()?;
    let start = purged.map_or(0, |(position, _)| position.index + 1);
    let first = entry_from(db, IteratorMode::From(&entry_key(start), Direction::Forward))?;
    let last = entry_from(db, IteratorMode::From(&ENTRIES_END, Direction::Reverse))?;
    // Purged entries may still lie in files; they are not held.
    let last = last.filter(|placed| placed.record.index >= start);
    if let (Some((upto, _)), Some(first)) = (purged, &first)
        && first.record.index != upto.index + 1
    {
        return Err(LogError::Hole { expected: upto.index + 1, found: first.record.index });
    }
    let mut view = View::opened(purged, first.map(|placed| placed.record.index), last.as_ref());
    view.vote = row(VOTE)?.map(Bytes::from);
    view.committed = row(COMMITTED)?.map(Bytes::from);
    view.loss = row(LOST)?.map(|bytes| decode_loss(&bytes)).transpose()?;
    Ok(view)
}

/// What a log has lost and nobody has made good so far.
pub(crate) fn loss_of(db: &DB) -> Result<Option<Loss>, LogError> {
    Ok(load(db)?.loss)
}

/// What was found damaged in a log while it was in use.
fn marked(dir: &Path) -> std::io::Result<Option<String>> {
    let mark = files::read_if_present(&dir.join(MARK))?;
    Ok(mark.map(|text| String::from_utf8_lossy(&text).into_owned()))
}

/// What a log that is not in use was found damaged by.
pub(crate) fn mark_of(dir: &Path) -> Option<String> {
    marked(dir).ok().flatten()
}

/// Reads every entry of a log and says how many there are.
///
/// # Errors
/// An entry is damaged, or one is missing between others.
pub(crate) fn check_entries(db: &DB) -> Result<u64, LogError> {
    let view = load(db)?;
    let mut expected = view.first();
    for row in db.iterator(IteratorMode::From(&entry_key(expected), Direction::Forward)) {
        let (key, value) = row.map_err(read_error)?;
        let Some(index) = entry_index(&key) else { break };
        if index != expected {
            return Err(LogError::Hole { expected, found: index });
        }
        decode_entry(index, &value)?;
        expected += 1;
    }
    Ok(expected - view.first())
}

/// The first entry a cursor meets.
fn entry_from(db: &DB, mode: IteratorMode<'_>) -> Result<Option<Placed>, LogError> {
    match db.iterator(mode).next().transpose().map_err(read_error)? {
        Some((key, value)) => entry_index(&key).map(|index| decode_entry(index, &value)).transpose(),
        None => Ok(None),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the shape of map_err")]
fn read_error(error: rocksdb::Error) -> LogError {
    LogError::Read(error.to_string())
}

impl Inner {
    /// The writer's thread: groups until closed and drained, or until a write fails.
    fn run(&self, mut writer: Writer) {
        while let Some(group) = self.next_group() {
            let result = writer.write(&group);
            let mut shared = self.shared.lock();
            let written = match result {
                Ok(sync) => {
                    if sync == Sync::Done {
                        self.syncs.fetch_add(1, Ordering::Relaxed);
                    }
                    shared.written = group.last().map_or(shared.written, |write| write.number);
                    shared.pending_bytes -= group.iter().map(|write| write.change.size()).sum::<u64>();
                    let written = shared.written;
                    shared.view.evict(written, self.tail_bytes_max);
                    drop(shared);
                    Ok(())
                }
                Err(error) => {
                    let reason: Arc<str> = match error {
                        WriteError::Database(error) => {
                            // What a compaction met. A failed sync is none: pages of it may be whole.
                            if error.kind() == ErrorKind::Corruption {
                                self.condemn(error.as_ref());
                            }
                            error.to_string().into()
                        }
                        WriteError::Other(reason) => reason.into(),
                    };
                    tracing::error!(%reason, "a write of the raft log failed; the replica has to stop");
                    shared.stopped = Some(reason.clone());
                    let waiting = std::mem::take(&mut shared.queue);
                    drop(shared);
                    finish(group, &Err(LogError::Stopped(reason.clone())));
                    finish(waiting, &Err(LogError::Stopped(reason)));
                    return;
                }
            };
            finish(group, &written);
        }
    }

    fn next_group(&self) -> Option<Vec<Write>> {
        let mut shared = self.shared.lock();
        let mut lingers = true;
        while !shared.queue.iter().any(Write::is_waited_for) {
            if shared.closing || (!lingers && !shared.queue.is_empty()) {
                break;
            }
            if lingers {
                lingers = !self.work.wait_for(&mut shared, HINT_LINGERS).timed_out();
            } else {
                self.work.wait(&mut shared);
            }
        }
        let group = take_group(&mut shared.queue);
        (!group.is_empty()).then_some(group)
    }

    /// Orders the committed mark. It moves with every commit and is only a hint, so nobody is woken for it: it goes with
    /// the next write, or alone when there is none for a while, and only the newest one does.
    fn note_committed(&self, committed: Bytes) {
        let mut shared = self.shared.lock();
        if shared.stopped.is_some() {
            return;
        }
        shared.view.committed = Some(committed.clone());
        shared.pending_bytes += committed.len() as u64;
        if let Some(Write { change: Change::Committed(before), .. }) = shared.queue.back_mut() {
            let before = std::mem::replace(before, committed);
            shared.pending_bytes -= before.len() as u64;
            return;
        }
        let number = shared.enqueued + 1;
        shared.enqueued = number;
        shared.queue.push_back(Write { number, change: Change::Committed(committed), done: None });
    }

    /// Orders a change: what `prepare` does to the view and what it hands to the writer is one step.
    fn enqueue(&self, done: Completion, prepare: impl FnOnce(&mut Shared, u64) -> Result<Change, LogError>) {
        let mut shared = self.shared.lock();
        let number = shared.enqueued + 1;
        let prepared = match &shared.stopped {
            Some(reason) => Err(LogError::Stopped(reason.clone())),
            None => prepare(&mut shared, number),
        };
        match prepared {
            Ok(change) => {
                shared.enqueued = number;
                shared.pending_bytes += change.size();
                shared.queue.push_back(Write { number, change, done: Some(done) });
                drop(shared);
                self.work.notify_one();
            }
            Err(error) => {
                drop(shared);
                done(Err(error));
            }
        }
    }

    /// The log is not what was written. Noted once, here and on disk.
    fn condemn(&self, what: &str) {
        let mut damage = self.damage.lock();
        if damage.is_some() {
            return;
        }
        *damage = Some(what.to_owned());
        tracing::error!(
            what,
            "the log is damaged; it is not gone on with, and what is lost of it is made good by the next start"
        );
        if let Err(error) = files::replace(&self.dir.join(MARK), what.as_bytes()) {
            tracing::error!(%error, "the damage of the log could not be noted on disk");
        }
    }

    /// A read that failed at an entry.
    fn failed(&self, index: u64, error: &rocksdb::Error) -> LogError {
        if is_damage(error) {
            self.condemn(&format!("at or behind entry {index}: {error}"));
        }
        LogError::Read(error.to_string())
    }

    fn damaged(&self, error: LogError) -> LogError {
        self.condemn(&error.to_string());
        error
    }

    fn missing(&self, index: u64) -> LogError {
        self.damaged(LogError::Damaged { what: index.to_string(), reason: "it is not stored".into() })
    }

    fn stored(&self, index: u64) -> Result<Placed, LogError> {
        let bytes = self.db.get_pinned(entry_key(index)).map_err(|error| self.failed(index, &error))?;
        let bytes = bytes.ok_or_else(|| self.missing(index))?;
        decode_entry(index, &bytes).map_err(|error| self.damaged(error))
    }

    /// Entries from the database, up to a byte limit beyond the first.
    fn stored_range(&self, range: Range<u64>, max_bytes: u64) -> Result<(Vec<LogRecord>, End), LogError> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(entry_key(range.end));
        // A replica catching up reads each entry once; that must not push the state out of the cache.
        options.fill_cache(false);
        let mode = IteratorMode::From(&entry_key(range.start), Direction::Forward);
        let mut records = Vec::new();
        let (mut next, mut bytes) = (range.start, 0);
        for row in self.db.iterator_opt(mode, options) {
            let (key, value) = row.map_err(|error| self.failed(next, &error))?;
            if entry_index(&key) != Some(next) {
                break;
            }
            let placed = decode_entry(next, &value).map_err(|error| self.damaged(error))?;
            bytes += placed.record.size();
            if bytes > max_bytes && !records.is_empty() {
                return Ok((records, End::Bytes));
            }
            next += 1;
            records.push(placed.record);
        }
        Ok((records, End::Rows))
    }

    /// Entries of a range up to a byte limit beyond the first. What is not decoded comes from the database, read
    /// without the lock.
    fn read_range(&self, range: &Range<u64>, max_bytes: u64) -> Result<Vec<LogRecord>, LogError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        loop {
            let shared = self.shared.lock();
            if let Some(reason) = &shared.stopped {
                return Err(LogError::Stopped(reason.clone()));
            }
            shared.view.check_range(range)?;
            let truncations = shared.view.truncations;
            let decoded_from = shared.view.decoded_from().clamp(range.start, range.end);
            let decoded = shared.view.decoded(decoded_from..range.end, max_bytes);
            drop(shared);
            if decoded_from == range.start {
                return Ok(decoded);
            }
            let (mut records, end) = self.stored_range(range.start..decoded_from, max_bytes)?;
            let shared = self.shared.lock();
            // The log may have been cut meanwhile; then the two parts need not belong together.
            if shared.view.truncations != truncations {
                continue;
            }
            shared.view.check_range(range)?;
            drop(shared);
            if end == End::Bytes {
                return Ok(records);
            }
            let next = range.start + records.len() as u64;
            if next < decoded_from {
                return Err(self.missing(next));
            }
            let mut bytes: u64 = records.iter().map(LogRecord::size).sum();
            records.extend(decoded.into_iter().take_while(|record| {
                bytes += record.size();
                bytes <= max_bytes
            }));
            return Ok(records);
        }
    }
}

/// Why a read of stored entries ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Rows,
    Bytes,
}

fn finish(group: impl IntoIterator<Item = Write>, result: &Result<(), LogError>) {
    for done in group.into_iter().filter_map(|write| write.done) {
        done(result.clone());
    }
}

impl LogEngine for RocksLog {
    fn append(&self, records: Vec<LogRecord>, done: Completion) {
        self.inner.enqueue(done, |shared, number| Ok(Change::Append(shared.view.append(records, number)?)));
    }

    fn save_vote(&self, vote: Bytes, done: Completion) {
        self.inner.enqueue(done, |shared, _| {
            shared.view.vote = Some(vote.clone());
            Ok(Change::Vote(vote))
        });
    }

    fn truncate_after(&self, index: Option<u64>, done: Completion) {
        self.inner.enqueue(done, |shared, _| {
            let cut = shared.view.cut_after(index, |index| self.inner.stored(index))?;
            shared.view.truncate(&cut);
            // With nothing to cut the call still keeps its place in the order.
            Ok(Change::TruncateFrom(shared.view.end()))
        });
    }

    fn purge(&self, upto: LogPosition, done: Completion) {
        self.inner.enqueue(done, |shared, _| {
            match shared.view.purged_offset(upto, |index| self.inner.stored(index))? {
                Some(end_offset) => {
                    shared.view.purge(upto, end_offset);
                    Ok(Change::Purge { upto, end_offset })
                }
                None => Ok(Change::Nothing),
            }
        });
    }

    fn save_committed(&self, committed: Bytes) {
        self.inner.note_committed(committed);
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<LogRecord>, LogError> {
        self.inner.read_range(&range, u64::MAX)
    }

    fn read_limited(&self, range: Range<u64>, max_bytes: u64) -> Result<Vec<LogRecord>, LogError> {
        self.inner.read_range(&range, max_bytes)
    }

    fn bounds(&self) -> Bounds {
        self.inner.shared.lock().view.bounds
    }

    fn vote(&self) -> Option<Bytes> {
        self.inner.shared.lock().view.vote.clone()
    }

    fn committed(&self) -> Option<Bytes> {
        self.inner.shared.lock().view.committed.clone()
    }

    fn bytes(&self) -> u64 {
        self.inner.shared.lock().view.bytes()
    }

    fn pending_bytes(&self) -> u64 {
        self.inner.shared.lock().pending_bytes
    }

    fn purgeable(&self, keep_bytes: u64) -> Result<Option<u64>, LogError> {
        self.inner.shared.lock().view.purgeable(keep_bytes, |index| self.inner.stored(index))
    }

    fn syncs(&self) -> u64 {
        self.inner.syncs.load(Ordering::Relaxed)
    }

    fn loss(&self) -> Option<Loss> {
        self.inner.shared.lock().view.loss
    }

    fn make_good(&self, at: LogPosition, done: Completion) {
        self.inner.enqueue(done, |shared, _| {
            let end_offset = shared.view.good_offset(at, |index| self.inner.stored(index))?;
            shared.view.make_good(at, end_offset);
            Ok(Change::Good { at, end_offset })
        });
    }

    fn damage(&self) -> Option<String> {
        self.inner.damage.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A database that cannot be written to: the write that fails and everything after it is answered with an error,
    /// and reads no longer claim to know what is durable.
    #[test]
    fn a_failed_write_is_final() {
        let dir = tempfile::tempdir().unwrap();
        drop(RocksLog::open(dir.path(), &Memory::default()).unwrap());
        let db = crate::db::open_log_read_only(dir.path()).unwrap();
        let log = RocksLog::start(dir.path(), Arc::new(db), &Memory::default()).unwrap();
        let (tell, told) = mpsc::channel();
        for vote in ["a", "b"] {
            let tell = tell.clone();
            log.save_vote(vote.into(), Box::new(move |result| tell.send(result).unwrap()));
            assert!(matches!(told.recv().unwrap(), Err(LogError::Stopped(_))));
        }
        let record = LogRecord { index: 0, term: 1, leader: 1, payload: Bytes::new() };
        log.append(vec![record], Box::new(move |result| tell.send(result).unwrap()));
        assert!(matches!(told.recv().unwrap(), Err(LogError::Stopped(_))));
        assert_eq!(log.syncs(), 0);
        assert!(log.read(0..1).is_err());
    }
}
