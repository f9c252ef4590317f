//! [`Admin`]: changes of the control plane itself. Asked on any replica, done by the leader; asking again is safe.

mod reply;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{InitializeError, RaftError};
use openraft::type_config::TypeConfigExt;
use prost::Message;
use quilt_proto::state::{Compact, DropCluster};
use quilt_proto::{ClusterId, ReplicaId, Revision, command};
use quilt_state::limits::COMPACT_ROWS_MAX;

use crate::clock::millis;
use crate::error::{AdminError, AskError};
use crate::membership::{Changed, Membership};
use crate::peer::{AdminReply, AdminRequest, Member, admin_request::Change};
use crate::proposer::{Proposer, Refused};
use crate::replica::Replica;
use crate::state_machine::Raft;
use crate::types::{Node, TypeConfig};

/// Name under which changes reach the leader.
pub(crate) const SERVICE: &str = "internal/admin";

/// How long a membership change may take: it waits for its turn, and for two rounds of agreement.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long other changes may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How long a replica that was asked to lead is waited for before it is asked again.
const TRANSFER_ATTEMPT: Duration = Duration::from_secs(2);
/// The leader's answer that it has waited long enough is still waited for.
const ANSWER_MARGIN: Duration = Duration::from_secs(1);
/// Pause before the next leader is asked.
const RETRY_AFTER: Duration = Duration::from_millis(25);

/// Changes of the control plane itself.
#[derive(Clone, Debug)]
pub struct Admin {
    pub(crate) replica: Replica,
}

impl Admin {
    /// Founds a new control plane with these voters. Each of them may do so at once, with the same voters: one that has
    /// heard of another's founding already is part of it and stays as it is.
    ///
    /// # Errors
    /// This replica is not among the members, or holds data of a control plane with other ones.
    pub async fn initialize(&self, members: BTreeMap<ReplicaId, String>) -> Result<(), AdminError> {
        let raft = self.replica.raft().clone();
        let nodes: BTreeMap<u64, Node> = members.into_iter().map(|(id, address)| (id.0, Node::new(address))).collect();
        let wanted = nodes.clone();
        match self.run(async move { raft.initialize(nodes).await }).await? {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => self.founded_with(wanted).await,
            Err(RaftError::APIError(error)) => Err(AdminError::Refused(error.to_string())),
            Err(RaftError::Fatal(_)) => Err(AdminError::Stopped),
        }
    }

    /// Whether the control plane that this replica is already part of has just these voters.
    async fn founded_with(&self, wanted: BTreeMap<u64, Node>) -> Result<(), AdminError> {
        let raft = self.replica.raft().clone();
        // A replica that has only voted so far learns its members with the first entry the founder sends it.
        let known = self.run(async move {
            let wait = raft.wait(Some(TIMEOUT));
            wait.metrics(|now| now.membership_config.nodes().next().is_some(), "the members are known").await
        });
        let membership = known
            .await?
            .map_err(|_| AdminError::Timeout("the founder voted for has not been heard from".into()))?
            .membership_config;
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let same = voters.iter().eq(wanted.keys()) && membership.nodes().eq(&wanted);
        if same {
            return Ok(());
        }
        let listed = |(id, node): (&u64, &Node)| format!("{id} at {}", node.addr);
        let held: Vec<String> = membership.nodes().map(listed).collect();
        let asked: Vec<String> = wanted.iter().map(listed).collect();
        Err(AdminError::Refused(format!(
            "this replica holds data of a control plane of replicas {}; it cannot found one of {}",
            held.join(", "),
            asked.join(", ")
        )))
    }

    /// Whether this replica belongs to a control plane yet.
    ///
    /// # Errors
    /// The replica has stopped.
    pub async fn is_initialized(&self) -> Result<bool, AdminError> {
        let raft = self.replica.raft().clone();
        self.run(async move { raft.is_initialized().await }).await?.map_err(|_| AdminError::Stopped)
    }

    /// Adds a replica that receives the log and does not vote. It need not run yet.
    ///
    /// # Errors
    /// See [`AdminError`]; [`AdminError::Refused`] when it is a member at another address.
    pub async fn add_learner(&self, id: ReplicaId, address: String) -> Result<(), AdminError> {
        self.ask(Change::AddLearner(Member { id: id.0, address }), CHANGE_TIMEOUT).await.map(drop)
    }

