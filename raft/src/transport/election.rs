//! A faster election when the leader's process is gone.
//!
//! A *reset* of the control connection means that the process at the other end has ended, not that it is slow. Then
//! each follower stands for election the moment the leader's lease has run out, one after the other by rank, until
//! somebody leads. Pre-vote keeps a mistaken one harmless.

use std::sync::Arc;
use std::time::Duration;

use openraft::type_config::TypeConfigExt;
use tokio::sync::mpsc;

use super::Peers;
use crate::disk::Disk;
use crate::state_machine::Raft;
use crate::types::{Metrics, TypeConfig};

type Instant = openraft::alias::InstantOf<TypeConfig>;

/// Between the candidates, so that the first has its votes before the second asks.
const STAGGER: Duration = Duration::from_millis(20);
/// How much later a replica stands whose disk is slow.
const SLOW_DISK_STANDS_LATER: Duration = Duration::from_secs(1);
/// Rounds before the ordinary election timeout is left to decide.
const ROUNDS_MAX: u32 = 20;

/// Stands for election when the leader's control connection is reset. Ends with the connections.
pub(crate) async fn stand_when_reset(
    raft: Raft,
    peers: Arc<Peers>,
    lease: Duration,
    disk: Arc<Disk>,
    mut resets: mpsc::UnboundedReceiver<u64>,
) {
    while let Some(peer) = resets.recv().await {
        let at = TypeConfig::now();
        if led_by(&raft, peer).is_some() {
            stand(&raft, &peers, peer, at, lease, &disk).await;
        }
    }
}

/// This replica's rank among the voters that remain, if it follows `leader` and votes.
fn rank(metrics: &Metrics, leader: u64) -> Option<u32> {
    if metrics.current_leader != Some(leader) || metrics.id == leader {
        return None;
    }
    let mut voters: Vec<u64> = metrics.membership_config.voter_ids().filter(|id| *id != leader).collect();
    voters.sort_unstable();
    u32::try_from(voters.iter().position(|id| *id == metrics.id)?).ok()
}

fn led_by(raft: &Raft, leader: u64) -> Option<u32> {
    use openraft::async_runtime::watch::WatchReceiver as _;

    rank(&raft.metrics().borrow_watched(), leader)
}

async fn stand(raft: &Raft, peers: &Peers, leader: u64, reset_at: Instant, lease: Duration, disk: &Disk) {
    // What the leader had sent before it died may still be read for a moment; a living one beats on and on.
    let alive_from = reset_at + lease / 2;
    for round in 0..ROUNDS_MAX {
        let heard = peers.heard(leader).map(|ago| TypeConfig::now() - ago);
        if heard.is_some_and(|heard| heard > alive_from) {
            return; // it is alive: only the connection was lost
        }
        let lease_end = heard.unwrap_or(reset_at) + lease;
        let Some(rank) = led_by(raft, leader) else { return };
        // One whose disk is slow lets all others go first.
        let later = if disk.is_slow() { SLOW_DISK_STANDS_LATER } else { Duration::ZERO };
        let turn = lease_end + STAGGER * rank + later;
        let again = if round == 0 { turn } else { turn.max(TypeConfig::now() + STAGGER * (rank + 2)) };
        TypeConfig::sleep_until(again).await;
        if led_by(raft, leader).is_none() {
            return;
        }
        if peers.heard(leader).is_some_and(|ago| TypeConfig::now() - ago > alive_from) {
            return;
        }
        tracing::info!(leader, round, "the leader's process is gone: standing for election");
        if raft.trigger().elect(true).await.is_err() {
            return;
        }
    }
}
