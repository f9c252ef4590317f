//! Who leads, as the layers above may rely on it.
//!
//! *Gained* is announced after this term's first entry has been applied here, so its owner starts from a state that
//! holds everything earlier leaders committed. *Lost* is announced on a higher vote, when no quorum has acknowledged this
//! leader within its lease, or when it asks another one to lead, whichever shows first.

use std::sync::Arc;
use std::time::Duration;

use openraft::type_config::TypeConfigExt;
use openraft::{Instant as _, ServerState};
use quilt_proto::ReplicaId;

use crate::applied::Applied;
use crate::host::watch;
use crate::state_machine::Raft;
use crate::types::{Metrics, TypeConfig};

/// One leadership: a replica in a term. No two are equal, whoever leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct LeaderId {
    /// The term.
    pub term: u64,
    /// The replica that leads it.
    pub replica: ReplicaId,
}

/// This replica's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Leadership {
    /// Another replica leads, or none.
    Follower,
    /// This replica leads, has applied everything before its term, and a quorum still follows.
    Leader(LeaderId),
}

impl Leadership {
    /// The leadership held here, if any.
    #[must_use]
    pub const fn held(self) -> Option<LeaderId> {
        match self {
            Self::Leader(id) => Some(id),
            Self::Follower => None,
        }
    }
}

/// The leadership these metrics show, and when its lease runs out unless a quorum answers again. Leaderships up to the
/// term `given_up` have been given away: their lease says nothing, since the next leader need not wait for it.
fn judge(metrics: &Metrics, applied_term: u64, given_up: u64, lease: Duration) -> (Leadership, Option<Duration>) {
    let leads = metrics.state == ServerState::Leader
        && metrics.current_leader == Some(metrics.id)
        && metrics.vote.is_committed()
        && applied_term == metrics.current_term
        && metrics.current_term > given_up;
    if !leads || metrics.running_state.is_err() {
        return (Leadership::Follower, None);
    }
    let leader = Leadership::Leader(LeaderId { term: metrics.current_term, replica: ReplicaId(metrics.id) });
    let mut voters = metrics.membership_config.voter_ids();
    if voters.next() == Some(metrics.id) && voters.next().is_none() {
        // The only voter is its own quorum.
        return (leader, None);
    }
    // The first entry of the term was committed by a quorum moments ago; until an acknowledgement is on record the
    // next metrics decide.
    let age = metrics.last_quorum_acked.as_ref().map_or(Duration::ZERO, |acked| acked.elapsed());
    match lease.checked_sub(age) {
        Some(left) if !left.is_zero() => (leader, Some(left)),
        _ => (Leadership::Follower, None),
    }
}

/// What must be heard of next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Another part played here.
    Part,
    /// That, or that the lease runs out.
    Lapse(Duration),
    /// Everything: this replica leads and only its first entry or a quorum's answer is missing.
    All,
}

/// Keeps `leadership` truthful until the replica stops. Looks at what every heartbeat changes only when that decides.
pub(crate) async fn follow(
    raft: Raft,
    applied: Arc<Applied>,
    lease: Duration,
    mut given_up: watch::Receiver<u64>,
    leadership: Arc<watch::Sender<Leadership>>,
) {
    use openraft::async_runtime::watch::WatchReceiver as _;
    use openraft::async_runtime::{Select2, Select4};

    let mut part = raft.server_metrics();
    let mut metrics = raft.metrics();
    let mut mark = applied.watch();
    loop {
        let term = mark.borrow_and_update().term;
        // Marks both as seen: what changes from here on wakes.
        drop(part.borrow_and_update());
        let (now, next) = {
            let seen = metrics.borrow_and_update();
            let (now, left) = judge(&seen, term, *given_up.borrow_and_update(), lease);
            let next = match (now, left) {
                (Leadership::Leader(_), Some(left)) => Next::Lapse(left),
                (Leadership::Follower, _) if seen.state == ServerState::Leader => Next::All,
                _ => Next::Part,
            };
            (now, next)
        };
        let changed = leadership.send_if_modified(|held| {
            let changed = *held != now;
            *held = now;
            changed
        });
        if changed {
            tracing::info!(?now, "leadership");
        }
        let lapse = async {
            match next {
                Next::Lapse(left) => TypeConfig::sleep(left).await,
                _ => std::future::pending().await,
            }
        };
        let other =
            async { if next == Next::All { metrics.changed().await.is_ok() } else { std::future::pending().await } };
        // The mark moves with every apply; only a new term matters here.
        let new_term = async {
            while next == Next::All && mark.changed().await.is_ok() {
                if mark.borrow_and_update().term != term {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        let changed = async {
            let (part, given_up) = (std::pin::pin!(part.changed()), std::pin::pin!(given_up.changed()));
            match TypeConfig::select2(part, given_up).await {
                Select2::First(changed) => changed.is_ok(),
                Select2::Second(changed) => changed.is_ok(),
            }
        };
        let (changed, lapse) = (std::pin::pin!(changed), std::pin::pin!(lapse));
        let (other, new_term) = (std::pin::pin!(other), std::pin::pin!(new_term));
        match TypeConfig::select4(changed, lapse, other, new_term).await {
            Select4::First(false) | Select4::Third(false) => {
                leadership.send_replace(Leadership::Follower);
                return;
            }
            _ => {}
        }
    }
}
