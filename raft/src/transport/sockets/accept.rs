//! Accepts peers: TLS, who is at the other end, and which threads serve the connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::Either;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use super::dial::{CONNECTION_WINDOW_BYTES, KEEP_ALIVE, STREAM_WINDOW_BYTES};
use super::stream::PeerStream;
use super::tls::{self, Tls};
use crate::peer::data_server::DataServer;
use crate::peer::snapshot_transfer_server::SnapshotTransferServer;
use crate::transport::connection::PEER_MESSAGE_BYTES_MAX;
use crate::transport::{Service, control};

/// TLS handshakes under way at once.
const HANDSHAKES_MAX: usize = 64;
/// One TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

async fn handshake(acceptor: TlsAcceptor, socket: TcpStream) -> io::Result<PeerStream> {
    let accepting = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket));
    let stream = accepting.await.map_err(|_| io::Error::other("TLS handshake took too long"))??;
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let peer = leaf.and_then(tls::replica_of);
    let peer = peer.ok_or_else(|| io::Error::other("the peer's certificate names no replica"))?;
    Ok(PeerStream::new(stream, peer, None))
}

/// Accepts peers until the replica stops. Control connections are served by the threads this runs on, all others by
/// those of `data`.
pub(crate) async fn listen(
    listener: std::net::TcpListener,
    tls: Arc<Tls>,
    service: Arc<Service>,
    data: tokio::runtime::Handle,
) -> Result<(), String> {
    let listener = TcpListener::from_std(listener).map_err(|error| error.to_string())?;
    let (accepted, incoming) = mpsc::channel(16);
    let serving = data.spawn(serve(Arc::clone(&service), incoming));
    let accepting = accept(listener, Acceptor { tls, service, data, accepted });
    let (accepting, serving) = (std::pin::pin!(accepting), std::pin::pin!(serving));
    match futures::future::select(accepting, serving).await {
        Either::Left(((), _)) => Err("accepting has ended".into()),
        Either::Right((ended, _)) => outcome(ended),
    }
}

/// How serving ended. A task is cancelled only by the end of its threads, which is the replica's own stop.
fn outcome(ended: Result<Result<(), String>, JoinError>) -> Result<(), String> {
    match ended {
        Ok(served) => served,
        Err(ended) if ended.is_cancelled() => Ok(()),
        Err(panicked) => Err(panicked.to_string()),
    }
}

#[derive(Clone)]
struct Acceptor {
    tls: Arc<Tls>,
    service: Arc<Service>,
    data: tokio::runtime::Handle,
    accepted: mpsc::Sender<io::Result<PeerStream>>,
}

async fn accept(listener: TcpListener, acceptor: Acceptor) {
    let permits = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Out of descriptors, most likely: others will close some.
                tracing::warn!(%error, "accepting a peer connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        tokio::spawn(acceptor.clone().begin(socket, permit));
    }
}

impl Acceptor {
    async fn begin(self, socket: TcpStream, permit: tokio::sync::OwnedSemaphorePermit) {
        if let Err(error) = self.sort(socket, permit).await {
            tracing::info!(%error, "a peer connection was refused");
        }
    }

    /// Looks at the first byte and brings the connection to the threads that serve it.
    async fn sort(self, mut socket: TcpStream, permit: tokio::sync::OwnedSemaphorePermit) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let mut first = [0];
        let peeked = tokio::time::timeout(HANDSHAKE_TIMEOUT, socket.peek(&mut first));
        if peeked.await.map_err(|_| io::Error::other("nothing came"))?? == 0 {
            return Ok(()); // a look whether somebody listens
        }
        if first == [control::PREFACE] {
            socket.read_exact(&mut first).await?;
            let stream = handshake(self.tls.control_acceptor(), socket).await?;
            drop(permit);
            control::serve(self.service, stream).await;
            return Ok(());
        }
        let socket = socket.into_std()?;
        let Self { tls, data, accepted, .. } = self;
        let shaken = data.spawn(async move {
            let stream = handshake(tls.data_acceptor(), TcpStream::from_std(socket)?).await?;
            drop(permit);
            // Closed when the replica stops.
            let _ = accepted.send(Ok(stream)).await;
            Ok(())
        });
        shaken.await.map_err(io::Error::other)?
    }
}

/// Serves everything but control.
async fn serve(service: Arc<Service>, incoming: mpsc::Receiver<io::Result<PeerStream>>) -> Result<(), String> {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_service(
            DataServer::from_arc(Arc::clone(&service))
                .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX),
        )
        .add_service(
            SnapshotTransferServer::from_arc(service)
                .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX),
        )
        .serve_with_incoming(ReceiverStream::new(incoming))
        .await
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threads that end take serving along without that being a failure; what fails by itself stays one.
    #[test]
    fn an_orderly_stop_is_no_failure() {
        let ours = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let threads = tokio::runtime::Runtime::new().expect("a runtime");
        let failing = threads.spawn(async { Err("no descriptor is left".to_owned()) });
        assert_eq!(outcome(ours.block_on(failing)), Err("no descriptor is left".into()));
        let panicking = threads.spawn(async { panic!("a bug") });
        assert!(outcome(ours.block_on(panicking)).is_err());
        let serving = threads.spawn(std::future::pending());
        threads.shutdown_background();
        assert_eq!(outcome(ours.block_on(serving)), Ok(()));
    }
}
