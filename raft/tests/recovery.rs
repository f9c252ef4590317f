//! Epochs: each restore begins one of its own, the replicas of one restore share it, and what would hand out a revision
//! a second time, or make replicas that differ, is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quilt_proto::{Entry, Key, Op, ReplicaId, Revision, Txn};
use quilt_raft::{EpochName, NewEpoch, NoEpochName, RecoveryError, restore};
use quilt_state::{Input, Limit, Machine, Payload, Position, Refounded, View};
use quilt_storage::{Home, HomeError, Identity, Manifest, backup, inspect_backup};
use tempfile::TempDir;

/// A wall-clock time, in microseconds.
const NOW: u64 = 1_795_339_800_123_456;

fn identity(replica: u64) -> Identity {
    Identity { cluster: "cp".into(), replica }
}

fn key(n: u64) -> Key {
    Key::new("c", "", "things", "ns", &format!("thing-{n}")).expect("valid")
}

/// Writes some objects to a replica's state, behind what is there.
fn write(home: &Home, objects: u64) {
    let mut machine = Machine::open(Arc::new(home.state.clone())).expect("opens");
    for n in 1..=objects {
        let Position { index, term, .. } = machine.position().unwrap_or_default();
        let at_ms = machine.horizon().cluster_time_ms + 1;
        let txn = Txn::new(vec![], vec![Op::put(&key(n), vec![b'x'; 16])]);
        let payload = Payload::Entry(Entry { at_ms, wall_ms: n, commands: vec![txn.into()] });
        machine.apply(&[Input { position: Position { index: index + 1, term, leader: 0 }, payload }]).expect("applies");
    }
}

/// Saves a backup of a replica's state under a name.
fn save(home: &Home, file: &Path) -> Manifest {
    let (_, pieces) = backup(home.snapshots.build().expect("builds"));
    let bytes: Vec<u8> = pieces.flat_map(|piece| piece.expect("reads").to_vec()).collect();
    std::fs::write(file, bytes).expect("writes");
    inspect_backup(file).expect("a backup")
}

/// A place with two backups of one control plane: the second has one write more.
struct Place {
    dir: TempDir,
    first: (PathBuf, Manifest),
    second: (PathBuf, Manifest),
}

impl Place {
    fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let (first, second) = Self::backups(dir.path(), 1);
        Self { dir, first, second }
    }

    /// What replica number `replica` of that control plane saves.
    fn backups(dir: &Path, replica: u64) -> ((PathBuf, Manifest), (PathBuf, Manifest)) {
        let home = Home::open(&dir.join(format!("old-{replica}")), identity(replica)).expect("opens");
        let saved = |name: &str| {
            let file = dir.join(format!("{name}-{replica}.quilt"));
            let manifest = save(&home, &file);
            (file, manifest)
        };
        write(&home, 9);
        let first = saved("first");
        write(&home, 1);
        (first, saved("second"))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn restore(&self, file: &Path, dir: &str, replica: u64, epoch: EpochName) -> Result<Refounded, RecoveryError> {
        let voters = (1..=3).map(|id| (ReplicaId(id), format!("10.0.0.{id}:7443")));
        let voters: BTreeMap<_, _> = voters.collect();
        let new = NewEpoch { identity: identity(replica), epoch, voters, forget: &|_| false };
        restore(file, &self.at(dir), &new)
    }

    fn home(&self, dir: &str, replica: u64) -> Home {
        Home::open(&self.at(dir), identity(replica)).expect("opens")
    }
}

fn machine(home: &Home) -> Machine<quilt_storage::RocksStore> {
    Machine::open(Arc::new(home.state.clone())).expect("opens")
}

/// Two restores of one backup, a millisecond apart: the second begins ahead of all that the first has handed out in
/// that time, and of all the backup had. One microsecond is enough for epochs to differ.
#[test]
fn two_restores_of_one_backup_reuse_no_revision() {
    let place = Place::new();
    let (file, manifest) = &place.first;
    let (earlier, later) = (EpochName::of(NOW, manifest), EpochName::of(NOW + 1_000, manifest));
    assert_ne!(earlier, EpochName::of(NOW + 1, manifest));
    let first = place.restore(file, "a", 1, earlier).expect("restores");
    assert!(first.revision > Revision::new(manifest.revision), "ahead of what the backup had");
    let home = place.home("a", 1);
    write(&home, 20);
    let handed_out = machine(&home).horizon().revision;
    assert_eq!(handed_out.get(), first.revision.get() + 20);
    let second = place.restore(file, "b", 1, later).expect("restores");
    assert!(second.revision > handed_out, "{} was handed out before", second.revision);
    assert!(later.number < 1 << 53, "a JSON number");
}

