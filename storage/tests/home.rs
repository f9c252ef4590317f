//! A whole data directory: opening, refusing, losing what was not flushed, and snapshots from build to install.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod directory;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use directory::{copy_tree, wait};
use prost::Message;
use quilt_proto::Revision;
use quilt_proto::state::MachineState;
use quilt_state::{Batch, Family, Step, Store};
use quilt_storage::{
    Home, HomeError, Identity, LogEngine, LogPosition, LogRecord, Manifest, Snapshot, SnapshotError, SnapshotReceiver,
    check,
};

fn identity(replica: u64) -> Identity {
    Identity { cluster: "plane".into(), replica }
}

fn open(dir: &Path) -> Home {
    Home::open(dir, identity(1)).unwrap()
}

/// Writes what a machine would: some rows and its own, in one batch. Nothing is applied without a vote.
fn apply(home: &Home, index: u64, rows: std::ops::Range<u64>) {
    wait(|done| home.log.save_vote("vote".into(), done));
    let mut batch = Batch::default();
    for row in rows {
        batch.put(Family::Versions, row.to_be_bytes().to_vec(), format!("row {row} of {index}").repeat(20));
        batch.put(Family::Changes, row.to_be_bytes().to_vec(), "change");
    }
    home.state.write(&batch).unwrap();
    let mut batch = Batch::default();
    let (hash_high, hash_low) = quilt_state::audit::audit(&home.state).unwrap().found.halves();
    let machine = MachineState {
        hash_high,
        hash_low,
        revision: index * 10,
        applied_index: index,
        applied_term: 1,
        membership: b"members"[..].into(),
        ..MachineState::default()
    };
    batch.put(Family::Meta, quilt_state::row::MACHINE, machine.encode_to_vec());
    home.state.write(&batch).unwrap();
}

fn log(home: &Home, index: u64) {
    let record = LogRecord { index, term: 1, leader: 1, payload: "entry".into() };
    wait(|done| home.log.append(vec![record], done));
}

fn applied(home: &Home) -> u64 {
    let row = home.state.get(Family::Meta, quilt_state::row::MACHINE).unwrap().unwrap_or_default();
    MachineState::decode(row).unwrap().applied_index
}

fn rows(home: &Home) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    home.state
        .scan(Family::Versions, &[], &[0xff; 9], &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            Step::Next
        })
        .unwrap();
    rows
}

/// Sends everything a receiver wants, in small pieces.
fn send(from: &Snapshot, to: &mut SnapshotReceiver) -> u64 {
    let mut sent = 0;
    for wanted in to.wanted().unwrap() {
        let mut offset = wanted.offset;
        loop {
            let piece = from.read(wanted.file, offset, 1000).unwrap();
            if piece.is_empty() && offset > 0 {
                break;
            }
            to.write(wanted.file, offset, &piece).unwrap();
            offset += piece.len() as u64;
            sent += piece.len() as u64;
            if piece.is_empty() {
                break;
            }
        }
    }
    sent
}

/// Scans stop, go on and jump ahead as the visitor says, and end before `to`.
#[test]
fn scans() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    let mut batch = Batch::default();
    for key in ["a", "b", "c", "d", "e"] {
        batch.put(Family::Meta, key, key);
    }
    batch.put(Family::Sessions, "b", "elsewhere");
    batch.delete(Family::Meta, "c");
    home.state.write(&batch).unwrap();
    let scan = |from: &str, to: &str, visit: &dyn Fn(&[u8]) -> Step| {
        let mut seen = String::new();
        let scanned = home.state.scan(Family::Meta, from.as_bytes(), to.as_bytes(), &mut |key, _| {
            seen.push_str(std::str::from_utf8(key).unwrap());
            visit(key)
        });
        scanned.unwrap();
        seen
    };
    assert_eq!(scan("a", "z", &|_| Step::Next), "abde");
    assert_eq!(scan("b", "e", &|_| Step::Next), "bd");
    assert_eq!(scan("a", "z", &|key| if key == b"b" { Step::Stop } else { Step::Next }), "ab");
    assert_eq!(scan("a", "z", &|key| if key == b"a" { Step::Seek(b"d".to_vec()) } else { Step::Next }), "ade");
    assert_eq!(scan("a", "e", &|_| Step::Seek(b"x".to_vec())), "a");
    assert_eq!(scan("z", "a", &|_| Step::Next), "");
    assert_eq!(home.state.get(Family::Meta, b"c").unwrap(), None);
}

