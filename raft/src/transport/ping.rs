//! Shows the peers that this replica lives while nothing else is said, and compares states with them.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use openraft::type_config::TypeConfigExt;

use super::Peers;
use super::connection::Connection;
use crate::applied::Applied;
use crate::peer::PingRequest;
use crate::peer::control_frame::Body;
use crate::types::TypeConfig;

const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(1);

/// Pings all peers until the replica stops.
pub(crate) async fn keep_in_touch(peers: Arc<Peers>, applied: Arc<Applied>) {
    loop {
        join_all(peers.all().iter().map(|connection| ping(connection, &applied))).await;
        TypeConfig::sleep(INTERVAL).await;
    }
}

async fn ping(connection: &Connection, applied: &Applied) {
    match connection.control(Body::Ping(PingRequest {}), TIMEOUT).await {
        Ok(Body::PingReply(reply)) => {
            connection.note_report(&reply);
            let own = applied.mark();
            let hash = (reply.hash_high, reply.hash_low);
            if reply.applied_index == own.index && hash != own.hash {
                tracing::error!(
                    peer = connection.id,
                    index = own.index,
                    "states differ at the same log index: one of the two replicas is damaged"
                );
            }
        }
        Ok(_) => tracing::warn!(peer = connection.id, "a ping was answered with something else"),
        Err(error) => tracing::debug!(%error, "ping"),
    }
}
