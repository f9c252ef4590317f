//! The machine against a naive model: any sequence of commands in several clusters gives the outcomes, revisions and
//! events the model foretells, rows that agree with each other, every revision that still stands as it was, the same
//! bytes when replayed in other batches, and history that leads from any revision to the present.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use quilt_proto::state::{
    Acknowledge, Compact, DropCluster, Expire, RegisterSession, Sweep, command, compare, op, outcome,
};
use quilt_proto::{
    Command, Compare, Entry, Event, EventKind, Key, KeyPrefix, Op, Outcome, Put, RequestId, Revision, Txn,
};
use quilt_state::{
    Audited, Expiring, Family, Input, Limit, Machine, MemoryStore, Payload, Position, Refounding, Store, Stride, View,
    ViewError, audit::audit, invariant, refound, row,
};

#[derive(Clone, Debug)]
enum Act {
    Put {
        key: u8,
        value: u8,
        ttl: u64,
    },
    Delete {
        key: u8,
    },
    Pair {
        first: u8,
        second: u8,
    },
    Range {
        from: u8,
        to: u8,
        limit: u32,
    },
    TwoRanges {
        middle: u8,
    },
    Guarded {
        key: u8,
        expect_present: bool,
        value: u8,
    },
    /// Compares with the revision of what was written last, due or not, or with one that far before.
    Swap {
        key: u8,
        before: u64,
        value: u8,
    },
    Repeat,
    Late,
    Expire {
        limit: u32,
    },
    Compact {
        back: u64,
        limit: u32,
    },
    Acknowledge,
    DropDoomed,
    Sweep {
        limit: u32,
    },
}

const CLUSTERS: [&str; 3] = ["b", "c", "d"];
/// The only one that is ever dropped.
const DOOMED: &str = "d";
const KEYS: u8 = 10;
const SESSION: u64 = 77;

fn acts() -> impl Strategy<Value = Vec<(&'static str, Act)>> {
    let key = 0..6_u8;
    let act = prop_oneof![
        5 => (key.clone(), any::<u8>(), prop_oneof![Just(0), 1..20_u64])
            .prop_map(|(key, value, ttl)| Act::Put { key, value, ttl }),
        2 => key.clone().prop_map(|key| Act::Delete { key }),
        1 => (key.clone(), key.clone()).prop_map(|(first, second)| Act::Pair { first, second }),
        2 => (key.clone(), key.clone(), 1..4_u32).prop_map(|(from, to, limit)| Act::Range { from, to, limit }),
        1 => key.clone().prop_map(|middle| Act::TwoRanges { middle }),
        2 => (key.clone(), any::<bool>(), any::<u8>())
            .prop_map(|(key, expect_present, value)| Act::Guarded { key, expect_present, value }),
        2 => (key, prop_oneof![3 => Just(0), 1 => 1..4_u64], any::<u8>())
            .prop_map(|(key, before, value)| Act::Swap { key, before, value }),
        1 => Just(Act::Repeat),
        1 => Just(Act::Late),
        2 => (1..4_u32).prop_map(|limit| Act::Expire { limit }),
        2 => (0..20_u64, 1..9_u32).prop_map(|(back, limit)| Act::Compact { back, limit }),
        1 => Just(Act::Acknowledge),
        1 => prop_oneof![1 => Just(Act::DropDoomed), 4 => (2..9_u32).prop_map(|limit| Act::Sweep { limit })],
    ];
    let cluster = prop_oneof![1 => Just("b"), 3 => Just("c"), 2 => Just("d")];
    prop::collection::vec((cluster, act), 1..60)
}

fn key(cluster: &str, n: u8) -> Key {
    Key::new(cluster, "", "things", "ns", &format!("k{n}")).expect("valid")
}

fn things(cluster: &str) -> KeyPrefix {
    KeyPrefix::resource(cluster, "", "things").expect("valid")
}