/// The newest version at or below a revision is found wherever it lies, and none of another key is taken for it; a scan
/// meets every row, whichever key it begins at. In memory, in one file each, and after both.
#[test]
fn versions_are_found_in_every_file() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    let key = |n: u64| format!("c\0\0things\0ns\0k{n:03}\0").into_bytes();
    let place = |n: u64, revision: u64| quilt_state::row::version(&key(n), Revision::new(revision));
    let newest = |places: &[bytes::Bytes]| {
        let mut found = Vec::new();
        let told = home.state.first_version(places, &mut |which, value| {
            found.push((which, String::from_utf8(value.to_vec()).unwrap()));
            Step::Next
        });
        told.unwrap();
        found
    };
    // Key n changes at the revisions that n divides; every file holds some keys only.
    for revision in 1..=60 {
        let mut batch = Batch::default();
        for n in (1..=20).filter(|n| revision % n == 0) {
            batch.put(Family::Versions, place(n, revision), format!("{n} at {revision}"));
        }
        home.state.write(&batch).unwrap();
        if revision % 7 == 0 {
            home.state.flush().unwrap();
        }
    }
    for revision in 0..=60 {
        let places: Vec<_> = (0..=21).map(|n| place(n, revision)).collect();
        let expected: Vec<_> = (1..=20)
            .filter(|n| revision / n > 0)
            .map(|n| (usize::try_from(n).unwrap(), format!("{n} at {}", revision / n * n)))
            .collect();
        assert_eq!(newest(&places), expected, "at {revision}");
        for (which, value) in expected {
            assert_eq!(newest(&places[which..=which]), [(0, value)]);
        }
    }
    let all: u64 = (1..=20).map(|n| 60 / n).sum();
    assert_eq!(rows_from(&home, &[]), all);
    assert_eq!(rows_from(&home, &key(11)), (11..=20).map(|n| 60 / n).sum::<u64>());
    assert_eq!(rows_from(&home, b"c\0\0things\0ns\0k0105"), (11..=20).map(|n| 60 / n).sum::<u64>(), "between keys");
}

fn rows_from(home: &Home, from: &[u8]) -> u64 {
    let mut rows = 0;
    let mut count = |_: &[u8], _: &[u8]| {
        rows += 1;
        Step::Next
    };
    home.state.scan(Family::Versions, from, &[0xff; 9], &mut count).unwrap();
    rows
}

/// A kill loses what the state had not flushed, all families at one point; the log has it and gives it back.
#[test]
fn a_kill_loses_the_unflushed_state_but_not_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    for index in 1..=3 {
        log(&home, index);
    }
    apply(&home, 1, 0..5);
    home.state.flush().unwrap();
    let machine = |home: &Home| {
        let row = home.state.persisted(Family::Meta, quilt_state::row::MACHINE).unwrap();
        row.map(|row| MachineState::decode(row).unwrap().applied_index)
    };
    apply(&home, 3, 0..9);
    assert_eq!(applied(&home), 3);
    assert_eq!(machine(&home), Some(1), "durable is what a crash would leave");

    let killed = tempfile::tempdir().unwrap();
    copy_tree(dir.path(), &killed.path().join("data"));
    let after = open(&killed.path().join("data"));
    assert_eq!(applied(&after), 1);
    assert_eq!(rows(&after).len(), 5);
    assert_eq!(after.log.read(1..4).unwrap().len(), 3);

    home.state.flush().unwrap();
    assert_eq!(machine(&home), Some(3));
    drop(home);
    let home = open(dir.path());
    assert_eq!((applied(&home), rows(&home).len()), (3, 9));
}

/// One process, one owner, private: every other use of the directory is refused by name and changes nothing.
#[test]
fn refusals() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("deep").join("data");
    let home = open(&data);
    assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(matches!(Home::open(&data, identity(1)), Err(HomeError::InUse(_))));
    apply(&home, 1, 0..3);
    log(&home, 1);
    drop(home);
    let refused = Home::open(&data, identity(2)).unwrap_err().to_string();
    assert!(refused.contains("belongs to replica 1"), "{refused}");
    assert_eq!(Home::identity_of(&data).unwrap(), Some(identity(1)));

    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let refused = Home::open(&data, identity(1)).unwrap_err().to_string();
    assert!(refused.contains("chmod 700"), "{refused}");
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();

    let pointer = data.join("state/CURRENT");
    std::fs::remove_file(&pointer).unwrap();
    let home = open(&data);
    assert!(home.snapshots.missing().is_some_and(|why| why.contains("CURRENT")));
    assert_eq!(home.log.bounds().last.map(|last| last.index), Some(1), "the log is as it was");
    drop(home);

    std::fs::remove_file(data.join("identity")).unwrap();
    assert!(matches!(Home::open(&data, identity(1)), Err(HomeError::Damaged { .. })));
}

