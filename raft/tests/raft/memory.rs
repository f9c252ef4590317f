//! One replica in memory: the same code as a whole control plane, without peers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quilt_proto::{ClusterId, Compare, Key, KeyPrefix, Op, Put, ReplicaId, Revision, Txn};
use quilt_raft::{
    AskError, Consistency, Decision, Leadership, Limit, Options, Parts, ProposeError, ReadError, Replica, WatchError,
};
use quilt_storage::MemoryLog;

use crate::braked::{Brake, BrakedLog};
use crate::harness::{DEADLINE, key, last};

fn put(name: &str, value: &str) -> Op {
    Op::put(&key(name), Bytes::copy_from_slice(value.as_bytes()))
}

/// A write is decided once, read back at every consistency, refused when a compare fails, and watched in order.
#[tokio::test]
async fn writes_reads_and_watches() {
    let replica = Replica::memory(ReplicaId(1)).await;
    let prefix = KeyPrefix::resource("default", "", "configmaps").expect("valid prefix");
    let mut watch = replica.watch(prefix.clone(), Revision::ZERO);

    let create = Txn::new(vec![Compare::absent(&key("a"))], vec![put("a", "1")]);
    let first = last(replica.propose(create.clone(), DEADLINE).await.expect("applied"));
    let again = replica.propose(create, DEADLINE).await.expect("decided");
    assert_eq!(again, Decision::Rejected { compare: 0, mod_revision: first });

    for consistency in [Consistency::Linearizable, Consistency::Stale, Consistency::AtLeast(first)] {
        let view = replica.read(consistency, DEADLINE).await.expect("readable");
        let record = view.get(&key("a")).expect("readable").expect("present");
        assert_eq!((&record.value[..], record.mod_revision), (&b"1"[..], first.get()));
    }
    let two = Txn::new(vec![], vec![put("b", "1"), put("c", "1")]);
    let second = last(replica.propose(two, DEADLINE).await.expect("applied"));
    let other = Key::new("default", "", "secrets", "default", "x").expect("valid");
    let unrelated = Txn::new(vec![], vec![Op::put(&other, "")]);
    let third = last(replica.propose(unrelated, DEADLINE).await.expect("applied"));

    let mut names = Vec::new();
    while names.len() < 3 {
        let batch = watch.next().await.expect("open");
        names.extend(batch.events.iter().map(|event| event.key.parts().name.to_owned()));
        assert!(batch.events.iter().all(|event| event.txn_end <= batch.upto));
    }
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(watch.position(), third, "a change elsewhere moves the position on without an event");

    let view = replica.read(Consistency::Linearizable, DEADLINE).await.expect("readable");
    let page = view.scan(&prefix, None, Limit { records: 10, bytes: 1 << 20 }).expect("readable");
    assert_eq!((page.records.len(), page.more), (3, false));
    let before = view.at(first).expect("kept").scan(&prefix, None, Limit { records: 10, bytes: 1 << 20 });
    assert_eq!(before.expect("readable").records.len(), 1);
    assert_eq!(view.at(Revision::new(1_000)).err(), Some(ReadError::Ahead { current: third }));
    let ahead = replica.read(Consistency::AtLeast(Revision::new(1_000)), Duration::from_millis(20)).await;
    assert_eq!(ahead.err(), Some(ReadError::Ahead { current: third }));

    // A watch from the middle of a transaction gets the rest of it.
    let mut middle = replica.watch(prefix, Revision::new(second.get() - 1));
    let rest = middle.next().await.expect("open");
    assert_eq!(rest.events.len(), 1);
    assert_eq!(rest.events[0].revision, second);
    replica.shutdown().await;
    assert_eq!(middle.next().await.err(), Some(WatchError::Stopped));
}

/// Many writers at once: every write has its own revision, and concurrent creates of one key have one winner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_have_one_winner_each() {
    let replica = Replica::memory(ReplicaId(1)).await;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..200 {
        let replica = replica.clone();
        tasks.spawn(async move {
            let name = format!("k{}", writer % 50);
            let txn = Txn::new(vec![Compare::absent(&key(&name))], vec![put(&name, "x")]);
            replica.propose(txn, DEADLINE).await.expect("decided")
        });
    }
    let mut revisions = std::collections::BTreeSet::new();
    while let Some(decision) = tasks.join_next().await {
        if let Decision::Applied { last, .. } = decision.expect("no panic") {
            assert!(revisions.insert(last), "revision {last} given twice");
        }
    }
    assert_eq!(revisions.len(), 50);
}

