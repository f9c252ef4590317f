//! [`Status`]: one truthful picture of a replica, read from the agreement layer itself.

use std::time::Duration;

use openraft::{Instant as _, ServerState};
use quilt_proto::ReplicaId;
use quilt_state::Horizon;

use crate::clock::{micros, millis};
use crate::leadership::Leadership;
use crate::rebuild::Repaired;
use crate::scan::Scanned;
use crate::transport::PeerReport;
use crate::types::{Metrics, TypeConfig};

type Instant = openraft::alias::InstantOf<TypeConfig>;

/// A member that answered the leader within this counts as alive.
const ALIVE_WITHIN: Duration = Duration::from_secs(2);

/// What part a replica plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Receives the log, does not vote.
    Learner,
    /// Follows a leader and votes.
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Has stopped.
    Stopped,
}

/// A member of the control plane, as this replica sees it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Member {
    /// Its id.
    pub id: ReplicaId,
    /// Where its peers reach it.
    pub address: String,
    /// Whether it votes.
    pub voter: bool,
    /// Last log index it has stored; known on the leader only.
    pub matched_index: Option<u64>,
    /// Entries it is behind the leader's log; known on the leader only.
    pub lag_entries: Option<u64>,
    /// Time since the leader last had an answer from it; known on the leader only.
    pub last_contact_ms: Option<u64>,
    /// Time since this replica last heard from it on its own.
    pub last_heard_ms: Option<u64>,
    /// Last index it has applied, as it said itself within the last seconds it was heard.
    pub applied_index: Option<u64>,
    /// Term of that index.
    pub term: Option<u64>,
    /// What a sync of its log takes at this time, if there was one lately, as it said itself.
    pub log_sync_us: Option<u64>,
    /// Whether it holds its own disk to be slow: it is not to lead while another can.
    pub disk_is_slow: Option<bool>,
    /// What the layers above it said of it, see [`crate::Replica::describe`].
    pub about: Option<String>,
}

/// One picture of a replica.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Status {
    /// This replica.
    pub id: ReplicaId,
    /// Id of the control plane.
    pub cluster: String,
    /// Its epoch: raised by every restore.
    pub epoch: u64,
    /// This replica's part.
    pub role: Role,
    /// Leadership as announced to the layers above.
    pub leadership: Leadership,
    /// Current term.
    pub term: u64,
    /// Who leads, as far as known here.
    pub leader: Option<ReplicaId>,
    /// Whether this replica has caught up once since it started, and may serve reads.
    pub ready: bool,
    /// Last index of the local log.
    pub last_log_index: u64,
    /// Last index known to be committed.
    pub committed_index: u64,
    /// Last index applied here.
    pub applied_index: u64,
    /// Last index covered by the newest snapshot.
    pub snapshot_index: Option<u64>,
    /// Last index purged from the log.
    pub purged_index: Option<u64>,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Newest revision applied here.
    pub revision: u64,
    /// Which history stands, for reads at and watches from older revisions.
    pub history: History,
    /// Hash of live rows at the applied index: equal on all replicas at the same index.
    pub state_hash: String,
    /// Cluster time, best local estimate.
    pub cluster_time_ms: u64,
    /// On the leader: time since a quorum last acknowledged it.
    pub quorum_acknowledged_ms: Option<u64>,
    /// All members.
    pub members: Vec<Member>,
    /// Whether a membership change is under way.
    pub membership_changing: bool,
    /// Voters that may fail before writes stop; on the leader counted from those that answer, else from their number.
    pub failures_tolerated: u64,
    /// Own requests and reads.
    pub load: Load,
    /// What the last whole scan of the state found; `None` before the first.
    pub scanned: Option<Scanned>,
    /// Bytes of the state and the log that scans have read since the replica was opened.
    pub scanned_bytes: u64,
    /// What was made anew, or whole again, when the replica was opened.
    pub repaired: Vec<Repaired>,
    /// What an operator should know at once, a sentence each.
    pub alarms: Vec<String>,
    /// Why the replica has stopped, if it has.
    pub error: Option<String>,
}

/// Floors of single clusters that a status shows.
const FLOORS_SHOWN_MAX: usize = 100;

