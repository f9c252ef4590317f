//! Every route of the main flow once as it should go: its status, and the shape of its answer field by field. Every
//! body holds a field nobody knows, which changes nothing.

use std::cmp::Reverse;

use serde_json::{Map, Value, json};

use super::{Plane, registration};

/// A document with the names of types in the place of values; a list is as its first item.
fn shape(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.first().map_or_else(|| json!([]), |item| json!([shape(item)])),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect::<Map<_, _>>())
        }
        Value::Number(number) if number.is_i64() || number.is_u64() => json!("int"),
        other => json!(super::super::fields::type_name(other)),
    }
}

/// `body` with a field that no route knows.
fn and_unknown(mut body: Value) -> Value {
    body["nobody_knows"] = json!({"this": ["field", null]});
    body
}

fn with(mut base: Value, field: &str, value: Value) -> Value {
    base[field] = value;
    base
}

fn cluster() -> Value {
    json!({"id": "string", "tenant_id": "string", "name": "string", "pod_cidr": "string", "node_cidr_prefix": "int",
        "node_timeout_secs": "int", "placement_grace_secs": "int", "created_at": "int"})
}

fn node() -> Value {
    json!({"id": "string", "cluster_id": "string", "name": "string", "public_ip": "string", "private_ip": "string",
        "agent_version": "string", "state": "string", "schedulable": "boolean", "labels": {"suite": "string"},
        "taints": [], "gpu_inventory": [], "gpu_runtime": "null", "vmm_runtime": "null", "last_heartbeat_at": "null",
        "created_at": "int"})
}

fn allocation() -> Value {
    json!({"node_id": "string", "cluster_id": "string", "pod_cidr": "string", "bridge_name": "string",
        "dns_port": "int", "egress_limit_mbit": "int", "allocated_at": "int"})
}

/// A spec with every field, zero values and unknown ones among them.
fn full_spec() -> Value {
    json!({"name": "web", "replicas": 1, "command": ["/bin/web", ""], "image": "", "environment": {"EMPTY": ""},
        "labels": {}, "memory_limit_mb": 64, "cpu_limit_percent": 12.5, "strict": false, "gpu_count": 0, "gpu_ids": [],
        "nobody_knows": {"zero": 0, "no": false, "none": null, "list": []}})
}

fn workload(spec: &Value) -> Value {
    json!({"id": "string", "cluster_id": "string", "name": "string", "spec": shape(spec), "generation": "int",
        "status": {"replicas": "int", "pending": "int", "assigned": "int", "running": "int", "failed": "int",
            "observed_generation": "int"},
        "source": "null", "created_at": "int", "updated_at": "int"})
}

fn placement() -> Value {
    json!({"id": "string", "workload_id": "string", "cluster_id": "string", "replica_index": "int",
        "node_id": "string", "container_id": "null", "state": "string", "message": "null", "created_at": "int",
        "updated_at": "int"})
}