    /// Makes a learner a voter, once it has caught up with what the log holds now.
    ///
    /// # Errors
    /// See [`AdminError`]; [`AdminError::Timeout`] when it has not caught up within `patience`.
    pub async fn promote(&self, id: ReplicaId, patience: Duration) -> Result<(), AdminError> {
        self.ask(Change::Promote(id.0), patience).await.map(drop)
    }

    /// Makes a voter a learner: it still receives the log.
    ///
    /// # Errors
    /// See [`AdminError`]; [`AdminError::Unsafe`] when the voters that are left could not go on.
    pub async fn demote(&self, id: ReplicaId) -> Result<(), AdminError> {
        self.ask(Change::Demote(id.0), CHANGE_TIMEOUT).await.map(drop)
    }

    /// Removes a replica for good. Its id must never be used again.
    ///
    /// # Errors
    /// See [`AdminError`]; [`AdminError::Unsafe`] when the voters that are left could not go on.
    pub async fn remove(&self, id: ReplicaId) -> Result<(), AdminError> {
        self.ask(Change::Remove(id.0), CHANGE_TIMEOUT).await.map(drop)
    }

    /// Hands leadership to a voter, to the one most up to date when none is named. Returns who was asked to lead, once it
    /// does; it may have lost it again by then.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn transfer_leadership(&self, to: Option<ReplicaId>) -> Result<ReplicaId, AdminError> {
        use openraft::Instant as _;