/// Which history stands. A floor in force is the promise: from it on a cluster can be read at, and watched from, any revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct History {
    /// From here on every cluster can be: the highest of all floors, 0 while there is none.
    pub floor: u64,
    /// Floors of single clusters, the highest first, as many as are shown. One that is not here has none, or a lower one.
    pub floors: Vec<Floor>,
    /// How many more clusters have a floor.
    pub floors_left_out: usize,
}

/// The floor of one cluster.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Floor {
    /// Which cluster; empty for what belongs to none.
    pub cluster: String,
    /// The oldest revision it can be read at and watched from.
    pub revision: u64,
}

impl History {
    pub(crate) fn of(horizon: &Horizon) -> Self {
        let standing = horizon.floors.iter().filter(|(cluster, _)| !horizon.dropped.contains(*cluster));
        let mut all: Vec<(&str, u64)> = standing.map(|(cluster, revision)| (cluster.as_str(), *revision)).collect();
        // Those that are level stay in the order of their names.
        all.sort_by_key(|(_, revision)| std::cmp::Reverse(*revision));
        let floors = all.iter().take(FLOORS_SHOWN_MAX);
        Self {
            floor: all.first().map_or(0, |(_, revision)| *revision),
            floors: floors.map(|&(cluster, revision)| Floor { cluster: cluster.to_owned(), revision }).collect(),
            floors_left_out: all.len().saturating_sub(FLOORS_SHOWN_MAX),
        }
    }
}

/// Queues and caches that have limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Load {
    /// Commands waiting on the leader.
    pub proposals_waiting: usize,
    /// Bytes of events held for watchers.
    pub event_ring_bytes: usize,
    /// Distinct prefixes watched.
    pub watched_prefixes: usize,
    /// Syncs of the log since it was opened.
    pub log_syncs: u64,
}

pub(crate) fn role(metrics: &Metrics) -> Role {
    if metrics.running_state.is_err() {
        return Role::Stopped;
    }
    match metrics.state {
        ServerState::Learner => Role::Learner,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Leader => Role::Leader,
        ServerState::Shutdown => Role::Stopped,
    }
}

/// Who leads, as far as known here. openraft lets a leader whom no quorum answers any more stay one until another is elected: it
/// leads nobody.
pub(crate) fn leader(metrics: &Metrics) -> Option<u64> {
    let alone = metrics.membership_config.voter_ids().all(|id| id == metrics.id);
    let followed = alone || quorum_acknowledged_ms(metrics).is_none_or(|ms| ms <= millis(ALIVE_WITHIN));
    metrics.current_leader.filter(|leader| *leader != metrics.id || followed)
}

pub(crate) fn quorum_acknowledged_ms(metrics: &Metrics) -> Option<u64> {
    metrics.last_quorum_acked.as_ref().map(|acked| millis(acked.elapsed()))
}

/// Last log index a member has stored; known on the leader only.
pub(crate) fn matched_index(metrics: &Metrics, id: u64) -> Option<u64> {
    let replication = metrics.replication.as_ref()?;
    if id == metrics.id { metrics.last_log_index } else { replication.get(&id)?.as_ref().map(|log| log.index) }
}

/// Time since the leader last had an answer from a member; known on the leader only.
pub(crate) fn last_contact_ms(metrics: &Metrics, id: u64) -> Option<u64> {
    let heartbeat = metrics.heartbeat.as_ref()?;
    if id == metrics.id { Some(0) } else { heartbeat.get(&id)?.as_ref().map(|at| millis(at.elapsed())) }
}

/// Whether a member answers the leader; the leader itself always does.
pub(crate) fn alive(metrics: &Metrics, id: u64) -> bool {
    id == metrics.id || last_contact_ms(metrics, id).is_some_and(|ms| ms <= millis(ALIVE_WITHIN))
}

/// Whether a member has answered something that the leader has sent since; the leader itself always has.
pub(crate) fn has_answered_since(metrics: &Metrics, id: u64, since: Instant) -> bool {
    let answered = metrics.heartbeat.as_ref().and_then(|all| all.get(&id)?.as_ref());
    id == metrics.id || answered.is_some_and(|at| **at >= since)
}

