//! Workloads and placements: scaling, names, projections, the agents' lists, the end of Pods.

use std::time::Duration;

use serde_json::{Value, json};

use super::Plane;
use crate::store::{CONFIG_MAPS, DEPLOYMENTS, PODS, REPLICA_SETS};

fn spec(name: &str, replicas: u32) -> Value {
    json!({"name": name, "replicas": replicas, "command": ["/bin/true"]})
}

/// Scaling 5 → 2 → 5 drops indexes 4, 3, 2 and makes new placements for them; an equal PUT changes nothing; two
/// workloads may have one name.
#[tokio::test]
async fn scaling_keeps_and_renews_placements() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    let node = plane.register(&id, "n", json!({})).await;
    plane.ready(&node).await;
    let made = plane.workload(&id, spec("web", 5), Some(&node)).await;
    let path = format!("/api/clusters/{id}/workloads/{}", made["id"].as_str().expect("id"));
    let placements = async || {
        let list = plane.tenant("GET", &format!("/api/clusters/{id}/placements"), Value::Null).await.expect(200);
        let list = list["placements"].as_array().cloned().expect("list");
        list.iter()
            .map(|placement| (placement["replica_index"].as_u64().expect("index"), placement["id"].clone()))
            .collect::<Vec<_>>()
    };
    let put = async |replicas: u32| {
        let (answer, ()) = tokio::join!(plane.tenant("PUT", &path, spec("web", replicas)), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            plane.place(&id, Some(&node)).await;
        });
        answer.expect(200)
    };
    let five = placements().await;
    assert_eq!(five.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    let equal = plane.tenant("PUT", &path, spec("web", 5)).await.expect(200);
    assert_eq!((&equal["generation"], &equal["updated_at"]), (&made["generation"], &made["updated_at"]));
    assert_eq!(put(2).await["generation"], 2);
    assert_eq!(placements().await, five[..2]);
    assert_eq!(put(5).await["status"]["replicas"], 5);
    let again = placements().await;
    assert_eq!(again[..2], five[..2]);
    assert!(again[2..].iter().zip(&five[2..]).all(|(new, old)| new.0 == old.0 && new.1 != old.1));

    let twin = plane.workload(&id, spec("web", 1), Some(&node)).await;
    assert_eq!(twin["name"], "web");
    let stored =
        crate::store::WORKLOADS.by_uid(&plane.view().await, &id, twin["id"].as_str().expect("id")).expect("read");
    assert_eq!(stored.expect("workload").name(), format!("web-{}", &twin["id"].as_str().expect("id")[..8]));
    plane.tenant("PUT", &format!("{path}x"), spec("web", 1)).await.refused(404, "NOT_FOUND");
    plane.tenant("PUT", &path, json!({"name": "web", "replicas": 1})).await.refused(422, "UNPROCESSABLE_ENTITY");
}

/// Without any node the answer comes as soon as the slots are known to be unschedulable, well before the two seconds.
#[tokio::test]
async fn an_unschedulable_workload_is_answered_at_once() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    let begun = std::time::Instant::now();
    let made = plane.workload(&id, spec("web", 2), None).await;
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert_eq!(
        made["status"],
        json!({"replicas": 2, "pending": 2, "assigned": 0, "running": 0, "failed": 0, "observed_generation": 1})
    );
    let list = plane.tenant("GET", &format!("/api/clusters/{id}/placements"), Value::Null).await.expect(200);
    let first = &list["placements"][0];
    assert_eq!(
        (&first["state"], &first["node_id"], &first["message"]),
        (&json!("pending"), &Value::Null, &json!("0/0 nodes are available"))
    );
}

