//! Logs through the control plane: from a node that proves to be the one that joined, and from no other.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use http::{Request, Response};
use hyper_util::rt::TokioIo;
use quilt_api::{AgentCredential, ApiOptions, RootKey};
use quilt_proto::{Key, Op, Txn};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{PODS, Plane, pod};

/// A certificate that signs itself, and its key.
struct Pair {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Pair {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        Self { certificate: made.cert.der().clone(), key: key.into() }
    }

    fn sha256(&self) -> String {
        hex::encode(ring::digest::digest(&ring::digest::SHA256, &self.certificate))
    }

    fn credential(&self) -> AgentCredential {
        AgentCredential { chain: vec![self.certificate.clone()], key: self.key.clone_key() }
    }
}

/// A node's endpoint: serves only who shows `client`'s certificate, answers with the path it was asked, and knows no
/// container of the name `lost`.
async fn endpoint(own: &Pair, client: &Pair) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(client.certificate.clone()).expect("a root");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier.build().expect("a verifier"))
        .with_single_cert(vec![own.certificate.clone()], own.key.clone_key())
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let answer = |request: Request<hyper::body::Incoming>| async move {
                let path = request.uri().to_string();
                let status = if path.contains("/lost") { 404 } else { 200 };
                let answer = Response::builder().status(status).body(Body::from(format!("asked {path}\n")));
                answer.map_err(std::io::Error::other)
            };
            let service = hyper::service::service_fn(answer);
            let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move { serving.await.is_ok() });
        }
    });
    address
}

/// Node `n1` as its agent announced it when it joined.
async fn announce(plane: &Plane, address: SocketAddr, sha256: &str) {
    let node = json!({
        "metadata": {"name": "n1", "uid": "u1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"quilt.sh/kubelet-cert-sha256": sha256}},
        "spec": {},
        "status": {"addresses": [{"type": "InternalIP", "address": address.ip().to_string()}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}}},
    });
    let key = Key::new("default", "", "nodes", "", "n1").expect("a key");
    let put = Op::put(&key, node.to_string());
    let stored = plane.replica.propose(Txn::new(Vec::new(), vec![put]), std::time::Duration::from_secs(10));
    stored.await.expect("stored");
}

async fn plane(credential: Option<AgentCredential>) -> Plane {
    let mut options = ApiOptions::new("test", RootKey::new([7; 32]));
    options.agent_credential = credential;
    let plane = Plane::start_with(options).await;
    let mut bound = pod("p");
    bound["spec"]["nodeName"] = json!("n1");
    bound["spec"]["initContainers"] = json!([{"name": "lost", "image": "i"}]);
    plane.post(PODS, &bound).await.expect(201);
    plane
}

/// The node is asked for the container with every parameter, over a connection in which both sides have proved who they
/// are, and its answer is passed on as plain text; what it does not know is 404.
#[tokio::test]
async fn logs_come_from_the_node() {
    let (node, control_plane) = (Pair::new(), Pair::new());
    let plane = plane(Some(control_plane.credential())).await;
    announce(&plane, endpoint(&node, &control_plane).await, &node.sha256()).await;
    let answer = plane.get(&format!("{PODS}/p/log")).await;
    assert_eq!((answer.status, &answer.bytes[..]), (200, &b"asked /containerLogs/default/p/main\n"[..]));
    assert_eq!(answer.headers["content-type"], "text/plain");
    let asked = "tailLines=0&previous=true&timestamps=true&limitBytes=9&sinceTime=2026-01-01T00:00:00Z&container=main";
    let answer = plane.get(&format!("{PODS}/p/log?{asked}")).await;
    let text = String::from_utf8_lossy(&answer.bytes).into_owned();
    assert_eq!(answer.status, 200, "{text}");
    for part in ["previous=true", "timestamps=true", "tailLines=0", "limitBytes=9", "sinceTime=2026-01-01T00:00:00Z"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let lost = plane.get(&format!("{PODS}/p/log?container=lost")).await.refusal(404, "NotFound");
    assert!(lost["details"]["causes"].to_string().contains("asked /containerLogs"), "the node's own words: {lost}");
}

/// An endpoint that shows another certificate than the node announced is not asked, whoever has signed it; neither does
/// a node answer a control plane that shows another than its own. Both are 503 and name the node.
#[tokio::test]
async fn another_certificate_is_refused() {
    let (node, control_plane, stranger) = (Pair::new(), Pair::new(), Pair::new());
    let words = |refused: &Value| refused["message"].as_str().expect("words").to_owned();
    let plane_of_ours = plane(Some(control_plane.credential())).await;
    let log = format!("{PODS}/p/log");
    announce(&plane_of_ours, endpoint(&stranger, &control_plane).await, &node.sha256()).await;
    let refused = words(&plane_of_ours.get(&log).await.refusal(503, "ServiceUnavailable"));
    assert!(refused.contains("\"n1\"") && refused.contains("another certificate"), "{refused}");
    announce(&plane_of_ours, endpoint(&node, &stranger).await, &node.sha256()).await;
    let refused = words(&plane_of_ours.get(&log).await.refusal(503, "ServiceUnavailable"));
    assert!(refused.contains("\"n1\""), "{refused}");
    let without = plane(None).await;
    announce(&without, endpoint(&node, &control_plane).await, &node.sha256()).await;
    let refused = words(&without.get(&log).await.refusal(503, "ServiceUnavailable"));
    assert!(refused.contains("no client certificate"), "{refused}");
}
