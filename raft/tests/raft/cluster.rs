//! Three replicas over real loopback TLS, on disk.

use std::time::Duration;

use bytes::Bytes;
use quilt_proto::{Compare, KeyPrefix, Op, ReplicaId, Revision, Txn};
use quilt_raft::{AdminError, Consistency, Limit, Role, Timing};

use crate::harness::{Cluster, DEADLINE, create, key, last, put};
use crate::traffic::Traffic;

/// A write through a follower is applied once, readable at once on every replica, and all states are the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_replica_answers_everything() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.ids().into_iter().find(|id| *id != leader).expect("three replicas");
    for round in 0..20 {
        let name = format!("a{round}");
        let revision = last(cluster.get(follower).propose(create(&name), DEADLINE).await.expect("applied"));
        for id in cluster.ids() {
            let view = cluster.get(id).read(Consistency::Linearizable, DEADLINE).await.expect("readable");
            let record = view.get(&key(&name)).expect("readable").expect("present everywhere at once");
            assert_eq!(record.mod_revision, revision.get());
        }
    }
    for id in cluster.ids() {
        cluster
            .get(id)
            .serve("who", std::sync::Arc::new(move |_| Box::pin(async move { Ok(Bytes::from(id.to_string())) })));
    }
    let who = cluster.get(follower).ask_leader("who", Bytes::new(), DEADLINE).await.expect("answered");
    assert_eq!(who, leader.to_string());
    let status = cluster.get(leader).status();
    assert_eq!((status.role, status.failures_tolerated, status.members.len()), (Role::Leader, 1, 3));
    cluster.same_state().await;
    cluster.stop().await;
}

/// While the leader goes away twice, writers on all replicas keep writing: every create is applied exactly once, and
/// a watch on each surviving replica sees each exactly once, in order, without a gap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_changes_lose_and_repeat_nothing() {
    let mut cluster = Cluster::start(3).await;
    let first = cluster.leader().await;
    let traffic = Traffic::around(&cluster, first);
    cluster.wait_for_revision(20).await;
    cluster.shut_down(first).await;
    let second = cluster.leader().await;
    assert_ne!(first, second);
    let reached = cluster.get(second).status().revision;
    cluster.wait_for_revision(reached + 20).await;
    cluster.restart(first).await;
    cluster.get(second).admin().transfer_leadership(Some(ReplicaId(first))).await.expect("transferred");
    let reached = cluster.get(first).status().revision;
    cluster.wait_for_revision(reached + 20).await;
    traffic.judge(&cluster).await;
    cluster.stop().await;
}

/// The leader's process is gone without a word, with heartbeats and elections as they are by default: the reset of its
/// connections has a follower stand for election, and writers on the survivors go on, each create applied exactly once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced() {
    let mut cluster = Cluster::start_with(3, Timing::default()).await;
    let killed = cluster.leader().await;
    let traffic = Traffic::around(&cluster, killed);
    cluster.wait_for_revision(20).await;
    cluster.kill(killed);
    let next = cluster.leader().await;
    assert_ne!(next, killed);
    let reached = cluster.get(next).status().revision;
    cluster.wait_for_revision(reached + 20).await;
    traffic.judge(&cluster).await;
    cluster.stop().await;
}

/// All replicas found the same control plane at once, and once more later: one comes of it. Founding one of other
/// members over it is refused by each, and changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_founders_meet() {
    let cluster = Cluster::unfounded(3, Timing::relaxed()).await;
    let members = cluster.members();
    let mut founders = tokio::task::JoinSet::new();
    for id in cluster.ids() {
        let (admin, members) = (cluster.get(id).admin(), members.clone());
        founders.spawn(async move { admin.initialize(members).await });
    }
    while let Some(founded) = founders.join_next().await {
        founded.expect("no panic").expect("founded");
    }
    let others = [
        members.iter().take(2).map(|(id, at)| (*id, at.clone())).collect(),
        members.keys().map(|id| (*id, "127.0.0.1:1".to_owned())).collect(),
    ];
    for id in cluster.ids() {
        cluster.until(id, |status| status.ready).await;
        cluster.get(id).admin().initialize(members.clone()).await.expect("founded before");
        for others in others.clone() {
            let refused = cluster.get(id).admin().initialize(others).await;
            assert!(matches!(&refused, Err(AdminError::Refused(why)) if why.contains("holds data")), "{refused:?}");
        }
    }
    last(cluster.get(2).propose(create("a"), DEADLINE).await.expect("applied"));
    cluster.same_state().await;
    assert_eq!(cluster.get(1).status().members.len(), 3);
    cluster.stop().await;
}

