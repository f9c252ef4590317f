//! Nodes: concurrency of joining, subnets, names, states, draining, peers.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::{Plane, registration};
use crate::store::{NODES, PODS};

/// Fifty registrations at once with a token for seven: exactly seven nodes on seven subnets, forty-three 401.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_seven_admits_seven() {
    let plane = Arc::new(Plane::start().await);
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    let token = plane.join_token(&id, 7).await;
    let mut attempts = tokio::task::JoinSet::new();
    for attempt in 0..50 {
        let (plane, id, token) = (Arc::clone(&plane), id.clone(), token.clone());
        attempts.spawn(async move { plane.try_register(&id, &token, registration(&format!("n{attempt}"))).await });
    }
    let (mut subnets, mut refused) = (BTreeSet::new(), 0);
    while let Some(answer) = attempts.join_next().await {
        let answer = answer.expect("no panic");
        match answer.status {
            201 => {
                assert!(subnets.insert(answer.body["allocation"]["pod_cidr"].to_string()), "a subnet was given twice");
            }
            _ => {
                answer.refused(401, "UNAUTHORIZED");
                refused += 1;
            }
        }
    }
    assert_eq!((subnets.len(), refused), (7, 43));
    let nodes = plane.tenant("GET", &format!("/api/clusters/{id}/nodes"), Value::Null).await.expect(200);
    assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(7));
}

/// The lowest free block is given, an exhausted range is said, and a removed node's block and name are free at once.
#[tokio::test]
async fn subnets_and_names_are_given_again() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    let subnet = |node: &super::Joined| node.answer["allocation"]["pod_cidr"].as_str().expect("cidr").to_owned();
    let a = plane.register(&id, "a", json!({})).await;
    let b = plane.register(&id, "b", json!({})).await;
    let c = plane.register(&id, "c", json!({})).await;
    assert_eq!([&a, &b, &c].map(subnet), ["10.42.0.0/24", "10.42.1.0/24", "10.42.2.0/24"]);
    plane.tenant("DELETE", &format!("/api/clusters/{id}/nodes/{}", b.id), Value::Null).await.expect(200);
    plane.tenant("DELETE", &format!("/api/clusters/{id}/nodes/{}", b.id), Value::Null).await.refused(404, "NOT_FOUND");
    plane.agent(&b, "POST", "heartbeat", json!({"state": "ready"})).await.refused(401, "UNAUTHORIZED");
    let again = plane.register(&id, "b", json!({})).await;
    assert_eq!(subnet(&again), "10.42.1.0/24");
    assert_ne!((&again.id, &again.token), (&b.id, &b.token));
    plane.agent(&b, "GET", "allocation", Value::Null).await.refused(401, "UNAUTHORIZED");

    let tiny = plane.cluster("tiny", "10.0.0.4/30", 30).await;
    let only = plane.register(&tiny, "only", json!({})).await;
    assert_eq!(subnet(&only), "10.0.0.4/30");
    let token = plane.join_token(&tiny, 1).await;
    plane.try_register(&tiny, &token, registration("second")).await.refused(409, "POD_CIDR_EXHAUSTED");
    plane.agent(&only, "POST", "deregister", json!({})).await.expect(200);
    let second = plane.try_register(&tiny, &token, registration("second")).await.expect(201);
    assert_eq!(second["allocation"]["pod_cidr"], "10.0.0.4/30");
}

