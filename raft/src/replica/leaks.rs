//! Nothing is left behind: whatever becomes of callers and leaders, what is kept for a request goes with it.

use std::net::TcpListener;

use quilt_proto::state::{Outcomes, Session};
use quilt_proto::{Compare, Key, Op};
use quilt_state::{Family, Step, row};

use super::*;
use crate::settings::Timing;
use crate::transport::authority::Authority;

pub(super) const DEADLINE: Duration = Duration::from_secs(30);

/// Outcomes that may be remembered of a session that has nothing under way: the row in which the next one will stand.
const IDLE_OUTCOMES_MAX: usize = 128;

/// Three replicas in memory that talk over real connections.
pub(super) async fn trio() -> Vec<Replica> {
    let authority = Authority::new();
    let mut replicas = Vec::new();
    let mut members = BTreeMap::new();
    for id in (1..=3).map(ReplicaId) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        members.insert(id, listener.local_addr().expect("bound").to_string());
        let options = Options { timing: Timing::relaxed(), ..Options::new(id, "leaks") };
        let transport = TransportOptions { listener, identity: authority.identity(id) };
        replicas.push(Replica::open(options, Parts::memory(), Some(transport)).await.expect("opens"));
    }
    replicas[0].admin().initialize(members).await.expect("founded");
    for replica in &replicas {
        replica.ready().wait_for(|ready| *ready).await.expect("gets ready");
    }
    replicas
}

pub(super) async fn leader(replicas: &[Replica]) -> usize {
    let found = async {
        loop {
            if let Some(at) = replicas.iter().position(|replica| replica.leadership().borrow().held().is_some()) {
                return at;
            }
            TypeConfig::sleep(Duration::from_millis(10)).await;
        }
    };
    TypeConfig::timeout(DEADLINE, found).await.expect("a leader in time")
}

pub(super) fn create(name: &str) -> Txn {
    let key = Key::new("default", "", "configmaps", "default", name).expect("valid");
    Txn::new(vec![Compare::absent(&key)], vec![Op::put(&key, "{}")])
}

/// Starts writes of which every other caller goes away before it has an answer.
async fn traffic(replica: &Replica, round: &str, count: usize) {
    let mut kept = tokio::task::JoinSet::new();
    for n in 0..count {
        let replica = replica.clone();
        let txn = create(&format!("{round}-{n}"));
        let writing = async move { replica.propose(txn, Duration::from_secs(5)).await };
        if n % 2 == 0 {
            kept.spawn(writing);
        } else {
            let patience = Duration::from_micros(u64::try_from(n % 17).expect("small") * 300);
            kept.spawn(
                async move { TypeConfig::timeout(patience, writing).await.unwrap_or(Err(ProposeError::Unknown)) },
            );
        }
    }
    while kept.join_next().await.is_some() {}
}

/// Outcomes that the state remembers of each session.
fn remembered(replica: &Replica) -> BTreeMap<u64, usize> {
    let mut found = BTreeMap::new();
    let read = replica.inner.store.scan(Family::Sessions, &[], &[0xff; 17], &mut |key, value| {
        match row::split_session(key).expect("a session's row") {
            (session, None) => {
                let _known: Session = prost::Message::decode(value).expect("decodes");
                found.entry(session).or_insert(0);
            }
            (session, Some(_)) => {
                let outcomes: Outcomes = prost::Message::decode(value).expect("decodes");
                *found.entry(session).or_insert(0) += outcomes.outcomes.len();
            }
        }
        Step::Next
    });
    read.expect("readable");
    found
}

/// What is kept for requests in the queues of one replica, told by name.
fn kept(replica: &Replica) -> Vec<(&'static str, usize)> {
    let inner = &replica.inner;
    let all = [
        ("open requests", inner.requests.open()),
        ("forwarded batches that wait", inner.answers.waiting()),
        ("commands queued", inner.proposer.waiting()),
        ("requests known to the proposer", inner.proposer.known()),
    ];
    all.into_iter().filter(|(_, count)| *count != 0).collect()
}

/// A replica that has been shut down lets go of its log and its store when the last handle of it goes, although services that it was
/// given hold it: a start after damage, in the same process, needs the data directory for itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_has_ended_holds_no_data() {
    let parts = Parts::memory();
    let (log, store) = (Arc::downgrade(&parts.log), Arc::downgrade(&parts.store));
    let options = Options::new(ReplicaId(1), "leaks");
    let replica = Replica::open(options, parts, None).await.expect("opens");
    replica.admin().initialize(BTreeMap::from([(ReplicaId(1), String::new())])).await.expect("founded");
    replica.ready().wait_for(|ready| *ready).await.expect("gets ready");
    let held = replica.clone();
    replica.serve(
        "held",
        Arc::new(move |body| {
            let held = held.clone();
            Box::pin(async move { held.ask_leader("none", body, DEADLINE).await.map_err(|error| error.to_string()) })
        }),
    );
    replica.shutdown().await;
    drop(replica);
    assert_eq!((log.strong_count(), store.strong_count()), (0, 0), "handles of the log and of the store");
}

/// Thousands of writes through every replica, most of them forwarded, half of whose callers do not wait, around a transfer
/// and the end of a leader: afterwards no queue holds anything, and the state remembers a bounded number of outcomes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwarded_writes_leave_nothing_behind() {
    let mut replicas = trio().await;
    for replica in &replicas {
        traffic(replica, &format!("calm-{}", replica.id()), 700).await;
    }
    let (first, busy) = (leader(&replicas).await, replicas.clone());
    let writing = TypeConfig::spawn(async move {
        futures::future::join_all(busy.iter().map(|replica| async move {
            traffic(replica, &format!("transfer-{}", replica.id()), 700).await;
        }))
        .await
    });
    let to = replicas[(first + 1) % 3].id();
    // Refused when leadership has moved already, which does as well.
    let _ = replicas[first].admin().transfer_leadership(Some(to)).await;
    writing.await.expect("no panic");

    let gone = replicas.remove(leader(&replicas).await);
    let busy = replicas.clone();
    let writing = TypeConfig::spawn(async move {
        futures::future::join_all(busy.iter().map(|replica| async move {
            traffic(replica, &format!("death-{}", replica.id()), 700).await;
        }))
        .await
    });
    TypeConfig::sleep(Duration::from_millis(20)).await;
    gone.shutdown().await;
    assert_eq!(gone.inner.requests.open(), 0, "a replica that has stopped has answered everybody");
    drop(gone);
    writing.await.expect("no panic");

    // What was given up is pursued for a while, and then nothing is left of it.
    let empty = async {
        while replicas.iter().any(|replica| !kept(replica).is_empty()) {
            TypeConfig::sleep(Duration::from_millis(50)).await;
        }
    };
    if TypeConfig::timeout(DEADLINE, empty).await.is_err() {
        panic!("left behind: {:?}", replicas.iter().map(kept).collect::<Vec<_>>());
    }
    // The next write of each session says that everything before it was answered.
    for round in 0..3 {
        for replica in &replicas {
            traffic(replica, &format!("after-{round}-{}", replica.id()), 1).await;
        }
    }
    for replica in &replicas {
        let session = replica.inner.requests.session().borrow().expect("registered");
        let remembered = remembered(replica);
        assert_eq!(remembered.len(), 3, "a session for each replica that ever was");
        let own = remembered[&session];
        assert!(own <= IDLE_OUTCOMES_MAX, "{own} outcomes are remembered");
    }
    for replica in &replicas {
        replica.shutdown().await;
    }
}