/// Operator's routes, and a tenant's clusters.
#[tokio::test]
async fn tenants_and_clusters() {
    let plane = Plane::start().await;
    assert_eq!(plane.send("GET", "/health", &[], "").await.expect(200), json!({"status": "ok"}));

    let made = plane.operator("POST", "/api/admin/tenants", and_unknown(json!({"name": "acme"}))).await.expect(201);
    // The id of the key is ours: by it the first key can be revoked.
    let shown = json!({"tenant_id": "string", "name": "string", "api_key": "string", "key_id": "string"});
    assert_eq!(shape(&made), shown);
    let path = format!("/api/admin/tenants/{}", made["tenant_id"].as_str().expect("id"));
    let tenant = json!({"tenant_id": "string", "name": "string", "disabled": "boolean", "created_at": "int"});
    let list = plane.operator("GET", "/api/admin/tenants", Value::Null).await.expect(200);
    assert_eq!(shape(&list), json!({"tenants": [tenant]}));
    let key = plane.operator("POST", &format!("{path}/keys"), and_unknown(json!({}))).await.expect(201);
    assert_eq!(shape(&key), json!({"key_id": "string", "api_key": "string"}));
    let key_path = format!("{path}/keys/{}", key["key_id"].as_str().expect("id"));
    let gone = json!({"success": true});
    assert_eq!(plane.operator("DELETE", &key_path, Value::Null).await.expect(200), gone);
    let set = plane.operator("PATCH", &path, and_unknown(json!({"disabled": true}))).await.expect(200);
    assert_eq!(shape(&set), tenant);
    assert_eq!(plane.operator("DELETE", &path, Value::Null).await.expect(200), gone);

    let body = json!({"name": "prod", "pod_cidr": "10.42.0.0/16", "node_cidr_prefix": null});
    let made = plane.tenant("POST", "/api/clusters", and_unknown(body)).await.expect(201);
    assert_eq!(shape(&made), cluster());
    let (id, path) = (made["id"].as_str().expect("id"), format!("/api/clusters/{}", made["id"].as_str().expect("id")));
    assert_eq!(plane.tenant("GET", &path, Value::Null).await.expect(200), made);
    let list = plane.tenant("GET", "/api/clusters", Value::Null).await.expect(200);
    assert_eq!(shape(&list), json!({"clusters": [cluster()]}));
    let clusters = list["clusters"].as_array().expect("a list");
    let place = |cluster: &Value| (Reverse(cluster["created_at"].as_u64()), cluster["id"].to_string());
    assert!(clusters.contains(&made) && clusters.is_sorted_by_key(place), "newest first, ties by id: {clusters:?}");
    let patience = and_unknown(json!({"node_timeout_secs": 5, "placement_grace_secs": 0}));
    let set = plane.operator("PATCH", &format!("/api/admin/clusters/{id}"), patience).await.expect(200);
    assert_eq!(shape(&set), cluster());
    let capabilities = plane.tenant("GET", &format!("{path}/capabilities"), Value::Null).await.expect(200);
    let names: Vec<&str> = "workloads placements drain reconcile join_tokens peers k8s_validate k8s_diff k8s_apply \
        k8s_export k8s_prune kubernetes_api gpu_scheduling idempotency_keys stale_reads"
        .split_whitespace()
        .collect();
    let flags: Map<String, Value> = names.into_iter().map(|name| (name.to_owned(), json!("boolean"))).collect();
    let metadata = json!({"version": "string", "kubernetes_version": "string", "kubernetes_path": "string"});
    assert_eq!(shape(&capabilities), json!({"cluster_id": "string", "capabilities": flags, "metadata": metadata}));
    for body in [Value::Null, and_unknown(json!({}))] {
        assert_eq!(plane.tenant("POST", &format!("{path}/reconcile"), body).await.expect(200), gone);
    }
    let token = plane.tenant("POST", &format!("{path}/join-tokens"), and_unknown(json!({}))).await.expect(201);
    let shown = json!({"token_id": "string", "cluster_id": "string", "join_token": "string", "expires_at": "int",
        "max_uses": "int"});
    assert_eq!(shape(&token), shown);
    assert_eq!(plane.tenant("DELETE", &path, Value::Null).await.expect(200), gone);
}