/// Labels: null is empty, `labels` wins over `labels_json`; a name that Kubernetes cannot hold is kept exactly.
#[tokio::test]
async fn names_and_labels_are_kept_as_sent() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    let labels = |node: &super::Joined| node.answer["node"]["labels"].clone();
    let none = plane.register(&id, "none", json!({"labels": null})).await;
    let text = plane.register(&id, "text", json!({"labels": null, "labels_json": "{\"a\":\"b\"}"})).await;
    let both = plane.register(&id, "both", json!({"labels": {"x": "y"}, "labels_json": "{\"a\":\"b\"}"})).await;
    assert_eq!([labels(&none), labels(&text), labels(&both)], [json!({}), json!({"a": "b"}), json!({"x": "y"})]);
    let odd = plane.register(&id, "Node Ä/1", json!({"labels": {"not valid!": "v w"}, "public_ip": ""})).await;
    assert_eq!((&odd.answer["node"]["name"], &odd.answer["node"]["public_ip"]), (&json!("Node Ä/1"), &Value::Null));
    assert_eq!(labels(&odd), json!({"not valid!": "v w"}));
    let stored = NODES.by_uid(&plane.view().await, &id, &odd.id).expect("read").expect("node");
    assert_eq!(stored.name(), format!("node-1-{}", &odd.id[..8]));
    plane.agent(&odd, "POST", "heartbeat", json!({"state": "ready", "labels": {}})).await.expect(200);
    let shown = plane.tenant("GET", &format!("/api/clusters/{id}/nodes/{}", odd.id), Value::Null).await.expect(200);
    assert_eq!(shown["node"]["labels"], json!({}));
}

/// Heartbeats set the state; an unchanged one writes nothing; drain sticks until someone uncordons.
#[tokio::test]
async fn heartbeats_and_drain() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    let node = plane.register(&id, "n", json!({})).await;
    let path = format!("/api/clusters/{id}/nodes/{}", node.id);
    let state = async || {
        plane.tenant("GET", &path, Value::Null).await.expect(200)["node"]["state"].as_str().expect("state").to_owned()
    };
    let beat = async |state: &str| plane.agent(&node, "POST", "heartbeat", json!({"state": state})).await;
    assert_eq!(state().await, "registered");
    beat("registered").await.expect(200);
    assert_eq!(state().await, "registered");
    beat("ready").await.expect(200);
    assert_eq!(state().await, "ready");
    let before = plane.view().await.revision();
    for _ in 0..3 {
        beat("ready").await.expect(200);
    }
    assert_eq!(plane.view().await.revision(), before, "an unchanged heartbeat is no write");
    beat("not_ready").await.expect(200);
    assert_eq!(state().await, "not_ready");
    beat("deleted").await.refused(400, "VALIDATION_FAILED");
    beat("dancing").await.refused(400, "VALIDATION_FAILED");

    plane.tenant("POST", &format!("{path}/drain"), json!({})).await.expect(200);
    plane.tenant("POST", &format!("{path}/drain"), Value::Null).await.expect(200);
    assert_eq!(state().await, "draining");
    beat("ready").await.expect(200);
    assert_eq!(state().await, "draining");
    let stored = NODES.by_uid(&plane.view().await, &id, &node.id).expect("read").expect("node");
    let uncordon = Request::patch(format!("/clusters/{id}/api/v1/nodes/{}", stored.name()))
        .header("authorization", format!("Bearer {}", plane.key))
        .header("content-type", "application/strategic-merge-patch+json")
        .body(Body::from(r#"{"spec":{"unschedulable":null}}"#))
        .expect("request");
    assert_eq!(plane.kubernetes().handle(uncordon).await.expect("an answer").status(), 200);
    assert_eq!(state().await, "ready", "what was reported meanwhile is remembered");
    beat("ready").await.expect(200);
    assert_eq!(state().await, "ready");
    plane.tenant("POST", &format!("/api/clusters/{id}/nodes/none/drain"), Value::Null).await.refused(404, "NOT_FOUND");
}

/// Deleting the Node object through the Kubernetes API is deleting the node: it is readable nowhere, its token is dead,
/// and its name and subnet are free in the same moment.
#[tokio::test]
async fn a_kubernetes_delete_removes_the_node() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    let subnet = |node: &super::Joined| node.answer["allocation"]["pod_cidr"].as_str().expect("cidr").to_owned();
    let gone = plane.register(&id, "gone", json!({})).await;
    let stays = plane.register(&id, "stays", json!({})).await;
    plane.ready(&gone).await;
    let stored = NODES.by_uid(&plane.view().await, &id, &gone.id).expect("read").expect("node");
    let path = format!("/clusters/{id}/api/v1/nodes/{}", stored.name());
    let delete = async |path: &str| {
        let request = Request::delete(path).header("authorization", format!("Bearer {}", plane.key));
        let answer = plane.kubernetes().handle(request.body(Body::empty()).expect("request")).await;
        answer.expect("an answer").status().as_u16()
    };
    assert_eq!(delete(&format!("{path}?dryRun=All")).await, 200);
    plane.agent(&gone, "POST", "heartbeat", json!({"state": "ready"})).await.expect(200);
    assert_eq!(delete(&path).await, 200);
    assert_eq!(delete(&path).await, 404);
    plane.agent(&gone, "POST", "heartbeat", json!({"state": "ready"})).await.refused(401, "UNAUTHORIZED");
    plane.agent(&gone, "GET", "placements", Value::Null).await.refused(401, "UNAUTHORIZED");
    let quilt = format!("/api/clusters/{id}/nodes");
    plane.tenant("GET", &format!("{quilt}/{}", gone.id), Value::Null).await.refused(404, "NOT_FOUND");
    let nodes = plane.tenant("GET", &quilt, Value::Null).await.expect(200);
    assert_eq!(nodes["nodes"].as_array().map(Vec::len), Some(1));
    let again = plane.register(&id, "gone", json!({})).await;
    assert_eq!(subnet(&again), subnet(&gone), "the subnet was free");
    assert_ne!((&again.id, &again.token), (&gone.id, &gone.token));
    plane.agent(&gone, "GET", "allocation", Value::Null).await.refused(401, "UNAUTHORIZED");
    plane.agent(&stays, "POST", "heartbeat", json!({"state": "ready"})).await.expect(200);
}