/// Replicas that are restored apart from each other with one epoch, given as it was printed, hold the same to the last
/// row and revision; with it from another file, they are refused, and nothing is made.
#[test]
fn one_epoch_is_of_one_backup() {
    let place = Place::new();
    let epoch = EpochName::of(NOW, &place.first.1);
    place.restore(&place.first.0, "a", 1, epoch).expect("restores");
    let told: EpochName = epoch.to_string().parse().expect("as it was printed");
    assert_eq!(told, epoch);
    place.restore(&place.first.0, "b", 2, told).expect("restores");
    let (a, b) = (place.home("a", 1), place.home("b", 2));
    assert_eq!((a.epoch(), machine(&a).hash()), (NOW, machine(&b).hash()));
    assert_eq!(machine(&a).horizon(), machine(&b).horizon());
    let horizon = machine(&b).horizon();
    let state = b.state;
    let view = View::newest(&state, &horizon);
    let all = Limit { records: 100, bytes: 1 << 20 };
    let things = quilt_proto::KeyPrefix::resource("c", "", "things").expect("valid");
    assert_eq!(view.scan(&things, None, all).expect("readable").records.len(), 9);

    let other = place.restore(&place.second.0, "c", 3, told).expect_err("another file");
    assert!(matches!(other, RecoveryError::OtherBackup { epoch } if epoch == told), "{other}");
    assert!(!place.at("c").exists());
}

/// A backup of the same state, taken from another replica, is as good.
#[test]
fn the_same_state_is_the_same_backup() {
    let place = Place::new();
    let (first, second) = Place::backups(place.dir.path(), 2);
    assert_eq!(EpochName::of(NOW, &first.1), EpochName::of(NOW, &place.first.1));
    assert_eq!(EpochName::of(NOW, &second.1), EpochName::of(NOW, &place.second.1));
    assert_ne!(EpochName::of(NOW, &first.1), EpochName::of(NOW, &second.1));
}

/// A host whose clock is behind the backup's epoch or revision makes nothing; neither does one whose clock was set back
/// between two restores, where the first has left its data.
#[test]
fn time_does_not_go_back() {
    let place = Place::new();
    let refused = |file: &Path, dir: &str, epoch: EpochName| place.restore(file, dir, 1, epoch).expect_err("refused");
    let (file, manifest) = &place.first;
    for behind in [0, manifest.revision - 1, manifest.revision] {
        let error = refused(file, "a", EpochName::of(behind, manifest));
        assert!(matches!(error, RecoveryError::Clock { epoch, revision: 9, .. } if epoch == behind), "{error}");
    }
    assert!(!place.at("a").exists());

    place.restore(file, "a", 1, EpochName::of(NOW, manifest)).expect("restores");
    let newer = save(&place.home("a", 1), &place.at("newer.quilt"));
    assert_eq!(newer.epoch, NOW);
    let error = refused(&place.at("newer.quilt"), "b", EpochName::of(NOW, &newer));
    assert!(matches!(error, RecoveryError::Clock { of_backup: NOW, .. }), "{error}");

    let error = refused(file, "a", EpochName::of(NOW - 1, manifest));
    assert!(matches!(error, RecoveryError::Home(HomeError::Backwards { found: NOW, .. })), "{error}");
    let error = refused(file, "a", EpochName::of(NOW, manifest));
    assert!(matches!(error, RecoveryError::Home(HomeError::Restored { epoch: NOW, .. })), "{error}");
    place.restore(file, "a", 1, EpochName::of(NOW + 1, manifest)).expect("a later one");
}

/// Only what a restore has printed names an epoch: a number alone does not say of which backup.
#[test]
fn names_are_read_as_they_are_written() {
    for text in
        ["", "7", "7-", "-7", "7-1c9fe3a", "7-1c9fe3a00", "7-1C9FE3A0", "+7-1c9fe3a0", "07-1c9fe3a0", "7-1c9fe3a0 "]
    {
        assert_eq!(text.parse::<EpochName>(), Err(NoEpochName), "{text}");
    }
    assert_eq!("7-1c9fe3a0".parse::<EpochName>().expect("a name").number, 7);
}
