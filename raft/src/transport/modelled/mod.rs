//! Bytes between replicas, as the simulation carries them: what `sockets` is to the product, over a modelled network.
//!
//! Control connections are streams of bytes, data and snapshots are gRPC calls whose frames travel one by one; so all
//! that is above a socket is the product's code. There is no TLS: the network knows who is at the other end.

mod call;
mod conn;
mod net;
mod stream;

use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;
use quilt_proto::ReplicaId;
use tokio::sync::mpsc;
use tower::Service as _;

pub(super) use call::Channel;
pub use net::{Net, Weather};
pub(super) use stream::PeerStream;

use crate::error::OpenError;
use crate::host::Handle;
use crate::host::modelled::Host;
use crate::peer::data_server::DataServer;
use crate::peer::snapshot_transfer_server::SnapshotTransferServer;
use crate::transport::connection::PEER_MESSAGE_BYTES_MAX;
use crate::transport::{Service, control as served};
use net::Accepts;

/// The replica at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerId(pub(super) u64);

/// An address of the modelled network.
#[derive(Clone, Debug)]
pub struct Listener {
    /// The network.
    pub net: Arc<Net>,
    /// The address.
    pub address: String,
}

/// Who a replica is: the network knows.
#[derive(Clone, Debug)]
pub struct PeerIdentity {
    /// The network.
    pub net: Arc<Net>,
}

/// The dialling end.
pub(crate) struct Tls {
    net: Arc<Net>,
    host: Host,
}

impl Tls {
    pub(crate) fn new(_id: ReplicaId, identity: PeerIdentity) -> Result<Self, OpenError> {
        let host = Host::current().ok_or_else(|| OpenError::Tls("a replica runs on a host".into()))?;
        Ok(Self { net: identity.net, host })
    }

    #[allow(clippy::unused_self)]
    pub(crate) fn renew(&self, _id: ReplicaId, _identity: PeerIdentity) -> Result<(), OpenError> {
        Ok(())
    }
}

#[allow(clippy::unnecessary_wraps)]
pub(crate) fn make_ready(_: &Listener) -> io::Result<()> {
    Ok(())
}

/// Dials a control connection. `resets` is told when the peer ends or resets it.
pub(super) async fn control(
    tls: &Tls,
    address: &str,
    id: u64,
    resets: mpsc::UnboundedSender<u64>,
) -> io::Result<PeerStream> {
    let there = tls.net.reach(&tls.host, address).await?;
    if there.host.id() != id {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another replica answers there"));
    }
    let (ours, theirs) = conn::connect(&tls.net, &tls.host, &there.host);
    let peer = tls.host.id();
    drop(there.host.spawn(there.accepts.control(PeerStream::new(theirs, peer, None))));
    Ok(PeerStream::new(ours, id, Some(resets)))
}

/// A connection for the log.
#[allow(clippy::unnecessary_wraps)]
pub(super) fn data(_id: u64, address: &str, tls: Arc<Tls>) -> Result<Channel, String> {
    Ok(Channel::new(address.to_owned(), tls))
}

/// A connection for snapshots.
pub(super) fn snapshots(id: u64, address: &str, tls: Arc<Tls>, _on: &Handle) -> Result<Channel, String> {
    data(id, address, tls)
}

struct Serving(Arc<Service>);

impl Accepts for Serving {
    fn control(&self, stream: PeerStream) -> BoxFuture<'static, ()> {
        Box::pin(served::serve(Arc::clone(&self.0), stream))
    }

    fn call(&self, request: http::Request<tonic::body::Body>) -> BoxFuture<'static, call::Answer> {
        let service = Arc::clone(&self.0);
        Box::pin(async move {
            let answered = if request.uri().path().starts_with("/quilt.peer.v1.Data/") {
                let mut server = DataServer::from_arc(service)
                    .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
                server.call(request).await
            } else {
                let mut server = SnapshotTransferServer::from_arc(service)
                    .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
                server.call(request).await
            };
            match answered {
                Ok(answer) => answer,
                Err(never) => match never {},
            }
        })
    }
}

/// Serves peers until the host ends.
pub(crate) async fn listen(
    listener: Listener,
    tls: Arc<Tls>,
    service: Arc<Service>,
    _apart: Handle,
) -> Result<(), String> {
    listener.net.listen(listener.address, tls.host.clone(), Arc::new(Serving(service)));
    std::future::pending().await
}