/// What an agent tells of its own Pods, and of Pods that have just gone, reaches the leader's service; what it tells of
/// other nodes' Pods goes nowhere, and what no agent has to tell is refused by name.
#[tokio::test]
async fn agents_tell_of_their_pods() {
    let plane = Plane::start().await;
    let heard: Arc<parking_lot::Mutex<Vec<Value>>> = Arc::default();
    let hearing = Arc::clone(&heard);
    plane.replica.serve(
        "events",
        Arc::new(move |request: bytes::Bytes| {
            hearing.lock().push(serde_json::from_slice(&request).expect("JSON"));
            Box::pin(std::future::ready(Ok(bytes::Bytes::from_static(b"{}"))))
        }),
    );
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    let (here, there) = (plane.register(&id, "a", json!({})).await, plane.register(&id, "b", json!({})).await);
    plane.ready(&here).await;
    plane.workload(&id, json!({"name": "web", "command": ["x"], "replicas": 1}), Some(&here)).await;
    let pods = PODS.list(&plane.view().await, &id, |_| true).expect("read");
    let event = |pod: &crate::store::Stored, reason: &str| {
        json!({"namespace": pod.namespace(), "name": pod.name(), "uid": pod.uid(), "type": "Normal",
            "reason": reason, "message": "Started container main"})
    };
    let body = json!({"events": [event(&pods[0], "Started")]});
    plane.agent(&here, "POST", "events", body.clone()).await.expect(200);
    assert_eq!(heard.lock().drain(..).collect::<Vec<_>>(), [json!({"cluster": id, "events": body["events"]})]);
    plane.agent(&there, "POST", "events", body.clone()).await.expect(200);
    assert!(heard.lock().is_empty(), "another node's Pod");
    let mut gone = body.clone();
    gone["events"][0]["name"] = json!("gone");
    plane.agent(&there, "POST", "events", gone.clone()).await.expect(200);
    assert_eq!(heard.lock().drain(..).count(), 1, "a Pod that has just gone");
    gone["events"][0]["namespace"] = json!("nowhere");
    plane.agent(&there, "POST", "events", gone).await.expect(200);
    assert!(heard.lock().is_empty(), "a namespace that is not there");
    let scheduled = json!({"events": [event(&pods[0], "Scheduled")]});
    let refused = plane.agent(&here, "POST", "events", scheduled).await;
    refused.refused(400, "VALIDATION_FAILED");
    assert_eq!(refused.body["details"]["field"], "events[0].reason");
    let mut mistyped = body.clone();
    mistyped["events"][0]["uid"] = json!(7);
    let refused = plane.agent(&here, "POST", "events", mistyped).await;
    refused.refused(422, "UNPROCESSABLE_ENTITY");
    assert_eq!(refused.body["details"]["field"], "events[0].uid");
    let many = json!({"events": vec![body["events"][0].clone(); 101]});
    plane.agent(&here, "POST", "events", many).await.refused(400, "VALIDATION_FAILED");
    assert!(heard.lock().is_empty(), "nothing of a request that is refused");
    plane
        .send("POST", &here.path("events"), &[("X-Quilt-Node-Token", "qn_wrong")], "{}")
        .await
        .refused(401, "UNAUTHORIZED");
}

