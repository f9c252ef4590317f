//! What only the inside of a replica can show: requests at the edge of their session and of their time.

use quilt_proto::{Key, Op, RequestId, outcome};

use super::*;

/// A request that reaches the log twice takes effect once and gives the same outcome both times; once its owner
/// has acknowledged the outcome, a late copy has no effect at all.
#[tokio::test]
async fn a_request_logged_twice_takes_effect_once() {
    let replica = Replica::memory(ReplicaId(1)).await;
    let inner = &replica.inner;
    let session = inner.requests.session().borrow().expect("registered");
    let key = Key::new("default", "", "configmaps", "default", "a").expect("valid");
    let put = Op::put(&key, "");
    let id = RequestId { session, sequence: 900 };
    let txn = Txn { request_id: Some(id), ..Txn::new(vec![], vec![put]) };
    let log = async |answered_below| {
        loop {
            let mut waiting = inner.answers.expect(std::iter::once(id));
            // What is submitted may be let go without a word, as by a leader that lost its lease: its owner asks again.
            if inner.proposer.submit(session, answered_below, [(txn.clone(), None)]).is_ok()
                && let Ok(Some((_, outcome))) = TypeConfig::timeout(Duration::from_secs(2), waiting.next()).await
            {
                return outcome;
            }
        }
    };
    let first = log(0).await;
    assert!(matches!(first.result, Some(outcome::Result::Applied(_))));
    let revision = inner.applied.mark().revision;
    assert_eq!(log(0).await, first);
    assert!(matches!(log(901).await.result, Some(outcome::Result::Invalid(_))));
    assert_eq!(inner.applied.mark().revision, revision);
}

/// What expires before it can be applied is reported as not applied, and proven so by the log's own clock.
#[tokio::test]
async fn an_expired_request_is_never_applied() {
    let replica = Replica::memory(ReplicaId(1)).await;
    let inner = &replica.inner;
    let session = inner.requests.session().borrow().expect("registered");
    let revision = inner.applied.mark().revision;
    let key = Key::new("default", "", "configmaps", "default", "a").expect("valid");
    let txn = Txn::new(vec![], vec![Op::delete(&key)]);
    let past = inner.clock.now_ms() - 1;
    let answer = inner.requests.begin(session, txn, past, Duration::from_secs(5), None).expect("taken");
    let answer = answer.await.expect("answered");
    let expired =
        matches!(&answer, Answer::Outcome(outcome) if matches!(outcome.result, Some(outcome::Result::Expired(_))));
    assert!(expired || answer == Answer::NotApplied, "{answer:?}");
    assert_eq!(inner.applied.mark().revision, revision);
}

/// A wall clock more than ten seconds off cluster time is an alarm of the status for as long as it is, with the replica and the
/// distance in it.
#[tokio::test]
async fn a_clock_that_is_off_is_an_alarm() {
    let replica = Replica::memory(ReplicaId(4)).await;
    assert_eq!(replica.status().alarms, Vec::<String>::new());
    replica.inner.clock.applied(replica.wall_ms() + 64_000);
    for _ in 0..2 {
        let alarms = replica.status().alarms;
        let told =
            alarms.iter().any(|it| it.starts_with("the clock of replica 4 is 6") && it.contains("behind cluster time"));
        assert!(told && alarms.len() == 1, "{alarms:?}");
    }
    // Another leader's time counts, also where it is lower.
    replica.inner.clock.applied(replica.wall_ms() + 2_000);
    assert_eq!(replica.status().alarms, Vec::<String>::new());
}

/// A disk of which the test says how full it is.
struct Disk {
    inner: Arc<dyn crate::snapshot::SnapshotHome>,
    free: std::sync::atomic::AtomicU64,
}

impl crate::snapshot::SnapshotHome for Disk {
    fn build(&self) -> Result<Arc<dyn crate::snapshot::SnapshotSource>, crate::snapshot::SnapshotFailed> {
        self.inner.build()
    }

    fn newest(&self) -> Option<Arc<dyn crate::snapshot::SnapshotSource>> {
        self.inner.newest()
    }

    fn receive(
        &self,
        manifest: &[u8],
    ) -> Result<Box<dyn crate::snapshot::SnapshotSink>, crate::snapshot::SnapshotFailed> {
        self.inner.receive(manifest)
    }

    fn space(&self) -> Option<(u64, u64)> {
        Some((self.free.load(std::sync::atomic::Ordering::Relaxed), 1 << 40))
    }
}

