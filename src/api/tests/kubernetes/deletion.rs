//! Deletion: preconditions, finalizers, propagation, grace, namespaces, collections.

use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, DEPLOYMENTS, PODS, Plane, config_map, deployment, pod};

const MERGE: &str = "application/merge-patch+json";

/// A finalizer keeps a deleted object until it is taken away; foreground and orphan deletions add theirs.
#[tokio::test]
async fn finalizers_hold() {
    let plane = Plane::start().await;
    let mut held = config_map("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    plane.post(CONFIG_MAPS, &held).await.expect(201);
    let path = format!("{CONFIG_MAPS}/held");
    let marked = plane.delete(&path, &Value::Null).await.expect(200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let again = plane.delete(&path, &Value::Null).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], marked["metadata"]["resourceVersion"], "nothing changes twice");
    plane.patch(&path, MERGE, &json!({"metadata": {"finalizers": null}})).await.expect(200);
    plane.get(&path).await.refusal(404, "NotFound");
    plane.post(DEPLOYMENTS, &deployment("d", 1)).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d");
    let marked = plane.delete(&path, &json!({"propagationPolicy": "Foreground"})).await.expect(200);
    assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let orphan = plane.delete(&path, &json!({"propagationPolicy": "Orphan"})).await.expect(200);
    assert_eq!(orphan["metadata"]["finalizers"], json!(["orphan"]));
    let gone = plane.delete(&path, &json!({"propagationPolicy": "Background"})).await.expect(200);
    assert_eq!((&gone["status"], &gone["details"]["kind"]), (&json!("Success"), &json!("deployments")));
}

/// An unbound Pod goes at once, with a Status generated clients read as a Pod; a bound one keeps its grace.
#[tokio::test]
async fn pods_end_gracefully() {
    let plane = Plane::start().await;
    plane.post(PODS, &pod("free")).await.expect(201);
    let gone = plane.delete(&format!("{PODS}/free"), &Value::Null).await.expect(200);
    assert_eq!((&gone["status"], &gone["details"]["kind"]), (&json!("Success"), &json!("Pod")));
    let mut bound = pod("bound");
    bound["spec"]["nodeName"] = json!("n1");
    let created = plane.post(PODS, &bound).await.expect(201);
    let path = format!("{PODS}/bound");
    let marked = plane.delete(&path, &json!({"gracePeriodSeconds": 20})).await.expect(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 20);
    let shorter = plane.delete(&path, &json!({"gracePeriodSeconds": 5})).await.expect(200);
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let longer = plane.delete(&path, &json!({"gracePeriodSeconds": 50})).await.expect(200);
    assert_eq!(longer["metadata"]["deletionGracePeriodSeconds"], 5);
    let uid = &created["metadata"]["uid"];
    let now = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
    assert_eq!(plane.delete(&path, &now).await.expect(200)["details"]["uid"], *uid);
    plane.get(&path).await.refusal(404, "NotFound");
}

/// A deleted namespace is Terminating, takes nothing new, and goes with its finalizer; some may never go.
#[tokio::test]
async fn namespaces_terminate() {
    let plane = Plane::start().await;
    plane.post("/api/v1/namespaces", &json!({"metadata": {"name": "team"}})).await.expect(201);
    let marked = plane.delete("/api/v1/namespaces/team", &Value::Null).await.expect(200);
    assert_eq!(marked["status"]["phase"], "Terminating");
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let refused = plane.post("/api/v1/namespaces/team/configmaps", &config_map("a")).await.refusal(403, "Forbidden");
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut finalized = plane.get("/api/v1/namespaces/team").await.expect(200);
    finalized["spec"]["finalizers"] = json!([]);
    plane.put("/api/v1/namespaces/team/finalize", &finalized).await.expect(200);
    plane.get("/api/v1/namespaces/team").await.refusal(404, "NotFound");
    plane.delete("/api/v1/namespaces/default", &Value::Null).await.refusal(403, "Forbidden");
}

/// A collection goes by selector, and only what the selector chooses.
#[tokio::test]
async fn collections_go_by_selector() {
    let plane = Plane::start().await;
    for n in 0..12 {
        let mut map = config_map(&format!("m{n}"));
        map["metadata"]["labels"] = json!({"part": (n % 3).to_string()});
        plane.post(CONFIG_MAPS, &map).await.expect(201);
    }
    let gone = plane.delete(&format!("{CONFIG_MAPS}?labelSelector=part%20in%20(1,2)"), &Value::Null).await.expect(200);
    assert_eq!(gone["status"], "Success");
    let left = plane.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(left["items"].as_array().map(Vec::len), Some(4));
}