/// A cordon leaves the state alone; taints and GPUs are shown as reported.
#[tokio::test]
async fn cordon_taints_and_devices() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    let extra = json!({"taints_json": "[{\"key\":\"k\",\"value\":\"v\",\"effect\":\"NoSchedule\"}]",
        "gpu_devices": [{"id": "g0", "vendor": "acme", "card_index": 0}], "capacity": {"cpu": "4", "memory": "8Gi"},
        "kubelet_port": 10250, "kubelet_cert_sha256": "ab".repeat(32), "pod_agent": true});
    let node = plane.register(&id, "n", extra).await;
    plane.ready(&node).await;
    let mut stored = NODES.by_uid(&plane.view().await, &id, &node.id).expect("read").expect("node");
    assert_eq!(stored.value["status"]["capacity"], json!({"cpu": "4", "memory": "8Gi", "quilt.sh/gpu": "1"}));
    assert_eq!(stored.value["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"], 10250);
    stored.value["spec"]["unschedulable"] = json!(true);
    plane.store(&stored).await;
    let shown = plane.tenant("GET", &format!("/api/clusters/{id}/nodes/{}", node.id), Value::Null).await.expect(200);
    let shown = &shown["node"];
    assert_eq!((&shown["state"], &shown["schedulable"]), (&json!("ready"), &json!(false)));
    assert_eq!(shown["taints"], json!([{"key": "k", "value": "v", "effect": "NoSchedule"}]));
    assert_eq!(
        shown["gpu_inventory"],
        json!([{"id": "g0", "vendor": "acme", "card_index": 0, "device_path": null,
        "model": null, "driver_version": null, "major": null, "minor": null}])
    );
}

/// Peers are the other nodes with an address; the tag spares the body.
#[tokio::test]
async fn peers_are_the_others() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    let a = plane.register(&id, "a", json!({"private_ip": "10.0.0.1"})).await;
    let b = plane.register(&id, "b", json!({"private_ip": null, "public_ip": "203.0.113.2"})).await;
    plane.register(&id, "c", json!({"private_ip": "fd00::1", "public_ip": null})).await;
    let peers = plane.agent(&a, "GET", "peers", Value::Null).await;
    let tag = peers.headers["etag"].to_str().expect("tag").to_owned();
    assert_eq!(
        peers.expect(200),
        json!({"peers": [{"node_id": b.id, "reachable_ip": "203.0.113.2", "allocation": b.answer["allocation"]}]})
    );
    let known = [("X-Quilt-Node-Token", a.token.as_str()), ("If-None-Match", tag.as_str())];
    assert_eq!(plane.send("GET", &a.path("peers"), &known, "").await.status, 304);
}