/// Nodes by tenant and agent, workloads and their placements.
#[tokio::test]
async fn nodes_and_workloads() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.42.0.0/16", 24).await;
    let path = format!("/api/clusters/{id}");
    let gone = json!({"success": true});
    let done = plane.register(&id, "b", and_unknown(json!({}))).await;
    assert_eq!(shape(&done.answer), json!({"node": node(), "allocation": allocation(), "node_token": "string"}));
    let agent = plane.register(&id, "a", json!({})).await;
    let beat = and_unknown(json!({"state": "ready", "public_ip": null}));
    assert_eq!(plane.agent(&agent, "POST", "heartbeat", beat).await.expect(200), gone);
    let beaten = with(node(), "last_heartbeat_at", json!("int"));
    let list = plane.tenant("GET", &format!("{path}/nodes"), Value::Null).await.expect(200);
    // Both were made within a second, so either may stand first.
    let nodes = list["nodes"].as_array().expect("nodes");
    let silent = nodes.iter().find(|one| one["name"] == "b").expect("listed");
    assert_eq!((nodes.len(), shape(silent)), (2, node()), "it has not beaten");
    let one = plane.tenant("GET", &format!("{path}/nodes/{}", agent.id), Value::Null).await.expect(200);
    assert_eq!(shape(&one), json!({"node": beaten, "allocation": allocation()}));
    assert_eq!(shape(&plane.agent(&agent, "GET", "allocation", Value::Null).await.expect(200)), allocation());
    let peers = plane.agent(&agent, "GET", "peers", Value::Null).await.expect(200);
    let peer = json!({"node_id": "string", "reachable_ip": "string", "allocation": allocation()});
    assert_eq!(shape(&peers), json!({"peers": [peer]}));
    let empty = plane.agent(&agent, "GET", "placements", Value::Null).await.expect(200);
    assert_eq!(empty, json!({"assignments": []}));

    let workloads = format!("{path}/workloads");
    let made = plane.workload(&id, full_spec(), Some(&agent)).await;
    assert_eq!((&made["spec"], shape(&made)), (&full_spec(), workload(&full_spec())), "the spec comes back as sent");
    let one_path = format!("{workloads}/{}", made["id"].as_str().expect("id"));
    assert_eq!(plane.tenant("GET", &one_path, Value::Null).await.expect(200), made);
    let list = plane.tenant("GET", &workloads, Value::Null).await.expect(200);
    assert_eq!(list, json!({"workloads": [made]}));
    let changed = with(full_spec(), "strict", json!(true));
    let (put, ()) = tokio::join!(plane.tenant("PUT", &one_path, changed.clone()), async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        plane.place(&id, Some(&agent)).await;
    });
    let put = put.expect(200);
    assert_eq!((&put["spec"], &put["generation"], shape(&put)), (&changed, &json!(2), workload(&changed)));

    let list = plane.tenant("GET", &format!("{path}/placements"), Value::Null).await.expect(200);
    assert_eq!(shape(&list), json!({"placements": [placement()]}));
    let list = plane.agent(&agent, "GET", "placements", Value::Null).await.expect(200);
    let mut entry = list["assignments"][0].clone();
    assert_eq!((&entry["pod"]["kind"], &entry["pod"]["apiVersion"]), (&json!("Pod"), &json!("v1")));
    entry["pod"] = json!("a Pod");
    let shown = json!({"placement": placement(), "workload": workload(&changed), "pod": "string",
        "materials": {"env": {}, "files": {}}, "terminating": "boolean"});
    assert_eq!(shape(&entry), shown);
    let report = format!("placements/{}/report", entry["placement"]["id"].as_str().expect("id"));
    let said = and_unknown(json!({"state": "running", "container_id": "ctr-1", "message": null}));
    assert_eq!(plane.agent(&agent, "POST", &report, said).await.expect(200), gone);
    let list = plane.tenant("GET", &format!("{path}/placements"), Value::Null).await.expect(200);
    assert_eq!(shape(&list["placements"][0]), with(placement(), "container_id", json!("string")));

    assert_eq!(plane.tenant("DELETE", &one_path, Value::Null).await.expect(200), gone);
    for _twice in 0..2 {
        let drain = format!("{path}/nodes/{}/drain", agent.id);
        assert_eq!(plane.tenant("POST", &drain, and_unknown(json!({}))).await.expect(200), gone);
    }
    let one = plane.tenant("GET", &format!("{path}/nodes/{}", agent.id), Value::Null).await.expect(200);
    assert_eq!((&one["node"]["state"], &one["node"]["schedulable"]), (&json!("draining"), &json!(false)));
    assert_eq!(plane.tenant("DELETE", &format!("{path}/nodes/{}", agent.id), Value::Null).await.expect(200), gone);
    assert_eq!(plane.agent(&done, "POST", "deregister", and_unknown(json!({}))).await.expect(200), gone);
    let again = plane.join_token(&id, 1).await;
    plane.try_register(&id, &again, registration("a")).await.expect(201);
}
