//! Listeners of a replica: TLS for everyone, plain HTTP on loopback when asked for (architecture D17).
//!
//! The handshake runs in the connection's own task and has a deadline, so a client that sends nothing holds up
//! nobody. Who the client's certificate names goes to the handlers as a request extension.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use futures::FutureExt;
use futures::future::Either;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use quilt_api::{Abandoned, PeerCertificate, Server};
use quilt_raft::Replica;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::kv::Kv;

/// Time a client has for its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time a client has to send its request's header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections served at once; the next one waits in the system's queue.
const CONNECTIONS_MAX: usize = 16_384;
/// Time that requests under way have to finish at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked at the end whether there is a leader, without whom no request can be finished.
const LED_LOOK: Duration = Duration::from_millis(200);
/// Looks in a row without one: longer than an election takes.
const UNLED_LOOKS: u32 = 4;

/// What a listener serves.
#[derive(Clone)]
pub(crate) struct Surface {
    /// The Kubernetes and Quilt APIs.
    pub(crate) server: Server,
    /// The operator's key-value service, where it is switched on.
    pub(crate) kv: Option<Kv>,
    /// Whether requests get anywhere.
    pub(crate) replica: Replica,
}

impl Surface {
    /// What is given back is small: it is moved several times on its way into a task.
    fn answer(
        &self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        certificate: &PeerCertificate,
    ) -> impl Future<Output = Result<Response<Body>, Abandoned>> + Send + use<> {
        if let Some(kv) = self.kv.as_ref().filter(|_| Kv::serves(request.uri().path())) {
            return Either::Left(kv.answer(request).map(Ok));
        }
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(certificate.clone());
        let server = self.server.clone();
        Either::Right(async move { server.handle(request.map(Body::new)).await }.boxed())
    }
}

/// Serves `surface` on `listener`, over TLS when an acceptor is given, until `stop` becomes true.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    surface: Surface,
    mut stop: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(250).keep_alive_interval(Some(HEADER_TIMEOUT));
    let builder = Arc::new(builder);
    let connections = tokio_util::task::TaskTracker::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: others end and give theirs back.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = async { drop(stop.wait_for(|stop| *stop).await) } => break,
        };
        let _ = stream.set_nodelay(true);
        let (tls, surface, builder, watcher) = (tls.clone(), surface.clone(), Arc::clone(&builder), graceful.watcher());
        connections.spawn(async move {
            let _place = place;
            match tls {
                None => connection(&builder, stream, surface, peer, None, watcher).await,
                Some(acceptor) => {
                    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else {
                        return;
                    };
                    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
                    connection(&builder, stream, surface, peer, certificate, watcher).await;
                }
            }
        });
    }
    // Who connects now is to be refused, and to go elsewhere.
    drop(listener);
    connections.close();
    let drained = tokio::select! {
        () = graceful.shutdown() => true,
        () = tokio::time::sleep(DRAIN_TIMEOUT) => false,
        () = leaderless(&surface.replica) => false,
    };
    if !drained {
        tracing::info!("connections still open at the end are cut");
    }
}

/// Completes when no leader is at work: what still waits waits for one, as when a whole control plane is stopped.
async fn leaderless(replica: &Replica) {
    let mut unled = 0;
    while unled < UNLED_LOOKS {
        tokio::time::sleep(LED_LOOK).await;
        unled = if replica.is_led() { 0 } else { unled + 1 };
    }
}

async fn connection<S>(
    builder: &Builder<TokioExecutor>,
    stream: S,
    surface: Surface,
    peer: SocketAddr,
    certificate: Option<rustls_pki_types::CertificateDer<'static>>,
    watcher: hyper_util::server::graceful::Watcher,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let certificate = PeerCertificate(certificate);
    let service = service_fn(move |request| surface.answer(request, peer, &certificate));
    let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(served.into_owned()).await {
        tracing::debug!(%peer, %error, "connection ended");
    }
}
