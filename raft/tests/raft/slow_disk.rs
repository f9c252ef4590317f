//! A replica whose disk is slow, or has stalled: who leads then, and how often that changes.

use std::time::Duration;

use quilt_proto::ReplicaId;
use quilt_raft::{Consistency, Timing};
use tokio::time::Instant;

use crate::harness::{Cluster, DEADLINE, create};

/// Slow by any of the timings used here, and far from an election.
const SLOW: Duration = Duration::from_millis(400);

/// Writes through all replicas but one, one after the other, for as long as is asked for or until another one leads.
/// Gives the longest any of them took.
async fn write_beside(cluster: &Cluster, avoid: u64, lasts: Duration, until_led_by_another: bool) -> Duration {
    let (begun, mut longest, mut n) = (Instant::now(), Duration::ZERO, 0);
    while begun.elapsed() < lasts {
        for id in cluster.ids().into_iter().filter(|id| *id != avoid) {
            let asked = Instant::now();
            let name = format!("{}-{n}", cluster.get(id).status().revision);
            cluster.get(id).propose(create(&name), DEADLINE).await.expect("written");
            longest = longest.max(asked.elapsed());
            n += 1;
            if until_led_by_another && cluster.get(id).status().leader.is_some_and(|leader| leader.0 != avoid) {
                return longest;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    longest
}

/// A leader whose disk becomes slow gives leadership to a replica whose disk is well, within seconds and by one election;
/// there it stays, also when the slow disk recovers, and all the time writes through the others go on. What the slow one
/// thinks of itself is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_with_a_slow_disk_hands_over() {
    let cluster = Cluster::start_with(3, Timing::relaxed()).await;
    let slow = cluster.leader().await;
    write_beside(&cluster, slow, Duration::from_secs(1), false).await;
    let term = cluster.get(slow).status().term;
    let applied = cluster.get(slow).status().log_bytes;
    assert!(applied > 0);

    cluster.brake(slow).set(SLOW);
    let begun = Instant::now();
    let longest = write_beside(&cluster, slow, DEADLINE, true).await;
    let next = cluster.leader().await;
    assert_ne!(next, slow, "after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(longest < Duration::from_secs(2), "{longest:?}");

    let longest = write_beside(&cluster, slow, Duration::from_secs(5), false).await;
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    let status = cluster.get(next).status();
    assert_eq!((status.term, status.leader), (term + 1, Some(ReplicaId(next))), "{status:#?}");
    let told = status.members.iter().find(|member| member.id.0 == slow).expect("a member");
    assert_eq!(told.disk_is_slow, Some(true), "{told:?}");
    assert!(told.log_sync_us.is_some_and(|us| us >= 300_000), "{told:?}");
    assert!(status.alarms.iter().any(|alarm| alarm.contains("is slow")), "{:?}", status.alarms);

    cluster.brake(slow).release();
    write_beside(&cluster, slow, Duration::from_secs(6), false).await;
    let status = cluster.get(next).status();
    assert_eq!((status.term, status.leader), (term + 1, Some(ReplicaId(next))), "{status:#?}");
    assert_eq!(status.alarms, Vec::<String>::new());
    cluster.same_state().await;
    cluster.stop().await;
}

/// A disk on which nothing becomes durable any more takes leadership away as well; and where all disks are slow nobody
/// moves. A replica that dies as leader is followed by one whose disk is well.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_leads_better_where_all_disks_are_slow() {
    let mut cluster = Cluster::start_with(3, Timing::relaxed()).await;
    let leader = cluster.leader().await;
    let term = cluster.get(leader).status().term;
    cluster.ids().into_iter().for_each(|id| cluster.brake(id).set(SLOW));
    write_beside(&cluster, 0, Duration::from_secs(6), false).await;
    let status = cluster.get(leader).status();
    assert_eq!((status.term, status.leader), (term, Some(ReplicaId(leader))));
    assert_eq!(status.alarms, Vec::<String>::new());

    // One follower stays slow: it is not to follow the leader that dies.
    let slow = cluster.ids().into_iter().find(|id| *id != leader).expect("three");
    cluster.ids().into_iter().filter(|id| *id != slow).for_each(|id| cluster.brake(id).release());
    let begun = Instant::now();
    while cluster.get(slow).status().alarms.is_empty() {
        write_beside(&cluster, slow, Duration::from_millis(200), false).await;
        assert!(begun.elapsed() < DEADLINE, "{:?}", cluster.get(slow).status());
    }
    cluster.kill(leader);
    let next = cluster.leader().await;
    assert!(next != slow && next != leader, "{next}");
    cluster.stop().await;
}

/// While the disks of both followers stand still nothing can be written, and nothing else is wrong: the leader is still
/// followed, reads are confirmed, and nobody stands for election. Heartbeats do not wait for disks.
#[tokio::test(flavor = "multi_thread")]
async fn stalled_followers_follow() {
    let cluster = Cluster::start_with(3, Timing::relaxed()).await;
    let leader = cluster.leader().await;
    let term = cluster.get(leader).status().term;
    let others = || cluster.ids().into_iter().filter(|id| *id != leader);
    others().for_each(|id| cluster.brake(id).set(Duration::from_secs(3_600)));
    let writer = cluster.get(leader).clone();
    let writing = tokio::spawn(async move { writer.propose(create("late"), DEADLINE).await });
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        for id in cluster.ids() {
            let read = cluster.get(id).read(Consistency::Linearizable, Duration::from_secs(2)).await;
            assert!(read.is_ok(), "{:?} after {:?}", read.err(), begun.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!writing.is_finished(), "nobody has stored it");
    others().for_each(|id| cluster.brake(id).release());
    writing.await.expect("no panic").expect("written");
    assert_eq!(cluster.get(leader).status().term, term);
    cluster.stop().await;
}

/// A stalled disk stops its replica, which says why; the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_disk_stops_its_replica() {
    let mut cluster = Cluster::start_with_stalls(3, Timing::relaxed(), Duration::from_secs(4)).await;
    let stalled = cluster.leader().await;
    cluster.brake(stalled).set(Duration::from_secs(3_600));
    let longest = write_beside(&cluster, stalled, Duration::from_secs(4), false).await;
    assert!(longest < Duration::from_secs(3), "{longest:?}");
    let next = cluster.leader().await;
    assert_ne!(next, stalled);
    let why = tokio::time::timeout(DEADLINE, cluster.get(stalled).stopped()).await.expect("stops in time");
    assert!(why.contains("has stalled"), "{why}");
    cluster.brake(stalled).release();
    cluster.shut_down(stalled).await;
    write_beside(&cluster, stalled, Duration::from_millis(500), false).await;
    cluster.stop().await;
}
