//! [`Admin`]: changes of the control plane itself. Asked on any replica, done by the leader; asking again is safe.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ChangeMembers;
use openraft::errors::{ClientWriteError, InitializeError, RaftError};
use openraft::type_config::TypeConfigExt;
use prost::Message;
use quilt_proto::state::{Compact, DropCluster};
use quilt_proto::{ClusterId, ReplicaId, Revision, command};
use quilt_state::limits::COMPACT_ROWS_MAX;

use crate::error::{AdminError, AskError};
use crate::peer::{AdminRequest, Member, admin_request::Change};
use crate::proposer::{Proposer, Refused};
use crate::replica::Replica;
use crate::state_machine::Raft;
use crate::types::{Node, TypeConfig};

/// Name under which changes reach the leader.
pub(crate) const SERVICE: &str = "internal/admin";

/// How long a membership change may take; adding a learner includes sending it the whole state.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long other changes may take.
const TIMEOUT: Duration = Duration::from_secs(15);

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
        let done = self.replica.on_runtime(async move { raft.initialize(nodes).await });
        match done.await.map_err(|_| AdminError::Stopped)? {
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
        let known = self.replica.on_runtime(async move {
            let wait = raft.wait(Some(TIMEOUT));
            wait.metrics(|now| now.membership_config.nodes().next().is_some(), "the members are known").await
        });
        let metrics = known.await.map_err(|_| AdminError::Stopped)?;
        let membership =
            metrics.map_err(|_| AdminError::Timeout("hearing from the founder voted for"))?.membership_config;
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
        let asked = self.replica.on_runtime(async move { raft.is_initialized().await });
        asked.await.map_err(|_| AdminError::Stopped)?.map_err(|_| AdminError::Stopped)
    }

    /// Adds a replica that receives the log but does not vote; returns once it has caught up.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn add_learner(&self, id: ReplicaId, address: String) -> Result<(), AdminError> {
        self.ask(Change::AddLearner(Member { id: id.0, address }), CHANGE_TIMEOUT).await
    }

    /// Makes a learner a voter.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn promote(&self, id: ReplicaId) -> Result<(), AdminError> {
        self.ask(Change::Promote(id.0), CHANGE_TIMEOUT).await
    }

    /// Removes a replica for good. Its id must never be used again.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn remove(&self, id: ReplicaId) -> Result<(), AdminError> {
        self.ask(Change::Remove(id.0), CHANGE_TIMEOUT).await
    }

    /// Hands leadership to another voter; returns once it leads, or any other replica does.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn transfer_leadership(&self, to: ReplicaId) -> Result<(), AdminError> {
        self.ask(Change::TransferTo(to.0), TIMEOUT).await?;
        let mut destination = self.replica.destination();
        let moved = async { destination.wait_for(|now| now.leader == Some(to.0)).await.map(drop) };
        match TypeConfig::timeout(TIMEOUT, moved).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(AdminError::Stopped),
            Err(_) => Err(AdminError::Timeout("leadership transfer")),
        }
    }

    /// Makes this replica's newest snapshot cover everything applied here so far.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn snapshot(&self) -> Result<(), AdminError> {
        let raft = self.replica.raft().clone();
        let index = self.replica.applied().mark().index;
        let taken = self.replica.on_runtime(async move { take_snapshot(&raft, index, TIMEOUT).await });
        taken.await.map_err(|_| AdminError::Stopped)?
    }

    /// Cuts this replica's log down to about `keep_bytes`, as far as state and snapshot cover it. Returns the last index
    /// that was let go, if any.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn cut_log(&self, keep_bytes: u64) -> Result<Option<u64>, AdminError> {
        let retention = self.replica.retention().clone();
        let cut = self.replica.on_runtime(async move { retention.cut(keep_bytes).await });
        cut.await.map_err(|_| AdminError::Stopped)?.map_err(AdminError::Refused)
    }

    /// Deletes a whole cluster: unreadable at once, swept in the background. Its id is never used again.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn drop_cluster(&self, cluster: ClusterId) -> Result<(), AdminError> {
        self.ask(Change::DropCluster(cluster.0), TIMEOUT).await
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
        let compacted = self.replica.on_runtime(async move {
            while applied.horizon().floor(&cluster) < floor {
                let compact = Compact { cluster: cluster.clone(), floor: floor.get(), limit: COMPACT_ROWS_MAX };
                let done = proposer.command(command::Kind::Compact(compact));
                let done = done.map_err(|_: Refused| AdminError::NotLeader { leader })?;
                match TypeConfig::timeout(TIMEOUT, done).await {
                    Ok(Ok(true)) => {}
                    Ok(_) => return Err(AdminError::NotLeader { leader }),
                    Err(_) => return Err(AdminError::Timeout("compaction")),
                }
            }
            Ok(())
        });
        compacted.await.map_err(|_| AdminError::Stopped)?
    }

    async fn ask(&self, change: Change, timeout: Duration) -> Result<(), AdminError> {
        let body = AdminRequest { change: Some(change) }.encode_to_vec();
        match self.replica.ask_leader(SERVICE, body.into(), timeout).await {
            Ok(_) => Ok(()),
            Err(AskError::NoLeader) => Err(AdminError::NotLeader { leader: self.replica.status().leader }),
            Err(AskError::Stopped) => Err(AdminError::Stopped),
            Err(error) => Err(AdminError::Refused(error.to_string())),
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
    covered.await.map(drop).map_err(|_| AdminError::Timeout("snapshot"))
}

/// The leader's side.
pub(crate) async fn serve(raft: Raft, proposer: Arc<Proposer>, body: Bytes) -> Result<Bytes, String> {
    let request = AdminRequest::decode(body).map_err(|error| error.to_string())?;
    match request.change.ok_or("empty request")? {
        Change::AddLearner(member) => {
            finish(raft.add_learner(member.id, Node::new(member.address), false).await.map(drop)).await?;
            caught_up(&raft, member.id).await
        }
        Change::Promote(id) => {
            let change = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
            finish(raft.change_membership(change, true).await.map(drop)).await
        }
        Change::Remove(id) => remove(&raft, id).await,
        Change::TransferTo(id) => {
            use openraft::async_runtime::watch::WatchReceiver as _;
            let voter = raft.metrics().borrow_watched().membership_config.voter_ids().any(|voter| voter == id);
            if !voter {
                return Err(format!("replica {id} is not a voter"));
            }
            raft.trigger().transfer_leader(id).await.map_err(|error| error.to_string())
        }
        Change::DropCluster(cluster) => {
            if cluster.is_empty() {
                return Err("the tenant range cannot be dropped".into());
            }
            let dropped = proposer.command(command::Kind::DropCluster(DropCluster { cluster }));
            match dropped {
                Ok(done) => done.await.map(drop).map_err(|_| "leadership changed: ask again".to_owned()),
                Err(Refused::NotLeader) => Err("leadership changed: ask again".into()),
                Err(Refused::Overloaded(limit)) => Err(format!("too much is waiting: limit {limit} is reached")),
            }
        }
    }?;
    Ok(Bytes::new())
}

/// Waits until a learner holds everything that was in the log when it was asked for: by log match, not by time.
async fn caught_up(raft: &Raft, id: u64) -> Result<(), String> {
    use openraft::async_runtime::watch::WatchReceiver as _;

    let target = raft.metrics().borrow_watched().last_log_index;
    let wait = raft.wait(Some(CHANGE_TIMEOUT));
    let matched = wait.metrics(
        |metrics| {
            let replication = metrics.replication.as_ref();
            let matched = replication.map(|peers| peers.get(&id).and_then(|at| at.as_ref().map(|at| at.index)));
            // A leadership that has ended cannot tell; the caller asks the next leader.
            matched.is_none_or(|matched| matched >= target)
        },
        "the learner has caught up",
    );
    let metrics = matched.await.map_err(|_| format!("replica {id} did not catch up in time; it is a learner now"))?;
    if metrics.replication.is_some() { Ok(()) } else { Err("leadership changed: ask again".into()) }
}

async fn remove(raft: &Raft, id: u64) -> Result<(), String> {
    use openraft::async_runtime::watch::WatchReceiver as _;
    let membership = raft.metrics().borrow_watched().membership_config.clone();
    if membership.get_node(&id).is_none() {
        return Ok(()); // removed before: asking again is safe
    }
    let mut voters = membership.voter_ids();
    if voters.next() == Some(id) && voters.next().is_none() {
        return Err(format!("replica {id} is the last voter"));
    }
    let change = if membership.voter_ids().any(|voter| voter == id) {
        ChangeMembers::RemoveVoters(BTreeSet::from([id]))
    } else {
        ChangeMembers::RemoveNodes(BTreeSet::from([id]))
    };
    finish(raft.change_membership(change, false).await.map(drop)).await
}

async fn finish(result: Result<(), RaftError<TypeConfig, ClientWriteError<TypeConfig>>>) -> Result<(), String> {
    result.map_err(|error| error.to_string())
}