        let began = TypeConfig::now();
        let mut to = to.map_or(0, |to| to.0);
        loop {
            to = self.ask(Change::TransferTo(to), TIMEOUT).await?;
            let mut destination = self.replica.destination();
            let moved = async { destination.wait_for(|now| now.leader == Some(to)).await.map(drop) };
            match TypeConfig::timeout(TRANSFER_ATTEMPT, moved).await {
                Ok(Ok(())) => return Ok(ReplicaId(to)),
                Ok(Err(_)) => return Err(AdminError::Stopped),
                // A replica whose log is not yet complete declines, and nobody asks it again but us.
                Err(_) if began.elapsed() < TIMEOUT => {}
                Err(_) => {
                    return Err(AdminError::Timeout(format!("replica {to} was asked to lead and does not yet")));
                }
            }
        }
    }

    /// Makes this replica's newest snapshot cover everything applied here so far.
    ///
    /// # Errors
    /// Nothing has been applied here yet; see [`AdminError`].
    pub async fn snapshot(&self) -> Result<(), AdminError> {
        let raft = self.replica.raft().clone();
        let index = self.replica.applied().mark().index;
        if index == 0 {
            return Err(AdminError::Refused("nothing has been applied here yet, so there is no state to keep".into()));
        }
        self.run(async move { take_snapshot(&raft, index, TIMEOUT).await }).await?
    }

    /// Cuts this replica's log down to about `keep_bytes`, as far as state and snapshot cover it. Returns the last index
    /// that was let go, if any.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn cut_log(&self, keep_bytes: u64) -> Result<Option<u64>, AdminError> {
        let retention = self.replica.retention().clone();
        self.run(async move { retention.cut(keep_bytes).await }).await?.map_err(AdminError::Refused)
    }

    /// Deletes a whole cluster: unreadable at once, swept in the background. Its id is never used again.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn drop_cluster(&self, cluster: ClusterId) -> Result<(), AdminError> {
        self.ask(Change::DropCluster(cluster.0), TIMEOUT).await.map(drop)
    }

    /// Lets go of a cluster's history up to `floor` now, as upkeep does with age; on the leader only. Reads at and watches
    /// from older revisions end as compacted.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn compact(&self, cluster: &ClusterId, floor: Revision) -> Result<(), AdminError> {
        let applied = Arc::clone(self.replica.applied());
        let proposer = Arc::clone(self.replica.proposer());
        let leader = self.replica.status().leader;
        let cluster = cluster.0.clone();
        let compacted = self.run(async move {
            while applied.horizon().floor(&cluster) < floor {
                let compact = Compact { cluster: cluster.clone(), floor: floor.get(), limit: COMPACT_ROWS_MAX };
                let done = proposer.command(command::Kind::Compact(compact));
                let done = done.map_err(|_: Refused| AdminError::NotLeader { leader })?;
                match TypeConfig::timeout(TIMEOUT, done).await {
                    Ok(Ok(true)) => {}
                    Ok(_) => return Err(AdminError::NotLeader { leader }),
                    Err(_) => return Err(AdminError::Timeout("the compaction is still under way".into())),
                }
            }
            Ok(())
        });
        compacted.await?
    }

    /// Runs something on the replica's own threads.
    async fn run<T: Send + 'static>(&self, what: impl Future<Output = T> + Send + 'static) -> Result<T, AdminError> {
        self.replica.on_runtime(what).await.map_err(|_| AdminError::Stopped)
    }

    /// Asks the leader, and the next one for as long as leadership moves. Gives the replica it was about.
    async fn ask(&self, change: Change, patience: Duration) -> Result<u64, AdminError> {
        use openraft::Instant as _;

        let began = TypeConfig::now();
        loop {
            let left = patience.saturating_sub(began.elapsed());
            let body = AdminRequest { change: Some(change.clone()), patience_ms: millis(left) }.encode_to_vec();
            let asked = self.replica.ask_leader(SERVICE, body.into(), left + ANSWER_MARGIN).await;
            let reply = match asked {
                Ok(reply) => reply,
                Err(AskError::NoLeader) => return Err(AdminError::NotLeader { leader: self.replica.status().leader }),
                Err(AskError::Stopped) => return Err(AdminError::Stopped),
                Err(error) => return Err(AdminError::Refused(error.to_string())),
            };
            let reply = AdminReply::decode(reply).map_err(|error| AdminError::Refused(error.to_string()))?;
            match reply::read(reply) {
                Ok(Changed::Done(id)) => return Ok(id),
                Ok(Changed::Moved) | Err(AdminError::NotLeader { .. }) if !left.is_zero() => {
                    TypeConfig::sleep(RETRY_AFTER).await;
                }
                Ok(Changed::Moved) => return Err(AdminError::NotLeader { leader: None }),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Builds a snapshot that covers `index`.
pub(crate) async fn take_snapshot(raft: &Raft, index: u64, timeout: Duration) -> Result<(), AdminError> {
    raft.trigger().snapshot().await.map_err(|_| AdminError::Stopped)?;
    let wait = raft.wait(Some(timeout));
    let covered = wait.metrics(
        |metrics| metrics.snapshot.as_ref().is_some_and(|snapshot| snapshot.index >= index),
        "snapshot covers the applied state",
    );
    covered.await.map(drop).map_err(|_| AdminError::Timeout("the snapshot is still being made".into()))
}

/// The leader's side.
pub(crate) async fn serve(membership: &Membership, proposer: &Proposer, body: Bytes) -> Result<Bytes, String> {
    let request = AdminRequest::decode(body).map_err(|error| error.to_string())?;
    let patience = Duration::from_millis(request.patience_ms);
    let done = match request.change.ok_or("a change this release does not know")? {
        Change::AddLearner(member) => membership.add_learner(member).await,
        Change::Promote(id) => membership.promote(id, patience).await,
        Change::Demote(id) => membership.demote(id).await,
        Change::Remove(id) => membership.remove(id).await,
        Change::TransferTo(id) => membership.transfer(Some(id).filter(|id| *id != 0)).await,
        Change::DropCluster(cluster) => drop_cluster(proposer, cluster).await,
    };
    Ok(reply::written(done).encode_to_vec().into())
}

async fn drop_cluster(proposer: &Proposer, cluster: String) -> Result<Changed, AdminError> {
    if cluster.is_empty() {
        return Err(AdminError::Refused("the tenant range cannot be dropped".into()));
    }
    match proposer.command(command::Kind::DropCluster(DropCluster { cluster })) {
        Ok(done) => done.await.map(|_| Changed::Done(0)).map_err(|_| AdminError::NotLeader { leader: None }),
        Err(Refused::NotLeader) => Err(AdminError::NotLeader { leader: None }),
        Err(Refused::Overloaded(limit)) => {
            Err(AdminError::Refused(format!("too much is waiting: limit {limit} is reached")))
        }
    }
}
