//! Keeps the control connections dialled while nothing else uses them, and compares states with the peers.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::connection::Connection;
use super::{Peers, answer, within};
use crate::applied::Applied;
use crate::peer::PingRequest;

const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(1);

/// Pings all peers until the replica stops.
pub(crate) async fn keep_in_touch(peers: Arc<Peers>, applied: Arc<Applied>) {
    loop {
        join_all(peers.all().iter().map(|connection| ping(connection, &applied))).await;
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn ping(connection: &Connection, applied: &Applied) {
    let mut client = connection.control();
    match answer(connection.id, TIMEOUT, client.ping(within(PingRequest {}, TIMEOUT))).await {
        Ok(reply) => {
            connection.note_heard();
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
        Err(error) => tracing::debug!(%error, "ping"),
    }
}
