//! One real connection that goes through everything a careless client sends, and is still good afterwards.

use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use quilt_api::PeerCertificate;
use serde_json::Value;

use crate::support::{ADMIN, CONFIG_MAPS, PODS, Plane};

async fn connect(plane: &Plane) -> SendRequest<Body> {
    let (client, connection) = tokio::io::duplex(64 << 10);
    let server = plane.server.clone();
    tokio::spawn(async move { server.serve_connection(connection, PeerCertificate(None)).await.is_ok() });
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await.expect("a connection");
    tokio::spawn(connection);
    sender
}

async fn exchange(
    sender: &mut SendRequest<Body>,
    method: Method,
    path: &str,
    content_type: &str,
    body: Vec<u8>,
) -> (StatusCode, Value) {
    sender.ready().await.expect("the connection is still good");
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "quilt")
        .header("authorization", format!("Bearer {ADMIN}"))
        .header("content-type", content_type)
        .body(Body::from(body))
        .expect("a request");
    let (parts, body) = sender.send_request(request).await.expect("an answer").into_parts();
    let bytes = body.collect().await.expect("a whole answer").to_bytes();
    (parts.status, serde_json::from_slice(&bytes).unwrap_or_default())
}

/// Oversized, malformed and misplaced requests, one after the other on one connection: each gets its status, the next
/// request is served, and nothing is stored.
#[tokio::test]
async fn it_survives_bad_input() {
    let plane = Plane::start().await;
    let mut sender = connect(&plane).await;
    let json = "application/json";
    let big = format!(r#"{{"metadata":{{"name":"big"}},"data":{{"a":"{}"}}}}"#, "x".repeat(6 << 20));
    let unicorns = "/api/v1/namespaces/default/unicorns";
    let cases: Vec<(Method, &str, &str, Vec<u8>, u16)> = vec![
        (Method::POST, CONFIG_MAPS, json, big.into_bytes(), 413),
        (Method::POST, CONFIG_MAPS, json, b"{\"metadata\":".to_vec(), 400),
        (Method::POST, CONFIG_MAPS, "application/yaml", b"a: [".to_vec(), 400),
        (Method::POST, CONFIG_MAPS, "application/vnd.kubernetes.protobuf", vec![0x6b, 0x38, 0x73, 0, 0xff, 0xff], 400),
        (Method::POST, CONFIG_MAPS, "application/cbor", vec![0xd9], 415),
        (Method::POST, unicorns, json, b"{}".to_vec(), 404),
        (Method::POST, PODS, json, br#"{"metadata":{"name":"p"},"spec":{"containers":"none"}}"#.to_vec(), 400),
        (Method::PUT, PODS, json, b"{}".to_vec(), 405),
    ];
    let before = exchange(&mut sender, Method::GET, CONFIG_MAPS, json, Vec::new()).await;
    for (method, path, content_type, body, status) in cases {
        let shown = format!("{method} {path} of {content_type}");
        let (answered, refusal) = exchange(&mut sender, method, path, content_type, body).await;
        assert_eq!((answered.as_u16(), &refusal["code"]), (status, &status.into()), "{shown}: {refusal}");
        let after = exchange(&mut sender, Method::GET, CONFIG_MAPS, json, Vec::new()).await;
        assert_eq!(after, before, "{shown} stored nothing");
    }
}
