//! Watches: from nothing, from a version, by selector, with marks; nothing lost, nothing twice.

use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, PODS, Plane, config_map, pod};

const MERGE: &str = "application/merge-patch+json";

fn pair(kind: &str, name: &str) -> (String, String) {
    (kind.into(), name.into())
}

/// A watch without a version shows the present state, then changes; one from a version only what came after it.
#[tokio::test]
async fn state_then_changes() {
    let plane = Plane::start().await;
    plane.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let list = plane.get(CONFIG_MAPS).await.expect(200);
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let mut all = plane.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    let mut later = plane.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={version}")).await;
    assert_eq!(all.named().await, pair("ADDED", "a"));
    plane.post(CONFIG_MAPS, &config_map("b")).await.expect(201);
    plane.patch(&format!("{CONFIG_MAPS}/a"), MERGE, &json!({"data": {"a": "c"}})).await.expect(200);
    plane.delete(&format!("{CONFIG_MAPS}/b"), &Value::Null).await.expect(200);
    plane.post("/api/v1/namespaces/kube-system/configmaps", &config_map("elsewhere")).await.expect(201);
    for watch in [&mut all, &mut later] {
        assert_eq!(watch.named().await, pair("ADDED", "b"));
        assert_eq!(watch.named().await, pair("MODIFIED", "a"));
        let gone = watch.next().await.expect("an event");
        assert_eq!((&gone["type"], &gone["object"]["metadata"]["name"]), (&json!("DELETED"), &json!("b")));
        assert_eq!((&gone["object"]["kind"], &gone["object"]["data"]["a"]), (&json!("ConfigMap"), &json!("b")));
        let at: u64 = gone["object"]["metadata"]["resourceVersion"]
            .as_str()
            .and_then(|text| text.parse().ok())
            .expect("a version");
        assert!(at > version.parse().expect("a number"), "a deletion carries its own version");
        assert!(watch.is_silent().await, "other namespaces stay out");
    }
    // Resuming from the middle gives exactly the rest.
    let mut resumed = plane.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={version}")).await;
    let first = resumed.next().await.expect("an event");
    let middle = first["object"]["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let mut rest = plane.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={middle}")).await;
    assert_eq!(rest.named().await, pair("MODIFIED", "a"));
    assert_eq!(rest.named().await, pair("DELETED", "b"));
}

/// Objects that enter a selection are ADDED, those that leave it DELETED with the version of the change.
#[tokio::test]
async fn selections_change() {
    let plane = Plane::start().await;
    plane.post(PODS, &pod("p")).await.expect(201);
    let mut labelled = plane.watch(&format!("{PODS}?watch=1&labelSelector=tier%3Dgold")).await;
    let mut bound = plane.watch("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1").await;
    let mut single = plane.watch(&format!("{PODS}?watch=1&fieldSelector=metadata.name%3Dp")).await;
    assert_eq!(single.named().await, pair("ADDED", "p"));
    let path = format!("{PODS}/p");
    plane.patch(&path, MERGE, &json!({"metadata": {"labels": {"tier": "gold"}}})).await.expect(200);
    plane.post(&format!("{path}/binding"), &json!({"target": {"name": "n1"}})).await.expect(201);
    let left = plane.patch(&path, MERGE, &json!({"metadata": {"labels": {"tier": "tin"}}})).await.expect(200);
    assert_eq!(labelled.named().await, pair("ADDED", "p"));
    assert_eq!(labelled.named().await, pair("MODIFIED", "p"));
    let gone = labelled.next().await.expect("an event");
    assert_eq!(gone["type"], "DELETED");
    assert_eq!(gone["object"]["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
    assert_eq!(gone["object"]["metadata"]["labels"]["tier"], "gold", "as it was while it was shown");
    assert_eq!(bound.named().await, pair("ADDED", "p"));
    assert_eq!(bound.named().await, pair("MODIFIED", "p"));
    for _ in 0..3 {
        assert_eq!(single.named().await, pair("MODIFIED", "p"));
    }
    plane.post(PODS, &pod("q")).await.expect(201);
    assert!(single.is_silent().await);
}

/// WatchList: the state, a marked bookmark, then changes. Timeouts end the stream after a last bookmark.
#[tokio::test]
async fn initial_events_are_marked() {
    let plane = Plane::start().await;
    plane.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let query = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = plane.watch(&format!("{CONFIG_MAPS}?{query}&timeoutSeconds=3")).await;
    assert_eq!(watch.named().await, pair("ADDED", "a"));
    let mark = watch.next().await.expect("an event");
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(mark["object"]["kind"], "ConfigMap");
    plane.post(CONFIG_MAPS, &config_map("b")).await.expect(201);
    assert_eq!(watch.named().await, pair("ADDED", "b"));
    let last = watch.next().await.expect("an event");
    assert_eq!(last["type"], "BOOKMARK");
    let number = |value: &Value| {
        value["object"]["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok())
    };
    assert!(number(&last) > number(&mark));
    let refused = plane.get(&format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=true")).await;
    refused.refusal(422, "Invalid");
}

/// A watch of a Table sends its columns once; the old path form and metadata-only watches work.
#[tokio::test]
async fn other_forms() {
    let plane = Plane::start().await;
    plane.post(PODS, &pod("p")).await.expect(201);
    plane.post(PODS, &pod("q")).await.expect(201);
    let mut old = plane.watch("/api/v1/watch/namespaces/default/pods").await;
    assert_eq!(old.named().await, pair("ADDED", "p"));
    let request = Plane::request(http::Method::GET, &format!("{PODS}?watch=1&timeoutSeconds=1"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let answer = plane.call(request.body(axum::body::Body::empty()).expect("a request")).await;
    let text = String::from_utf8_lossy(&answer.bytes).into_owned();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(events.len(), 2);
    assert!(events[0]["object"]["columnDefinitions"].as_array().is_some_and(|columns| !columns.is_empty()));
    assert!(events[1]["object"]["columnDefinitions"].as_array().is_none_or(Vec::is_empty));
    assert_eq!(events[1]["object"]["rows"][0]["cells"][0], "q");
}

/// A watch from a version that history no longer has, or that does not exist yet, is refused before it begins.
#[tokio::test]
async fn impossible_starts() {
    let plane = Plane::start().await;
    let ahead = plane.get(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=999999&timeoutSeconds=1")).await;
    ahead.refusal(504, "Timeout");
}