/// A replica that was away catches up from the log; one that was away longer than the log reaches, from a snapshot.
/// Watches resumed there at an old revision get exactly what they missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_away_catches_up() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let away = cluster.ids().into_iter().find(|id| *id != leader).expect("three replicas");
    let write = async |cluster: &Cluster, from: usize, to: usize| {
        let mut revision = Revision::ZERO;
        for at in from..to {
            revision = last(cluster.get(leader).propose(create(&format!("k{at}")), DEADLINE).await.expect("applied"));
        }
        revision
    };
    let seen = write(&cluster, 0, 5).await;
    cluster.shut_down(away).await;
    write(&cluster, 5, 10).await;
    cluster.restart(away).await;
    cluster.same_state().await;

    cluster.shut_down(away).await;
    write(&cluster, 10, 30).await;
    for id in cluster.ids().into_iter().filter(|id| *id != away) {
        cluster.get(id).admin().cut_log(0).await.expect("cut").expect("something was let go");
        cluster.until(id, |status| status.purged_index.is_some()).await;
    }
    write(&cluster, 30, 35).await;
    cluster.restart(away).await;
    cluster.same_state().await;
    assert!(cluster.get(away).status().snapshot_index.is_some(), "it came by snapshot");

    let prefix = KeyPrefix::resource("default", "", "configmaps").expect("valid");
    let mut watch = cluster.get(away).watch(prefix.clone(), seen);
    let mut names = Vec::new();
    while names.len() < 30 {
        let batch = tokio::time::timeout(DEADLINE, watch.next()).await.expect("in time").expect("open");
        names.extend(batch.events.iter().map(|event| event.key.parts().name.to_owned()));
    }
    assert!(names.iter().cloned().eq((5..35).map(|at| format!("k{at}"))));
    let view = cluster.get(away).read(Consistency::Linearizable, DEADLINE).await.expect("readable");
    let page = view.scan(&prefix, None, Limit { records: 100, bytes: 1 << 20 }).expect("readable");
    assert_eq!(page.records.len(), 35);
    last(cluster.get(away).propose(create("own"), DEADLINE).await.expect("applied"));
    drop(watch);
    cluster.stop().await;
}

/// All replicas stop and start: everything acknowledged is there, and old watches resume without a repeat.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_control_plane_restarts() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let revision = last(cluster.get(leader).propose(create("a"), DEADLINE).await.expect("applied"));
    for id in cluster.ids() {
        cluster.shut_down(id).await;
    }
    for id in cluster.ids() {
        cluster.restart(id).await;
    }
    for id in cluster.ids() {
        let view = cluster.get(id).read(Consistency::Linearizable, DEADLINE).await.expect("readable");
        assert_eq!(view.get(&key("a")).expect("readable").expect("kept").mod_revision, revision.get());
    }
    let prefix = KeyPrefix::resource("default", "", "configmaps").expect("valid");
    let any = cluster.ids()[0];
    let mut watch = cluster.get(any).watch(prefix, revision);
    let next = last(cluster.get(any).propose(create("b"), DEADLINE).await.expect("applied"));
    let batch = tokio::time::timeout(DEADLINE, watch.next()).await.expect("in time").expect("open");
    assert_eq!(batch.events.iter().map(|event| event.revision).collect::<Vec<_>>(), [next]);
    drop(watch);
    cluster.stop().await;
}

/// A list read page by page at one revision is the state of that revision, whichever replica gives a page and whoever
/// leads: a page needs nothing but the revision and the key behind which it begins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_go_on_at_another_replica_under_another_leader() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let mut written = Vec::new();
    for n in 0..60 {
        let name = format!("p{n:02}");
        let revision = last(cluster.get(leader).propose(create(&name), DEADLINE).await.expect("applied"));
        written.push((key(&name), revision.get()));
    }
    let at = Revision::new(written.last().expect("many").1);
    let prefix = KeyPrefix::resource("default", "", "configmaps").expect("valid");
    let limit = Limit { records: 7, bytes: 1 << 20 };
    let mut read = Vec::new();
    let mut asked = cluster.ids().into_iter().cycle();
    let mut page = 0;
    loop {
        // What is read is changed and deleted meanwhile; the leader hands over, and later one goes without a word.
        let any = cluster.leader().await;
        let change =
            Txn::new(vec![], vec![put(&format!("p{:02}", 59 - page)), Op::delete(&key(&format!("p{page:02}")))]);
        last(cluster.get(any).propose(change, DEADLINE).await.expect("applied"));
        match page {
            2 => drop(cluster.get(any).admin().transfer_leadership(None).await.expect("transferred")),
            5 => {
                cluster.kill(any);
                asked = cluster.ids().into_iter().filter(|id| *id != any).collect::<Vec<_>>().into_iter().cycle();
            }
            _ => {}
        }
        let replica = cluster.get(asked.next().expect("endless"));
        let view =
            replica.read(Consistency::AtLeast(at), DEADLINE).await.expect("readable").at(at).expect("in the window");
        let after = read.last().map(|(key, _)| key);
        let found = view.scan(&prefix, after, limit).expect("readable");
        read.extend(found.records.into_iter().map(|(key, record)| (key, record.mod_revision)));
        page += 1;
        if !found.more {
            break;
        }
    }
    assert!(page > 6, "{page} pages");
    assert_eq!(read, written);
    cluster.stop().await;
}

