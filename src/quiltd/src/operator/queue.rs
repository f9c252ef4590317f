//! The queue of replicas that were let in: the leader makes each of them a learner, waits until it has caught up, and makes
//! it a voter, one after the other. What is queued is the roster; this may stop and go on at any point.

use std::time::Duration;

use quilt_api::roster::{Entry, Roster, Standing};
use quilt_proto::ReplicaId;
use quilt_raft::{AdminError, Consistency, Replica};

/// How long one replica may keep the others waiting. It is tried again after them.
const TURN: Duration = Duration::from_secs(30);
/// Reading the roster, and changing it.
const DEADLINE: Duration = Duration::from_secs(10);
/// Pause before replicas that were not reached are tried again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Works on the queue while this replica leads, until `stop` completes.
pub(crate) async fn run(replica: Replica, stop: impl Future<Output = ()>) {
    replica.while_leading(stop, |_| work(&replica)).await;
}

async fn work(replica: &Replica) {
    let Some(prefix) = Roster::prefix() else { return std::future::pending().await };
    let roster = Roster::new(replica.clone(), DEADLINE);
    loop {
        // The watch begins before the look: what is queued in between is not slept over.
        let Ok(view) = replica.read(Consistency::Linearizable, DEADLINE).await else { return };
        let mut changes = replica.watch(prefix.clone(), view.revision());
        let entries = match Roster::entries(&view) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(%error, "the queue of joining replicas cannot be read");
                return;
            }
        };
        let mut queued: Vec<Entry> = entries.into_iter().filter(|entry| entry.standing == Standing::Joining).collect();
        queued.sort_by_key(|entry| entry.id);
        let mut left = false;
        for entry in queued {
            match admit(replica, &roster, &entry).await {
                Ok(()) => tracing::info!(replica = entry.id, address = entry.address, "a new replica votes"),
                Err(error) => {
                    tracing::warn!(replica = entry.id, address = entry.address, %error, "a joining replica waits");
                    left = true;
                }
            }
        }
        if left {
            tokio::time::sleep(RETRY_AFTER).await;
        } else if changes.next().await.is_err() {
            return;
        }
    }
}

async fn admit(replica: &Replica, roster: &Roster, entry: &Entry) -> Result<(), AdminError> {
    let (admin, id) = (replica.admin(), ReplicaId(entry.id));
    admin.add_learner(id, entry.address.clone()).await?;
    admin.promote(id, TURN).await?;
    roster.settle(id, Standing::Member).await.map_err(|error| AdminError::Refused(error.to_string()))
}