/// On a full disk nothing new is taken and the refusal names the limit; what is there is read, changed while there is some
/// room, and deleted always. With room again everything goes on by itself.
#[tokio::test]
async fn a_full_disk_refuses_growth_only() {
    let parts = Parts::memory();
    let disk = Arc::new(Disk { inner: Arc::clone(&parts.snapshots), free: (1 << 40).into() });
    let parts = Parts { snapshots: disk.clone(), ..parts };
    let options = Options { disk_reserve_bytes: 1_000, ..Options::new(ReplicaId(1), "memory") };
    let replica = Replica::open(options, parts, None).await.expect("opens");
    replica.admin().initialize(BTreeMap::from([(ReplicaId(1), String::new())])).await.expect("founded");
    replica.ready().wait_for(|ready| *ready).await.expect("gets ready");
    let deadline = Duration::from_secs(10);
    let key = |name: &str| Key::new("default", "", "configmaps", "default", name).expect("valid");
    let create = |name: &str| Txn::new(vec![quilt_proto::Compare::absent(&key(name))], vec![Op::put(&key(name), "v")]);
    let update = || Txn::new(vec![quilt_proto::Compare::exists(&key("a"))], vec![Op::put(&key("a"), "w")]);
    let delete = |name: &str| Txn::new(vec![], vec![Op::delete(&key(name))]);
    let until = async |free: u64, alarms: usize| {
        disk.free.store(free, std::sync::atomic::Ordering::Relaxed);
        while replica.status().alarms.len() != alarms {
            TypeConfig::sleep(Duration::from_millis(20)).await;
        }
        // Low and out are one alarm: the next look tells them apart.
        TypeConfig::sleep(Duration::from_millis(1_200)).await;
    };
    let refused = Err(ProposeError::Overloaded { limit: crate::DISK_RESERVE });
    for name in ["a", "b", "c"] {
        replica.propose(create(name), deadline).await.expect("there is room");
    }

    until(900, 1).await;
    assert_eq!(replica.propose(create("d"), deadline).await, refused);
    replica.propose(update(), deadline).await.expect("changes go on");
    replica.propose(delete("b"), deadline).await.expect("deletions go on");

    until(10, 1).await;
    assert_eq!(replica.propose(create("d"), deadline).await, refused);
    assert_eq!(replica.propose(update(), deadline).await, refused);
    replica.propose(delete("c"), deadline).await.expect("deletions go on");
    let view = replica.read(Consistency::Linearizable, deadline).await.expect("reads go on");
    assert!(view.get(&key("a")).expect("readable").is_some() && view.get(&key("c")).expect("readable").is_none());

    until(1 << 30, 0).await;
    replica.propose(create("d"), deadline).await.expect("there is room again");
}

/// While a snapshot is on its way to a peer the log is cut no further than behind what that covers, however much is written
/// meanwhile, up to a bound; afterwards it is cut as ever.
#[tokio::test]
async fn a_snapshot_on_its_way_keeps_its_log() {
    let options = Options { log_keep_bytes: 20_000, ..Options::new(ReplicaId(1), "memory") };
    let replica = Replica::open(options, Parts::memory(), None).await.expect("opens");
    replica.admin().initialize(BTreeMap::from([(ReplicaId(1), String::new())])).await.expect("founded");
    replica.ready().wait_for(|ready| *ready).await.expect("gets ready");
    let retention = replica.inner.retention.clone();
    let write = async |name: &str, count: usize| {
        for _ in 0..count {
            let key = Key::new("default", "", "configmaps", "default", name).expect("valid");
            let txn = Txn::new(vec![], vec![Op::put(&key, vec![b'x'; 4_000])]);
            replica.propose(txn, Duration::from_secs(10)).await.expect("applied");
        }
    };
    // Cutting is begun by a look, and done a moment later.
    let purged = async || {
        let look = retention.clone();
        let cut = replica.on_runtime(async move { look.look().await }).await.expect("no panic").expect("looked");
        while replica.status().purged_index < cut {
            TypeConfig::sleep(Duration::from_millis(5)).await;
        }
        replica.status().purged_index
    };
    write("before", 3).await;
    let covered = replica.status().applied_index;
    let on_their_way = Arc::clone(&retention.on_their_way);
    let sending = on_their_way.begin(2, covered);
    write("during", 20).await;
    assert_eq!(purged().await, Some(covered), "what the snapshot does not cover is needed");
    write("far too much", 40).await;
    let beyond = purged().await;
    assert!(beyond > Some(covered + 20), "no more than a bound is kept for it: {beyond:?}");

    drop(sending);
    let again = on_their_way.begin(2, beyond.expect("something"));
    write("again", 20).await;
    assert_eq!(purged().await, beyond);
    drop(again);
    assert_eq!(purged().await, beyond, "its receiver has still to ask");
    replica.shutdown().await;
}
