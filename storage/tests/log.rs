//! Every promise of `LogEngine`, shown on both engines; durability shown on the real database.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::{Path, PathBuf};
use std::sync::mpsc;

use bytes::Bytes;
use quilt_storage::{Completion, LogEngine, LogError, LogPosition, LogRecord, Memory, MemoryLog, RocksLog};

fn record(index: u64, term: u64) -> LogRecord {
    LogRecord { index, term, leader: term % 3, payload: format!("entry {index} of term {term}").into() }
}

fn records(range: std::ops::Range<u64>, term: u64) -> Vec<LogRecord> {
    range.map(|index| record(index, term)).collect()
}

fn position(index: u64, term: u64) -> LogPosition {
    record(index, term).position()
}

/// Makes one call and waits for its completion.
fn wait(call: impl FnOnce(Completion)) -> Result<(), LogError> {
    let (tell, told) = mpsc::channel();
    call(Box::new(move |result| tell.send(result).unwrap()));
    told.recv().unwrap()
}

fn append(log: &dyn LogEngine, records: Vec<LogRecord>) -> Result<(), LogError> {
    wait(|done| log.append(records, done))
}

fn truncate(log: &dyn LogEngine, index: Option<u64>) -> Result<(), LogError> {
    wait(|done| log.truncate_after(index, done))
}

fn purge(log: &dyn LogEngine, upto: LogPosition) -> Result<(), LogError> {
    wait(|done| log.purge(upto, done))
}

fn open(dir: &Path) -> RocksLog {
    RocksLog::open(dir, &Memory::default()).unwrap()
}

/// A log that keeps next to nothing decoded, so that reads go to the database.
fn open_without_tail(dir: &Path) -> RocksLog {
    RocksLog::open(dir, &Memory { log_tail_bytes: 1, ..Memory::default() }).unwrap()
}

/// Runs a check on an engine in memory, on the database, and on the database with every read going to disk.
fn on_each(check: impl Fn(&dyn LogEngine)) {
    check(&MemoryLog::new());
    let dir = tempfile::tempdir().unwrap();
    check(&open(dir.path()));
    let dir = tempfile::tempdir().unwrap();
    check(&open_without_tail(dir.path()));
}

/// Reads give the whole range or an error; limited reads a non-empty prefix.
#[test]
fn reads_are_whole_or_an_error() {
    on_each(|log| {
        append(log, records(0..10, 1)).unwrap();
        assert_eq!(log.read(0..10).unwrap(), records(0..10, 1));
        assert_eq!(log.read(3..5).unwrap(), records(3..5, 1));
        assert_eq!(log.read(5..5).unwrap(), vec![]);
        assert!(matches!(log.read(5..11), Err(LogError::Missing { from: 5, to: 11, first: 0, end: 10 })));
        assert_eq!(log.read_limited(2..10, 0).unwrap(), records(2..3, 1));
        let two = record(2, 1).size() + record(3, 1).size();
        assert_eq!(log.read_limited(2..10, two).unwrap(), records(2..4, 1));
        assert_eq!(log.read_limited(2..10, u64::MAX).unwrap(), records(2..10, 1));
        assert!(log.read_limited(10..11, 0).is_err());
    });
}