/// A log that begins behind the state's end cannot be replayed: the replica refuses to start on it.
#[test]
fn a_gap_between_state_and_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    log(&home, 1);
    wait(|done| home.log.purge(LogPosition { index: 9, term: 1, leader: 1 }, done));
    drop(home);
    let refused = Home::open(dir.path(), identity(1)).unwrap_err().to_string();
    assert!(refused.contains("begins behind entry 9"), "{refused}");
}

/// A log that was taken away took the vote with it: the replica could vote twice, and refuses to start.
#[test]
fn a_missing_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    apply(&home, 4, 0..3);
    drop(home);
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let refused = Home::open(dir.path(), identity(1)).unwrap_err().to_string();
    assert!(refused.contains("its log is empty"), "{refused}");
}

/// A snapshot built on one replica is sent in pieces, installed on another one that had other rows, is what that one
/// serves, keeps and reopens with, and the state it replaced is gone.
#[test]
fn snapshot_from_build_to_reopen() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let leader = open(one.path());
    assert!(matches!(leader.snapshots.build(), Err(SnapshotError::Empty)));
    apply(&leader, 7, 0..200);
    let snapshot = leader.snapshots.build().unwrap();
    assert_eq!(snapshot.manifest().index, 7);
    assert_eq!(snapshot.manifest().revision, 70);
    assert_eq!(snapshot.manifest().membership, "members");
    let again = leader.snapshots.build().unwrap();
    assert_eq!(again.manifest().id(), snapshot.manifest().id());

    let follower = Home::open(two.path(), identity(2)).unwrap();
    apply(&follower, 3, 1000..1500);
    let old_state = std::fs::read_to_string(two.path().join("state/CURRENT")).unwrap();
    let manifest = Manifest::decode(&snapshot.manifest().encode()).unwrap();
    let mut receiver = follower.snapshots.receive(manifest).unwrap();
    assert_eq!(send(&snapshot, &mut receiver), snapshot.manifest().size());
    let kept = receiver.install().unwrap();
    assert_eq!(kept.manifest(), snapshot.manifest());
    assert_eq!(applied(&follower), 7);
    assert_eq!(rows(&follower), rows(&leader));
    assert!(!two.path().join("state").join(old_state.trim()).exists());
    assert_eq!(std::fs::read_dir(two.path().join("incoming")).unwrap().count(), 0);

    // It goes on from there, and what it keeps can be sent on.
    apply(&follower, 8, 0..1);
    follower.state.flush().unwrap();
    drop((kept, follower));
    let follower = Home::open(two.path(), identity(2)).unwrap();
    assert_eq!((applied(&follower), rows(&follower).len()), (8, 200));
    let kept = follower.snapshots.newest().unwrap();
    let three = tempfile::tempdir().unwrap();
    let learner = Home::open(three.path(), identity(3)).unwrap();
    let mut receiver = learner.snapshots.receive(kept.manifest().clone()).unwrap();
    send(&kept, &mut receiver);
    receiver.install().unwrap();
    assert_eq!((applied(&learner), rows(&learner)), (7, rows(&leader)));
}

/// A transfer that broke off goes on where it was; files that arrived are not sent again, and an older transfer can no
/// longer interfere.
#[test]
fn a_broken_transfer_goes_on() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let leader = open(one.path());
    apply(&leader, 7, 0..2000);
    let snapshot = leader.snapshots.build().unwrap();
    let follower = Home::open(two.path(), identity(2)).unwrap();
    let mut first = follower.snapshots.receive(snapshot.manifest().clone()).unwrap();
    let wanted = first.wanted().unwrap();
    // One file whole, half of the largest.
    let size = |file: usize| snapshot.manifest().files[file].size;
    let largest = wanted.iter().map(|wanted| wanted.file).max_by_key(|file| size(*file)).unwrap();
    let other = wanted.iter().map(|wanted| wanted.file).find(|file| *file != largest).unwrap();
    first.write(other, 0, &snapshot.read(other, 0, usize::MAX).unwrap()).unwrap();
    let half = size(largest) / 2;
    first.write(largest, 0, &snapshot.read(largest, 0, half as usize).unwrap()).unwrap();
    assert!(matches!(first.write(largest, 0, b"x"), Err(SnapshotError::Chunk { .. })), "a piece must follow");

    let mut second = follower.snapshots.receive(snapshot.manifest().clone()).unwrap();
    assert!(matches!(first.write(largest, half, b"late"), Err(SnapshotError::Superseded)));
    assert!(matches!(first.install(), Err(SnapshotError::Superseded)));
    let wanted = second.wanted().unwrap();
    assert!(wanted.iter().all(|wanted| wanted.file != other));
    assert_eq!(wanted.iter().find(|wanted| wanted.file == largest).unwrap().offset, half);
    let sent = send(&snapshot, &mut second);
    assert_eq!(sent, snapshot.manifest().size() - size(other) - half);
    second.install().unwrap();
    assert_eq!(rows(&follower), rows(&leader));
}

