//! One peer's three connections, each dialled once and kept: control, data, snapshots.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use quilt_proto::ReplicaId;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::stream::PeerStream;
use super::tls::{self, Tls};
use crate::peer::control_client::ControlClient;
use crate::peer::data_client::DataClient;
use crate::peer::snapshot_transfer_client::SnapshotTransferClient;

/// A peer message: a raft entry and what surrounds it. tonic's own default is 4 MiB, on both sides.
pub(crate) const PEER_MESSAGE_BYTES_MAX: usize = 20 << 20;
/// Dialling, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that does not answer a ping for this long is closed; that is how a silent cut is noticed.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// HTTP/2 windows large enough that one big entry does not wait for window updates.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 4 << 20;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

pub(crate) const CLUSTER: &str = "quilt-cluster";
pub(crate) const EPOCH: &str = "quilt-epoch";
pub(crate) const FROM: &str = "quilt-from";
pub(crate) const TO: &str = "quilt-to";

/// Says on every request who sends it, to whom, and of which control plane both are.
#[derive(Clone)]
pub(crate) struct Introduce {
    cluster: MetadataValue<Ascii>,
    epoch: MetadataValue<Ascii>,
    from: MetadataValue<Ascii>,
    to: MetadataValue<Ascii>,
}

impl Introduce {
    pub(crate) fn new(cluster: &str, epoch: u64, from: ReplicaId, to: u64) -> Result<Self, String> {
        let cluster = cluster.parse().map_err(|_| format!("control plane id {cluster:?} is not plain ASCII"))?;
        Ok(Self { cluster, epoch: epoch.into(), from: from.0.into(), to: to.into() })
    }
}

impl Interceptor for Introduce {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert(CLUSTER, self.cluster.clone());
        metadata.insert(EPOCH, self.epoch.clone());
        metadata.insert(FROM, self.from.clone());
        metadata.insert(TO, self.to.clone());
        Ok(request)
    }
}

pub(crate) type Introduced = InterceptedService<Channel, Introduce>;

/// One peer, by its address.
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) address: String,
    introduce: Introduce,
    control: Channel,
    data: Channel,
    snapshots: Channel,
    /// When it was last heard from, on either side's connection.
    heard: Mutex<Option<tokio::time::Instant>>,
}

impl Connection {
    /// Prepares the connections; each is dialled when first used, and again when it was lost.
    pub(crate) fn new(
        id: u64,
        address: String,
        introduce: Introduce,
        tls: &Arc<Tls>,
        resets: &mpsc::UnboundedSender<u64>,
    ) -> Result<Self, String> {
        let channel = |resets: Option<mpsc::UnboundedSender<u64>>| channel(id, &address, Arc::clone(tls), resets);
        Ok(Self {
            id,
            introduce,
            control: channel(Some(resets.clone()))?,
            data: channel(None)?,
            snapshots: channel(None)?,
            heard: Mutex::default(),
            address,
        })
    }

    pub(crate) fn control(&self) -> ControlClient<Introduced> {
        ControlClient::with_interceptor(self.control.clone(), self.introduce.clone())
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX)
    }

    pub(crate) fn data(&self) -> DataClient<Introduced> {
        DataClient::with_interceptor(self.data.clone(), self.introduce.clone())
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX)
    }

    pub(crate) fn snapshots(&self) -> SnapshotTransferClient<Introduced> {
        SnapshotTransferClient::with_interceptor(self.snapshots.clone(), self.introduce.clone())
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX)
    }

    pub(crate) fn note_heard(&self) {
        *self.heard.lock() = Some(tokio::time::Instant::now());
    }

    pub(crate) fn heard(&self) -> Option<tokio::time::Instant> {
        *self.heard.lock()
    }
}

fn channel(
    id: u64,
    address: &str,
    tls: Arc<Tls>,
    resets: Option<mpsc::UnboundedSender<u64>>,
) -> Result<Channel, String> {
    let bad = |error: &dyn std::fmt::Display| format!("address {address:?} of replica {id}: {error}");
    // The scheme only keeps tonic from adding TLS of its own: the connector below brings it.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| bad(&error))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let address = address.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let (address, tls, resets) = (address.clone(), Arc::clone(&tls), resets.clone());
        async move {
            let socket = TcpStream::connect(&address).await?;
            socket.set_nodelay(true)?;
            let stream = tls.connector().connect(tls::server_name(id), socket).await?;
            Ok::<_, io::Error>(TokioIo::new(PeerStream::new(stream, id, resets)))
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}
