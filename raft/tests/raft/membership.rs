//! A vote, and leadership, are given only to whom the leader hears and who holds the log.

use std::time::Duration;

use quilt_proto::ReplicaId;
use quilt_raft::{AdminError, Role};

use crate::harness::{Cluster, DEADLINE, create, last};

/// How long a promotion that must fail is given.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// No sync comes to its end.
const FOR_EVER: Duration = Duration::from_secs(3_600);

/// Who votes, as the leader has it.
async fn voters(cluster: &Cluster) -> Vec<u64> {
    let status = cluster.get(cluster.leader().await).status();
    assert!(!status.membership_changing, "{status:#?}");
    status.members.iter().filter(|member| member.voter).map(|member| member.id.0).collect()
}

/// A learner that never ran, one that holds too little, and one that held all and has gone since are refused, each with the reason,
/// and the voters stay who they were. One that is there again and holds the log is promoted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_learner_that_is_there_and_holds_the_log_gets_a_vote() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let admin = cluster.get(leader).admin();
    let write = async |cluster: &Cluster, name: &str| {
        last(cluster.get(leader).propose(create(name), DEADLINE).await.expect("applied"))
    };

    admin.add_learner(ReplicaId(9), "127.0.0.1:1".into()).await.expect("it need not run yet");
    let never_ran = admin.promote(ReplicaId(9), PATIENCE).await;
    let Err(AdminError::Timeout(why)) = &never_ran else { panic!("{never_ran:?}") };
    assert!(why.contains("replica 9 does not answer the leader"), "{why}");
    assert_eq!(voters(&cluster).await, [1, 2, 3]);
    admin.remove(ReplicaId(9)).await.expect("removed");

    let (learner, address) = cluster.add().await;
    admin.add_learner(ReplicaId(learner), address).await.expect("added");
    let written = write(&cluster, "a").await;
    cluster.until(learner, |status| status.revision >= written.get()).await;
    cluster.brake(learner).set(FOR_EVER);
    write(&cluster, "b").await;
    let behind = admin.promote(ReplicaId(learner), PATIENCE).await;
    let Err(AdminError::Timeout(why)) = &behind else { panic!("{behind:?}") };
    assert!(why.contains("has not caught up"), "{why}");
    assert_eq!(voters(&cluster).await, [1, 2, 3]);
    cluster.brake(learner).release();

    // Its last word was that it holds everything, a moment ago.
    cluster.same_state().await;
    cluster.kill(learner);
    let gone = admin.promote(ReplicaId(learner), PATIENCE).await;
    let Err(AdminError::Timeout(why)) = &gone else { panic!("{gone:?}") };
    assert!(why.contains("does not answer the leader"), "{why}");
    assert_eq!(voters(&cluster).await, [1, 2, 3]);

    cluster.restart(learner).await;
    admin.promote(ReplicaId(learner), DEADLINE).await.expect("it is there and holds the log");
    assert_eq!(voters(&cluster).await, [1, 2, 3, 4]);
    drop(admin);
    cluster.stop().await;
}

/// Leadership is not handed to a voter that has gone, neither a moment after it went nor later: the leader goes on, in the same term.
/// Where nobody is named one that answers is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_to_nobody_who_does_not_answer() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let [gone, other] = cluster.ids().into_iter().filter(|id| *id != leader).collect::<Vec<_>>()[..] else {
        panic!("two followers")
    };
    last(cluster.get(leader).propose(create("a"), DEADLINE).await.expect("applied"));
    cluster.same_state().await;
    let term = cluster.get(leader).status().term;
    let admin = cluster.get(leader).admin();
    cluster.kill(gone);
    for when in ["at once", "later"] {
        let refused = admin.transfer_leadership(Some(ReplicaId(gone))).await;
        let Err(AdminError::Refused(why)) = &refused else { panic!("{when}: {refused:?}") };
        assert!(why.contains("does not answer the leader"), "{when}: {why}");
        let status = cluster.get(leader).status();
        assert_eq!((status.role, status.term), (Role::Leader, term), "{when}");
        assert!(cluster.get(leader).leadership().borrow().held().is_some(), "{when}");
    }
    let next = admin.transfer_leadership(None).await.expect("one answers");
    assert_eq!(next, ReplicaId(other));
    drop(admin);
    cluster.stop().await;
}