/// A Deployment's Pods show as its placements; it cannot be PUT, and deleting it deletes the Deployment.
#[tokio::test]
async fn kubernetes_owners_are_projected() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    let node = plane.register(&id, "n", json!({})).await;
    plane.ready(&node).await;
    let template = json!({"metadata": {"labels": {"app": "shop"}}, "spec": {"containers": [{"name": "a", "image": "shop:1",
        "command": ["/shop"], "args": ["-v"], "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {}}]}]}});
    let deployment = plane
        .make(
            DEPLOYMENTS,
            &id,
            json!({"metadata": {"name": "shop", "namespace": "default", "generation": 3},
        "spec": {"replicas": 2, "template": template}}),
        )
        .await;
    let owner = |api: &str, kind: &str, name: &str, uid: &str| json!([{"apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": true}]);
    let set = plane
        .make(
            REPLICA_SETS,
            &id,
            json!({"metadata": {"name": "shop-1", "namespace": "default",
        "ownerReferences": owner("apps/v1", "Deployment", "shop", &deployment)}, "spec": {"replicas": 2}}),
        )
        .await;
    let mut pods = Vec::new();
    for name in ["shop-1-a", "shop-1-b"] {
        pods.push(plane.make(PODS, &id, json!({"metadata": {"name": name, "namespace": "default",
            "ownerReferences": owner("apps/v1", "ReplicaSet", "shop-1", &set)},
            "spec": {"nodeName": "n", "containers": [{"name": "a", "image": "shop:1"}]}, "status": {"phase": "Pending"}})).await);
    }
    let bare = plane
        .make(
            PODS,
            &id,
            json!({"metadata": {"name": "bare", "namespace": "default"},
        "spec": {"containers": [{"name": "a", "image": "quilt.sh/none"}]}, "status": {"phase": "Pending"}}),
        )
        .await;

    let path = format!("/api/clusters/{id}/workloads");
    let list = plane.tenant("GET", &path, Value::Null).await.expect(200);
    assert_eq!(list["workloads"].as_array().map(Vec::len), Some(2), "{list}");
    let shown = plane.tenant("GET", &format!("{path}/{deployment}"), Value::Null).await.expect(200);
    assert_eq!(
        shown["source"],
        json!({"api_version": "apps/v1", "kind": "Deployment", "namespace": "default", "name": "shop"})
    );
    assert_eq!(
        shown["spec"],
        json!({"name": "shop", "replicas": 2, "command": ["/shop", "-v"], "image": "shop:1",
        "environment": {"A": "1"}, "labels": {"app": "shop"}})
    );
    assert_eq!((&shown["generation"], &shown["status"]["assigned"]), (&json!(3), &json!(2)));
    let shown = plane.tenant("GET", &format!("{path}/{bare}"), Value::Null).await.expect(200);
    assert_eq!((&shown["spec"]["replicas"], shown["spec"].get("image")), (&json!(1), None));

    let list = plane.tenant("GET", &format!("/api/clusters/{id}/placements"), Value::Null).await.expect(200);
    let of_deployment: Vec<&Value> = list["placements"]
        .as_array()
        .expect("list")
        .iter()
        .filter(|placement| placement["workload_id"] == deployment.as_str())
        .collect();
    assert_eq!(
        of_deployment.iter().map(|placement| placement["replica_index"].as_u64()).collect::<Vec<_>>(),
        [Some(0), Some(1)]
    );
    assert!(of_deployment.iter().all(|placement| pods.iter().any(|pod| placement["id"] == pod.as_str())));

    let assigned = plane.agent(&node, "GET", "placements", Value::Null).await.expect(200);
    assert_eq!(assigned["assignments"].as_array().map(Vec::len), Some(2));
    assert_eq!(assigned["assignments"][0]["workload"]["id"], deployment.as_str());
    let report = format!("placements/{}/report", pods[0]);
    plane.agent(&node, "POST", &report, json!({"state": "running", "pod_status": {"phase": "Running", "podIP": "10.42.0.2", "nominatedNodeName": "x"}})).await.expect(200);
    let pod = PODS.by_uid(&plane.view().await, &id, &pods[0]).expect("read").expect("pod");
    assert_eq!((pod.text("/status/podIP"), pod.text("/status/nominatedNodeName")), ("10.42.0.2", ""));
    plane
        .agent(&node, "POST", &report, json!({"state": "running", "pod_status": {"phase": "Failed"}}))
        .await
        .refused(400, "VALIDATION_FAILED");
    plane
        .agent(&node, "POST", &format!("placements/{bare}/report"), json!({"state": "running"}))
        .await
        .refused(404, "NOT_FOUND");

    plane.tenant("PUT", &format!("{path}/{deployment}"), spec("shop", 1)).await.refused(409, "MANAGED_BY_KUBERNETES");
    plane.tenant("DELETE", &format!("{path}/{deployment}"), Value::Null).await.expect(200);
    plane.tenant("GET", &format!("{path}/{deployment}"), Value::Null).await.refused(404, "NOT_FOUND");
    plane.tenant("DELETE", &format!("{path}/{bare}"), Value::Null).await.expect(200);
    assert_eq!(plane.tenant("GET", &path, Value::Null).await.expect(200), json!({"workloads": []}));
}

/// A deleted Pod of an agent that ends Pods itself stays in its list as terminating until its end is reported; for
/// another agent it is gone from the list at once and from the store with that poll.
#[tokio::test]
async fn deleted_pods_end_by_their_agents() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    for (name, pod_agent) in [("keeper", true), ("plain", false)] {
        let node = plane.register(&id, name, json!({"pod_agent": pod_agent})).await;
        plane.ready(&node).await;
        let uid = plane
            .make(
                PODS,
                &id,
                json!({"metadata": {"name": format!("pod-of-{name}"), "namespace": "default",
            "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30},
            "spec": {"nodeName": name, "containers": [{"name": "a"}]}, "status": {"phase": "Running"}}),
            )
            .await;
        let placements = plane.tenant("GET", &format!("/api/clusters/{id}/placements"), Value::Null).await.expect(200);
        assert_eq!(placements, json!({"placements": []}), "tenants do not see it any more");
        let list = plane.agent(&node, "GET", "placements", Value::Null).await.expect(200);
        let stored = async || PODS.by_uid(&plane.view().await, &id, &uid).expect("read");
        if !pod_agent {
            assert_eq!(list, json!({"assignments": []}));
            assert!(stored().await.is_none());
            continue;
        }
        assert_eq!(
            (&list["assignments"][0]["terminating"], &list["assignments"][0]["placement"]["id"]),
            (&json!(true), &json!(uid))
        );
        let report = format!("placements/{uid}/report");
        plane.agent(&node, "POST", &report, json!({"state": "running"})).await.expect(200);
        assert!(stored().await.is_some());
        plane.agent(&node, "POST", &report, json!({"state": "stopped"})).await.expect(200);
        assert!(stored().await.is_none());
        plane.agent(&node, "POST", &report, json!({"state": "stopped"})).await.refused(404, "NOT_FOUND");
    }
}

/// Deleting a Workload ends its Pods on an agent that ends Pods itself, before any garbage collection.
#[tokio::test]
async fn a_deleted_workload_takes_its_pods_along() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    let node = plane.register(&id, "n", json!({"pod_agent": true})).await;
    plane.ready(&node).await;
    let made = plane.workload(&id, spec("web", 1), Some(&node)).await;
    let list = plane.agent(&node, "GET", "placements", Value::Null).await.expect(200);
    let placement = list["assignments"][0]["placement"]["id"].as_str().expect("id").to_owned();
    plane
        .tenant("DELETE", &format!("/api/clusters/{id}/workloads/{}", made["id"].as_str().expect("id")), Value::Null)
        .await
        .expect(200);
    let list = plane.agent(&node, "GET", "placements", Value::Null).await.expect(200);
    let entry = &list["assignments"][0];
    assert_eq!((&entry["placement"]["id"], &entry["terminating"]), (&json!(placement), &json!(true)));
    plane
        .agent(&node, "POST", &format!("placements/{placement}/report"), json!({"state": "stopped"}))
        .await
        .expect(200);
    assert!(plane.pods(&id).await.is_empty());
}

/// A waiting poll is answered when the list changes, and with 304 when it does not.
#[tokio::test]
async fn a_waiting_poll_wakes() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    let node = plane.register(&id, "n", json!({})).await;
    plane.ready(&node).await;
    let empty = plane.agent(&node, "GET", "placements", Value::Null).await;
    let tag = empty.headers["etag"].to_str().expect("tag").to_owned();
    let known = [("X-Quilt-Node-Token", node.token.as_str()), ("If-None-Match", tag.as_str())];
    let path = node.path("placements?wait_secs=20");
    let begun = std::time::Instant::now();
    let (woken, _) =
        tokio::join!(plane.send("GET", &path, &known, ""), plane.workload(&id, spec("web", 1), Some(&node)));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(woken.expect(200)["assignments"].as_array().map(Vec::len), Some(1));
    let plain = plane.agent(&node, "GET", "placements", Value::Null).await;
    let tag = plain.headers["etag"].to_str().expect("tag").to_owned();
    let known = [("X-Quilt-Node-Token", node.token.as_str()), ("If-None-Match", tag.as_str())];
    let held = plane.send("GET", &node.path("placements?wait_secs=1"), &known, "").await;
    assert_eq!(held.status, 304);
    plane.send("GET", &node.path("placements?wait_secs=31"), &known, "").await.refused(400, "VALIDATION_FAILED");
    plane.send("GET", &node.path("placements?wait_secs=x"), &known, "").await.refused(422, "UNPROCESSABLE_ENTITY");
}

/// References to ConfigMaps come resolved with the Pod, and only what the Pod names.
#[tokio::test]
async fn materials_are_resolved() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    let node = plane.register(&id, "n", json!({})).await;
    plane.make(CONFIG_MAPS, &id, json!({"metadata": {"name": "cfg", "namespace": "default"}, "data": {"a": "1", "b": "2"}, "binaryData": {"c": "/w=="}})).await;
    plane
        .make(CONFIG_MAPS, &id, json!({"metadata": {"name": "unused", "namespace": "default"}, "data": {"z": "9"}}))
        .await;
    plane.make(PODS, &id, json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"nodeName": "n",
        "containers": [{"name": "main", "envFrom": [{"prefix": "X_", "configMapRef": {"name": "cfg"}}],
            "env": [{"name": "ONE", "valueFrom": {"configMapKeyRef": {"name": "cfg", "key": "a"}}},
                    {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "a"}}}]}],
        "volumes": [{"name": "all", "configMap": {"name": "cfg"}}, {"name": "some", "configMap": {"name": "cfg", "items": [{"key": "b", "path": "dir/b"}]}},
            {"name": "empty", "emptyDir": {}}]}})).await;
    let list = plane.agent(&node, "GET", "placements", Value::Null).await.expect(200);
    assert_eq!(
        list["assignments"][0]["materials"],
        json!({
            "env": {"main": {"X_a": "1", "X_b": "2", "ONE": "1"}},
            "files": {"all": {"a": "MQ==", "b": "Mg==", "c": "/w=="}, "some": {"dir/b": "Mg=="}},
        })
    );
}