/// The fence: a leadership that holds may write, one that never was may not.
#[tokio::test]
async fn local_proposals_are_fenced() {
    let replica = Replica::memory(ReplicaId(1)).await;
    let leader = replica.leadership().borrow().held().expect("the only replica leads");
    let txn = Txn::new(vec![], vec![put("a", "1")]);
    replica.propose_local(leader, txn.clone()).await.expect("applied");
    let stale = quilt_raft::LeaderId { term: leader.term + 1, ..leader };
    assert_eq!(replica.propose_local(stale, txn).await.err(), Some(ProposeError::NotLeader));
}

/// Services answer on the leader, unknown ones and failures are told apart, and status is serializable truth.
#[tokio::test]
async fn services_and_status() {
    let replica = Replica::memory(ReplicaId(7)).await;
    replica.serve("echo", Arc::new(|body| Box::pin(async move { Ok(body) })));
    replica.serve("broken", Arc::new(|_| Box::pin(async { Err("no".to_owned()) })));
    let body = Bytes::from_static(b"hello");
    assert_eq!(replica.ask_leader("echo", body.clone(), DEADLINE).await, Ok(body.clone()));
    assert_eq!(replica.ask_leader("broken", body.clone(), DEADLINE).await, Err(AskError::Failed("no".into())));
    assert_eq!(replica.ask_leader("none", body, DEADLINE).await, Err(AskError::Unknown("none".into())));
    let status = replica.status();
    assert_eq!((status.id, status.leader, status.ready), (ReplicaId(7), Some(ReplicaId(7)), true));
    assert!(matches!(status.leadership, Leadership::Leader(_)));
    assert_eq!(status.failures_tolerated, 0);
}

/// Dropping a cluster ends its watches and reads, and nobody else's.
#[tokio::test]
async fn a_dropped_cluster_is_gone_at_once() {
    let replica = Replica::memory(ReplicaId(1)).await;
    let doomed = Key::new("doomed", "", "pods", "a", "b").expect("valid");
    let txn = Txn::new(vec![], vec![Op::put(&doomed, "")]);
    let at = last(replica.propose(txn, DEADLINE).await.expect("applied"));
    let mut gone = replica.watch(KeyPrefix::cluster("doomed").expect("valid"), at);
    let mut kept = replica.watch(KeyPrefix::cluster("default").expect("valid"), at);
    replica.admin().drop_cluster(ClusterId("doomed".into())).await.expect("dropped");
    assert_eq!(gone.next().await.err(), Some(WatchError::Dropped));
    let view = replica.read(Consistency::Linearizable, DEADLINE).await.expect("readable");
    assert_eq!(view.get(&doomed).err(), Some(ReadError::Dropped));
    replica.propose(Txn::new(vec![], vec![put("a", "1")]), DEADLINE).await.expect("applied");
    assert_eq!(kept.next().await.expect("open").events.len(), 1);
}

/// The floor in force can be read, of all clusters and of each, and it is the promise: a revision at it is served, the one below
/// is not.
#[tokio::test]
async fn the_floor_in_force_is_told() {
    let replica = Replica::memory(ReplicaId(1)).await;
    assert_eq!(replica.status().history, quilt_raft::History::default());
    let mut revisions = Vec::new();
    for value in ["1", "2", "3"] {
        let txn = Txn::new(vec![], vec![put("a", value)]);
        revisions.push(last(replica.propose(txn, DEADLINE).await.expect("applied")));
    }
    replica.admin().compact(&ClusterId("default".into()), revisions[1]).await.expect("compacted");
    let history = replica.status().history;
    let view = replica.read(Consistency::Linearizable, DEADLINE).await.expect("readable");
    assert_eq!((history.floor, view.floor("default")), (revisions[1].get(), revisions[1]));
    let floors: Vec<_> = history.floors.iter().map(|floor| (floor.cluster.as_str(), floor.revision)).collect();
    assert_eq!((floors, history.floors_left_out), (vec![("default", revisions[1].get())], 0));
    let at = |revision| view.at(revision).expect("reached").get(&key("a"));
    assert_eq!(&at(Revision::new(history.floor)).expect("kept").expect("present").value[..], b"2");
    assert_eq!(at(revisions[0]).err(), Some(ReadError::Compacted { floor: revisions[1] }));
}

