//! Replicas that are not where the others look for them.

use std::time::Duration;

use quilt_raft::{Consistency, Status};

use crate::harness::{Cluster, DEADLINE, create, key, last};

/// Three replicas have stopped, and two of them start at each other's address. Whoever is reached there is not taken for the other: nothing is sent to
/// it, and nothing of it is counted. The one that nobody reaches is missed like one that is down, and gets nothing; with the one
/// that reaches the third the control plane goes on. Back at their places all three hold the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_at_each_others_address_are_not_mixed_up() {
    let mut cluster = Cluster::start(3).await;
    let stays = cluster.leader().await;
    let [one, other] = cluster.ids().into_iter().filter(|id| *id != stays).collect::<Vec<_>>()[..] else {
        panic!("two followers")
    };
    last(cluster.get(stays).propose(create("before"), DEADLINE).await.expect("applied"));
    cluster.same_state().await;
    let kept = cluster.get(stays).status().revision;
    for id in [one, other, stays] {
        cluster.shut_down(id).await;
    }
    cluster.swap_addresses(one, other);
    for id in [one, other, stays] {
        cluster.restart(id).await;
    }

    // The third reaches nobody; each of the two reaches it, and with it can lead.
    let leads = cluster.leader().await;
    let missed = if leads == one { other } else { one };
    assert_ne!(leads, stays, "it leads although it reaches nobody by that name");
    for n in 0..20 {
        last(cluster.get(leads).propose(create(&format!("during-{n}")), DEADLINE).await.expect("two of three"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let unheard = |status: &Status| {
        let missed = status.members.iter().find(|member| member.id.0 == missed).expect("a member");
        (missed.last_contact_ms, missed.matched_index, status.failures_tolerated) == (None, None, 0)
    };
    let status = cluster.get(leads).status();
    assert!(unheard(&status), "{status:#?}");
    assert_eq!(cluster.get(missed).status().revision, kept, "it was given something");
    {
        // A view keeps the store open, and so its directory.
        let view = cluster.get(leads).read(Consistency::Linearizable, DEADLINE).await.expect("readable");
        assert!(view.get(&key("during-19")).expect("readable").is_some());
    }

    cluster.shut_down(one).await;
    cluster.shut_down(other).await;
    cluster.swap_addresses(one, other);
    cluster.restart(one).await;
    cluster.restart(other).await;
    let written = last(cluster.get(missed).propose(create("after"), DEADLINE).await.expect("applied"));
    cluster.wait_for_revision(written.get()).await;
    cluster.same_state().await;
    cluster.stop().await;
}
