//! Changes of the membership, on the leader: learner, caught up, voter; one change at a time; and what is refused.
//!
//! A change goes through joint consensus (Raft dissertation, section 4.3), which openraft does; here is what an
//! operator must be kept from, and what must wait for what. It must not know who asks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::type_config::TypeConfigExt;
use quilt_proto::ReplicaId;
use tokio::sync::Mutex;

use crate::error::{AdminError, SilentVoter, UnsafeChange};
use crate::host::watch;
use crate::leadership::Leadership;
use crate::peer::Member;
use crate::state_machine::Raft;
use crate::status::{alive, has_answered_since, last_contact_ms, matched_index};
use crate::transport::Peers;
use crate::types::{Metrics, Node, TypeConfig};

/// A change that its own leader did not finish is finished by the next one after this.
const ABANDONED_AFTER: Duration = Duration::from_secs(5);
/// How long a replica that is to lead may take to be heard from.
const HEARD_WITHIN: Duration = Duration::from_secs(3);

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// The replica it was about is what it was asked to be.
    Done(u64),
    /// This replica must not lead for that, and has asked another one to: ask there.
    Moved,
}

/// The leader's hand on the membership.
pub(crate) struct Membership {
    id: u64,
    raft: Raft,
    peers: Arc<Peers>,
    /// The last term whose leadership this replica gave away.
    given_up: watch::Sender<u64>,
    /// Changes queue here: raft itself refuses one while another is under way.
    turn: Mutex<()>,
}

type Written =
    Result<openraft::raft::ClientWriteResponse<TypeConfig>, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>;

impl Membership {
    pub(crate) fn new(id: u64, raft: Raft, peers: Arc<Peers>, given_up: watch::Sender<u64>) -> Self {
        Self { id, raft, peers, given_up, turn: Mutex::default() }
    }

    fn metrics(&self) -> Metrics {
        self.raft.metrics().borrow_watched().clone()
    }

    /// Adds a replica that receives the log and does not vote. It need not run yet.
    pub(crate) async fn add_learner(&self, member: Member) -> Result<Changed, AdminError> {
        let Member { id, address } = member;
        let _turn = self.turn.lock().await;
        if let Some(known) = self.metrics().membership_config.get_node(&id) {
            return if known.addr == address {
                Ok(Changed::Done(id)) // asking again is safe
            } else {
                Err(AdminError::Refused(format!("replica {id} is a member already, at {}", known.addr)))
            };
        }
        written(self.raft.add_learner(id, Node::new(address), false).await)?;
        Ok(Changed::Done(id))
    }

