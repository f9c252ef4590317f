//! What clients learn about the server before they use it.

use http::Method;
use serde_json::{Value, json};

use crate::support::{OTHER, Plane, TENANT};

/// Version, health, both discovery forms, ETags.
#[tokio::test]
async fn discovery_and_version() {
    let plane = Plane::start().await;
    let version = plane.get("/version").await.expect(200);
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("36")));
    assert_eq!(version["gitVersion"], "v1.36.0+quilt.test");
    for path in ["/healthz", "/livez", "/readyz", "/readyz/ping", "/clusters/c1/readyz"] {
        let answer = plane.get(path).await;
        assert_eq!((answer.status, &*answer.bytes), (200, b"ok".as_slice()), "{path}");
    }
    assert_eq!(plane.get("/readyz/nothing").await.status, 404);
    let verbose = plane.get("/readyz?verbose").await;
    assert!(String::from_utf8_lossy(&verbose.bytes).contains("[+]state ok"));
    assert_eq!(plane.get("/api").await.expect(200)["versions"], json!(["v1"]));
    assert_eq!(plane.get("/apis").await.expect(200)["kind"], "APIGroupList");
    assert_eq!(plane.get("/apis/apps").await.expect(200)["preferredVersion"]["version"], "v1");
    let resources = plane.get("/clusters/c1/apis/apps/v1").await.expect(200);
    assert!(
        resources["resources"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "deployments/scale"))
    );
    plane.get("/apis/none.example.com/v1").await.refusal(404, "NotFound");
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let answer = plane.get_as("/apis", aggregated).await;
    assert_eq!(answer.headers["content-type"], "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    assert_eq!(answer.body["kind"], "APIGroupDiscoveryList");
    let tag = answer.headers["etag"].clone();
    let request = Plane::request(Method::GET, "/apis").header("accept", aggregated).header("if-none-match", tag);
    let known = plane.call(request.body(axum::body::Body::empty()).expect("a request")).await;
    assert_eq!((known.status, known.bytes.len()), (304, 0));
}

/// The index leads to documents named by their hash, which may be kept for ever.
#[tokio::test]
async fn open_api() {
    let plane = Plane::start().await;
    for prefix in ["", "/clusters/c1"] {
        let index = plane.get(&format!("{prefix}/openapi/v3")).await.expect(200);
        let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a URL").to_owned();
        assert!(url.starts_with(&format!("{prefix}/openapi/v3/apis/apps/v1?hash=")), "{url}");
        let document = plane.get(&url).await;
        assert_eq!(document.headers["cache-control"], "public, immutable");
        let document = document.expect(200);
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
        let parameters = patch["parameters"].as_array().expect("parameters");
        assert!(parameters.iter().any(|parameter| parameter["name"] == "fieldValidation"));
        let old = plane.get(&format!("{prefix}/openapi/v3/apis/apps/v1?hash=OLD")).await;
        assert_eq!(old.status, 301);
    }
    assert_eq!(plane.get("/openapi/v2").await.body["kind"], json!("Status"));
    assert_ne!(plane.get("/openapi/v3/api/v1").await.expect(200)["components"], Value::Null);
}

/// What is not served is not listed either, in no form: clients that find metrics listed wait for them.
#[tokio::test]
async fn unserved_groups_are_not_listed() {
    let plane = Plane::start().await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    for answer in [
        plane.get_as("/apis", aggregated).await,
        plane.get("/apis").await,
        plane.get("/").await,
        plane.get("/openapi/v3").await,
    ] {
        let text = answer.expect(200).to_string();
        assert!(text.contains("apps") && !text.contains("metrics.k8s.io"), "{text}");
    }
    for path in ["/apis/metrics.k8s.io", "/apis/metrics.k8s.io/v1beta1", "/apis/metrics.k8s.io/v1beta1/nodes"] {
        plane.get(path).await.refusal(404, "NotFound");
    }
}

/// Who may not see a cluster's discovery is told so in words: as a Status, and as plain text to clients of the
/// aggregated form, which show nothing else.
#[tokio::test]
async fn refused_discovery_says_why() {
    let plane = Plane::start().await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let ask = async |key: &str, path: &str, accept: &str| {
        let request =
            http::Request::get(path).header("accept", accept).header("authorization", format!("Bearer {key}"));
        plane.call(request.body(axum::body::Body::empty()).expect("a request")).await
    };
    let refused = ask(TENANT, "/api", "application/json").await.refusal(403, "Forbidden");
    let words = "forbidden: User \"quilt:tenant:t1\" cannot get path \"/api\"";
    assert_eq!(refused["message"], words);
    for (key, path, status, words) in [
        (TENANT, "/api", 403, words),
        (TENANT, "/clusters/none/apis", 404, "the server could not find the requested resource"),
        (OTHER, "/clusters/c1/apis", 404, "the server could not find the requested resource"),
        ("qk_unknown", "/apis", 401, "Unauthorized"),
    ] {
        let answer = ask(key, path, aggregated).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
        assert_eq!(String::from_utf8_lossy(&answer.bytes).trim(), words);
    }
    assert_eq!(ask(TENANT, "/clusters/c1/apis", aggregated).await.status, 200);
}