/// The members, and how many voters may fail.
pub(crate) fn members(
    metrics: &Metrics,
    heard: impl Fn(u64) -> Option<Duration>,
    report: impl Fn(u64) -> Option<PeerReport>,
) -> (Vec<Member>, u64) {
    let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
    let leads = metrics.state == ServerState::Leader;
    let last = metrics.last_log_index;
    let members: Vec<Member> = metrics
        .membership_config
        .nodes()
        .map(|(id, node)| {
            let matched_index = matched_index(metrics, *id);
            let report = report(*id);
            let about = report.as_ref().and_then(|report| String::from_utf8(report.about.to_vec()).ok());
            Member {
                id: ReplicaId(*id),
                address: node.addr.clone(),
                voter: voters.contains(id),
                matched_index,
                lag_entries: matched_index.map(|matched| last.unwrap_or(0).saturating_sub(matched)),
                last_contact_ms: last_contact_ms(metrics, *id),
                last_heard_ms: heard(*id).map(millis),
                applied_index: report.as_ref().map(|report| report.applied_index),
                term: report.as_ref().map(|report| report.term),
                log_sync_us: report.as_ref().and_then(|report| report.sync).map(micros),
                disk_is_slow: report.as_ref().map(|report| report.disk_is_slow),
                about: about.filter(|text| !text.is_empty()),
            }
        })
        .collect();
    // During a joint change every configuration needs its own majority: the weaker one counts.
    let spare = metrics.membership_config.get_joint_config().iter().map(|config| {
        let quorum = config.len() / 2 + 1;
        config.iter().filter(|id| !leads || alive(metrics, **id)).count().saturating_sub(quorum)
    });
    let spare = u64::try_from(spare.min().unwrap_or(0)).unwrap_or(0);
    (members, spare)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use openraft::type_config::TypeConfigExt;
    use openraft::{Membership, StoredMembership};

    use super::*;
    use crate::types::Node;

    fn metrics(voters: &[u64]) -> Metrics {
        let mut metrics = Metrics::new_initial(1);
        let voters: BTreeSet<u64> = voters.iter().copied().collect();
        let nodes: BTreeMap<u64, Node> = voters.iter().map(|id| (*id, Node::default())).collect();
        let membership = Membership::new(vec![voters], nodes).expect("every voter is a node");
        metrics.membership_config = Arc::new(StoredMembership::new(None, membership));
        metrics
    }

    /// The floor that holds for all is the highest; single ones come highest first and no more than are shown; deleted clusters
    /// have none.
    #[test]
    fn floors_are_shown_highest_first() {
        assert_eq!(History::of(&Horizon::default()), History::default());
        let floors = (1..=FLOORS_SHOWN_MAX as u64 + 3).map(|n| (format!("c{n:03}"), n)).collect();
        let dropped = BTreeSet::from(["c103".to_owned()]);
        let history =
            History::of(&Horizon { floors: Arc::new(floors), dropped: Arc::new(dropped), ..Horizon::default() });
        assert_eq!((history.floor, history.floors.len(), history.floors_left_out), (102, FLOORS_SHOWN_MAX, 2));
        assert_eq!(history.floors[0], Floor { cluster: "c102".into(), revision: 102 });
        assert!(history.floors.is_sorted_by(|one, next| one.revision > next.revision));
    }

    /// A leader whom no quorum has answered for a while is not named as one, by itself either; the only voter needs no answer, and of
    /// others it is told what is known.
    #[test]
    fn a_leader_whom_nobody_follows_is_none() {
        let long_ago = || Some((TypeConfig::now() - (ALIVE_WITHIN + Duration::from_millis(1))).into());
        let mut metrics = metrics(&[1, 2, 3]);
        assert_eq!(leader(&metrics), None);
        metrics.current_leader = Some(1);
        assert_eq!(leader(&metrics), Some(1), "elected a moment ago");
        metrics.last_quorum_acked = Some(TypeConfig::now().into());
        assert_eq!(leader(&metrics), Some(1));
        metrics.last_quorum_acked = long_ago();
        assert_eq!(leader(&metrics), None);
        metrics.current_leader = Some(2);
        assert_eq!(leader(&metrics), Some(2));
        let mut alone = self::metrics(&[1]);
        alone.current_leader = Some(1);
        alone.last_quorum_acked = long_ago();
        assert_eq!(leader(&alone), Some(1));
    }
}