    /// Makes a learner a voter once it holds everything the leader's log held when it was asked for: judged by what it
    /// has stored, never by time.
    /// It must also answer, now: one vote more of a replica that is gone can leave those that are there without a majority.
    pub(crate) async fn promote(&self, id: u64, patience: Duration) -> Result<Changed, AdminError> {
        self.must_know(id)?;
        self.caught_up(id, patience).await?;
        let _turn = self.turn.lock().await;
        self.must_know(id)?;
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id])), Removed::Stays).await?;
        Ok(Changed::Done(id))
    }

    /// Makes a voter a learner.
    pub(crate) async fn demote(&self, id: u64) -> Result<Changed, AdminError> {
        self.retire_voter(id, Removed::Stays).await
    }

    /// Removes a replica for good.
    pub(crate) async fn remove(&self, id: u64) -> Result<Changed, AdminError> {
        if self.metrics().membership_config.get_node(&id).is_none() {
            return Ok(Changed::Done(id)); // removed before: asking again is safe
        }
        self.retire_voter(id, Removed::Leaves).await
    }

    async fn retire_voter(&self, id: u64, removed: Removed) -> Result<Changed, AdminError> {
        let _turn = self.turn.lock().await;
        self.must_know(id)?;
        let metrics = self.metrics();
        let voters = current_voters(&metrics);
        if !voters.contains(&id) && metrics.membership_config.get_joint_config().len() < 2 {
            if matches!(removed, Removed::Leaves) {
                self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id])), removed).await?;
            }
            return Ok(Changed::Done(id));
        }
        refuse_if_unsafe(&metrics, &voters, id)?;
        if id == self.id {
            // The next leader does it: one that removes itself would leave the others to an election.
            self.hand_over(&metrics, None).await?;
            return Ok(Changed::Moved);
        }
        self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id])), removed).await?;
        if matches!(removed, Removed::Leaves) && self.metrics().membership_config.get_node(&id).is_some() {
            // A change that had been abandoned half-way left it behind as a learner.
            self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id])), removed).await?;
        }
        Ok(Changed::Done(id))
    }

    /// Hands leadership to a voter; to the one that holds most of the log when none is named.
    pub(crate) async fn transfer(&self, to: Option<u64>) -> Result<Changed, AdminError> {
        let _turn = self.turn.lock().await;
        if let Some(to) = to {
            self.must_know(to)?;
            // One that has just been started is given the time to be heard from; one that has just gone must not be taken at
            // its last word.
            let asked = TypeConfig::now();
            let heard = |metrics: &Metrics| metrics.replication.is_none() || has_answered_since(metrics, to, asked);
            let waited = self.raft.wait(Some(HEARD_WITHIN)).metrics(heard, "the next leader answers").await;
            waited.map_err(|_| does_not_answer(to))?;
        }
        self.hand_over(&self.metrics(), to).await.map(Changed::Done)
    }

    async fn hand_over(&self, metrics: &Metrics, to: Option<u64>) -> Result<u64, AdminError> {
        let voters = current_voters(metrics);
        let to = match to {
            Some(to) if to == self.id => return Ok(to),
            Some(to) if !voters.contains(&to) => {
                return Err(AdminError::Refused(format!(
                    "replica {to} does not vote and cannot lead; promote it first"
                )));
            }
            Some(to) if !alive(metrics, to) => return Err(does_not_answer(to)),
            Some(to) => to,
            None => {
                let others = voters.iter().copied().filter(|id| *id != self.id && alive(metrics, *id));
                let slow = |id| self.peers.report(id).is_some_and(|report| report.disk_is_slow);
                let best = others.max_by_key(|id| (!slow(*id), matched_index(metrics, *id)));
                best.ok_or_else(|| AdminError::Refused("no other voter answers that could lead".into()))?
            }
        };
        self.give_to(to).await?;
        Ok(to)
    }

    async fn give_to(&self, to: u64) -> Result<(), AdminError> {
        let metrics = self.metrics();
        if metrics.state == openraft::ServerState::Leader {
            self.given_up.send_replace(metrics.current_term);
        }
        self.raft.trigger().transfer_leader(to).await.map_err(|_| AdminError::Stopped)
    }

    /// Asks a voter to lead, if no change is under way; says when it does.
    pub(crate) async fn hand_over_unless_busy(&self, to: u64, begun: impl FnOnce() + Send) {
        let Ok(_turn) = self.turn.try_lock() else { return };
        begun();
        if self.give_to(to).await.is_err() {
            tracing::debug!("the agreement layer has ended");
        }
    }

    /// Waits until a learner holds everything that was in the log when it was asked for, and has answered since.
    async fn caught_up(&self, id: u64, patience: Duration) -> Result<(), AdminError> {
        let (target, asked) = (self.metrics().last_log_index, TypeConfig::now());
        let reached = |metrics: &Metrics| {
            // A leadership that has ended cannot tell; the caller asks the next leader.
            metrics.replication.is_none()
                || matched_index(metrics, id) >= target && has_answered_since(metrics, id, asked)
        };
        let waited = self.raft.wait(Some(patience)).metrics(reached, "the learner has caught up").await;
        let Ok(metrics) = waited else {
            let now = self.metrics();
            let behind = target.unwrap_or(0).saturating_sub(matched_index(&now, id).unwrap_or(0));
            return Err(AdminError::Timeout(if has_answered_since(&now, id, asked) {
                format!("replica {id} has not caught up: it is {behind} entries behind")
            } else {
                format!("replica {id} does not answer the leader: is it running and reachable?")
            }));
        };
        if metrics.replication.is_some() { Ok(()) } else { Err(AdminError::NotLeader { leader: None }) }
    }

    async fn change(&self, change: ChangeMembers<u64, Node>, removed: Removed) -> Result<(), AdminError> {
        written(self.raft.change_membership(change, matches!(removed, Removed::Stays)).await)
    }

    fn must_know(&self, id: u64) -> Result<(), AdminError> {
        let metrics = self.metrics();
        let members = || metrics.membership_config.nodes().map(|(id, _)| ReplicaId(*id)).collect();
        match metrics.membership_config.get_node(&id) {
            Some(_) => Ok(()),
            None => Err(AdminError::UnknownMember { id: ReplicaId(id), members: members() }),
        }
    }

    /// Finishes, while this replica leads, a change whose own leader was lost between its two steps. Until then both
    /// majorities are needed for everything.
    pub(crate) async fn finish_abandoned(&self, mut leadership: watch::Receiver<Leadership>) {
        loop {
            if leadership.wait_for(|now| now.held().is_some()).await.is_err() {
                return;
            }
            TypeConfig::sleep(ABANDONED_AFTER).await;
            let _turn = self.turn.lock().await;
            let metrics = self.metrics();
            let steps = metrics.membership_config.get_joint_config();
            if let (2.., Some(wanted)) = (steps.len(), steps.last()) {
                let finished = self.change(ChangeMembers::ReplaceAllVoters(wanted.clone()), Removed::Stays).await;
                tracing::info!(?finished, voters = ?wanted, "finishing a membership change that was left half-way");
            }
        }
    }
}

