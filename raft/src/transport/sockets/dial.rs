//! Dials peers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
pub(in crate::transport) use tonic::transport::Channel;
use tonic::transport::Endpoint;

use super::purpose::Purpose;
use super::stream::PeerStream;
use super::tls::{self, Tls};
use crate::host::Handle;

/// Dialling, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that does not answer a ping for this long is closed; that is how a silent cut is noticed.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// HTTP/2 windows large enough that one big entry does not wait for window updates.
pub(super) const STREAM_WINDOW_BYTES: u32 = 4 << 20;
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Dials a control connection. `resets` is told when the peer ends or resets it.
pub(in crate::transport) async fn control(
    tls: &Tls,
    address: &str,
    id: u64,
    resets: mpsc::UnboundedSender<u64>,
) -> io::Result<PeerStream> {
    let socket = connect(address, Purpose::Control).await?;
    let stream = tls.control_connector().connect(tls::server_name(id), socket).await?;
    Ok(PeerStream::new(stream, id, Some(resets)))
}

/// Prepares a connection for the log: dialled when first used, by the threads that call this, and again when it was lost.
pub(in crate::transport) fn data(id: u64, address: &str, tls: Arc<Tls>) -> Result<Channel, String> {
    channel(id, address, tls, Purpose::Data)
}

/// Prepares a connection for snapshots: as [`data`], by the threads of `on`.
pub(in crate::transport) fn snapshots(id: u64, address: &str, tls: Arc<Tls>, on: &Handle) -> Result<Channel, String> {
    let _on = on.enter();
    channel(id, address, tls, Purpose::Snapshots)
}

async fn connect(address: &str, purpose: Purpose) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    socket.write_all(&[purpose.byte()]).await?;
    Ok(socket)
}

fn channel(id: u64, address: &str, tls: Arc<Tls>, purpose: Purpose) -> Result<Channel, String> {
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
        let (address, tls) = (address.clone(), Arc::clone(&tls));
        async move {
            let socket = connect(&address, purpose).await?;
            let stream = tls.data_connector().connect(tls::server_name(id), socket).await?;
            Ok::<_, io::Error>(TokioIo::new(PeerStream::new(stream, id, None)))
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}
