//! The machine against a naive model: any sequence of commands gives the same outcomes, rows that agree with each
//! other, the same bytes when replayed in other batches, and history that leads from any revision to the present.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use quilt_proto::state::{Acknowledge, Compact, Expire, RegisterSession, command, outcome};
use quilt_proto::{Command, Compare, Entry, EventKind, Key, KeyPrefix, Op, Put, RequestId, Revision, Txn};
use quilt_state::{
    Audited, Input, Limit, Machine, MemoryStore, Payload, Position, Refounding, Stride, View, audit::audit, invariant,
    refound,
};

#[derive(Clone, Debug)]
enum Act {
    Put { key: u8, value: u8, ttl: u64 },
    Delete { key: u8 },
    Pair { first: u8, second: u8 },
    Range { from: u8, to: u8, limit: u32 },
    TwoRanges { middle: u8 },
    Guarded { key: u8, expect_present: bool, value: u8 },
    Repeat,
    Late,
    Expire,
    Compact { back: u64 },
    Acknowledge,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let key = 0..6_u8;
    prop::collection::vec(
        prop_oneof![
            4 => (key.clone(), any::<u8>(), prop_oneof![Just(0), 1..20_u64])
                .prop_map(|(key, value, ttl)| Act::Put { key, value, ttl }),
            2 => key.clone().prop_map(|key| Act::Delete { key }),
            1 => (key.clone(), key.clone()).prop_map(|(first, second)| Act::Pair { first, second }),
            2 => (key.clone(), key.clone(), 1..4_u32).prop_map(|(from, to, limit)| Act::Range { from, to, limit }),
            1 => key.clone().prop_map(|middle| Act::TwoRanges { middle }),
            2 => (key, any::<bool>(), any::<u8>())
                .prop_map(|(key, expect_present, value)| Act::Guarded { key, expect_present, value }),
            1 => Just(Act::Repeat),
            1 => Just(Act::Late),
            1 => Just(Act::Expire),
            1 => (0..10_u64).prop_map(|back| Act::Compact { back }),
            1 => Just(Act::Acknowledge),
        ],
        1..60,
    )
}

fn key(n: u8) -> Key {
    Key::new("c", "", "things", "ns", &format!("k{n}")).expect("valid")
}

