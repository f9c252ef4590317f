//! Shows the peers that this replica lives while nothing else is said, and compares states with them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use openraft::type_config::TypeConfigExt;
use parking_lot::Mutex;

use super::Peers;
use super::connection::Connection;
use crate::applied::Applied;
use crate::ballot::{Ballot, Odd};
use crate::peer::control_frame::Body;
use crate::peer::{PingReply, PingRequest};
use crate::snapshot::SnapshotHome;
use crate::types::TypeConfig;

const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(1);

/// What this replica compares, and whom it tells.
pub(crate) struct Touch {
    pub(crate) id: u64,
    pub(crate) peers: Arc<Peers>,
    pub(crate) applied: Arc<Applied>,
    pub(crate) snapshots: Arc<dyn SnapshotHome>,
    /// What an operator should know, a sentence each.
    pub(crate) alarms: Arc<Mutex<Vec<String>>>,
}

/// Pings all peers until the replica stops.
pub(crate) async fn keep_in_touch(touch: Touch) {
    let ballot = Ballot::default();
    let mut known = BTreeSet::new();
    loop {
        let peers = touch.peers.all();
        let replies = join_all(peers.iter().map(|connection| ping(connection))).await;
        for (peer, reply) in peers.iter().zip(replies) {
            match reply {
                Some(reply) => touch.hear(&ballot, peer.id, &reply),
                // It may come back with another state.
                None => ballot.forget(peer.id),
            }
        }
        touch.judge(&ballot, peers.len() + 1, &mut known);
        TypeConfig::sleep(INTERVAL).await;
    }
}

async fn ping(connection: &Connection) -> Option<PingReply> {
    match connection.control(Body::Ping(PingRequest {}), TIMEOUT).await {
        Ok(Body::PingReply(reply)) => {
            connection.note_report(&reply);
            Some(reply)
        }
        Ok(_) => {
            tracing::warn!(peer = connection.id, "a ping was answered with something else");
            None
        }
        Err(error) => {
            tracing::debug!(%error, "ping");
            None
        }
    }
}

impl Touch {
    fn hear(&self, ballot: &Ballot, peer: u64, reply: &PingReply) {
        let milestone = (reply.milestone_hash_high, reply.milestone_hash_low);
        ballot.say(peer, reply.milestone_index, milestone);
        // Idle replicas are at one entry, which need be no milestone.
        let own = self.applied.mark();
        if reply.applied_index == own.index {
            ballot.say(self.id, own.index, own.hash);
            ballot.say(peer, reply.applied_index, (reply.hash_high, reply.hash_low));
        }
    }

    fn judge(&self, ballot: &Ballot, members: usize, known: &mut BTreeSet<String>) {
        for (index, hash) in self.applied.milestones() {
            if ballot.knows(index) {
                ballot.say(self.id, index, hash);
            }
        }
        let (odd, split) = ballot.judge(members);
        let mut alarms = BTreeSet::new();
        for Odd { replica, index } in odd {
            if replica == self.id {
                self.snapshots.distrust(&format!("its hash at log entry {index} differs from that of a majority"));
            }
            alarms.insert(format!(
                "the state of replica {replica} differs from that of a majority: it is damaged, leaves, and comes back with another"
            ));
        }
        if !split.is_empty() {
            alarms.insert(
                "the states of two replicas differ, and no majority says which is damaged: stop them one after the other and \
                 run 'quiltd operator data check'"
                    .to_owned(),
            );
        }
        for alarm in alarms.difference(known) {
            tracing::error!(alarm, "states differ at the same log entry");
        }
        *self.alarms.lock() = alarms.iter().cloned().collect();
        *known = alarms;
    }
}
