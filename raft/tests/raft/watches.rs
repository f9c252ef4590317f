//! What every watch promises, judged against what the writers know they wrote: Ordered, Unique, Atomic, Reliable,
//! Resumable, Bookmarkable, Filter, PrevKV, IsCreate, ListThenWatch and SameEverywhere, by the names of Jepsen's and
//! etcd's watch validators. Three replicas; leadership moves and a replica restarts meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::Either;
use quilt_proto::{Event, EventKind, Key, KeyPrefix, Op, ReplicaId, Revision, Txn};
use quilt_raft::{Consistency, Decision, Replica};
use tokio::sync::watch;

use crate::harness::{Cluster, DEADLINE};

/// Pause between two looks at a position.
const LOOK: Duration = Duration::from_millis(10);

/// One write as its writer knows it: what the key held before, and what from then on.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    key: Key,
    txn_end: Revision,
    before: Option<(Revision, Bytes)>,
    now: Option<Bytes>,
}

type Truth = BTreeMap<Revision, Known>;

fn own_key(writer: u64, namespace: u64, n: u64) -> Key {
    Key::new("default", "", "configmaps", &format!("ns-{namespace}"), &format!("w{writer}-{n}")).expect("valid")
}

/// Writes transactions of up to three operations over its own keys in two namespaces, until told to stop.
async fn write(replica: Replica, writer: u64, stop: watch::Receiver<bool>) -> Truth {
    let mut held: BTreeMap<Key, (Revision, Bytes)> = BTreeMap::new();
    let mut truth = Truth::new();
    let mut round = 0_u64;
    while !*stop.borrow() {
        round += 1;
        let first = own_key(writer, round % 2, round % 5);
        let second = own_key(writer, (round + 1) % 2, round % 3);
        let value = Bytes::from(format!("{{\"writer\":{writer},\"round\":{round}}}"));
        let put = |key: &Key| (key.clone(), Some(value.clone()));
        // Only what is there is deleted: of anything else there would be no event.
        let wanted: Vec<(Key, Option<Bytes>)> = match round % 4 {
            0 if held.contains_key(&first) => vec![(first.clone(), None), put(&second)],
            1 => vec![put(&first)],
            _ => vec![put(&first), put(&second), put(&own_key(writer, 0, 7))],
        };
        let ops = wanted.iter().map(|(key, value)| match value {
            Some(value) => Op::put(key, value.clone()),
            None => Op::delete(key),
        });
        let decision = replica.propose(Txn::new(vec![], ops.collect()), DEADLINE).await.expect("decided");
        let Decision::Applied { first, last, .. } = decision else { panic!("nothing was compared: {decision:?}") };
        for (revision, (key, now)) in (first.get()..).map(Revision::new).zip(wanted) {
            let before = match &now {
                Some(value) => held.insert(key.clone(), (revision, value.clone())),
                None => held.remove(&key),
            };
            truth.insert(revision, Known { key, txn_end: last, before, now });
        }
    }
    truth
}

/// What one watcher was told: each delivery with the revision up to which it was complete.
#[derive(Debug)]
struct Told {
    prefix: KeyPrefix,
    from: Revision,
    deliveries: Vec<(Revision, Vec<Arc<Event>>)>,
}

/// Watches until `end` is reached. With others at hand it goes on at the next one every few deliveries, from where it is.
async fn follow(
    replicas: Vec<Replica>,
    prefix: KeyPrefix,
    from: Revision,
    mut end: watch::Receiver<Option<Revision>>,
) -> Told {
    let mut told = Told { prefix: prefix.clone(), from, deliveries: Vec::new() };
    let mut at = 0;
    let mut stream = replicas[at].watch(prefix.clone(), from);
    loop {
        let last = *end.borrow_and_update();
        if let Some(last) = last
            && stream.position() >= last
        {
            // What a bookmark would say now is judged with the rest.
            told.deliveries.push((stream.position(), Vec::new()));
            return told;
        }
        // A watch of which nothing matches any more says so by its position only.
        let look_again =
            async { if last.is_some() { tokio::time::sleep(LOOK).await } else { std::future::pending().await } };
        let changed = async { end.changed().await.map_or((), drop) };
        let woken = futures::future::select(Box::pin(changed), Box::pin(look_again));
        let next = match futures::future::select(Box::pin(stream.next()), woken).await {
            Either::Left((batch, _)) => Some(batch.expect("the window holds all of it")),
            Either::Right(_) => None,
        };
        let Some(batch) = next else { continue };
        told.deliveries.push((batch.upto, batch.events));
        if replicas.len() > 1 && told.deliveries.len().is_multiple_of(5) {
            at = (at + 1) % replicas.len();
            stream = replicas[at].watch(prefix.clone(), batch.upto);
        }
    }
}