/// A fourth replica joins as a learner, becomes a voter, and another one leaves; asked on any replica.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_join_and_leave() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.ids().into_iter().find(|id| *id != leader).expect("three replicas");
    last(cluster.get(leader).propose(create("a"), DEADLINE).await.expect("applied"));
    let (joined, address) = cluster.add().await;
    // Nothing has arrived there yet; that is no reason to stop.
    let refused = cluster.get(joined).admin().snapshot().await.expect_err("there is no state");
    assert!(refused.to_string().contains("nothing has been applied here yet"), "{refused}");
    let admin = cluster.get(follower).admin();
    admin.add_learner(ReplicaId(joined), address).await.expect("added");
    admin.promote(ReplicaId(joined), DEADLINE).await.expect("promoted");
    let view = cluster.get(joined).read(Consistency::Linearizable, DEADLINE).await.expect("readable");
    assert!(view.get(&key("a")).expect("readable").is_some());
    last(cluster.get(joined).propose(create("b"), DEADLINE).await.expect("applied"));
    cluster.get(joined).admin().remove(ReplicaId(follower)).await.expect("removed");
    cluster.get(joined).admin().remove(ReplicaId(follower)).await.expect("removing again is safe");
    cluster.until(joined, |status| status.members.len() == 3 && !status.membership_changing).await;
    cluster.stop().await;
}

/// A voter goes only when those that are left can go on, and the refusal says who is missing. The leader may go too:
/// another one leads first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_go_only_when_the_rest_can_go_on() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let [away, other] = cluster.ids().into_iter().filter(|id| *id != leader).collect::<Vec<_>>()[..] else {
        panic!("two followers")
    };
    let admin = cluster.get(other).admin();
    let unknown = admin.remove(ReplicaId(77)).await;
    assert_eq!(unknown, Ok(()), "what is not there is removed");
    let unknown = admin.demote(ReplicaId(77)).await;
    assert!(matches!(unknown, Err(AdminError::UnknownMember { id: ReplicaId(77), .. })), "{unknown:?}");
    cluster.shut_down(away).await;
    cluster.until(leader, |status| status.failures_tolerated == 0).await;
    for refused in [admin.remove(ReplicaId(other)).await, admin.demote(ReplicaId(leader)).await] {
        let Err(AdminError::Unsafe(change)) = refused else { panic!("{refused:?}") };
        assert_eq!((change.left, change.reachable, change.needed), (2, 1, 2));
        assert_eq!(change.silent.iter().map(|voter| voter.id).collect::<Vec<_>>(), [ReplicaId(away)]);
    }
    let dead = admin.promote(ReplicaId(away), Duration::from_millis(200)).await;
    assert!(dead.is_ok() || matches!(dead, Err(AdminError::Timeout(_))), "{dead:?}");
    admin.remove(ReplicaId(away)).await.expect("two are left");
    admin.remove(ReplicaId(leader)).await.expect("the other one leads first");
    let gone = |status: &quilt_raft::Status| {
        status.role == Role::Leader && status.members.iter().map(|member| member.id.0).eq([other])
    };
    cluster.until(other, gone).await;
    let last_one = admin.demote(ReplicaId(other)).await;
    assert!(matches!(&last_one, Err(AdminError::Refused(why)) if why.contains("last voter")), "{last_one:?}");
    last(cluster.get(other).propose(create("alone"), DEADLINE).await.expect("applied"));
    drop(admin);
    cluster.stop().await;
}