fn put(n: u8, value: u8, ttl_ms: u64) -> Op {
    let value = format!(r#"{{"metadata":{{"resourceVersion":""}},"v":{value}}}"#);
    Put { key: key(n).bytes().clone(), value: value.into(), splice_at: 32, ttl_ms, ..Put::default() }.into()
}

const SESSION: u64 = 77;

/// Turns acts into entries, one each, with time moving on by three milliseconds.
fn entries(acts: &[Act]) -> Vec<Input> {
    let register = command::Kind::RegisterSession(RegisterSession { session: SESSION, replica: 1 });
    let mut commands = vec![Command { kind: Some(register) }];
    let (mut sequence, mut revision_guess) = (0, 0_u64);
    let mut last: Option<Command> = None;
    for act in acts {
        let mut txn = |compares, ops: Vec<Op>, expires_at_ms| {
            sequence += 1;
            revision_guess += u64::try_from(ops.len()).expect("small");
            let request_id = Some(RequestId { session: SESSION, sequence });
            Command::from(Txn { request_id, expires_at_ms, ..Txn::new(compares, ops) })
        };
        let command = match act {
            Act::Put { key, value, ttl } => txn(vec![], vec![put(*key, *value, *ttl)], 0),
            Act::Delete { key } => txn(vec![], vec![Op::delete(&self::key(*key))], 0),
            Act::Pair { first, second } => txn(vec![], vec![put(*first, 1, 0), Op::delete(&key(*second))], 0),
            Act::Range { from, to, limit } => {
                let (from, to) = (key(*from.min(to)), key(*from.max(to) + 1));
                let range = Op::delete_range(from.bytes().clone(), to.bytes().clone(), *limit);
                txn(vec![], vec![put(8, 2, 0), range, Op::delete(&key(9))], 0)
            }
            Act::TwoRanges { middle } => {
                let all = KeyPrefix::resource("c", "", "things").expect("valid");
                let middle = key(*middle).bytes().clone();
                let upper = Op::delete_range(middle.clone(), all.end(), 2);
                txn(vec![], vec![upper, Op::delete_range(all.bytes().clone(), middle, 1)], 0)
            }
            Act::Guarded { key, expect_present, value } => {
                let key_bytes = self::key(*key);
                let compare = if *expect_present { Compare::exists(&key_bytes) } else { Compare::absent(&key_bytes) };
                txn(vec![compare], vec![put(*key, *value, 0)], 0)
            }
            Act::Repeat => last.clone().unwrap_or_else(|| txn(vec![], vec![], 0)),
            Act::Late => txn(vec![], vec![put(0, 0, 0)], 1),
            Act::Expire => Command { kind: Some(command::Kind::Expire(Expire { limit: 3 })) },
            Act::Compact { back } => {
                let floor = revision_guess.saturating_sub(*back);
                let compact = Compact { cluster: "c".into(), floor, limit: 4 };
                Command { kind: Some(command::Kind::Compact(compact)) }
            }
            Act::Acknowledge => {
                let acknowledge = Acknowledge { session: SESSION, answered_below: sequence };
                Command { kind: Some(command::Kind::Acknowledge(acknowledge)) }
            }
        };
        if matches!(command.kind, Some(command::Kind::Txn(_))) {
            last = Some(command.clone());
        }
        commands.push(command);
    }
    (1..)
        .zip(commands)
        .map(|(index, command)| Input {
            position: Position { index, term: 1, leader: 1 },
            payload: Payload::Entry(Entry { at_ms: 10 + index * 3, wall_ms: index, commands: vec![command] }),
        })
        .collect()
}

/// What a user believes: key → (value bytes, expiry), changed only by what the outcomes say happened.
#[derive(Default)]
struct Model {
    live: BTreeMap<Key, (u64, u64)>,
    answered: BTreeMap<u64, quilt_proto::Outcome>,
}

impl Model {
    fn apply(&mut self, at: u64, txn: &Txn, outcome: &quilt_proto::Outcome) {
        let sequence = txn.request_id.expect("every model txn has an id").sequence;
        if let Some(first) = self.answered.get(&sequence) {
            if !matches!(outcome.result, Some(outcome::Result::Invalid(_))) {
                assert_eq!(first, outcome, "a repeat answers the first outcome");
            }
            return;
        }
        self.answered.insert(sequence, outcome.clone());
        self.live.retain(|_, (_, expiry)| *expiry == 0 || *expiry > at);
        let expected = txn.expires_at_ms == 0 || at < txn.expires_at_ms;
        let holds = txn.compares.iter().all(|compare| {
            let present = self.live.contains_key(&Key::from_bytes(compare.key.clone()).expect("valid"));
            match compare.condition {
                Some(quilt_proto::compare::Condition::Exists(wanted)) => present == wanted,
                Some(quilt_proto::compare::Condition::ModRevision(0)) => !present,
                _ => unreachable!("the model uses only these"),
            }
        });
        match &outcome.result {
            Some(outcome::Result::Applied(applied)) => {
                assert!(expected && holds, "applied although it must not");
                let mut revisions = applied.first_revision..;
                let mut revision = || revisions.next().expect("endless");
                let mut ranges = applied.ranges.iter();
                let there = self.live.clone();
                for op in &txn.ops {
                    let key = || Key::from_bytes(bytes::Bytes::copy_from_slice(op.key())).expect("valid");
                    match op.kind.as_ref().expect("every model op has a kind") {
                        quilt_proto::op::Kind::Put(put) => {
                            let expiry = if put.ttl_ms == 0 { 0 } else { at + put.ttl_ms };
                            self.live.insert(key(), (revision(), expiry));
                        }
                        quilt_proto::op::Kind::Delete(_) => {
                            revision();
                            self.live.remove(&key());
                        }
                        quilt_proto::op::Kind::DeleteRange(range) => {
                            let told = ranges.next().expect("one for each range");
                            let within = |key: &&Key| range.from <= *key.bytes() && *key.bytes() < range.to;
                            let doomed: Vec<&Key> = there.keys().filter(within).collect();
                            let limit = usize::try_from(range.limit).expect("small");
                            assert_eq!(usize::try_from(told.deleted).expect("small"), doomed.len().min(limit));
                            for key in doomed.iter().take(limit) {
                                revision();
                                self.live.remove(*key);
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
                assert_eq!(revision(), applied.last_revision + 1, "revisions are consecutive");
            }
            Some(outcome::Result::Rejected(_)) => assert!(expected && !holds),
            Some(outcome::Result::Expired(_)) => assert!(!expected),
            other => panic!("unexpected outcome {other:?}"),
        }
    }
}

fn live(store: &MemoryStore, machine: &Machine<MemoryStore>, revision: Revision) -> BTreeMap<Key, u64> {
    let horizon = machine.horizon();
    let view = View::new(store, &horizon, revision);
    let mut all = BTreeMap::new();
    let prefix = KeyPrefix::resource("c", "", "things").expect("valid");
    let mut after = None;
    loop {
        let page = view.scan(&prefix, after.as_ref(), Limit { records: 2, bytes: 1 << 20 }).expect("readable");
        after = page.records.last().map(|(key, _)| key.clone());
        for (key, record) in page.records {
            assert_eq!(view.get(&key).expect("readable").as_ref(), Some(&record), "get and scan agree");
            let text = String::from_utf8(record.value.to_vec()).expect("text");
            assert!(text.contains(&format!(r#""resourceVersion":"{}""#, record.mod_revision)), "{text}");
            all.insert(key, record.mod_revision);
        }
        if !page.more {
            return all;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn machine_agrees_with_the_model(acts in acts(), batch in 1..7_usize, recent_bytes in 0..2_000_usize, page in 1..400_usize) {
        let inputs = entries(&acts);
        let store = Arc::new(MemoryStore::new());
        let mut machine = Machine::open(Arc::clone(&store)).expect("opens").with_recent_bytes(recent_bytes);
        let mut model = Model::default();
        let (mut published, mut audits) = (Vec::new(), 0_u32);
        for input in &inputs {
            let applied = machine.apply(std::slice::from_ref(input)).expect("applies");
            // An audit reads a row or two after every entry, and finds what apply has written.
            if let Stride::Done(Audited { kept, found, .. }) = machine.audit().step(&*store, page).expect("readable") {
                prop_assert_eq!(kept, found);
                audits += 1;
            }
            let Payload::Entry(entry) = &input.payload else { unreachable!() };
            for (command, outcome) in entry.commands.iter().zip(&applied.outcomes) {
                let Some(command::Kind::Txn(txn)) = &command.kind else { unreachable!("outcomes are of txns") };
                model.apply(entry.at_ms, txn, &outcome.outcome);
            }
            published.extend(applied.events);
            prop_assert_eq!(invariant::violations(&*store).expect("readable"), Vec::<String>::new());
        }

        prop_assert!(audits > 0 || inputs.len() < 60 || page < 300, "audits come to an end");
        let audited = audit(&*store).expect("readable");
        prop_assert!(audited.fits() && audited.kept == machine.hash());

        // The state is what the model believes.
        let now = machine.horizon().cluster_time_ms;
        model.live.retain(|_, (_, expiry)| *expiry == 0 || *expiry > now);
        let revision = machine.horizon().revision;
        let expected: BTreeMap<Key, u64> = model.live.iter().map(|(key, (revision, _))| (key.clone(), *revision)).collect();
        prop_assert_eq!(live(&store, &machine, revision), expected);

        // History gives the published events again, from every revision that still stands.
        let horizon = machine.horizon();
        let floor = horizon.floor("c");
        let view = View::new(&*store, &horizon, revision);
        let mut read = Vec::new();
        let mut after = floor;
        while after < revision {
            let (events, complete) = view.changes("c", after, 2).expect("in the window");
            prop_assert!(complete > after);
            prop_assert!(events.last().is_none_or(|event| event.txn_end <= complete));
            read.extend(events);
            after = complete;
        }
        let kept: Vec<_> = published.iter().filter(|event| event.revision > floor).map(|event| (**event).clone()).collect();
        prop_assert_eq!(&read, &kept);
        prop_assert!(read.iter().all(|event| (event.kind == EventKind::Create) == event.previous.is_none()));

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
        let store = Arc::new(MemoryStore::new());
        let mut machine = Machine::open(Arc::clone(&store)).expect("opens");
        machine.apply(&entries(&acts)).expect("applies");
        let before = machine.horizon();
        let mut expected = live(&store, &machine, before.revision);
        expected.remove(&key(forgotten));

        let position = Position { index: 5_000, term: 9, leader: 0 };
        let forget = |candidate: &Key| *candidate == key(forgotten);
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
        prop_assert_eq!(live(&store, &machine, horizon.revision), expected.clone());
        if !expected.is_empty() {
            prop_assert_eq!(horizon.floor("c"), done.revision);
            let view = View::new(&*store, &horizon, horizon.revision);
            prop_assert!(view.changes("c", before.revision, 1).is_err(), "history of the old epoch is gone");
        }

        let next = Command::from(Txn::new(vec![], vec![put(0, 7, 0)]));
        let entry = Entry { at_ms: horizon.cluster_time_ms, wall_ms: 1, commands: vec![next] };
        let position = Position { index: position.index + 1, ..position };
        let applied = machine.apply(&[Input { position, payload: Payload::Entry(entry) }]).expect("goes on");
        prop_assert_eq!(applied.events[0].revision, done.revision.next());
        prop_assert_eq!(invariant::violations(&*store).expect("readable"), Vec::<String>::new());
    }
}
