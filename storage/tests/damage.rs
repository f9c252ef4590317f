//! Flipped bytes and missing files in a data directory: each is detected and named, repaired, or of no consequence. No
//! other row is ever read than was written, and no acknowledged entry is silently missing.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod directory;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use directory::{copy_tree, wait};
use quilt_proto::{Command, Compare, Entry, Key, Op, Txn};
use quilt_state::audit::audit;
use quilt_state::{Family, Input, Machine, Payload, Position, Store};
use quilt_storage::{
    Home, HomeError, Identity, LogEngine, LogError, LogPosition, LogRecord, Loss, Memory, Remedy, RocksLog, check,
};

const KEYS: u64 = 60;

fn open(dir: &Path) -> Result<Home, HomeError> {
    Home::open(dir, Identity { cluster: "plane".into(), replica: 1 })
}

fn txn(n: u64) -> Txn {
    let key = Key::new("c", "", "things", "ns", &format!("k{:03}", n % KEYS)).unwrap();
    let op = if n % 7 == 6 { Op::delete(&key) } else { Op::put(&key, format!("value {n} ").repeat(20)) };
    Txn::new(Vec::<Compare>::new(), vec![op])
}

/// A small replica with a history: a vote, entries in the log's files and in its write-ahead log, a flushed state.
fn make(dir: &Path) {
    let home = open(dir).unwrap();
    let mut machine = Machine::open(Arc::new(home.state.clone())).unwrap();
    wait(|done| home.log.save_vote("vote".into(), done));
    for n in 1..=200_u64 {
        let record = LogRecord { index: n, term: 1, leader: 1, payload: format!("entry {n} ").repeat(5).into() };
        wait(|done| home.log.append(vec![record], done));
        let entry = Entry { at_ms: n, wall_ms: n, commands: vec![Command::from(txn(n))] };
        let position = Position { index: n, term: 1, leader: 1 };
        machine.apply(&[Input { position, payload: Payload::Entry(entry) }]).unwrap();
    }
    home.state.flush().unwrap();
}

type Rows = BTreeMap<(Family, Vec<u8>), Vec<u8>>;