/// A demoted voter still receives everything, and is promoted again; leadership goes to the best voter when none is
/// named, and never to a learner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_become_learners_and_back() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let learner = cluster.ids().into_iter().find(|id| *id != leader).expect("three replicas");
    let admin = cluster.get(learner).admin();
    admin.demote(ReplicaId(learner)).await.expect("two voters are left");
    admin.demote(ReplicaId(learner)).await.expect("demoting again is safe");
    cluster.until(leader, |status| status.members.iter().filter(|member| member.voter).count() == 2).await;
    last(cluster.get(learner).propose(create("a"), DEADLINE).await.expect("a learner forwards"));
    let view = cluster.get(learner).read(Consistency::Linearizable, DEADLINE).await.expect("readable");
    assert!(view.get(&key("a")).expect("readable").is_some());
    let refused = admin.transfer_leadership(Some(ReplicaId(learner))).await;
    assert!(matches!(&refused, Err(AdminError::Refused(why)) if why.contains("does not vote")), "{refused:?}");
    let next = admin.transfer_leadership(None).await.expect("transferred");
    assert!(next.0 != leader && next.0 != learner, "{next}");
    admin.promote(ReplicaId(learner), DEADLINE).await.expect("it holds the log");
    cluster.until(next.0, |status| status.members.iter().all(|member| member.voter)).await;
    drop(admin);
    cluster.stop().await;
}

/// Without a quorum nothing is acknowledged or claimed: writes wait, reads refuse, leadership is given up; and a write
/// that is said not to be applied never shows up later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_claimed() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for id in cluster.ids().into_iter().filter(|id| *id != leader) {
        cluster.shut_down(id).await;
    }
    let alone = cluster.get(leader).clone();
    let mut leadership = alone.leadership();
    let lost = leadership.wait_for(|now| now.held().is_none());
    tokio::time::timeout(DEADLINE, lost).await.expect("in time").expect("running");
    let read = alone.read(Consistency::Linearizable, Duration::from_millis(300)).await;
    assert_eq!(read.err(), Some(quilt_raft::ReadError::NoLeader));
    let refused = alone.propose(create("never"), Duration::from_millis(300)).await;
    assert_eq!(refused.err(), Some(quilt_raft::ProposeError::NotApplied));
    for id in cluster.ids().into_iter().filter(|id| *id != leader) {
        cluster.restart(id).await;
    }
    let check = Txn::new(vec![Compare::absent(&key("never"))], vec![put("later")]);
    last(alone.propose(check, DEADLINE).await.expect("applied"));
    drop(leadership);
    drop(alone);
    cluster.stop().await;
}

/// A replica that comes back under its number without its log gets nothing, and the leader goes on: it does not take what
/// was acknowledged for lost, and does not count on the replica any more. Under a new number it is welcome. So openraft never has
/// to tell which answers of such a replica are stale, as it could not before alpha.28.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_its_log_is_not_counted_on() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let wiped = cluster.ids().into_iter().find(|id| *id != leader).expect("three replicas");
    for n in 0..10 {
        last(cluster.get(leader).propose(create(&format!("before-{n}")), DEADLINE).await.expect("applied"));
    }
    cluster.same_state().await;
    cluster.shut_down(wiped).await;
    cluster.empty(wiped);
    cluster.restart(wiped).await;
    for n in 0..20 {
        last(cluster.get(leader).propose(create(&format!("after-{n}")), DEADLINE).await.expect("applied"));
    }
    cluster.until(leader, |status| status.role == Role::Leader && status.failures_tolerated == 0).await;
    assert_eq!(
        cluster.get(wiped).status().applied_index,
        0,
        "it was given the log under a number that has voted before"
    );
    cluster.get(leader).admin().remove(ReplicaId(wiped)).await.expect("removed");
    let (joined, address) = cluster.add().await;
    let admin = cluster.get(leader).admin();
    admin.add_learner(ReplicaId(joined), address).await.expect("added");
    admin.promote(ReplicaId(joined), DEADLINE).await.expect("promoted");
    drop(admin);
    cluster.stop().await;
}

/// A replica that comes back without its log votes for nobody: together with one that lagged behind it would make a
/// leader that lacks an acknowledged write. Once the third is back, all three hold the write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_its_log_elects_nobody() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    // Who has written something is known to have been at work; being ready alone comes earlier.
    for id in cluster.ids() {
        last(cluster.get(id).propose(create(&format!("at-work-{id}")), DEADLINE).await.expect("applied"));
    }
    cluster.same_state().await;
    let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
    let [lagging, wiped] = others[..] else { unreachable!("three replicas") };
    cluster.shut_down(lagging).await;
    let kept = last(cluster.get(leader).propose(create("kept"), DEADLINE).await.expect("applied")).get();
    cluster.shut_down(wiped).await;
    cluster.empty(wiped);
    cluster.shut_down(leader).await;
    cluster.restart(wiped).await;
    cluster.restart(lagging).await;
    // Several times what an election takes.
    let elected = tokio::time::timeout(Duration::from_secs(4), cluster.leader()).await;
    assert_eq!(elected.ok(), None, "elected by a vote of one that had acknowledged what the leader lacks");
    cluster.restart(leader).await;
    cluster.leader().await;
    cluster.wait_for_revision(kept).await;
    cluster.same_state().await;
    cluster.stop().await;
}
