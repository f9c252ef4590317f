//! What a revision is: a key that expires is part of it until the revision that deletes it, on every replica and however
//! late it is read; only the newest state leaves it out from the moment it is due.

use std::sync::Arc;

use quilt_proto::state::{Expire, command, outcome};
use quilt_proto::{Command, Compare, Entry, Key, KeyPrefix, Op, Put, Revision, Txn};
use quilt_state::{Expiring, Horizon, Input, Limit, Machine, MemoryStore, Payload, Position, View};

struct Replica {
    store: Arc<MemoryStore>,
    machine: Machine<MemoryStore>,
    index: u64,
}

impl Replica {
    fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        Self { machine: Machine::open(Arc::clone(&store)).expect("opens"), store, index: 0 }
    }

    /// Applies an entry of one command at a moment of cluster time, and gives the outcome if it has one.
    fn apply(&mut self, at_ms: u64, command: impl Into<Command>) -> Option<outcome::Result> {
        self.index += 1;
        let entry = Entry { at_ms, wall_ms: 0, commands: vec![command.into()] };
        let position = Position { index: self.index, term: 1, leader: 1 };
        let mut applied = self.machine.apply(&[Input { position, payload: Payload::Entry(entry) }]).expect("applies");
        applied.outcomes.pop().and_then(|outcome| outcome.outcome.result)
    }

    fn horizon(&self) -> Horizon {
        self.machine.horizon()
    }

    /// Names on the pages of one record each, the first of them taken now, the others by the caller.
    fn page(&self, revision: Revision, expiring: Expiring, after: Option<&Key>) -> (Option<Key>, bool) {
        let horizon = self.horizon();
        let view = View::new(&*self.store, &horizon, revision, expiring);
        let page = view.scan(&things(), after, Limit { records: 1, bytes: 1 << 20 }).expect("in the window");
        (page.records.into_iter().next().map(|(key, _)| key), page.more)
    }

    /// All that is there at a revision, page by page, and the same by asking for each key.
    fn at(&self, revision: Revision) -> Vec<Key> {
        let (mut keys, mut after) = (Vec::new(), None);
        loop {
            let (key, more) = self.page(revision, Expiring::UntilDeleted, after.as_ref());
            keys.extend(key.clone());
            if !more {
                break;
            }
            after = key;
        }
        let horizon = self.horizon();
        let view = View::new(&*self.store, &horizon, revision, Expiring::UntilDeleted);
        let asked: Vec<Key> = all().into_iter().filter(|key| view.get(key).expect("in the window").is_some()).collect();
        assert_eq!(keys, asked, "get and scan agree");
        keys
    }

    fn newest(&self) -> Vec<Key> {
        let horizon = self.horizon();
        let view = View::newest(&*self.store, &horizon);
        let page = view.scan(&things(), None, Limit { records: 10, bytes: 1 << 20 }).expect("in the window");
        page.records.into_iter().map(|(key, _)| key).collect()
    }
}

fn things() -> KeyPrefix {
    KeyPrefix::resource("c", "", "things").expect("valid")
}

fn key(name: &str) -> Key {
    Key::new("c", "", "things", "ns", name).expect("valid")
}

fn all() -> Vec<Key> {
    ["a", "b", "lent", "z"].into_iter().map(key).collect()
}

fn put(name: &str, ttl_ms: u64) -> Txn {
    Txn::new(vec![], vec![Put { key: key(name).bytes().clone(), value: "{}".into(), ttl_ms, ..Put::default() }.into()])
}

fn expire() -> Command {
    Command { kind: Some(command::Kind::Expire(Expire { limit: 10 })) }
}

/// Until cluster time 100, `lent` is there; it is deleted at revision 5.
fn begin(replica: &mut Replica) -> Revision {
    for (name, ttl_ms) in [("a", 0), ("b", 0), ("lent", 90)] {
        replica.apply(10, put(name, ttl_ms));
    }
    replica.horizon().revision
}

/// A list that stands at a revision shows all of it on its later pages too, however much time has passed between them, and
/// so does another replica, which has applied less or more.
#[test]
fn later_pages_stand_where_the_first_did() {
    let (mut early, mut late) = (Replica::new(), Replica::new());
    let revision = begin(&mut early);
    assert_eq!(begin(&mut late), revision);
    let (first, more) = early.page(revision, Expiring::UntilDeleted, None);
    assert!(first == Some(key("a")) && more);
    // It is due, and nobody has deleted it yet.
    late.apply(150, put("z", 0));
    assert_eq!(late.page(revision, Expiring::UntilDeleted, Some(&key("b"))).0, Some(key("lent")));
    let due = late.horizon().revision;
    assert_eq!(late.at(due), all(), "what was written up to there");
    late.apply(151, expire());
    assert_eq!(late.horizon().revision, due.next());
    assert_eq!(late.at(due.next()), ["a", "b", "z"].map(key));
    for replica in [&early, &late] {
        assert_eq!(replica.at(revision), ["a", "b", "lent"].map(key));
    }
    assert_eq!(late.at(due), all(), "a revision stays as it was");
}

/// Who asks for the newest state is told that a key is gone as soon as it is due, also when no revision was assigned since;
/// and a view that was taken then goes on to say so, whatever is written behind it.
#[test]
fn the_newest_state_hides_what_is_due() {
    let mut replica = Replica::new();
    let revision = begin(&mut replica);
    replica.apply(99, Txn::new(vec![Compare::absent(&key("a"))], vec![]));
    assert_eq!(replica.newest(), ["a", "b", "lent"].map(key), "a millisecond is left");
    replica.apply(100, Txn::new(vec![Compare::absent(&key("a"))], vec![]));
    assert_eq!((replica.newest(), replica.horizon().revision), (["a", "b"].map(key).to_vec(), revision));
    let taken = Expiring::UntilDueAt(replica.horizon().cluster_time_ms);
    replica.apply(101, put("z", 0));
    let horizon = replica.horizon();
    let view = View::new(&*replica.store, &horizon, revision, taken);
    assert_eq!(view.get(&key("lent")).expect("in the window"), None);
    assert_eq!(replica.page(revision, taken, Some(&key("b"))).0, None);
}

/// Transactions see the newest state: to them a key that is due is absent, by whatever it is asked for, and its revision of
/// before counts no more.
#[test]
fn compares_hide_what_is_due() {
    let lent = key("lent");
    let compares = |revision: u64| [Compare::exists(&lent), Compare::at(&lent, Revision::new(revision))];
    let mut replica = Replica::new();
    let revision = begin(&mut replica);
    for (at_ms, there) in [(99, true), (100, false)] {
        for compare in compares(revision.get()) {
            let told = replica.apply(at_ms, Txn::new(vec![compare], vec![])).expect("decided");
            assert_eq!(matches!(told, outcome::Result::Applied(_)), there, "{told:?}");
        }
    }
    let again = Txn::new(vec![Compare::absent(&lent)], put("lent", 0).ops);
    assert!(matches!(replica.apply(100, again), Some(outcome::Result::Applied(_))));
    assert_eq!(replica.at(revision), ["a", "b", "lent"].map(key));
    let told = replica.apply(101, Txn::new(vec![], vec![Op::delete(&lent)]));
    assert!(matches!(told, Some(outcome::Result::Applied(_))));
    assert_eq!(replica.at(revision.next()), ["a", "b", "lent"].map(key), "written anew");
}