fn put(key: &Key, value: u8, ttl_ms: u64) -> Op {
    let value = format!(r#"{{"metadata":{{"resourceVersion":""}},"v":{value}}}"#);
    Put { key: key.bytes().clone(), value: value.into(), splice_at: 32, ttl_ms, ..Put::default() }.into()
}

const fn of(kind: command::Kind) -> Command {
    Command { kind: Some(kind) }
}

fn parsed(key: &bytes::Bytes) -> Key {
    Key::from_bytes(key.clone()).expect("valid")
}

/// What a user believes, changed only by what the outcomes say happened.
#[derive(Default)]
struct Model {
    /// Keys that were written and not deleted, due or not: their revision and expiry.
    there: BTreeMap<Key, (u64, u64)>,
    revision: u64,
    dropped: BTreeSet<String>,
    answered: BTreeMap<u64, Outcome>,
    /// Keys and their revisions at every revision at which a view can stand.
    states: BTreeMap<u64, BTreeMap<Key, u64>>,
}

impl Model {
    fn new() -> Self {
        Self { states: [(0, BTreeMap::new())].into(), ..Self::default() }
    }

    /// What is there and not due.
    fn live(&self, at: u64) -> BTreeMap<Key, u64> {
        let live = self.there.iter().filter(|(_, (_, expiry))| *expiry == 0 || *expiry > at);
        live.map(|(key, (revision, _))| (key.clone(), *revision)).collect()
    }

    fn next(&mut self) -> u64 {
        self.revision += 1;
        self.revision
    }

    fn stands(&mut self) {
        let state = self.there.iter().map(|(key, (revision, _))| (key.clone(), *revision)).collect();
        self.states.insert(self.revision, state);
    }

    fn txn(&mut self, at: u64, txn: &Txn, outcome: &Outcome) {
        let sequence = txn.request_id.expect("every model txn has an id").sequence;
        if let Some(first) = self.answered.get(&sequence) {
            if !matches!(outcome.result, Some(outcome::Result::Invalid(_))) {
                assert_eq!(first, outcome, "a repeat answers the first outcome");
            }
            return;
        }
        self.answered.insert(sequence, outcome.clone());
        let result = outcome.result.as_ref().expect("decided");
        if txn.expires_at_ms != 0 && at >= txn.expires_at_ms {
            assert!(matches!(result, outcome::Result::Expired(_)), "applied too late: {result:?}");
            return;
        }
        let touched = txn.ops.iter().map(cluster_of).chain(txn.compares.iter().map(|compare| cluster(&compare.key)));
        if touched.into_iter().any(|cluster| self.dropped.contains(&cluster)) {
            assert!(matches!(result, outcome::Result::Invalid(_)), "in a dropped cluster: {result:?}");
            return;
        }
        let live = self.live(at);
        for (index, compare) in (0..).zip(&txn.compares) {
            let found = live.get(&parsed(&compare.key)).copied().unwrap_or(0);
            let holds = match compare.condition.as_ref().expect("every model compare has a condition") {
                compare::Condition::Exists(wanted) => (found != 0) == *wanted,
                compare::Condition::ModRevision(wanted) => found == *wanted,
            };
            if !holds {
                let outcome::Result::Rejected(told) = result else {
                    panic!("applied although it must not: {result:?}")
                };
                assert_eq!((told.compare, told.mod_revision), (index, found));
                return;
            }
        }
        let outcome::Result::Applied(applied) = result else { panic!("refused although it holds: {result:?}") };
        assert_eq!(applied.first_revision, self.revision + 1, "revisions are consecutive");
        let mut ranges = applied.ranges.iter();
        for op in &txn.ops {
            match op.kind.as_ref().expect("every model op has a kind") {
                op::Kind::Put(put) => {
                    let expiry = if put.ttl_ms == 0 { 0 } else { at + put.ttl_ms };
                    let revision = self.next();
                    self.there.insert(parsed(&put.key), (revision, expiry));
                }
                op::Kind::Delete(delete) => {
                    self.next();
                    self.there.remove(&parsed(&delete.key));
                }
                op::Kind::DeleteRange(range) => {
                    let told = ranges.next().expect("one for each range");
                    let within = |key: &&Key| range.from <= *key.bytes() && *key.bytes() < range.to;
                    let doomed: Vec<&Key> = live.keys().filter(within).collect();
                    let limit = usize::try_from(range.limit).expect("small");
                    assert_eq!(usize::try_from(told.deleted).expect("small"), doomed.len().min(limit));
                    for key in doomed.iter().take(limit) {
                        self.next();
                        self.there.remove(*key);
                    }
                    // Where to go on is at or before the first key that is left, and behind what was deleted.
                    match doomed.get(limit) {
                        Some(left) => assert!(!told.next.is_empty() && told.next <= *left.bytes()),
                        None => assert!(told.next.is_empty() || doomed.len() == limit),
                    }
                    if let (false, Some(last)) = (told.next.is_empty(), doomed.iter().take(limit).next_back()) {
                        assert!(told.next > *last.bytes() && told.next < range.to);
                    }
                }
            }
        }
        assert_eq!(self.revision, applied.last_revision, "an operation takes a revision");
        self.stands();
    }

    /// What is due goes in (expiry, key) order, each at a revision of its own.
    fn expire(&mut self, at: u64, limit: u32) -> Vec<(Revision, Key)> {
        let due = self.there.iter().filter(|(_, (_, expiry))| *expiry != 0 && *expiry <= at);
        let mut due: Vec<(u64, Key)> = due.map(|(key, (_, expiry))| (*expiry, key.clone())).collect();
        due.sort();
        due.truncate(usize::try_from(limit).expect("small"));
        let mut gone = Vec::new();
        for (_, key) in due {
            self.there.remove(&key);
            gone.push((Revision::new(self.next()), key));
            self.stands();
        }
        gone
    }
}

fn cluster(key: &[u8]) -> String {
    let end = key.iter().position(|byte| *byte == 0).expect("a key begins with its cluster");
    String::from_utf8(key[..end].to_vec()).expect("text")
}

fn cluster_of(op: &Op) -> String {
    match op.kind.as_ref().expect("every model op has a kind") {
        op::Kind::DeleteRange(range) => cluster(&range.from),
        _ => cluster(op.key()),
    }
}

/// A machine and its model, and all that came of what they were given.
struct World {
    store: Arc<MemoryStore>,
    machine: Machine<MemoryStore>,
    model: Model,
    inputs: Vec<Input>,
    published: Vec<Arc<Event>>,
    sequence: u64,
    last: Option<Command>,
    /// Rows an audit reads after every entry.
    stride: usize,
    audits: u32,
}

impl World {
    fn new(recent_bytes: usize, stride: usize) -> Self {
        let store = Arc::new(MemoryStore::new());
        let machine = Machine::open(Arc::clone(&store)).expect("opens").with_recent_bytes(recent_bytes);
        let (model, inputs, published) = (Model::new(), Vec::new(), Vec::new());
        let mut world = Self { store, machine, model, inputs, published, sequence: 0, last: None, stride, audits: 0 };
        world.apply(of(command::Kind::RegisterSession(RegisterSession { session: SESSION, replica: 1 })));
        world
    }

    fn after(acts: &[(&'static str, Act)]) -> Self {
        let mut world = Self::new(1_000, 10);
        for (cluster, act) in acts {
            world.act(cluster, act);
        }
        world
    }

    fn act(&mut self, cluster: &str, act: &Act) {
        let command = self.command(cluster, act);
        self.apply(command);
        if matches!(act, Act::Compact { .. } | Act::Sweep { .. } | Act::DropDoomed) {
            self.every_revision_reads_as_it_was();
        }
    }

    fn command(&mut self, cluster: &str, act: &Act) -> Command {
        let key = |n: u8| key(cluster, n);
        let mut expires_at_ms = 0;
        let (compares, ops) = match act {
            Act::Put { key: n, value, ttl } => (vec![], vec![put(&key(*n), *value, *ttl)]),
            Act::Delete { key: n } => (vec![], vec![Op::delete(&key(*n))]),
            Act::Pair { first, second } => (vec![], vec![put(&key(*first), 1, 0), Op::delete(&key(*second))]),
            Act::Range { from, to, limit } => {
                let (from, to) = (key(*from.min(to)), key(*from.max(to) + 1));
                let range = Op::delete_range(from.bytes().clone(), to.bytes().clone(), *limit);
                (vec![], vec![put(&key(8), 2, 0), range, Op::delete(&key(9))])
            }
            Act::TwoRanges { middle } => {
                let (all, middle) = (things(cluster), key(*middle).bytes().clone());
                let upper = Op::delete_range(middle.clone(), all.end(), 2);
                (vec![], vec![upper, Op::delete_range(all.bytes().clone(), middle, 1)])
            }
            Act::Guarded { key: n, expect_present, value } => {
                let key = key(*n);
                let compare = if *expect_present { Compare::exists(&key) } else { Compare::absent(&key) };
                (vec![compare], vec![put(&key, *value, 0)])
            }
            Act::Swap { key: n, before, value } => {
                let key = key(*n);
                let written = self.model.there.get(&key).map_or(0, |(revision, _)| *revision);
                let compare = Compare::at(&key, Revision::new(written.saturating_sub(*before)));
                (vec![compare], vec![put(&key, *value, 0)])
            }
            Act::Late => {
                expires_at_ms = 1;
                (vec![], vec![put(&key(0), 0, 0)])
            }
            Act::Repeat => match &self.last {
                Some(last) => return last.clone(),
                None => (vec![], vec![]),
            },
            Act::Expire { limit } => return of(command::Kind::Expire(Expire { limit: *limit })),
            Act::Compact { back, limit } => {
                let (cluster, floor) = (cluster.to_owned(), self.model.revision.saturating_sub(*back));
                return of(command::Kind::Compact(Compact { cluster, floor, limit: *limit }));
            }
            Act::Acknowledge => {
                let acknowledge = Acknowledge { session: SESSION, answered_below: self.sequence };
                return of(command::Kind::Acknowledge(acknowledge));
            }
            Act::DropDoomed => return of(command::Kind::DropCluster(DropCluster { cluster: DOOMED.into() })),
            Act::Sweep { limit } => return of(command::Kind::Sweep(Sweep { limit: *limit })),
        };
        self.sequence += 1;
        let request_id = Some(RequestId { session: SESSION, sequence: self.sequence });
        let command = Command::from(Txn { request_id, expires_at_ms, ..Txn::new(compares, ops) });
        self.last = Some(command.clone());
        command
    }

    /// Applies one entry, with time moving on by three milliseconds, and compares what came of it.
    fn apply(&mut self, command: Command) {
        let index = u64::try_from(self.inputs.len()).expect("few") + 1;
        let at_ms = 10 + index * 3;
        let position = Position { index, term: 1, leader: 1 };
        let payload = Payload::Entry(Entry { at_ms, wall_ms: index, commands: vec![command.clone()] });
        let input = Input { position, payload };
        let before = self.machine.horizon();
        let applied = self.machine.apply(std::slice::from_ref(&input)).expect("applies");
        self.inputs.push(input);
        // An audit reads a row or two after every entry, and finds what apply has written.
        if let Stride::Done(Audited { kept, found, .. }) =
            self.machine.audit().step(&*self.store, self.stride).expect("readable")
        {
            assert_eq!(kept, found);
            self.audits += 1;
        }
        let horizon = self.machine.horizon();
        let mut floors = (*before.floors).clone();
        match command.kind.expect("every model command has a kind") {
            command::Kind::Txn(txn) => self.model.txn(at_ms, &txn, &applied.outcomes[0].outcome),
            command::Kind::Expire(expire) => {
                let gone = self.model.expire(at_ms, expire.limit);
                let told: Vec<_> = applied.events.iter().map(|event| (event.revision, event.key.clone())).collect();
                assert_eq!(told, gone, "in (expiry, key) order");
                assert!(applied.events.iter().all(|event| event.kind == EventKind::Delete));
                assert!(applied.events.iter().all(|event| event.txn_end == event.revision));
            }
            command::Kind::Compact(compact) => {
                let floor = before.floor(&compact.cluster).get();
                let target = compact.floor.min(self.model.revision);
                if target > floor && !self.model.dropped.contains(&compact.cluster) {
                    let passed = self.published.iter().filter(|event| event.key.parts().cluster == compact.cluster);
                    let passed: Vec<u64> = passed
                        .map(|event| event.revision.get())
                        .filter(|revision| (floor + 1..=target).contains(revision))
                        .collect();
                    let limit = usize::try_from(compact.limit).expect("small");
                    let reached = if passed.len() > limit { passed[limit - 1] } else { target };
                    floors.insert(compact.cluster, reached);
                }
            }
            command::Kind::DropCluster(DropCluster { cluster }) => {
                let first = self.model.dropped.insert(cluster.clone());
                assert_eq!(applied.dropped, if first { vec![cluster] } else { vec![] });
            }
            command::Kind::Sweep(_) => {
                let Model { there, dropped, .. } = &mut self.model;
                let stored = |key: &Key, revision: u64| {
                    let row = row::version(key.bytes(), Revision::new(revision));
                    self.store.get(Family::Versions, &row).expect("readable").is_some()
                };
                there.retain(|key, (revision, _)| !dropped.contains(key.parts().cluster) || stored(key, *revision));
            }
            command::Kind::RegisterSession(_) | command::Kind::Acknowledge(_) => {}
        }
        self.published.extend(applied.events);
        assert_eq!(*horizon.floors, floors, "floors are raised by compaction, each by its own");
        assert_eq!(horizon.revision.get(), self.model.revision);
        assert_eq!(*horizon.dropped, self.model.dropped);
        assert_eq!(self.machine.live_keys(), u64::try_from(self.model.there.len()).expect("few"));
        assert_eq!(invariant::violations(&*self.store).expect("readable"), Vec::<String>::new());
        self.the_newest_state_is_the_models(at_ms);
    }

    fn the_newest_state_is_the_models(&self, at_ms: u64) {
        let horizon = self.machine.horizon();
        let live = self.model.live(at_ms);
        for cluster in CLUSTERS {
            compare_view(&View::newest(&*self.store, &horizon), cluster, &self.model.dropped, &live);
        }
    }

    /// Every revision at or above a cluster's floor reads exactly as it was; below it, and once the cluster is dropped,
    /// nothing does.
    fn every_revision_reads_as_it_was(&self) {
        let horizon = self.machine.horizon();
        for cluster in CLUSTERS {
            let floor = horizon.floor(cluster);
            for (revision, state) in &self.model.states {
                let revision = Revision::new(*revision);
                let view = View::new(&*self.store, &horizon, revision, Expiring::UntilDeleted);
                if revision < floor && !self.model.dropped.contains(cluster) {
                    let told = view.get(&key(cluster, 0)).expect_err("below the floor");
                    assert!(matches!(told, ViewError::Compacted { floor: said, .. } if said == floor), "{told}");
                    let told = pages(&view, cluster).expect_err("below the floor");
                    assert!(matches!(told, ViewError::Compacted { .. }), "{told}");
                } else {
                    compare_view(&view, cluster, &self.model.dropped, state);
                }
            }
        }
    }

    /// History gives the published events again, from every floor on.
    fn history_gives_the_events_again(&self) {
        let horizon = self.machine.horizon();
        let view = View::newest(&*self.store, &horizon);
        for cluster in CLUSTERS {
            let floor = horizon.floor(cluster);
            if self.model.dropped.contains(cluster) {
                assert!(matches!(view.changes(cluster, floor, 2), Err(ViewError::Dropped)));
                continue;
            }
            let mut read = Vec::new();
            let mut after = floor;
            while after < horizon.revision {
                let (events, complete) = view.changes(cluster, after, 2).expect("in the window");
                assert!(complete > after);
                assert!(events.last().is_none_or(|event| event.txn_end <= complete));
                read.extend(events);
                after = complete;
            }
            let kept = self.published.iter().filter(|event| event.revision > floor);
            let kept: Vec<Event> =
                kept.filter(|event| event.key.parts().cluster == cluster).map(|event| (**event).clone()).collect();
            assert_eq!(read, kept);
            assert!(read.iter().all(|event| (event.kind == EventKind::Create) == event.previous.is_none()));
        }
    }

    /// Sweeping comes to an end, and then nothing of a dropped cluster is left.
    fn sweep_to_the_end(&mut self) {
        let is_left = |world: &Self| {
            let dump = world.store.dump();
            let count =
                |family| dump.get(&family).map_or(0, |rows| rows.keys().filter(|row| row.starts_with(b"d\0")).count());
            let expiring = dump
                .get(&Family::Expiry)
                .map_or(0, |rows| rows.keys().filter(|row| row[8..].starts_with(b"d\0")).count());
            count(Family::Versions) + count(Family::Changes) + expiring
        };
        while let left @ 1.. = is_left(self) {
            self.apply(of(command::Kind::Sweep(Sweep { limit: 7 })));
            assert!(is_left(self) < left, "a sweep gives space back");
        }
    }
}

/// A view against what it should show of a cluster, asked for key by key and in pages of two.
fn compare_view(
    view: &View<'_, MemoryStore>,
    cluster: &str,
    dropped: &BTreeSet<String>,
    expected: &BTreeMap<Key, u64>,
) {
    if dropped.contains(cluster) {
        assert!(matches!(view.get(&key(cluster, 0)), Err(ViewError::Dropped)));
        assert!(matches!(pages(view, cluster), Err(ViewError::Dropped)));
        return;
    }
    let expected: BTreeMap<&Key, u64> = expected
        .iter()
        .filter(|(key, _)| key.parts().cluster == cluster)
        .map(|(key, revision)| (key, *revision))
        .collect();
    let found = pages(view, cluster).expect("in the window");
    assert_eq!(found.iter().map(|(key, revision)| (key, *revision)).collect::<BTreeMap<_, _>>(), expected);
    for key in (0..KEYS).map(|n| key(cluster, n)) {
        let record = view.get(&key).expect("in the window");
        assert_eq!(record.map(|record| record.mod_revision), expected.get(&key).copied(), "get and scan agree");
    }
}

fn pages(view: &View<'_, MemoryStore>, cluster: &str) -> Result<BTreeMap<Key, u64>, ViewError> {
    let mut all = BTreeMap::new();
    let mut after = None;
    loop {
        let page = view.scan(&things(cluster), after.as_ref(), Limit { records: 2, bytes: 1 << 20 })?;
        after = page.records.last().map(|(key, _)| key.clone());
        for (key, record) in page.records {
            let text = String::from_utf8(record.value.to_vec()).expect("text");
            assert!(text.contains(&format!(r#""resourceVersion":"{}""#, record.mod_revision)), "{text}");
            assert!(all.insert(key, record.mod_revision).is_none(), "a key is on one page");
        }
        if !page.more {
            return Ok(all);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn machine_agrees_with_the_model(acts in acts(), batch in 1..7_usize, recent_bytes in 0..2_000_usize, page in 1..400_usize) {
        let mut world = World::new(recent_bytes, page);
        for (cluster, act) in &acts {
            world.act(cluster, act);
        }
        if world.model.dropped.contains(DOOMED) {
            world.sweep_to_the_end();
        }
        world.every_revision_reads_as_it_was();
        world.history_gives_the_events_again();

        let World { store, machine, inputs, audits, .. } = &world;
        prop_assert!(*audits > 0 || inputs.len() < 60 || page < 300, "audits come to an end");
        let audited = audit(&**store).expect("readable");
        prop_assert!(audited.fits() && audited.kept == machine.hash());

        // Replay in other batches, with other bytes at hand and a reopen in the middle, gives the same rows.
        let again = Arc::new(MemoryStore::new());
        let mut replay = Machine::open(Arc::clone(&again)).expect("opens");
        for (n, chunk) in inputs.chunks(batch).enumerate() {
            if n == 2 {
                replay = Machine::open(Arc::clone(&again)).expect("reopens");
            }
            replay.apply(chunk).expect("applies");
        }
        prop_assert_eq!(replay.hash(), machine.hash());
        if batch == 1 {
            prop_assert_eq!(again.dump(), store.dump());
        }
    }

    /// A new epoch begins with the same objects and nothing else of the old one: no history below it, no session, no
    /// key that was to be forgotten; and it goes on like any state.
    #[test]
    fn a_new_epoch_keeps_the_objects_only(acts in acts(), forgotten in 0..6_u8, jump in 0..200_u64) {
        let World { store, machine, model, .. } = World::after(&acts);
        let before = machine.horizon();
        let forgotten = key("c", forgotten);
        let mut expected = model.live(before.cluster_time_ms);
        expected.remove(&forgotten);

        let position = Position { index: 5_000, term: 9, leader: 0 };
        let forget = |candidate: &Key| *candidate == forgotten;
        let refounding = Refounding { revision: Revision::new(jump), position, membership: "m".into(), forget: &forget };
        let done = refound(&*store, &refounding).expect("refounds");
        prop_assert_eq!(invariant::violations(&*store).expect("readable"), Vec::<String>::new());
        prop_assert_eq!(done.revision, Revision::new(jump).max(before.revision.next()));

        let mut machine = Machine::open(Arc::clone(&store)).expect("opens");
        prop_assert_eq!(machine.position(), Some(position));
        prop_assert_eq!(machine.membership(), &bytes::Bytes::from("m"));
        prop_assert_eq!(done.live_keys, machine.live_keys());
        prop_assert!(!machine.session_is_open(SESSION));
        let horizon = machine.horizon();
        prop_assert_eq!(horizon.revision, done.revision);
        prop_assert_eq!(&*horizon.dropped, &model.dropped);
        let view = View::newest(&*store, &horizon);
        for cluster in CLUSTERS {
            compare_view(&view, cluster, &model.dropped, &expected);
            if expected.keys().any(|key| key.parts().cluster == cluster) {
                prop_assert_eq!(horizon.floor(cluster), done.revision);
                prop_assert!(view.changes(cluster, before.revision, 1).is_err(), "history of the old epoch is gone");
            }
        }

        let next = Command::from(Txn::new(vec![], vec![put(&key("c", 0), 7, 0)]));
        let entry = Entry { at_ms: horizon.cluster_time_ms, wall_ms: 1, commands: vec![next] };
        let position = Position { index: position.index + 1, ..position };
        let applied = machine.apply(&[Input { position, payload: Payload::Entry(entry) }]).expect("goes on");
        prop_assert_eq!(applied.events[0].revision, done.revision.next());
        prop_assert_eq!(invariant::violations(&*store).expect("readable"), Vec::<String>::new());
    }
}
