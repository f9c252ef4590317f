//! Backups: what is saved is what is restored, and no damaged byte of one goes unnoticed.

use std::sync::Arc;

use quilt_proto::{Entry, Key, Op, Revision, Txn};
use quilt_state::{Input, Machine, Payload, Position, Refounding};
use quilt_storage::{Home, HomeError, Identity, LogEngine, Restoring, backup, inspect_backup, restore, verify_backup};
use tempfile::TempDir;

fn identity() -> Identity {
    Identity { cluster: "cp".into(), replica: 1 }
}

/// A data directory with some objects, and the bytes of a backup of it.
fn saved(dir: &TempDir) -> Vec<u8> {
    let home = Home::open(&dir.path().join("old"), identity()).expect("opens");
    let mut machine = Machine::open(Arc::new(home.state.clone())).expect("opens");
    for index in 1..50_u64 {
        let key = Key::new("c", "", "things", "ns", &format!("thing-{index}")).expect("valid");
        let put = Op::put(&key, vec![b'x'; 64]);
        let entry = Entry { at_ms: index, wall_ms: index, commands: vec![Txn::new(vec![], vec![put]).into()] };
        let input = Input { position: Position { index, term: 2, leader: 0 }, payload: Payload::Entry(entry) };
        machine.apply(&[input]).expect("applies");
    }
    // Its log has to exist for the directory to be whole; here only the state matters.
    let snapshot = home.snapshots.build().expect("builds");
    let (length, pieces) = backup(snapshot);
    let bytes: Vec<u8> = pieces.flat_map(|piece| piece.expect("reads").to_vec()).collect();
    assert_eq!(bytes.len() as u64, length, "the length is told in advance");
    bytes
}

/// A restored directory opens as a replica's, holds every object, begins its log behind the given position, and can
/// feed a newcomer from a snapshot. The second restore in one epoch is refused, and one in an earlier epoch, whose
/// revisions would be handed out a second time; one in a later epoch keeps the old data.
#[test]
fn a_backup_is_restored() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("backup");
    std::fs::write(&file, saved(&dir)).expect("writes");
    let manifest = inspect_backup(&file).expect("a backup");
    assert_eq!((manifest.revision, manifest.live_keys, manifest.index), (49, 49, 49));
    let verified = verify_backup(&file, &dir.path().join("scratch")).expect("whole");
    assert_eq!(verified.problems, Vec::<String>::new());
    assert!(!dir.path().join("scratch").exists(), "nothing is left behind");

    let position = Position { index: 60, term: 3, leader: 0 };
    let restoring = |epoch: u64| Restoring {
        identity: identity(),
        epoch,
        refounding: Refounding { revision: Revision::new(epoch), position, membership: "m".into(), forget: &|_| false },
        vote: "vote".into(),
    };
    let new = dir.path().join("new");
    let done = restore(&file, &new, &restoring(1_000)).expect("restores");
    assert_eq!((done.live_keys, done.revision), (49, Revision::new(1_000)));
    assert!(restore(&file, &new, &restoring(1_000)).is_err(), "it has been done");
    restore(&file, &new, &restoring(2_000)).expect("a later epoch");
    assert!(quilt_storage::aside(&new, 2_000).join("state").is_dir(), "the data before is kept");

    let backwards = restore(&file, &new, &restoring(1_500)).expect_err("its revisions may have been handed out");
    assert!(matches!(backwards, HomeError::Backwards { found: 2_000, epoch: 1_500, .. }), "{backwards}");

    let home = Home::open(&new, identity()).expect("opens");
    assert_eq!(home.epoch(), 2_000);
    assert_eq!(home.log.vote().as_deref(), Some(&b"vote"[..]));
    let bounds = home.log.bounds();
    assert_eq!(bounds.purged.map(|at| (at.index, at.term)), Some((60, 3)));
    assert_eq!(bounds.last, bounds.purged);
    assert_eq!(home.snapshots.newest().expect("one for newcomers").manifest().index, 60);
    let machine = Machine::open(Arc::new(home.state)).expect("opens");
    assert_eq!((machine.position(), machine.live_keys()), (Some(position), 49));
}

/// Whatever byte is changed, and wherever it is cut off, a backup is not taken for whole.
#[test]
fn no_damage_goes_unnoticed() {
    let dir = TempDir::new().expect("a directory");
    let whole = saved(&dir);
    let (file, scratch) = (dir.path().join("backup"), dir.path().join("scratch"));
    for at in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&file, &damaged).expect("writes");
        assert!(verify_backup(&file, &scratch).is_err(), "byte {at} was changed and nobody noticed");
        std::fs::write(&file, &whole[..at]).expect("writes");
        assert!(inspect_backup(&file).is_err(), "cut off at {at} and nobody noticed");
    }
}
