//! Logs that earlier releases wrote, replayed: the same bytes must give the same outcomes, revisions and rows for ever. A
//! log is a text file below `golden/`, a line an entry: the entry's bytes, the hash of its outcomes and the hash of the
//! live rows behind it, all hexadecimal. Files are only ever added.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "golden logs are files; the machine that replays them knows none"
)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use prost::Message;
use quilt_proto::state::{Acknowledge, Compact, DropCluster, Expire, RegisterSession, Sweep, command};
use quilt_proto::{Command, Compare, Entry, Key, Op, Put, RequestId, Txn};
use quilt_state::{Input, Machine, MemoryStore, Payload, Position, invariant};

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// FNV-1a, 64 bits: fixed for ever, and nothing is protected by it.
fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A machine that is fed entry by entry, and says what came of each.
struct Replay {
    store: Arc<MemoryStore>,
    machine: Machine<MemoryStore>,
    index: u64,
}

impl Replay {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        Self { machine: Machine::open(Arc::clone(&store)).expect("opens"), store, index: 0 }
    }

    /// The hashes of the entry's outcomes and of the live rows behind it.
    fn apply(&mut self, entry: Entry) -> String {
        self.index += 1;
        let position = Position { index: self.index, term: 1 + self.index / 100, leader: 1 };
        let applied = self.machine.apply(&[Input { position, payload: Payload::Entry(entry) }]).expect("applies");
        let outcomes = applied
            .outcomes
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash, outcome| fnv(hash, &outcome.outcome.encode_length_delimited_to_vec()));
        let (high, low) = self.machine.hash().halves();
        format!("{outcomes:016x} {} {high:016x}{low:016x}", self.machine.horizon().revision)
    }
}