fn rows(home: &Home) -> Result<Rows, quilt_state::StoreError> {
    let mut rows = BTreeMap::new();
    for family in Family::ALL {
        home.state.scan(family, &[], &[0xff; 64], &mut |key, value| {
            rows.insert((family, key.to_vec()), value.to_vec());
            quilt_state::Step::Next
        })?;
    }
    Ok(rows)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Places in a file: its ends, and others spread over it.
fn places(length: u64, count: u64) -> Vec<u64> {
    let step = (length / count).max(1);
    let mut places: Vec<u64> = (0..length).step_by(usize::try_from(step).unwrap()).chain([length - 1]).collect();
    places.dedup();
    places
}

fn flip(path: &Path, at: u64) {
    let mut content = std::fs::read(path).unwrap();
    content[usize::try_from(at).unwrap()] ^= 0x10;
    std::fs::write(path, content).unwrap();
}

/// How often each outcome came.
#[derive(Debug, Default)]
struct Tally {
    named: u32,
    lost: u32,
    harmless: u32,
}

/// A byte flipped anywhere in the files of the state: the directory opens with the same rows, or the state is known to be
/// lost, or the reader who meets the damage is told what and where it is and no start goes on with that state.
#[test]
fn a_flipped_byte_of_the_state_is_never_served() {
    let (made, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make(made.path());
    let written = rows(&open(made.path()).unwrap()).unwrap();
    let mut tally = Tally::default();
    for file in files(&made.path().join("state")) {
        let relative = file.strip_prefix(made.path()).unwrap();
        let length = std::fs::metadata(&file).unwrap().len();
        // RocksDB's diagnostics are read by nobody.
        if length == 0 || file.file_name().is_some_and(|name| name == "LOG") {
            continue;
        }
        for at in places(length, if file.extension().is_some_and(|ending| ending == "sst") { 10 } else { 4 }) {
            let dir = work.path().join("data");
            copy_tree(made.path(), &dir);
            flip(&dir.join(relative), at);
            let place = format!("{} at {at}", relative.display());
            let home = open(&dir).unwrap_or_else(|error| panic!("{place}: {error}"));
            match home.snapshots.missing() {
                Some(_) => tally.lost += 1,
                None => match audit(&home.state) {
                    Ok(audited) => {
                        assert!(audited.fits(), "{place}: another state");
                        assert_eq!(rows(&home).unwrap(), written, "{place}: other rows");
                        tally.harmless += 1;
                    }
                    Err(error) => {
                        let damage = home.snapshots.damage().unwrap_or_else(|| panic!("{place}: {error} is not kept"));
                        assert!(damage.contains("family") || damage.contains("families"), "{place}: {damage}");
                        drop(home);
                        assert!(Home::is_condemned(&dir), "{place}");
                        // Whoever starts next begins without that state, which is kept to be looked at.
                        let home = open(&dir).unwrap();
                        assert!(home.snapshots.missing().is_some() && home.require_state().is_err(), "{place}");
                        assert!(dir.join("damaged").is_dir(), "{place}");
                        assert_eq!(home.log.bounds().last.unwrap().index, 200, "{place}: the log is whole");
                        tally.named += 1;
                    }
                },
            }
            std::fs::remove_dir_all(&dir).unwrap();
        }
    }
    assert!(tally.named > 5 && tally.lost > 2 && tally.harmless > 2, "{tally:?}");
}

/// Reads all of a log, as a scan does; one that does not read says so and is opened again, without what is damaged.
fn read_through(dir: &Path, home: Home, place: &str) -> Home {
    let bounds = home.log.bounds();
    let (first, end) = (bounds.purged.map_or(1, |p| p.index + 1), bounds.last.map_or(0, |last| last.index + 1));
    match home.log.read(first..end.max(first)) {
        Ok(records) => {
            for record in records {
                assert_eq!(record.payload, format!("entry {} ", record.index).repeat(5), "{place}");
            }
            home
        }
        Err(error) => {
            assert!(home.log.damage().is_some(), "{place}: {error} is not kept");
            drop(home);
            assert!(Home::is_condemned(dir), "{place}");
            let home = open(dir).unwrap_or_else(|error| panic!("{place}, again: {error}"));
            assert!(home.log.loss().is_some(), "{place}");
            assert!(!Home::is_condemned(dir), "{place}");
            read_through(dir, home, place)
        }
    }
}

/// What was lost is made good by a state that covers it: the log goes on behind that, and stays so.
fn make_good(dir: &Path, home: Home, place: &str) -> Home {
    let at = LogPosition { index: 200, term: 1, leader: 1 };
    wait(|done| home.log.make_good(at, done));
    assert_eq!(home.log.loss(), None, "{place}");
    let next = LogRecord { index: 201, term: 1, leader: 1, payload: "entry 201 ".repeat(5).into() };
    wait(|done| home.log.append(vec![next], done));
    drop(home);
    let home = open(dir).unwrap();
    assert_eq!(home.log.loss(), None, "{place}");
    let bounds = home.log.bounds();
    assert_eq!((bounds.purged, bounds.last.map(|last| last.index)), (Some(at), Some(201)), "{place}");
    assert_eq!(home.log.vote().as_deref(), Some(&b"vote"[..]), "{place}");
    home
}

/// The same with the log: no byte keeps the replica out. It opens with every entry as written and the vote, or says what it
/// has lost: then its vote is still there, the entries it has read, and it waits to be made good. Only what may be a torn
/// last write, which nobody can tell from damage there, is cut off.
#[test]
fn a_flipped_byte_of_the_log_is_never_taken_for_an_entry() {
    let (made, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make(made.path());
    let (mut upto, mut unknown, mut harmless, mut torn) = (0, 0, 0, 0);
    // Once with all entries in the write-ahead log, once with most of them in a table.
    for round in 0..2 {
        if round == 1 {
            let home = open(made.path()).unwrap();
            wait(|done| home.log.save_vote("vote".into(), done));
        }
        for file in files(&made.path().join("log")) {
            let relative = file.strip_prefix(made.path()).unwrap();
            let length = std::fs::metadata(&file).unwrap().len();
            if length == 0 || file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("LOG")) {
                continue;
            }
            for at in places(length, 8) {
                let dir = work.path().join("data");
                copy_tree(made.path(), &dir);
                flip(&dir.join(relative), at);
                let place = format!("{} at {at}", relative.display());
                let home = open(&dir).unwrap_or_else(|error| panic!("{place}: {error}"));
                let home = read_through(&dir, home, &place);
                assert_eq!(home.log.vote().as_deref(), Some(&b"vote"[..]), "{place}");
                match home.log.loss() {
                    None => {
                        let last = home.log.bounds().last.unwrap().index;
                        assert!(last >= 199, "{place}: the log ends at {last}");
                        if last == 200 { harmless += 1 } else { torn += 1 }
                    }
                    Some(loss) => {
                        assert!(dir.join("damaged-log").is_dir(), "{place}");
                        assert!(!check(&dir).unwrap().problems.is_empty(), "{place}");
                        match loss {
                            Loss::Upto(index) => {
                                assert!(index < 200, "{place}");
                                assert_eq!(home.log.bounds().last.unwrap().index, 200, "{place}");
                                upto += 1;
                            }
                            Loss::Unknown => unknown += 1,
                        }
                        if (upto + unknown) % 3 == 0 {
                            drop(make_good(&dir, home, &place));
                        }
                    }
                }
                std::fs::remove_dir_all(&dir).unwrap();
            }
        }
    }
    let tally = format!("{upto} up to an entry, {unknown} unknown, {harmless} harmless, {torn} torn");
    assert!(unknown > 5 && harmless > 5, "{tally}");
}

/// A log of several tables loses only what is in front of its damage, wherever that is.
#[test]
fn what_is_behind_the_damage_is_kept() {
    let made = tempfile::tempdir().unwrap();
    {
        let home = open(made.path()).unwrap();
        wait(|done| home.log.save_vote("vote".into(), done));
    }
    for part in 0..4_u64 {
        let home = open(made.path()).unwrap();
        let records = (part * 500 + 1..=part * 500 + 500).map(|index| LogRecord {
            index,
            term: 1 + part,
            leader: 1,
            payload: format!("entry {index} ").repeat(5).into(),
        });
        wait(|done| home.log.append(records.collect(), done));
    }
    drop(open(made.path()).unwrap());
    let tables: Vec<PathBuf> = files(&made.path().join("log"))
        .into_iter()
        .filter(|file| {
            file.extension().is_some_and(|ending| ending == "sst") && std::fs::metadata(file).unwrap().len() > 5_000
        })
        .collect();
    assert_eq!(tables.len(), 4);
    for (part, table) in (0_u64..).zip(&tables) {
        let work = tempfile::tempdir().unwrap();
        let dir = work.path().join("data");
        copy_tree(made.path(), &dir);
        flip(&dir.join(table.strip_prefix(made.path()).unwrap()), 1_000);
        let place = format!("table {part}");
        let home = read_through(&dir, open(&dir).unwrap(), &place);
        let Some(Loss::Upto(lost)) = home.log.loss() else { panic!("{place}: {:?}", home.log.loss()) };
        assert!((part * 500 + 1..part * 500 + 500).contains(&lost), "{place}: {lost}");
        let bounds = home.log.bounds();
        assert_eq!((bounds.purged.unwrap().index, bounds.last.unwrap().index), (lost, 2_000), "{place}");
        assert_eq!(home.log.read(lost + 1..2_001).unwrap().len() as u64, 2_000 - lost, "{place}");
        drop(home);
        // A state may end at the last entry that is lost, at one that is there, or behind them all.
        for at in [lost, lost + 1, 2_000, 2_500] {
            let again = work.path().join("again");
            copy_tree(&dir.join("log"), &again);
            let log = RocksLog::open(&again, &Memory::default()).unwrap();
            wait(|done| log.make_good(LogPosition { index: at, term: 9, leader: 0 }, done));
            drop(log);
            let log = RocksLog::open(&again, &Memory::default()).unwrap();
            assert_eq!((log.loss(), log.vote().as_deref()), (None, Some(&b"vote"[..])), "{place}");
            let bounds = log.bounds();
            assert_eq!((bounds.purged.unwrap().index, bounds.last.unwrap().index), (at, at.max(2_000)), "{place}");
            assert_eq!(log.read(at + 1..at.max(2_000) + 1).unwrap().len() as u64, 2_000 - at.min(2_000));
            drop(log);
            std::fs::remove_dir_all(&again).unwrap();
        }
    }
}

/// With its vote gone as well a log is not gone on with, and nothing is changed. A start that is broken off while the
/// damaged log is set aside is begun again or ended.
#[test]
fn without_its_vote_a_log_is_refused() {
    let made = tempfile::tempdir().unwrap();
    make(made.path());
    let log = made.path().join("log");
    let wal = files(&log).into_iter().find(|file| file.extension().is_some_and(|ending| ending == "log")).unwrap();
    flip(&wal, 100);
    flip(&log.join("VOTE"), 100);
    let report = check(made.path()).unwrap();
    assert_eq!(report.remedy, Remedy::Replace, "{:?}", report.problems);
    assert!(report.problems.iter().any(|problem| problem.contains("its vote is lost as well")));
    for _ in 0..2 {
        match open(made.path()) {
            Err(HomeError::Log(error @ LogError::Lost { .. })) => {
                assert!(error.to_string().contains("vote") && error.to_string().contains(".log"), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
    flip(&log.join("VOTE"), 100);
    let report = check(made.path()).unwrap();
    assert!(!report.problems.is_empty() && report.remedy == Remedy::Start, "{:?}", report.problems);
    std::fs::create_dir(made.path().join("log.new")).unwrap();
    let home = open(made.path()).unwrap();
    assert_eq!(home.log.loss(), Some(Loss::Unknown));
    drop(home);
    // Between the two renames.
    std::fs::rename(&log, made.path().join("log.new")).unwrap();
    let home = open(made.path()).unwrap();
    assert_eq!((home.log.loss(), home.log.vote().as_deref()), (Some(Loss::Unknown), Some(&b"vote"[..])));
    // A replica that has lost its log and its state keeps its vote.
    drop(home);
    std::fs::remove_file(made.path().join("state/CURRENT")).unwrap();
    let home = open(made.path()).unwrap();
    assert!(home.snapshots.missing().is_some() && home.log.loss().is_some());
    assert_eq!(home.log.vote().as_deref(), Some(&b"vote"[..]));
}

/// Copies a data directory once for each file that a database below it cannot do without, without that file, and lets the
/// test look at each copy.
fn without_each_file(made: &Path, database: &str, mut look: impl FnMut(&Path, &str)) {
    let work = tempfile::tempdir().unwrap();
    for file in files(&made.join(database)) {
        let relative = file.strip_prefix(made).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        // The state has no write-ahead log, only empty files for one.
        let writes = name.ends_with(".log") && std::fs::metadata(&file).unwrap().len() > 0;
        if !(name == "CURRENT" || name.ends_with(".sst") || name.starts_with("MANIFEST") || writes) {
            continue;
        }
        let dir = work.path().join("data");
        copy_tree(made, &dir);
        std::fs::remove_file(dir.join(relative)).unwrap();
        look(&dir, &name);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

/// A state that is not there, in whole or in part, is known to be lost; its log and vote are as they were.
#[test]
fn missing_files_of_the_state_are_noticed() {
    let made = tempfile::tempdir().unwrap();
    make(made.path());
    without_each_file(made.path(), "state", |dir, name| {
        let home = open(dir).unwrap();
        let lost = home.snapshots.missing().is_some() || audit(&home.state).is_err();
        assert!(lost, "{name}");
        assert_eq!(home.log.vote().as_deref(), Some(&b"vote"[..]));
        drop(home);
        // The offline check names it as well, and changes nothing.
        assert!(!check(dir).unwrap().problems.is_empty(), "{name}");
    });
}

/// A log of which a file is missing is not taken for a shorter one, nor for a new one.
#[test]
fn missing_files_of_the_log_are_noticed() {
    let made = tempfile::tempdir().unwrap();
    make(made.path());
    // Opened once more, entries are in a table as well, and one behind it is not.
    let home = open(made.path()).unwrap();
    wait(|done| home.log.truncate_after(Some(199), done));
    let again = LogRecord { index: 200, term: 1, leader: 1, payload: "entry 200 ".repeat(5).into() };
    wait(|done| home.log.append(vec![again], done));
    drop(home);
    let mut missed = Vec::new();
    without_each_file(made.path(), "log", |dir, name| {
        let home = open(dir).unwrap();
        assert!(home.log.loss().is_some() && home.log.bounds().last.is_none_or(|last| last.index == 200), "{name}");
        assert_eq!(home.log.vote().as_deref(), Some(&b"vote"[..]), "{name}");
        missed.push(name.to_owned());
    });
    assert!(missed.len() >= 4 && missed.iter().any(|name| name.ends_with(".log")), "{missed:?}");
}

/// A replica that has a whole snapshot of its own needs nobody: its state is made from that, and the log goes on from
/// there. One whose snapshot shares the damage does.
#[test]
fn the_own_snapshot_serves_when_it_is_whole() {
    let made = tempfile::tempdir().unwrap();
    make(made.path());
    let home = open(made.path()).unwrap();
    home.snapshots.build().unwrap();
    let written = rows(&home).unwrap();
    home.snapshots.condemn("a test says so");
    assert!(home.snapshots.damage().is_some());
    drop(home);
    let home = open(made.path()).unwrap();
    assert_eq!(home.snapshots.missing(), None);
    assert_eq!(home.snapshots.damage(), None);
    assert_eq!(rows(&home).unwrap(), written);
    drop(home);
    assert!(!Home::is_condemned(made.path()));

    let table =
        files(&made.path().join("snapshots")).into_iter().find(|file| file.extension().is_some_and(|e| e == "sst"));
    flip(&table.unwrap(), 100);
    let home = open(made.path()).unwrap();
    home.snapshots.condemn("again");
    drop(home);
    let home = open(made.path()).unwrap();
    assert!(home.snapshots.missing().is_some_and(|why| why == "again"));
    assert!(home.snapshots.newest().is_none(), "the damaged snapshot is not kept");
    drop(home);
    // It stays so over any number of starts, and what was set aside is kept.
    let home = open(made.path()).unwrap();
    assert!(home.snapshots.missing().is_some());
    assert!(made.path().join("damaged").is_dir());
}
