//! Delete-ranges at their limits: whatever a range holds, one transaction is bounded, and following what it answers
//! empties the range, in however many entries the work is applied together.

use std::sync::Arc;

use quilt_proto::state::outcome;
use quilt_proto::{Command, Entry, Key, KeyPrefix, Op, Put, Txn};
use quilt_state::limits::{RANGE_BYTES_MAX, RANGE_KEYS_SEEN_MAX, TXN_OPS_MAX};
use quilt_state::{Input, Machine, MemoryStore, Payload, Position, invariant};

struct World {
    store: Arc<MemoryStore>,
    machine: Machine<MemoryStore>,
    index: u64,
}

impl World {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        Self { machine: Machine::open(Arc::clone(&store)).expect("opens"), store, index: 0 }
    }

    /// Applies transactions, an entry each, as one batch.
    fn apply(&mut self, txns: Vec<Txn>) -> Vec<outcome::Result> {
        let inputs: Vec<Input> = txns
            .into_iter()
            .map(|txn| {
                self.index += 1;
                let entry = Entry { at_ms: self.index, wall_ms: 0, commands: vec![Command::from(txn)] };
                let position = Position { index: self.index, term: 1, leader: 1 };
                Input { position, payload: Payload::Entry(entry) }
            })
            .collect();
        let applied = self.machine.apply(&inputs).expect("applies");
        applied.outcomes.into_iter().map(|outcome| outcome.outcome.result.expect("decided")).collect()
    }
}

fn key(n: usize) -> Key {
    Key::new("c", "", "things", "", &format!("{n:06}")).expect("valid")
}

fn everything(limit: u32) -> Txn {
    let all = KeyPrefix::resource("c", "", "things").expect("valid");
    Txn::new(vec![], vec![Op::delete_under(&all, limit)])
}

/// How many keys were deleted, and where to go on.
fn told(result: &outcome::Result) -> (u32, bytes::Bytes) {
    match result {
        outcome::Result::Applied(applied) => (applied.ranges[0].deleted, applied.ranges[0].next.clone()),
        other => panic!("{other:?}"),
    }
}

/// Keys that are gone cost a look each, so a range full of them ends early and says where it stopped. The two worlds see
/// the same although one of them applies the deletions and the ranges together.
#[test]
fn what_is_gone_is_passed_in_bounded_steps() {
    let all: Vec<usize> = (0..RANGE_KEYS_SEEN_MAX + 10).collect();
    let put = |keys: &[usize]| Txn::new(vec![], keys.iter().map(|n| Op::put(&key(*n), "{}")).collect());
    let delete = |keys: &[usize]| Txn::new(vec![], keys.iter().map(|n| Op::delete(&key(*n))).collect());
    let (mut apart, mut together) = (World::new(), World::new());
    // All but the last three are gone.
    let gone = &all[..all.len() - 3];
    let begin: Vec<Txn> = all.chunks(TXN_OPS_MAX).map(put).collect();
    let then: Vec<Txn> = gone.chunks(TXN_OPS_MAX).map(delete).chain([everything(2)]).collect();
    let outcomes: Vec<_> = begin.iter().chain(&then).flat_map(|txn| apart.apply(vec![txn.clone()])).collect();
    together.apply(begin);
    assert_eq!(together.apply(then).last(), outcomes.last());
    let (deleted, next) = told(outcomes.last().expect("there are some"));
    assert_eq!((deleted, &next), (0, key(RANGE_KEYS_SEEN_MAX).bytes()));
    for (at, expected) in [(next, (2, false)), (key(all.len() - 1).bytes().clone(), (1, true))] {
        let end = KeyPrefix::resource("c", "", "things").expect("valid").end();
        let op = Op::delete_range(at, end, 2);
        let (deleted, next) = told(&apart.apply(vec![Txn::new(vec![], vec![op])])[0]);
        assert_eq!((deleted, next.is_empty()), expected);
    }
    assert_eq!(apart.machine.live_keys(), 0);
    assert_eq!(invariant::violations(&*apart.store).expect("readable"), Vec::<String>::new());
}

/// Deleted records go into events, so their bytes are bounded too.
#[test]
fn large_records_are_deleted_a_few_at_a_time() {
    let mut world = World::new();
    let value = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    for n in 0..12 {
        let put = Put { key: key(n).bytes().clone(), value: value.clone(), ..Put::default() };
        world.apply(vec![Txn::new(vec![], vec![put.into()])]);
    }
    let (deleted, next) = told(&world.apply(vec![everything(5_000)])[0]);
    assert_eq!(usize::try_from(deleted).expect("small"), RANGE_BYTES_MAX / value.len());
    assert_eq!(next, key(8).bytes());
}

/// The limit of a transaction counts every key it may delete.
#[test]
fn too_much_at_once_is_refused() {
    let mut world = World::new();
    let most = u32::try_from(TXN_OPS_MAX).expect("small");
    assert!(matches!(world.apply(vec![everything(most)])[0], outcome::Result::Applied(_)));
    assert!(
        matches!(&world.apply(vec![everything(most + 1)])[0], outcome::Result::Invalid(text) if text.contains("5001"))
    );
    let mut beside = everything(most);
    beside.ops.push(Op::delete(&Key::new("c", "", "others", "", "x").expect("valid")));
    assert!(matches!(world.apply(vec![beside])[0], outcome::Result::Invalid(_)));
}