/// A flipped bit, a missing file, a wrong state and a foreign snapshot are refused; the running state stays.
#[test]
fn bad_snapshots_are_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let leader = open(one.path());
    apply(&leader, 7, 0..200);
    let snapshot = leader.snapshots.build().unwrap();
    let follower = Home::open(two.path(), identity(2)).unwrap();
    apply(&follower, 3, 0..10);
    let before = rows(&follower);

    let mut receiver = follower.snapshots.receive(snapshot.manifest().clone()).unwrap();
    let file = receiver.wanted().unwrap()[0].file;
    let mut content = snapshot.read(file, 0, usize::MAX).unwrap().to_vec();
    content[0] ^= 1;
    assert!(matches!(receiver.write(file, 0, &content), Err(SnapshotError::Checksum { .. })));
    assert_eq!(receiver.wanted().unwrap()[0].offset, 0, "a damaged file is sent again from its beginning");
    assert!(matches!(receiver.write(99, 0, b""), Err(SnapshotError::Manifest(_))));
    let beyond = vec![0; snapshot.manifest().files[file].size as usize + 1];
    assert!(matches!(receiver.write(file, 0, &beyond), Err(SnapshotError::Chunk { .. })));
    assert!(matches!(receiver.install(), Err(SnapshotError::Incomplete(_))));

    let mut lying = snapshot.manifest().clone();
    lying.revision += 1;
    let mut receiver = follower.snapshots.receive(lying).unwrap();
    send(&snapshot, &mut receiver);
    assert!(matches!(receiver.install(), Err(SnapshotError::Content { .. })));

    let mut foreign = snapshot.manifest().clone();
    foreign.cluster = "another".into();
    assert!(follower.snapshots.receive(foreign).is_err());
    let mut newer = snapshot.manifest().clone();
    newer.format += 1;
    assert!(follower.snapshots.receive(newer).unwrap_err().to_string().contains("upgrade this replica"));
    let mut escaping = snapshot.manifest().clone();
    escaping.files[0].name = "../../identity".into();
    assert!(follower.snapshots.receive(escaping).is_err());
    let mut bytes = snapshot.manifest().encode().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    assert!(Manifest::decode(&bytes).is_err());

    assert_eq!(rows(&follower), before);
    assert_eq!(applied(&follower), 3);
}

/// What a crash leaves in the middle of a transfer, a build or an install is removed at the next start, and the state
/// is the old one.
#[test]
fn half_done_work_is_cleaned_up() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    apply(&home, 5, 0..50);
    home.snapshots.build().unwrap();
    drop(home);
    let name = std::fs::read_to_string(dir.path().join("state/CURRENT")).unwrap();
    copy_tree(&dir.path().join("state").join(name.trim()), &dir.path().join("state/0000000002"));
    std::fs::write(dir.path().join("incoming/abcdef.part"), "half").unwrap();
    copy_tree(&dir.path().join("state").join(name.trim()), &dir.path().join("snapshots/build.unfinished/data"));
    std::fs::create_dir(dir.path().join("snapshots/00000000000000000009-0000000001-0")).unwrap();

    let home = open(dir.path());
    assert_eq!((applied(&home), rows(&home).len()), (5, 50));
    let names = |dir: &Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&dir.path().join("state")), ["0000000001", "CURRENT"]);
    assert_eq!(names(&dir.path().join("incoming")), [""; 0]);
    assert_eq!(names(&dir.path().join("snapshots")), ["00000000000000000005-0000000001-0"]);
    assert_eq!(home.snapshots.newest().unwrap().manifest().index, 5);
}