/// No call leaves a hole: appends must follow, truncation and purge cut at the ends only.
#[test]
fn no_holes() {
    on_each(|log| {
        append(log, records(0..10, 1)).unwrap();
        assert!(matches!(append(log, records(11..12, 1)), Err(LogError::Hole { expected: 10, found: 11 })));
        assert!(matches!(append(log, records(9..10, 1)), Err(LogError::Hole { expected: 10, found: 9 })));
        assert!(append(log, vec![record(10, 1), record(12, 1)]).is_err());
        assert_eq!(log.bounds().last, Some(position(9, 1)), "a refused append leaves nothing behind");

        truncate(log, Some(6)).unwrap();
        assert_eq!(log.bounds().last, Some(position(6, 1)));
        assert!(log.read(6..8).is_err());
        append(log, records(7..9, 2)).unwrap();
        assert_eq!(log.read(6..9).unwrap(), vec![record(6, 1), record(7, 2), record(8, 2)]);
        truncate(log, Some(100)).unwrap();
        assert_eq!(log.bounds().last, Some(position(8, 2)), "nothing lies behind 100");

        purge(log, position(3, 1)).unwrap();
        assert_eq!(log.bounds().purged, Some(position(3, 1)));
        assert!(log.read(3..5).is_err());
        assert_eq!(log.read(4..6).unwrap(), records(4..6, 1));
        purge(log, position(2, 1)).unwrap();
        assert_eq!(log.bounds().purged, Some(position(3, 1)), "a purge never goes back");
        assert!(matches!(truncate(log, Some(2)), Err(LogError::Purged { index: 2, purged: 3 })));
        assert!(matches!(truncate(log, None), Err(LogError::Purged { .. })));

        truncate(log, Some(3)).unwrap();
        assert_eq!(log.bounds().last, Some(position(3, 1)), "an empty log ends where it was purged");
        assert!(append(log, records(5..6, 3)).is_err());
        append(log, records(4..6, 3)).unwrap();
        assert_eq!(log.read(4..6).unwrap(), records(4..6, 3));
    });
}

/// A purge behind the last entry empties the log, which then goes on after it: what a snapshot install needs.
#[test]
fn purge_beyond_the_end() {
    on_each(|log| {
        append(log, records(0..5, 1)).unwrap();
        purge(log, position(20, 4)).unwrap();
        assert_eq!(log.bounds().last, Some(position(20, 4)));
        assert_eq!(log.bytes(), 0);
        assert!(append(log, records(5..6, 4)).is_err());
        append(log, records(21..23, 4)).unwrap();
        assert_eq!(log.read(21..23).unwrap(), records(21..23, 4));
    });
    on_each(|log| {
        purge(log, position(7, 2)).unwrap();
        append(log, records(8..9, 2)).unwrap();
        assert_eq!(log.read(8..9).unwrap(), records(8..9, 2));
    });
    on_each(|log| {
        append(log, records(0..5, 1)).unwrap();
        truncate(log, None).unwrap();
        assert_eq!(log.bounds().last, None);
        append(log, records(0..2, 2)).unwrap();
        assert_eq!(log.read(0..2).unwrap(), records(0..2, 2));
    });
}

/// The byte count follows appends, truncation and purges, and says how far a purge may go.
#[test]
fn bytes_are_counted() {
    on_each(|log| {
        append(log, (0..100).map(|index| LogRecord { payload: vec![7; 952].into(), ..record(index, 1) }).collect())
            .unwrap();
        assert_eq!(log.bytes(), 100_000);
        assert_eq!(log.purgeable(100_000).unwrap(), None);
        assert_eq!(log.purgeable(100_001).unwrap(), None);
        assert_eq!(log.purgeable(99_000).unwrap(), Some(0));
        assert_eq!(log.purgeable(98_500).unwrap(), Some(0));
        assert_eq!(log.purgeable(0).unwrap(), Some(99));
        purge(log, position(49, 1)).unwrap();
        assert_eq!(log.bytes(), 50_000);
        assert_eq!(log.purgeable(20_000).unwrap(), Some(79));
        truncate(log, Some(59)).unwrap();
        assert_eq!(log.bytes(), 10_000);
        assert_eq!(log.purgeable(10_000).unwrap(), None);
    });
}

/// Everything acknowledged is there after the engine was dropped and opened again, ends and sizes included.
#[test]
fn reopened() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, records(0..50, 1)).unwrap();
    wait(|done| log.save_vote("vote".into(), done)).unwrap();
    log.save_committed("forty".into());
    purge(&log, position(9, 1)).unwrap();
    truncate(&log, Some(39)).unwrap();
    append(&log, records(40..45, 2)).unwrap();
    let bytes = log.bytes();
    drop(log);
    for open in [open, open_without_tail] {
        let log = open(dir.path());
        assert_eq!(log.bounds().purged, Some(position(9, 1)));
        assert_eq!(log.bounds().last, Some(position(44, 2)));
        assert_eq!(log.vote(), Some(Bytes::from("vote")));
        assert_eq!(log.committed(), Some(Bytes::from("forty")));
        assert_eq!(log.bytes(), bytes);
        assert_eq!(log.read(10..40).unwrap(), records(10..40, 1));
        assert_eq!(log.read(40..45).unwrap(), records(40..45, 2));
        append(&log, records(45..46, 2)).unwrap();
        assert_eq!(log.read(44..46).unwrap(), records(44..46, 2));
        truncate(&log, Some(44)).unwrap();
    }
}

