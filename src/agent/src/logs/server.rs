//! The kubelet-compatible endpoint of the node: `/containerLogs/…` for the control plane, `/healthz` for anybody.
//!
//! Only a client that shows a certificate signed by the authority the agent joined by gets output; the control plane in turn recognises this
//! endpoint by the certificate announced at registration.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use crate::certificate::Own;
use crate::clock;
use crate::error::AgentError;
use crate::logs::request::{self, LogRequest};
use crate::logs::stream as output;
use crate::status::ContainerState;
use crate::sync::PodTable;

/// More connections wait: one control plane needs few.
const CONNECTIONS_MAX: usize = 256;
/// Blocks of output on their way to one client.
const BLOCKS_MAX: usize = 4;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

type Body = BoxBody<Bytes, io::Error>;

/// Whether a client has shown a certificate; one that is not signed by the authority does not get this far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Known,
    Anonymous,
}

/// The endpoint, before it listens.
#[derive(Clone)]
pub(crate) struct LogServer {
    tls: TlsAcceptor,
    pods: PodTable,
}

impl LogServer {
    pub(crate) fn new(own: &Own, authority: &[CertificateDer<'static>], pods: PodTable) -> Result<Self, AgentError> {
        let failed = |error: &dyn std::fmt::Display| AgentError::Tls(error.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in authority {
            roots.add(certificate.clone()).map_err(|error| failed(&error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| failed(&error))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![own.certificate()], own.key())
            .map_err(|error| failed(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { tls: TlsAcceptor::from(Arc::new(config)), pods })
    }

    /// Serves until dropped.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = room.clone().acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _from)) => stream,
                Err(error) => {
                    // Out of descriptors, mostly: a pause lets some come back.
                    debug!(%error, "connection not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let server = self.clone();
            tokio::spawn(async move {
                server.connection(stream).await;
                drop(place);
            });
        }
    }

    async fn connection(self, stream: TcpStream) {
        let stream = match timeout(HANDSHAKE_TIMEOUT, self.tls.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                debug!(%error, "TLS handshake refused");
                return;
            }
            Err(_elapsed) => return,
        };
        let client = match stream.get_ref().1.peer_certificates() {
            Some([_, ..]) => Client::Known,
            _ => Client::Anonymous,
        };
        let pods = self.pods;
        let service = service_fn(move |request: Request<Incoming>| {
            let pods = pods.clone();
            async move { Ok::<_, Infallible>(answer(&pods, client, &request)) }
        });
        let server = auto::Builder::new(TokioExecutor::new());
        if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
            debug!(%error, "connection ended");
        }
    }
}

fn answer(pods: &PodTable, client: Client, request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    if path == "/healthz" {
        return text(StatusCode::OK, "ok");
    }
    let query = request.uri().query().unwrap_or_default();
    let Some(parsed) = request::parse(path, query, clock::now()) else {
        return text(StatusCode::NOT_FOUND, "404 page not found");
    };
    if client == Client::Anonymous {
        return text(StatusCode::UNAUTHORIZED, "a client certificate of the control plane is needed");
    }
    if request.method() != Method::GET {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here");
        answer.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET"));
        return answer;
    }
    match parsed {
        Err(wrong) => text(StatusCode::BAD_REQUEST, &wrong),
        Ok(request) => container_logs(pods, request),
    }
}

fn container_logs(pods: &PodTable, request: LogRequest) -> Response<Body> {
    let LogRequest { namespace, pod, container, previous, read } = request;
    let Some(entry) = pods.find(&namespace, &pod) else {
        return text(StatusCode::NOT_FOUND, &format!("pod \"{pod}\" in namespace \"{namespace}\" is not on this node"));
    };
    let seen = entry.observed.borrow().clone();
    let record = seen.containers.iter().chain(&seen.init).find(|record| record.name == container);
    let Some(record) = record else {
        return text(StatusCode::NOT_FOUND, &format!("container \"{container}\" is not in pod \"{pod}\""));
    };
    let run = if previous {
        match (record.restart_count.checked_sub(1), &record.last, &record.state) {
            // Between two runs the one that ended last is still the present one.
            (Some(run), Some(_), ContainerState::Running { .. } | ContainerState::Terminated(_)) => Some(run),
            (run, Some(_), ContainerState::Waiting { .. }) => run,
            _ => None,
        }
    } else {
        match (&record.state, &record.last) {
            (ContainerState::Waiting { reason, .. }, None) => {
                return text(
                    StatusCode::BAD_REQUEST,
                    &format!("container \"{container}\" in pod \"{pod}\" is waiting to start: {reason}"),
                );
            }
            _ => Some(record.restart_count),
        }
    };
    let Some(run) = run else {
        return text(
            StatusCode::BAD_REQUEST,
            &format!("previous terminated container \"{container}\" in pod \"{pod}\" not found"),
        );
    };
    let Some(log) = entry.logs.container(&container) else {
        return text(StatusCode::NOT_FOUND, "the simulated runtime keeps no output");
    };
    let (to, from) = mpsc::channel(BLOCKS_MAX);
    tokio::spawn(output::send(log, run, read, to));
    let frames = stream::unfold(from, |mut from| async {
        let part = from.recv().await?;
        Some((part.map(Frame::data), from))
    });
    respond(StatusCode::OK, StreamBody::new(frames).boxed())
}

fn text(status: StatusCode, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {}).boxed();
    respond(status, body)
}

fn respond(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
