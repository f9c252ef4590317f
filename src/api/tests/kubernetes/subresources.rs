//! Scale, binding, eviction, log refusals, access reviews.

use serde_json::{Value, json};

use crate::support::{DEPLOYMENTS, PODS, Plane, deployment, pod};

/// Scale is read and changed in three ways; the object's generation follows.
#[tokio::test]
async fn scale() {
    let plane = Plane::start().await;
    plane.post(DEPLOYMENTS, &deployment("d", 2)).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d/scale");
    let mut scale = plane.get(&path).await.expect(200);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    assert_eq!(scale["status"]["selector"], "app=d");
    let patched = plane.patch(&path, "", &json!({"spec": {"replicas": 5}})).await.expect(200);
    assert_eq!(patched["spec"]["replicas"], 5);
    scale["spec"]["replicas"] = json!(7);
    plane.put(&path, &scale).await.refusal(409, "Conflict");
    scale["metadata"]["resourceVersion"] = Value::Null;
    assert_eq!(plane.put(&path, &scale).await.expect(200)["spec"]["replicas"], 7);
    let object = plane.get(&format!("{DEPLOYMENTS}/d")).await.expect(200);
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["generation"]), (&json!(7), &json!(3)));
    plane.patch(&path, "", &json!({"spec": {"replicas": -1}})).await.refusal(422, "Invalid");
    plane.get(&format!("{DEPLOYMENTS}/none/scale")).await.refusal(404, "NotFound");
}

/// A Pod is bound once, and a bound Pod is found by its node.
#[tokio::test]
async fn binding() {
    let plane = Plane::start().await;
    plane.post(PODS, &pod("p")).await.expect(201);
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    let bound = plane.post(&format!("{PODS}/p/binding"), &binding).await.expect(201);
    assert_eq!((&bound["kind"], &bound["status"]), (&json!("Status"), &json!("Success")));
    let read = plane.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(read["spec"]["nodeName"], "n1");
    assert_eq!(read["status"]["conditions"][0]["type"], "PodScheduled");
    plane.post(&format!("{PODS}/p/binding"), &binding).await.refusal(409, "Conflict");
    plane.post(&format!("{PODS}/p/binding"), &json!({"target": {}})).await.refusal(422, "Invalid");
}

/// An eviction deletes, unless a disruption budget that covers the Pod has nothing left.
#[tokio::test]
async fn eviction() {
    let plane = Plane::start().await;
    let mut running = pod("p");
    running["spec"]["nodeName"] = json!("n1");
    plane.post(PODS, &running).await.expect(201);
    let merge = "application/merge-patch+json";
    let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    plane.patch(&format!("{PODS}/p/status"), merge, &json!({"status": ready})).await.expect(200);
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget =
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "p"}}}});
    plane.post(budgets, &budget).await.expect(201);
    let path = format!("{PODS}/p/eviction");
    let held = plane.post(&path, &json!({"metadata": {"name": "p"}})).await;
    assert_eq!(held.headers["retry-after"], "1");
    let held = held.refusal(429, "TooManyRequests");
    assert_eq!(held["details"]["causes"][0]["reason"], "DisruptionBudget");
    let allowed = json!({"status": {"disruptionsAllowed": 1, "observedGeneration": 1, "currentHealthy": 1,
        "desiredHealthy": 0, "expectedPods": 1}});
    plane.patch(&format!("{budgets}/b/status"), merge, &allowed).await.expect(200);
    assert_eq!(plane.post(&path, &json!({})).await.expect(201)["status"], "Success");
    let marked = plane.get(&format!("{PODS}/p")).await.expect(200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(plane.get(&format!("{budgets}/b")).await.expect(200)["status"]["disruptionsAllowed"], 0);
}

/// Logs that cannot be had: no node, no such container, several containers, a node without an endpoint.
#[tokio::test]
async fn log_refusals() {
    let plane = Plane::start().await;
    let mut two = pod("two");
    two["spec"]["containers"] = json!([{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]);
    plane.post(PODS, &two).await.expect(201);
    plane.post(PODS, &pod("one")).await.expect(201);
    let mut bound = pod("bound");
    bound["spec"]["nodeName"] = json!("n1");
    plane.post(PODS, &bound).await.expect(201);
    plane.get(&format!("{PODS}/none/log")).await.refusal(404, "NotFound");
    plane.get(&format!("{PODS}/two/log")).await.refusal(400, "BadRequest");
    plane.get(&format!("{PODS}/two/log?container=z")).await.refusal(400, "BadRequest");
    plane.get(&format!("{PODS}/one/log")).await.refusal(400, "BadRequest");
    plane.get(&format!("{PODS}/one/log?tailLines=x")).await.refusal(400, "BadRequest");
    plane.get(&format!("{PODS}/bound/log")).await.refusal(503, "ServiceUnavailable");
    plane.post("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await.expect(201);
    let refused = plane.get(&format!("{PODS}/bound/log")).await.refusal(503, "ServiceUnavailable");
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("\"n1\"")));
}

/// `auth can-i`: the authorizer's word, stored nowhere.
#[tokio::test]
async fn access_reviews() {
    let plane = Plane::start().await;
    let review =
        json!({"spec": {"resourceAttributes": {"verb": "delete", "resource": "pods", "namespace": "default"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(plane.post(path, &review).await.expect(201)["status"]["allowed"], true);
    let mut of_other = review.clone();
    of_other["spec"]["user"] = json!("stranger");
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    assert_eq!(plane.post(path, &of_other).await.expect(201)["status"]["allowed"], false);
    let me = plane.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &json!({})).await.expect(201);
    assert_eq!(me["status"]["userInfo"]["username"], "quilt:admin");
}