/// What was acknowledged is in the files at that moment: a copy of the directory taken under the running engine, which
/// is what a kill leaves, opens with all of it.
#[test]
fn killed() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, records(0..20, 1)).unwrap();
    wait(|done| log.save_vote("two".into(), done)).unwrap();
    truncate(&log, Some(14)).unwrap();
    let copy = copy_of(dir.path());
    let killed = open(copy.path());
    assert_eq!(killed.read(0..15).unwrap(), records(0..15, 1));
    assert_eq!(killed.bounds().last, Some(position(14, 1)));
    assert_eq!(killed.vote(), Some(Bytes::from("two")));
}

/// The newest file of the database's write-ahead log.
fn newest_file(dir: &Path) -> PathBuf {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|ending| ending == "log")).max().unwrap()
}

/// A last write of which a power cut kept only a part, its beginning or some of its sectors, is cut off; everything
/// before it stays, and the log goes on from there.
#[test]
fn torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    append(&log, records(0..20, 1)).unwrap();
    let before = std::fs::read(newest_file(dir.path())).unwrap().len();
    let large = LogRecord { payload: vec![9; 100_000].into(), ..record(20, 1) };
    append(&log, vec![large]).unwrap();
    let end = std::fs::read(newest_file(dir.path())).unwrap().len();
    // What is kept of the file, and which part of it is lost.
    let tears = [
        (end - 3, 0..0),
        (before + 512, 0..0),
        (end, before + 2_048..before + 2_560),
        (end, before + 60_000..before + 61_024),
    ];
    for (kept, lost) in tears {
        let copy = copy_of(dir.path());
        let path = newest_file(copy.path());
        let mut content = std::fs::read(&path).unwrap();
        content.truncate(kept);
        content[lost].fill(0);
        std::fs::write(&path, content).unwrap();
        let torn = open(copy.path());
        assert_eq!(torn.bounds().last, Some(position(19, 1)));
        assert_eq!(torn.read(0..20).unwrap(), records(0..20, 1));
        append(&torn, records(20..22, 2)).unwrap();
        drop(torn);
        assert_eq!(open(copy.path()).read(20..22).unwrap(), records(20..22, 2));
    }
}

/// A damaged record with whole ones behind it is corruption: the log refuses to open rather than lose them.
#[test]
fn damage_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for index in 0..20 {
        append(&log, records(index..index + 1, 1)).unwrap();
    }
    let copy = copy_of(dir.path());
    let path = newest_file(copy.path());
    let mut content = std::fs::read(&path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&path, &content).unwrap();
    assert!(matches!(RocksLog::open(copy.path(), &Memory::default()), Err(LogError::Lost { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), content, "nothing was cut off");
}

/// Completions run in the order of the calls, votes between entries included, and many waiting calls share a sync.
#[test]
fn order_and_groups() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let (tell, told) = mpsc::channel();
    for index in 0..1_000 {
        let tell = tell.clone();
        let done: Completion = Box::new(move |result| tell.send((index, result)).unwrap());
        if index % 10 == 9 {
            log.save_vote(index.to_string().into(), done);
        } else {
            log.append(
                vec![LogRecord { index: log.bounds().last.map_or(0, |last| last.index + 1), ..record(0, 1) }],
                done,
            );
        }
    }
    assert_eq!(log.vote(), Some(Bytes::from("999")), "a vote is read back before it is durable");
    for expected in 0..1_000 {
        let (index, result) = told.recv().unwrap();
        assert_eq!(index, expected);
        result.unwrap();
    }
    assert_eq!(log.pending_bytes(), 0);
    assert!(log.syncs() < 1_000, "{} syncs for 1,000 calls", log.syncs());
    assert_eq!(log.bounds().last.map(|last| last.index), Some(899));
}

fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}