/// Killed at any point of sending or installing, a receiver opens with the old state or with the new one, whole, and the
/// next attempt sends only what has not arrived.
#[test]
fn a_kill_at_any_step_of_a_transfer_is_harmless() {
    let (one, two, three) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let leader = open(one.path());
    apply(&leader, 7, 0..400);
    let snapshot = leader.snapshots.build().unwrap();
    let follower = Home::open(two.path(), identity(2)).unwrap();
    apply(&follower, 3, 0..10);
    follower.state.flush().unwrap();
    let (old, new) = (rows(&follower), rows(&leader));
    let after_kill = |dir: &Path| {
        let home = Home::open(dir, identity(2)).unwrap();
        assert_eq!(home.snapshots.missing(), None);
        let (found, index) = (rows(&home), applied(&home));
        assert!((found == old && index == 3) || (found == new && index == 7), "neither state: {index}");
        let mut again = home.snapshots.receive(snapshot.manifest().clone()).unwrap();
        let sent = send(&snapshot, &mut again);
        again.install().unwrap();
        assert_eq!(rows(&home), new);
        (index, sent)
    };
    let kill = |step: &str| {
        let copy = three.path().join(step);
        copy_tree(two.path(), &copy);
        copy
    };
    let mut receiver = follower.snapshots.receive(snapshot.manifest().clone()).unwrap();
    // After each piece of each file.
    let mut killed = 0;
    for wanted in receiver.wanted().unwrap() {
        let size = snapshot.manifest().files[wanted.file].size;
        for offset in (0..size).step_by(16_000) {
            receiver.write(wanted.file, offset, &snapshot.read(wanted.file, offset, 16_000).unwrap()).unwrap();
            assert_eq!(after_kill(&kill(&format!("piece {killed}"))).0, 3);
            killed += 1;
        }
    }
    assert!(killed > 3, "{killed} pieces");
    // In the middle of the install: read beside the state, the state taken over, everything removed.
    receiver.verify().unwrap();
    assert_eq!(after_kill(&kill("verified")).0, 3);
    let verified = kill("pointed");
    receiver.install().unwrap();
    let installed = kill("installed");
    assert_eq!(after_kill(&kill("all done")).0, 7);
    // The new state is pointed to, and nothing of what comes behind that was done.
    std::fs::copy(installed.join("state/CURRENT"), verified.join("state/CURRENT")).unwrap();
    let unfinished = verified.join("snapshots/received.unfinished/data");
    std::fs::create_dir_all(&unfinished).unwrap();
    assert_eq!(after_kill(&verified).0, 7);
    let left: Vec<_> = std::fs::read_dir(verified.join("state")).unwrap().flatten().collect();
    assert_eq!(left.len(), 2, "CURRENT and one state: {left:?}");
    assert!(!unfinished.exists(), "a half-kept snapshot is removed");
}

/// A newer snapshot replaces an older one, whose files stay while somebody still sends them.
#[test]
fn an_old_snapshot_stays_while_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    apply(&home, 1, 0..50);
    let first = home.snapshots.build().unwrap();
    apply(&home, 2, 50..60);
    let second = home.snapshots.build().unwrap();
    assert_eq!(home.snapshots.newest().unwrap().manifest().index, 2);
    let shared = first.manifest().files.iter().filter(|file| second.manifest().files.contains(file)).count();
    assert!(shared > 0, "unchanged files are the same in both");
    let first_dir = dir.path().join("snapshots").join(first.manifest().id());
    first.read(0, 0, usize::MAX).unwrap();
    assert!(first_dir.exists());
    drop(first);
    assert!(!first_dir.exists());
}

/// The offline check counts what is there and finds a flipped bit in a file of the state.
#[test]
fn offline_check() {
    let dir = tempfile::tempdir().unwrap();
    let home = open(dir.path());
    log(&home, 1);
    apply(&home, 1, 0..50);
    home.state.flush().unwrap();
    drop(home);
    let report = check(dir.path()).unwrap();
    assert_eq!(report.problems, [""; 0]);
    assert_eq!((report.log_entries, report.applied_index, report.state_rows), (1, 1, 101));

    let state = dir.path().join("state/0000000001");
    let tables = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
    let table = tables
        .filter(|path| path.extension().is_some_and(|ending| ending == "sst"))
        .max_by_key(|path| std::fs::metadata(path).unwrap().len())
        .unwrap();
    let mut content = std::fs::read(&table).unwrap();
    content[100] ^= 0x10;
    std::fs::write(&table, content).unwrap();
    let report = check(dir.path()).unwrap();
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
}

/// Whoever still holds the log holds the directory: a start beside it would make good what is only being written.
#[test]
fn the_log_keeps_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let Home { log, state, .. } = open(dir.path());
    drop(state);
    let again = || Home::open(dir.path(), identity(1));
    assert!(matches!(again(), Err(HomeError::InUse(_))));
    drop(log);
    assert!(again().is_ok());
}
