//! [`Server`]: every request of every listener comes in here. Splits Quilt routes from Kubernetes paths, gives each
//! request its audit id, and ends the connection where no answer may be given.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tower::{Service, ServiceExt};

use crate::context::Api;
use crate::identity::PeerCertificate;
use crate::kubernetes;
use crate::problem::Abandon;
use crate::route;

/// Header under which every answer can be found in the audit log.
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// The whole HTTP surface of one replica; cheap to clone, one for all listeners.
#[derive(Clone)]
pub struct Server {
    api: Arc<Api>,
    quilt: Router,
}

/// The fate of a write is unknown: the connection (HTTP/2: the stream) ends without an answer.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the fate of a write is unknown; the connection is closed instead of answering")]
pub struct Abandoned;

impl Server {
    /// The surface over `api`; `quilt` answers everything that is not a Kubernetes path.
    #[must_use]
    pub const fn new(api: Arc<Api>, quilt: Router) -> Self {
        Self { api, quilt }
    }

    /// The state shared by all requests.
    #[must_use]
    pub const fn api(&self) -> &Arc<Api> {
        &self.api
    }

    /// Answers one request.
    ///
    /// # Errors
    /// [`Abandoned`] when no answer may be given.
    pub async fn handle(&self, request: Request<Body>) -> Result<Response<Body>, Abandoned> {
        let audit_id = request.headers().get(&AUDIT_ID).cloned();
        let audit_id = audit_id.or_else(|| HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok());
        let mut response = if route::is_kubernetes(request.uri().path()) {
            kubernetes::serve(&self.api, request).await
        } else {
            let answer: Result<Response<Body>, Infallible> = self.quilt.clone().oneshot(request).await;
            let Ok(response) = answer;
            response
        };
        if response.extensions().get::<Abandon>().is_some() {
            return Err(Abandoned);
        }
        if let Some(audit_id) = audit_id {
            response.headers_mut().insert(AUDIT_ID, audit_id);
        }
        Ok(response)
    }

    /// Serves one accepted connection, TLS or plain, HTTP/1.1 or HTTP/2, until it ends.
    ///
    /// # Errors
    /// Whatever ended the connection early.
    pub async fn serve_connection<S>(
        &self,
        stream: S,
        peer: PeerCertificate,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let server = self.clone();
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            let server = server.clone();
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer.clone());
            async move { server.handle(request).await }
        });
        auto::Builder::new(TokioExecutor::new()).serve_connection_with_upgrades(TokioIo::new(stream), service).await
    }
}

impl<B> Service<Request<B>> for Server
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response<Body>;
    type Error = Abandoned;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Abandoned>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Abandoned>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move { server.handle(request.map(Body::new)).await })
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::any;
    use quilt_proto::ReplicaId;
    use quilt_raft::{ProposeError, Replica};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::context::{ApiOptions, RootKey};
    use crate::problem::Problem;

    async fn server(error: ProposeError) -> Server {
        let replica = Replica::memory(ReplicaId(1)).await;
        let api = Api::new(ApiOptions::new("test", RootKey::new([7; 32])), replica);
        let answer = move || std::future::ready(Problem::from(error.clone()).response());
        Server::new(api, Router::new().fallback(any(answer)))
    }

    /// What a client of one connection gets when a write of it ends this way.
    async fn exchange(error: ProposeError) -> String {
        let (mut client, connection) = tokio::io::duplex(64 << 10);
        let server = server(error).await;
        let serving =
            tokio::spawn(async move { server.serve_connection(connection, PeerCertificate(None)).await.is_ok() });
        let request = b"POST /api/clusters HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        client.write_all(request).await.expect("sent");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("the connection ends in order");
        serving.await.expect("served");
        String::from_utf8(answer).expect("text")
    }

    /// A write of unknown fate ends its connection without a byte of an answer; one that was surely not applied is
    /// answered.
    #[tokio::test]
    async fn unknown_fate_is_no_answer() {
        assert_eq!(exchange(ProposeError::Unknown).await, "");
        assert_eq!(exchange(ProposeError::Stopped).await, "");
        let answered = exchange(ProposeError::NotApplied).await;
        assert!(answered.starts_with("HTTP/1.1 503 "), "{answered}");
        let busy = exchange(ProposeError::Overloaded { limit: "requests" }).await;
        assert!(busy.starts_with("HTTP/1.1 429 ") && busy.to_lowercase().contains("\r\nretry-after: 1\r\n"), "{busy}");
    }
}
