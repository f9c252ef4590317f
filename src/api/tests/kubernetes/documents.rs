//! What clients learn about the server before they use it.

use http::Method;
use serde_json::{Value, json};

use crate::support::Plane;

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
