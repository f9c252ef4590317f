//! Accepts peers: TLS, who is at the other end, and which threads serve the connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use super::dial::{CONNECTION_WINDOW_BYTES, KEEP_ALIVE, STREAM_WINDOW_BYTES};
use super::purpose::Purpose;
use super::stream::PeerStream;
use super::tls::{self, Tls};
use crate::peer::data_server::DataServer;
use crate::peer::snapshot_transfer_server::SnapshotTransferServer;
use crate::transport::connection::PEER_MESSAGE_BYTES_MAX;
use crate::transport::{Service, control};

/// TLS handshakes under way at once.
const HANDSHAKES_MAX: usize = 64;
/// Connections accepted and not yet taken over by their server.
const ACCEPTED_MAX: usize = 16;
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

/// Accepts peers until the replica stops. Snapshots are served by the threads of `apart`, all else by those this runs on.
pub(crate) async fn listen(
    listener: std::net::TcpListener,
    tls: Arc<Tls>,
    service: Arc<Service>,
    apart: tokio::runtime::Handle,
) -> Result<(), String> {
    let listener = TcpListener::from_std(listener).map_err(|error| error.to_string())?;
    let (data, logs) = mpsc::channel(ACCEPTED_MAX);
    let (snapshots, states) = mpsc::channel(ACCEPTED_MAX);
    let carrying = server()
        .add_service(
            DataServer::from_arc(Arc::clone(&service))
                .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX),
        )
        .serve_with_incoming(ReceiverStream::new(logs));
    let installing = server()
        .add_service(
            SnapshotTransferServer::from_arc(Arc::clone(&service))
                .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX),
        )
        .serve_with_incoming(ReceiverStream::new(states));
    let installing = apart.spawn(installing);
    let accepting = accept(listener, Acceptor { tls, service, data, snapshots, apart });
    let (accepting, carrying) = (std::pin::pin!(accepting), std::pin::pin!(carrying));
    match select(accepting, select(carrying, installing)).await {
        Either::Left(((), _)) => Err("accepting has ended".into()),
        Either::Right((Either::Left((ended, _)), _)) => ended.map_err(|error| error.to_string()),
        Either::Right((Either::Right((ended, _)), _)) => outcome(ended),
    }
}

fn server() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
}

/// How serving ended. A task is cancelled only by the end of its threads, which is the replica's own stop.
fn outcome<E: std::fmt::Display>(ended: Result<Result<(), E>, JoinError>) -> Result<(), String> {
    match ended {
        Ok(served) => served.map_err(|error| error.to_string()),
        Err(ended) if ended.is_cancelled() => Ok(()),
        Err(panicked) => Err(panicked.to_string()),
    }
}

#[derive(Clone)]
struct Acceptor {
    tls: Arc<Tls>,
    service: Arc<Service>,
    data: mpsc::Sender<io::Result<PeerStream>>,
    snapshots: mpsc::Sender<io::Result<PeerStream>>,
    apart: tokio::runtime::Handle,
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
        let read = tokio::time::timeout(HANDSHAKE_TIMEOUT, socket.read(&mut first));
        if read.await.map_err(|_| io::Error::other("nothing came"))?? == 0 {
            return Ok(()); // a look whether somebody listens
        }
        let [first] = first;
        match Purpose::of(first) {
            Some(Purpose::Control) => {
                let stream = handshake(self.tls.control_acceptor(), socket).await?;
                drop(permit);
                control::serve(self.service, stream).await;
                Ok(())
            }
            Some(Purpose::Data) => {
                let stream = handshake(self.tls.data_acceptor(), socket).await?;
                // Closed when the replica stops.
                let _ = self.data.send(Ok(stream)).await;
                Ok(())
            }
            Some(Purpose::Snapshots) => {
                let socket = socket.into_std()?;
                let Self { tls, snapshots, apart, .. } = self;
                let shaken = apart.spawn(async move {
                    let stream = handshake(tls.data_acceptor(), TcpStream::from_std(socket)?).await?;
                    drop(permit);
                    let _ = snapshots.send(Ok(stream)).await;
                    Ok(())
                });
                shaken.await.map_err(io::Error::other)?
            }
            None => Err(io::Error::other(format!("byte {first:#04x} says no purpose of a peer's connection"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threads that end take serving along without that being a failure; what fails by itself stays one.
    #[test]
    fn an_orderly_stop_is_no_failure() {
        let ours = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let threads = tokio::runtime::Runtime::new().expect("a runtime");
        let failing = threads.spawn(async { Err("no descriptor is left") });
        assert_eq!(outcome(ours.block_on(failing)), Err("no descriptor is left".into()));
        let panicking = threads.spawn(async { panic!("a bug") as Result<(), String> });
        assert!(outcome(ours.block_on(panicking)).is_err());
        let serving = threads.spawn(std::future::pending::<Result<(), String>>());
        threads.shutdown_background();
        assert_eq!(outcome(ours.block_on(serving)), Ok(()));
    }
}
