//! A request that is judged by how its URL is written, and not by the cluster that it resolves to: convicted by a tenant that reads
//! what is another's.

use std::cell::{Cell, RefCell};

use axum::body::Body;
use http::Request;
use serde_json::json;

use super::super::Plane;
use super::tell;
use crate::access::ClusterPath;

thread_local! {
    static SHOWN: Cell<bool> = const { Cell::new(false) };
    /// The URL of the request that is served on this thread.
    static URL: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Notes how the URL is written.
pub(crate) fn note(path: &str) {
    if SHOWN.get() {
        URL.set(path.to_owned());
    }
}

/// The cluster whose owner is asked: the one that the URL begins with, if the bug is on show.
pub(crate) fn judged(resolved: &ClusterPath) -> ClusterPath {
    if !SHOWN.get() {
        return resolved.clone();
    }
    let named = URL.with_borrow(|url| url.strip_prefix("/clusters/")?.split('/').next().map(str::to_owned));
    ClusterPath::of(named.as_deref())
}

/// Ways to write the same path.
fn spellings(cluster: &str) -> [String; 4] {
    [
        format!("/clusters/{cluster}/api/v1/namespaces"),
        format!("//clusters/{cluster}/api/v1/namespaces"),
        format!("/%63lusters/{cluster}/api/v1/namespaces"),
        format!("/clusters//{cluster}/api/v1/namespaces"),
    ]
}

/// The first spelling by which tenant `default` reads what is another's.
async fn leaks() -> Option<String> {
    let plane = Plane::start().await;
    let other = plane.operator("POST", "/api/admin/tenants", json!({"name": "acme"})).await.expect(201);
    let owner = other["api_key"].as_str().expect("key").to_owned();
    let body = json!({"name": "c", "pod_cidr": "10.42.0.0/16", "node_cidr_prefix": 24}).to_string();
    let made = plane.send("POST", "/api/clusters", &[("X-Api-Key", &owner)], body).await.expect(201);
    let cluster = made["id"].as_str().expect("id");
    let kubernetes = plane.kubernetes();
    let ask = async |key: &str, path: &str| {
        let request = Request::get(path).header("authorization", format!("Bearer {key}"));
        let answer = kubernetes.handle(request.body(Body::empty()).expect("request")).await;
        answer.expect("an answer").status().as_u16()
    };
    for path in spellings(cluster) {
        let status = ask(&plane.key, &path).await;
        if status == 200 {
            return Some(path.replace(cluster, "{id}"));
        }
        if !SHOWN.get() {
            assert_eq!((ask(&owner, &path).await, status), (200, 404), "{path}");
        }
    }
    None
}

/// However a URL is written, a tenant sees nothing of another's cluster, not even that it is there.
#[tokio::test]
async fn no_spelling_of_a_url_opens_what_is_anothers() {
    assert_eq!(leaks().await, None);
}

/// A judge who reads the URL lets in who writes it otherwise.
#[tokio::test]
async fn a_judge_of_urls_is_convicted() {
    SHOWN.set(true);
    let convicted = leaks().await;
    SHOWN.set(false);
    let convicted = convicted.map(|path| format!("path: Isolation: GET {path} answers another tenant"));
    tell("product", "authorization on the URL, not the resolved key", convicted.as_deref());
}
