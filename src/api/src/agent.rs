//! [`Endpoint`]: the kubelet-compatible endpoint of one node, dialled over TLS. Only an endpoint that shows the
//! certificate the node announced is used, and the control plane shows its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use quilt_objects::place;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::context::Api;
use crate::leaf::AcceptedLeaf;
use crate::problem::Problem;

/// Annotation that holds the SHA-256 of the node's certificate, as hex.
const CERTIFICATE: &str = "quilt.sh/kubelet-cert-sha256";
/// Time to reach a node, handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time until a node begins to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a node answers and how it proves itself.
#[derive(Debug)]
pub(crate) struct Endpoint {
    node: String,
    host: String,
    port: u16,
    certificate_sha256: [u8; 32],
}

impl Endpoint {
    /// The endpoint a Node object announces.
    pub(crate) fn of(node: &Value) -> Result<Self, Problem> {
        let name = place::text_or_empty(node, &["metadata", "name"]);
        let missing = |what: &str| Problem::unavailable(format!("node {name:?} announces no {what} for logs"));
        let address = |kind: &str| {
            place::items(node, &["status", "addresses"])
                .iter()
                .find(|address| place::text_or_empty(address, &["type"]) == kind)
                .and_then(|address| place::text(address, &["address"]))
        };
        let host = ["InternalIP", "ExternalIP", "Hostname"].into_iter().find_map(address);
        let port = place::int(node, &["status", "daemonEndpoints", "kubeletEndpoint", "Port"]);
        let digest = place::text(node, &["metadata", "annotations", CERTIFICATE]);
        let digest = digest.and_then(|text| hex::decode(text).ok()).and_then(|bytes| bytes.try_into().ok());
        Ok(Self {
            node: name.to_owned(),
            host: host.ok_or_else(|| missing("address"))?.to_owned(),
            port: port
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port > 0)
                .ok_or_else(|| missing("port"))?,
            certificate_sha256: digest.ok_or_else(|| missing("certificate"))?,
        })
    }

    /// GET of `path` with its query; the body streams.
    pub(crate) async fn get(&self, api: &Arc<Api>, path: &str) -> Result<Response<Incoming>, Problem> {
        let failed =
            |why: String| Problem::unavailable(format!("node {:?} cannot be asked for logs: {why}", self.node));
        let connect = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(api));
        let stream = connect.await.map_err(|_| failed("no connection in time".into()))?.map_err(failed)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(error.to_string()))?;
        // Ends by itself when the body has been read or dropped, or the node closes.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to a node's log endpoint ended early");
            }
        });
        let request = Request::get(path)
            .header(http::header::HOST, format!("{}:{}", self.host, self.port))
            .body(Empty::<Bytes>::new())
            .map_err(|error| failed(error.to_string()))?;
        tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request))
            .await
            .map_err(|_| failed("no answer in time".into()))?
            .map_err(|error| failed(error.to_string()))
    }

    async fn connect(&self, api: &Arc<Api>) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
        let credential = api.options.agent_credential.as_ref();
        let credential = credential.ok_or_else(|| "this control plane has no client certificate".to_owned())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptedLeaf::Pinned(self.certificate_sha256)))
            .with_client_auth_cert(credential.chain.clone(), credential.key.clone_key())
            .map_err(|error| error.to_string())?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| error.to_string())?;
        let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| error.to_string())
    }
}