/// A state that was lost is rebuilt from the log, to the same revisions, and a watch resumed at an old revision gets
/// exactly the rest: nothing of the replay a second time.
#[tokio::test]
async fn a_restart_replays_the_log() {
    let log = Arc::new(MemoryLog::new());
    let parts = || Parts { log: log.clone(), ..Parts::memory() };
    let replica = Replica::open(Options::new(ReplicaId(1), "test"), parts(), None).await.expect("opens");
    let members = std::collections::BTreeMap::from([(ReplicaId(1), String::new())]);
    replica.admin().initialize(members).await.expect("founded");
    let mut revisions = Vec::new();
    for name in ["a", "b", "c"] {
        revisions.push(last(replica.propose(Txn::new(vec![], vec![put(name, "1")]), DEADLINE).await.expect("applied")));
    }
    let hash = replica.read(Consistency::Linearizable, DEADLINE).await.map(|_| replica.status().state_hash);
    replica.shutdown().await;

    let replica = Replica::open(Options::new(ReplicaId(1), "test"), parts(), None).await.expect("opens");
    let prefix = KeyPrefix::resource("default", "", "configmaps").expect("valid");
    let mut watch = replica.watch(prefix, revisions[1]);
    let batch = watch.next().await.expect("open");
    assert_eq!(batch.events.iter().map(|event| event.revision).collect::<Vec<_>>(), [revisions[2]]);
    let next = last(replica.propose(Txn::new(vec![], vec![put("d", "1")]), DEADLINE).await.expect("applied"));
    assert!(next > revisions[2]);
    let batch = watch.next().await.expect("open");
    assert_eq!(batch.events.iter().map(|event| event.revision).collect::<Vec<_>>(), [next]);
    assert!(hash.is_ok());
    replica.shutdown().await;
}

/// openraft #1960: the entry that founds a control plane is told to be durable only behind the first one of its leader. What was told
/// later is older, and what is newer stands: taken for the last word it would leave a replica that is alone without an agreement on
/// anything, for good.
#[tokio::test]
async fn a_founding_that_is_told_late_is_agreed_on() {
    let brake = Arc::new(Brake::default());
    let log = Arc::new(BrakedLog::new(Arc::new(MemoryLog::new()), Arc::clone(&brake)));
    let parts = Parts { log, ..Parts::memory() };
    let replica = Replica::open(Options::new(ReplicaId(1), "test"), parts, None).await.expect("opens");
    brake.swap_the_next_two();
    let members = std::collections::BTreeMap::from([(ReplicaId(1), String::new())]);
    replica.admin().initialize(members).await.expect("founded");
    let mut ready = replica.ready();
    let ready = tokio::time::timeout(DEADLINE, ready.wait_for(|ready| *ready)).await;
    assert!(matches!(ready, Ok(Ok(_))), "it agrees with itself in time: {:#?}", replica.status());
    drop(ready);
    assert!(brake.has_swapped(), "two appends were told of in the other order");
    last(replica.propose(Txn::new(vec![], vec![put("a", "1")]), DEADLINE).await.expect("applied"));
    replica.shutdown().await;
}

/// A key with a time to live is gone when its time has passed, and its watchers are told.
#[tokio::test]
async fn what_expires_is_deleted() {
    let replica = Replica::memory(ReplicaId(1)).await;
    let op = Op::from(Put { key: key("short").bytes().clone(), ttl_ms: 50, ..Put::default() });
    let created = last(replica.propose(Txn::new(vec![], vec![op]), DEADLINE).await.expect("applied"));
    let mut watch = replica.watch(KeyPrefix::exact(&key("short")), created);
    let batch = watch.next().await.expect("open");
    assert_eq!(batch.events[0].kind, quilt_proto::EventKind::Delete);
    let view = replica.read(Consistency::Linearizable, DEADLINE).await.expect("readable");
    assert_eq!(view.get(&key("short")).expect("readable"), None);
}