/// Every promise at once: any violation shows as a difference to the truth, and says where.
fn judge(told: &Told, truth: &Truth, name: &str) {
    let ends: BTreeSet<Revision> = truth.values().map(|known| known.txn_end).collect();
    let expected: Vec<(&Revision, &Known)> =
        truth.iter().filter(|(revision, known)| **revision > told.from && told.prefix.contains(&known.key)).collect();
    let mut next = 0;
    let mut bookmark = told.from;
    for (upto, events) in &told.deliveries {
        assert!(*upto >= bookmark, "{name}: Ordered: {upto} after {bookmark}");
        for event in events {
            let (revision, known) = expected.get(next).copied().unwrap_or_else(|| panic!("{name}: Filter: {event:?}"));
            assert_eq!(event.revision, *revision, "{name}: Ordered, Unique, Reliable, Filter");
            assert_eq!(event.key, known.key, "{name}: Filter");
            assert_eq!(event.txn_end, known.txn_end, "{name}: Atomic");
            assert!(event.txn_end <= *upto, "{name}: Atomic: a transaction is delivered in parts");
            assert_eq!(event.record.as_ref().map(|record| &record.value), known.now.as_ref(), "{name}: SameEverywhere");
            let previous = event.previous.as_ref();
            let previous = previous.map(|record| (Revision::new(record.mod_revision), record.value.clone()));
            assert_eq!(previous, known.before, "{name}: PrevKV at {revision}");
            let kind = match (&known.before, &known.now) {
                (_, None) => EventKind::Delete,
                (None, Some(_)) => EventKind::Create,
                (Some(_), Some(_)) => EventKind::Update,
            };
            assert_eq!(event.kind, kind, "{name}: IsCreate at {revision}");
            next += 1;
        }
        let complete = expected.iter().take_while(|(revision, _)| *revision <= upto).count();
        assert_eq!(next, complete, "{name}: Bookmarkable: not all up to {upto} was delivered");
        assert!(
            events.is_empty() || ends.contains(upto) || *upto == bookmark,
            "{name}: Bookmarkable: {upto} is inside"
        );
        bookmark = *upto;
    }
    assert_eq!(next, expected.len(), "{name}: Reliable: the end is missing");
}

/// Watches of a cluster, a namespace and one key, on each replica and going from one to the other, from the beginning and
/// behind a list, tell exactly what was written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_keep_their_promises() {
    let mut cluster = Cluster::start(3).await;
    let ids = cluster.ids();
    let (stop, stopped) = watch::channel(false);
    let (end, ended) = watch::channel(None);
    let mut writers = tokio::task::JoinSet::new();
    let steady: Vec<Replica> = ids[..2].iter().map(|id| cluster.get(*id).clone()).collect();
    let prefixes = [
        ("cluster", KeyPrefix::cluster("default").expect("valid")),
        ("namespace", KeyPrefix::namespace("default", "", "configmaps", "ns-0").expect("valid")),
        ("key", KeyPrefix::exact(&own_key(ids[0], 0, 7))),
    ];
    // The last replica restarts: its own watches would end with it, so it is watched and written through only afterwards.
    let restarted = ids[2];
    let mut watchers = Vec::new();
    for (name, prefix) in &prefixes {
        for (n, replica) in steady.iter().enumerate() {
            let following = follow(vec![replica.clone()], prefix.clone(), Revision::ZERO, ended.clone());
            watchers.push((format!("{name} on {n}"), tokio::spawn(following)));
        }
        let following = follow(steady.clone(), prefix.clone(), Revision::ZERO, ended.clone());
        watchers.push((format!("{name} from one to the other"), tokio::spawn(following)));
    }
    for (id, replica) in ids.iter().zip(&steady) {
        writers.spawn(write(replica.clone(), *id, stopped.clone()));
    }
    cluster.wait_for_revision(100).await;

    cluster.shut_down(restarted).await;
    let reached = cluster.get(ids[0]).status().revision;
    cluster.wait_for_revision(reached + 100).await;
    cluster.restart(restarted).await;
    let back = cluster.get(restarted).clone();

    // A list of what came back, and a watch right behind it.
    let mut listed: BTreeMap<Key, Bytes> = BTreeMap::new();
    let whole = prefixes[0].1.clone();
    let stream = back
        .list_then_watch(
            Consistency::Linearizable,
            DEADLINE,
            std::slice::from_ref(&whole),
            whole.clone(),
            |key, record| {
                listed.insert(key.clone(), record.value.clone());
            },
        )
        .await
        .expect("listed");
    let listed_at = stream.position();
    drop(stream);
    let following = follow(vec![back.clone()], whole, listed_at, ended.clone());
    watchers.push(("behind a list".into(), tokio::spawn(following)));
    for (name, prefix) in &prefixes {
        // Its ring begins with its restart: all from before is read as history.
        let following = follow(vec![back.clone()], prefix.clone(), Revision::ZERO, ended.clone());
        watchers.push((format!("{name} on the one that was away"), tokio::spawn(following)));
    }
    writers.spawn(write(back.clone(), restarted, stopped));

    for to in [ids[1], ids[0]] {
        let admin = cluster.get(ids[0]).admin();
        admin.transfer_leadership(Some(ReplicaId(to))).await.expect("transferred");
        let reached = cluster.get(ids[0]).status().revision;
        cluster.wait_for_revision(reached + 60).await;
    }
    stop.send(true).expect("writers listen");
    let mut truth = Truth::new();
    while let Some(written) = writers.join_next().await {
        for (revision, known) in written.expect("no panic") {
            assert!(truth.insert(revision, known).is_none(), "revision {revision} was given twice");
        }
    }
    let newest = *truth.keys().next_back().expect("much was written");
    assert_eq!(truth.keys().next_back().copied(), truth.values().map(|known| known.txn_end).max());
    end.send(Some(newest)).expect("watchers listen");
    for (name, watcher) in watchers {
        let told = tokio::time::timeout(DEADLINE, watcher).await;
        let told = told.unwrap_or_else(|_| panic!("{name}: never came to revision {newest}")).expect("no panic");
        judge(&told, &truth, &name);
    }
    let mut state: BTreeMap<Key, Bytes> = BTreeMap::new();
    for known in truth.range(..=listed_at).map(|(_, known)| known) {
        match &known.now {
            Some(value) => drop(state.insert(known.key.clone(), value.clone())),
            None => drop(state.remove(&known.key)),
        }
    }
    assert_eq!(listed, state, "ListThenWatch: the list is the state at its revision");
    drop((steady, back, end, ended));
    cluster.stop().await;
}
