//! Follows who leads, for everybody who sends to the leader; and whether the agreement layer still runs.

use std::sync::Arc;

use openraft::type_config::TypeConfigExt;

use crate::courier::Destination;
use crate::host::watch;
use crate::leadership::Leadership;
use crate::rebuild::encode_members;
use crate::snapshot::SnapshotHome;
use crate::state_machine::Raft;
use crate::transport::Peers;
use crate::types::TypeConfig;

/// Publishes the leader to send to, keeps the peers' addresses, and returns why the replica stopped when it does.
pub(crate) async fn follow(
    id: u64,
    raft: Raft,
    peers: Arc<Peers>,
    mut leadership: watch::Receiver<Leadership>,
    destination: Arc<watch::Sender<Destination>>,
    snapshots: Arc<dyn SnapshotHome>,
) -> String {
    use openraft::async_runtime::Select2;
    use openraft::async_runtime::watch::WatchReceiver as _;

    // Changes of who is who only; these do not move with every heartbeat, as the other metrics do.
    let mut metrics = raft.server_metrics();
    let mut last = (0, None);
    let mut members = None;
    loop {
        let held = leadership.borrow_and_update().held();
        let seen = {
            let metrics = metrics.borrow_watched();
            if members.as_ref() != Some(&metrics.membership_config) {
                let nodes = metrics.membership_config.nodes();
                peers.members(nodes.map(|(id, node)| (*id, node.addr.clone())));
                let nodes = metrics.membership_config.nodes();
                let noted = encode_members(nodes.map(|(id, node)| (*id, node.addr.as_str())));
                if !noted.is_empty() {
                    let snapshots = Arc::clone(&snapshots);
                    // Nobody waits for it: it is looked at when the state is lost.
                    drop(TypeConfig::spawn_blocking(move || snapshots.note_members(&noted)));
                }
                members = Some(Arc::clone(&metrics.membership_config));
            }
            let leader = metrics.current_leader.filter(|leader| *leader != id || held.is_some());
            (metrics.vote.leader_id.term, leader)
        };
        if seen != last {
            last = seen;
            destination.send_modify(|to| {
                to.generation += 1;
                to.leader = seen.1;
            });
        }
        let (metrics, leadership) = (std::pin::pin!(metrics.changed()), std::pin::pin!(leadership.changed()));
        match TypeConfig::select2(metrics, leadership).await {
            Select2::First(Err(_)) | Select2::Second(Err(_)) => {
                let state = raft.metrics().borrow_watched().running_state.clone();
                return state.err().map_or_else(|| "the agreement layer has ended".to_owned(), |why| why.to_string());
            }
            Select2::First(Ok(())) | Select2::Second(Ok(())) => {}
        }
    }
}
