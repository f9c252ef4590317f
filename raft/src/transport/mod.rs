//! Everything between replicas: identity, connections, the peer service, and openraft's network over them.

mod admission;
#[cfg(all(test, not(simulated)))]
pub(crate) mod authority;
mod connection;
mod control;
mod convert;
mod credit;
mod election;
#[cfg(simulated)]
mod modelled;
mod network;
mod ping;
#[cfg(not(simulated))]
mod probe;
mod server;
mod snapshot;
// Real sockets live in tokio.
#[cfg(not(simulated))]
#[allow(clippy::disallowed_methods)]
mod sockets;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::Instant as _;
use openraft::type_config::TypeConfigExt;
use parking_lot::RwLock;
use quilt_proto::ReplicaId;
use tokio::sync::mpsc;
use tonic::Request;

pub(crate) use admission::Admission;
pub(crate) use election::stand_when_reset;
pub(crate) use network::Network;
pub(crate) use ping::{Touch, keep_in_touch};
#[cfg(not(simulated))]
pub use probe::{Asking, answering};
pub(crate) use server::Service;
pub(crate) use snapshot::fetch;
// What carries bytes between replicas: sockets under TLS, or the simulation's network.
#[cfg(simulated)]
use modelled as wire;
#[cfg(simulated)]
pub use modelled::{Listener, Net, PeerIdentity, Weather};
#[cfg(not(simulated))]
use sockets as wire;
#[cfg(not(simulated))]
pub use sockets::{Listener, PeerIdentity, peer_name};
pub(crate) use wire::{Tls, listen, make_ready};

use crate::host::Handle;
use crate::peer::control_frame::Body;
use crate::peer::{
    AskRequest, ForwardReply, ForwardRequest, Hello, ReadIndexReply, ReadIndexRequest, ask_reply, read_index_reply,
};
use crate::types::TypeConfig;
use connection::Connection;
pub(crate) use connection::PeerReport;

/// How a replica talks to its peers.
#[derive(Debug)]
pub struct TransportOptions {
    /// Bound and listening.
    pub listener: Listener,
    /// This replica's keys and certificates.
    pub identity: PeerIdentity,
}

/// A peer did not answer, or not to the question.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// No address is known, or this replica has no transport.
    #[error("replica {0} has no usable address")]
    Unknown(u64),
    /// The call failed.
    #[error("replica {id}: {} ({})", status.message(), status.code())]
    Failed {
        /// Which peer.
        id: u64,
        /// What tonic says.
        status: Box<tonic::Status>,
    },
    /// A question over the control connection was not answered.
    #[error("replica {id}: {error}")]
    Control {
        /// Which peer.
        id: u64,
        /// Why.
        error: control::CallError,
    },
    /// It answered something else.
    #[error("replica {0} gave an answer this release does not know")]
    Unexpected(u64),
    /// It took too long.
    #[error("replica {0} did not answer in time")]
    Timeout(u64),
    /// The peer does not lead.
    #[error("replica {0} does not lead")]
    NotLeader(u64),
}

/// What connections are made with.
pub(crate) struct Dialer {
    pub(crate) id: ReplicaId,
    pub(crate) cluster: String,
    pub(crate) epoch: u64,
    pub(crate) tls: Arc<Tls>,
    /// Peers whose control connection was ended from the other side.
    pub(crate) resets: mpsc::UnboundedSender<u64>,
    /// Threads for snapshots.
    pub(crate) apart: Handle,
}

/// The other replicas.
#[derive(Default)]
pub(crate) struct Peers {
    dialer: Option<Dialer>,
    connections: RwLock<BTreeMap<u64, Arc<Connection>>>,
}

impl Peers {
    pub(crate) fn new(dialer: Option<Dialer>) -> Self {
        Self { dialer, connections: RwLock::default() }
    }

    /// The members now, this replica among them. Must be called on the replica's own threads.
    pub(crate) fn members(&self, members: impl Iterator<Item = (u64, String)>) {
        let members: BTreeMap<u64, String> = members.collect();
        self.connections.write().retain(|id, _| members.contains_key(id));
        for (id, address) in members {
            self.connect(id, &address);
        }
    }

    /// The connections to a peer at an address, made new when it has moved.
    pub(crate) fn connect(&self, id: u64, address: &str) -> Option<Arc<Connection>> {
        let dialer = self.dialer.as_ref().filter(|dialer| dialer.id.0 != id)?;
        if let Some(connection) = self.connections.read().get(&id)
            && connection.address == address
        {
            return Some(Arc::clone(connection));
        }
        let hello = Hello { cluster: dialer.cluster.clone(), epoch: dialer.epoch, from: dialer.id.0, to: id };
        match Connection::new(hello, address.to_owned(), &dialer.tls, &dialer.resets, &dialer.apart) {
            Ok(connection) => {
                let connection = Arc::new(connection);
                self.connections.write().insert(id, Arc::clone(&connection));
                Some(connection)
            }
            Err(error) => {
                tracing::error!(%error, "a peer cannot be dialled");
                None
            }
        }
    }

    /// All peers.
    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        self.connections.read().values().cloned().collect()
    }

    fn get(&self, id: u64) -> Result<Arc<Connection>, PeerError> {
        self.connections.read().get(&id).cloned().ok_or(PeerError::Unknown(id))
    }

    /// A request of this peer has come in.
    pub(crate) fn note_heard(&self, id: u64) {
        if let Some(connection) = self.connections.read().get(&id) {
            connection.note_heard();
        }
    }

    /// What the peer last said of itself.
    pub(crate) fn report(&self, id: u64) -> Option<PeerReport> {
        self.connections.read().get(&id)?.report()
    }

    /// Time since the peer was last heard.
    pub(crate) fn heard(&self, id: u64) -> Option<Duration> {
        Some(self.connections.read().get(&id)?.heard()?.elapsed())
    }

    pub(crate) async fn forward(
        &self,
        to: u64,
        request: ForwardRequest,
        timeout: Duration,
    ) -> Result<ForwardReply, PeerError> {
        let mut client = self.get(to)?.data();
        let reply = answer(to, timeout, client.forward(within(request, timeout))).await?;
        if reply.accepted { Ok(reply) } else { Err(PeerError::NotLeader(to)) }
    }

    pub(crate) async fn read_index(&self, to: u64, timeout: Duration) -> Result<u64, PeerError> {
        match self.get(to)?.control(Body::ReadIndex(ReadIndexRequest {}), timeout).await? {
            Body::ReadIndexReply(ReadIndexReply { result: Some(read_index_reply::Result::ReadIndex(index)) }) => {
                Ok(index)
            }
            Body::ReadIndexReply(_) => Err(PeerError::NotLeader(to)),
            _ => Err(PeerError::Unexpected(to)),
        }
    }

    pub(crate) async fn ask(
        &self,
        to: u64,
        service: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<ask_reply::Result, PeerError> {
        let mut client = self.get(to)?.data();
        let request = AskRequest { service: service.to_owned(), body };
        let reply = answer(to, timeout, client.ask(within(request, timeout))).await?;
        reply.result.ok_or(PeerError::NotLeader(to))
    }
}

/// Tells the server how long the answer is waited for.
fn within<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Waits for an answer, and no longer.
async fn answer<T>(
    id: u64,
    timeout: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>> + Send,
) -> Result<T, PeerError> {
    match TypeConfig::timeout(timeout, call).await {
        Ok(Ok(reply)) => Ok(reply.into_inner()),
        Ok(Err(status)) => Err(PeerError::Failed { id, status: Box::new(status) }),
        Err(_) => Err(PeerError::Timeout(id)),
    }
}