/// Every log of every release replays to what it gave when it was written.
#[test]
fn golden_logs_replay() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory())
        .expect("there are golden logs")
        .map(|file| file.expect("readable").path())
        .filter(|file| file.extension().is_some_and(|extension| extension == "log"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no golden log is there");
    for file in files {
        let mut replay = Replay::new();
        let text = std::fs::read_to_string(&file).expect("readable");
        for (n, line) in text.lines().enumerate() {
            let (entry, expected) = line.split_once(' ').expect("entry and hashes");
            let entry = Entry::decode(&*hex::decode(entry).expect("hexadecimal")).expect("an entry");
            assert_eq!(replay.apply(entry), expected, "{}:{}", file.display(), n + 1);
        }
        let violations = invariant::violations(&*replay.store).expect("readable");
        assert_eq!(violations, Vec::<String>::new(), "{}", file.display());
    }
}

/// Knuth's MMIX generator: the same numbers on every machine.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Nearly always in the cluster the transaction is about: one that reaches into two is refused.
fn key(numbers: &mut Numbers, cluster: u64) -> Key {
    let cluster = if numbers.below(40) == 0 { numbers.below(4) } else { cluster };
    let cluster = ["", "a", "b", "c"][usize::try_from(cluster).expect("small")];
    Key::new(cluster, "", "things", "ns", &format!("k{}", numbers.below(12))).expect("valid")
}

fn put(numbers: &mut Numbers, cluster: u64) -> Op {
    let value = format!(r#"{{"metadata":{{"resourceVersion":""}},"v":{}}}"#, numbers.below(1000));
    let sealed = if numbers.below(4) == 0 { "sealed" } else { "" };
    let ttl_ms = if numbers.below(3) == 0 { 1 + numbers.below(400) } else { 0 };
    let tags = (0..numbers.below(3)).map(|n| format!("n=node-{n}").into()).collect();
    let key = key(numbers, cluster).bytes().clone();
    Put { key, value: value.into(), splice_at: 32, sealed: sealed.into(), ttl_ms, tags }.into()
}

/// Nearly always one that is allowed.
fn range(numbers: &mut Numbers, cluster: u64) -> Op {
    let (one, other) = (key(numbers, cluster), key(numbers, cluster));
    let limit = u32::try_from(numbers.below(6)).expect("small");
    Op::delete_range(one.bytes().min(other.bytes()).clone(), one.bytes().max(other.bytes()).clone(), limit)
}

fn txn(numbers: &mut Numbers, session: u64, sequence: u64, at_ms: u64, revision: u64) -> Txn {
    let cluster = numbers.below(4);
    let compare = |numbers: &mut Numbers| match numbers.below(3) {
        0 => Compare::absent(&key(numbers, cluster)),
        1 => Compare::exists(&key(numbers, cluster)),
        _ => Compare::at(&key(numbers, cluster), quilt_proto::Revision::new(numbers.below(revision + 2))),
    };
    let op = |numbers: &mut Numbers| match numbers.below(8) {
        0..3 => Op::delete(&key(numbers, cluster)),
        3 => range(numbers, cluster),
        _ => put(numbers, cluster),
    };
    let compares = (0..numbers.below(3).saturating_sub(1)).map(|_| compare(numbers)).collect();
    let ops = (0..numbers.below(4)).map(|_| op(numbers)).collect();
    // Some have expired before they are applied.
    let expires_at_ms = if numbers.below(6) == 0 { at_ms.saturating_sub(5) + numbers.below(10) } else { 0 };
    Txn { request_id: Some(RequestId { session, sequence }), expires_at_ms, compares, ops }
}

/// Writes a further golden log. Needed when a release adds a kind of command; what is there stays.
#[test]
#[ignore = "makes a new golden log: run it by name, name the file for the release, and check it in"]
fn record_a_golden_log() {
    let mut numbers = Numbers(2_026);
    let mut replay = Replay::new();
    let mut text = String::new();
    let (mut sequences, mut last) = ([0_u64; 2], None);
    for n in 0..400_u64 {
        let at_ms = 1_000 + n * 7;
        let mut commands = Vec::new();
        for _ in 0..=numbers.below(3) {
            let session = numbers.below(2);
            let at = usize::try_from(session).expect("small");
            let kind = match (n, numbers.below(20)) {
                (0, _) | (_, 0) => {
                    command::Kind::RegisterSession(RegisterSession { session: session + 1, replica: session + 1 })
                }
                (_, 1) => {
                    let answered_below = numbers.below(sequences[at] + 1);
                    command::Kind::Acknowledge(Acknowledge { session: session + 1, answered_below })
                }
                (_, 2 | 3) => {
                    command::Kind::Expire(Expire { limit: 1 + u32::try_from(numbers.below(4)).expect("small") })
                }
                (_, 4) => {
                    let newest = replay.machine.horizon().revision.get();
                    let floor = newest.saturating_sub(numbers.below(40));
                    let cluster = ["", "a", "b"][usize::try_from(numbers.below(3)).expect("small")].to_owned();
                    command::Kind::Compact(Compact { cluster, floor, limit: 5 })
                }
                (250, _) => command::Kind::DropCluster(DropCluster { cluster: "c".into() }),
                (251.., 5) => command::Kind::Sweep(Sweep { limit: 3 }),
                // Rows agree with each other once a deleted cluster is wholly gone.
                (390.., 7..) => command::Kind::Sweep(Sweep { limit: 100 }),
                (_, 6) if last.is_some() => last.clone().expect("looked"),
                _ => {
                    sequences[at] += 1;
                    let revision = replay.machine.horizon().revision.get();
                    let txn = command::Kind::Txn(txn(&mut numbers, session + 1, sequences[at], at_ms, revision));
                    last = Some(txn.clone());
                    txn
                }
            };
            commands.push(Command { kind: Some(kind) });
        }
        let entry = Entry { at_ms, wall_ms: 1_700_000_000_000 + at_ms, commands };
        let bytes = hex::encode(entry.encode_to_vec());
        writeln!(text, "{bytes} {}", replay.apply(entry)).expect("text grows");
    }
    let mut file = std::fs::File::create_new(directory().join("new.log")).expect("named for its release before");
    file.write_all(text.as_bytes()).expect("written");
}
