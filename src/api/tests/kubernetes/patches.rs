//! Patches: JSON, merge, strategic merge and apply, and bodies in YAML and protobuf.

use http::Method;
use serde_json::{Value, json};

use crate::support::{CONFIG_MAPS, DEPLOYMENTS, Plane, config_map, deployment};

/// The same change by each patch type.
#[tokio::test]
async fn four_types() {
    let plane = Plane::start().await;
    plane.post(DEPLOYMENTS, &deployment("d", 1)).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d");
    let strategic = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "busybox:2"}]}}}});
    let patched = plane.patch(&path, "application/strategic-merge-patch+json", &strategic).await.expect(200);
    let containers = &patched["spec"]["template"]["spec"]["containers"];
    assert_eq!((containers.as_array().map(Vec::len), &containers[0]["image"]), (Some(1), &json!("busybox:2")));
    assert_eq!(patched["metadata"]["generation"], 2);
    let operations = json!([{"op": "test", "path": "/spec/replicas", "value": 1}, {"op": "replace", "path": "/spec/replicas", "value": 4}]);
    let patched = plane.patch(&path, "application/json-patch+json", &operations).await.expect(200);
    assert_eq!(patched["spec"]["replicas"], 4);
    plane.patch(&path, "application/json-patch+json", &operations).await.refusal(422, "Invalid");
    let mut merged =
        plane.patch(&path, "application/merge-patch+json", &json!({"spec": {"paused": true}})).await.expect(200);
    assert_eq!(merged["spec"].as_object_mut().and_then(|spec| spec.remove("paused")), Some(json!(true)));
    let stale = json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 9}});
    plane.patch(&path, "application/merge-patch+json", &stale).await.refusal(409, "Conflict");
}

/// Apply makes what is absent, owns its fields, conflicts with other owners, and changes nothing twice.
#[tokio::test]
async fn apply_owns_fields() {
    let plane = Plane::start().await;
    let apply = "application/apply-patch+yaml";
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1"}});
    let path = format!("{CONFIG_MAPS}/a");
    let created = plane.patch(&format!("{path}?fieldManager=one"), apply, &body).await.expect(201);
    assert_eq!(created["metadata"]["managedFields"][0]["manager"], "one");
    let again = plane.patch(&format!("{path}?fieldManager=one"), apply, &body).await.expect(200);
    assert_eq!(again["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    let mut other = body.clone();
    other["data"]["k"] = json!("2");
    let conflict = plane.patch(&format!("{path}?fieldManager=two"), apply, &other).await.refusal(409, "Conflict");
    assert_eq!(conflict["details"]["causes"][0]["field"], ".data.k");
    let forced = plane.patch(&format!("{path}?fieldManager=two&force=true"), apply, &other).await.expect(200);
    assert_eq!(forced["data"]["k"], "2");
    let gone = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let dropped = plane.patch(&format!("{path}?fieldManager=two"), apply, &gone).await.expect(200);
    assert_eq!(dropped["data"], Value::Null, "what its last owner stops applying goes");
}

/// YAML bodies are decoded like JSON ones, and so are protobuf bodies of kubectl's generators.
#[tokio::test]
async fn other_encodings() {
    let plane = Plane::start().await;
    let yaml = "metadata:\n  name: from-yaml\ndata:\n  a: b\n";
    let created = plane.with_body(Method::POST, CONFIG_MAPS, "application/yaml", yaml).await.expect(201);
    assert_eq!(created["data"]["a"], "b");
    // k8s\0, Unknown{typeMeta{v1, Namespace}, raw: Namespace{metadata{name: "pb"}}}
    let mut body = b"k8s\0".to_vec();
    body.extend([0x0a, 15, 0x0a, 2, b'v', b'1', 0x12, 9]);
    body.extend(b"Namespace");
    body.extend([0x12, 6, 0x0a, 4, 0x0a, 2, b'p', b'b']);
    let protobuf = "application/vnd.kubernetes.protobuf";
    let created = plane.with_body(Method::POST, "/api/v1/namespaces", protobuf, body).await.expect(201);
    assert_eq!((&created["metadata"]["name"], &created["status"]["phase"]), (&json!("pb"), &json!("Active")));
    plane.post("/api/v1/namespaces/pb/configmaps", &config_map("in")).await.expect(201);
}