/// What becomes of a replica that ceases to vote.
#[derive(Clone, Copy)]
enum Removed {
    /// A learner.
    Stays,
    /// Nothing.
    Leaves,
}

/// The voters that count: of a change under way, those it leads to.
fn current_voters(metrics: &Metrics) -> BTreeSet<u64> {
    metrics.membership_config.get_joint_config().last().cloned().unwrap_or_default()
}

/// Whether those that would be left answer in sufficient number to go on without `id`.
fn refuse_if_unsafe(metrics: &Metrics, voters: &BTreeSet<u64>, id: u64) -> Result<(), AdminError> {
    let left: Vec<u64> = voters.iter().copied().filter(|voter| *voter != id).collect();
    if left.is_empty() {
        return Err(AdminError::Refused(format!("replica {id} is the last voter")));
    }
    let silent: Vec<u64> = left.iter().copied().filter(|voter| !alive(metrics, *voter)).collect();
    let (needed, reachable) = (left.len() / 2 + 1, left.len() - silent.len());
    if reachable >= needed {
        return Ok(());
    }
    let silent =
        silent.into_iter().map(|id| SilentVoter { id: ReplicaId(id), silent_ms: last_contact_ms(metrics, id) });
    Err(AdminError::Unsafe(UnsafeChange {
        id: ReplicaId(id),
        left: left.len() as u64,
        reachable: reachable as u64,
        needed: needed as u64,
        silent: silent.collect(),
    }))
}

fn does_not_answer(to: u64) -> AdminError {
    AdminError::Refused(format!("replica {to} does not answer the leader and cannot take over"))
}

fn written(result: Written) -> Result<(), AdminError> {
    match result {
        Ok(_) => Ok(()),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
            Err(AdminError::NotLeader { leader: to.leader_id.map(ReplicaId) })
        }
        Err(RaftError::APIError(error)) => Err(AdminError::Refused(error.to_string())),
        Err(RaftError::Fatal(_)) => Err(AdminError::Stopped),
    }
}
