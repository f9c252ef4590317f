//! The main flow: tenant, cluster, join, work, reports, end.

use serde_json::{Value, json};

use super::{Plane, registration};
use crate::store::{NAMESPACES, SERVICES};

/// One tenant takes a cluster from nothing to a running workload and back to nothing, through the contract's answers.
#[tokio::test]
async fn from_tenant_to_running_and_back() {
    let plane = Plane::start().await;
    let tenant = plane.operator("POST", "/api/admin/tenants", json!({"name": "acme"})).await.expect(201);
    let key = tenant["api_key"].as_str().expect("key").to_owned();
    assert!(key.starts_with("qk_"));
    let bearer = format!("bearer {key}");
    let as_acme = [("Authorization", bearer.as_str())];

    let body = json!({"name": "prod", "pod_cidr": "10.42.0.0/16"}).to_string();
    let cluster = plane.send("POST", "/api/clusters", &as_acme, body).await.expect(201);
    let id = cluster["id"].as_str().expect("id").to_owned();
    assert_eq!(cluster["tenant_id"], tenant["tenant_id"]);
    assert_eq!(
        (&cluster["node_cidr_prefix"], &cluster["node_timeout_secs"], &cluster["placement_grace_secs"]),
        (&json!(24), &json!(40), &json!(30))
    );
    let view = plane.view().await;
    assert_eq!(NAMESPACES.list(&view, &id, |_| true).expect("read").len(), 4);
    assert!(SERVICES.get(&view, &id, "default", "kubernetes").expect("read").is_some());
    let listed = plane.send("GET", "/api/clusters/", &as_acme, "").await.expect(200);
    assert_eq!(listed, json!({"clusters": [cluster]}));

    let path = format!("/api/clusters/{id}");
    let token = plane.send("POST", &format!("{path}/join-tokens"), &as_acme, r#"{"ttl_secs": 60}"#).await.expect(201);
    assert_eq!((&token["cluster_id"], &token["max_uses"]), (&json!(id), &json!(1)));
    let join = token["join_token"].as_str().expect("token").to_owned();
    let joined = plane.try_register(&id, &join, registration("node-a")).await.expect(201);
    let node_id = joined["node"]["id"].as_str().expect("id").to_owned();
    assert_eq!(
        joined["node"],
        json!({
            "id": node_id, "cluster_id": id, "name": "node-a", "public_ip": "203.0.113.10", "private_ip": "10.0.0.10",
            "state": "registered", "schedulable": false, "labels": {"suite": "control-plane"}, "taints": [],
            "gpu_inventory": [], "gpu_runtime": null, "vmm_runtime": null, "agent_version": "agent-build",
            "last_heartbeat_at": null, "created_at": joined["node"]["created_at"],
        })
    );
    assert_eq!(
        joined["allocation"],
        json!({
            "node_id": node_id, "cluster_id": id, "pod_cidr": "10.42.0.0/24", "bridge_name": "quilt0", "dns_port": 1053,
            "egress_limit_mbit": 1000, "allocated_at": joined["node"]["created_at"],
        })
    );
    plane.try_register(&id, &join, registration("node-b")).await.refused(401, "UNAUTHORIZED");

    let agent = super::Joined {
        cluster: id.clone(),
        id: node_id.clone(),
        token: joined["node_token"].as_str().expect("token").into(),
        answer: joined.clone(),
    };
    let shown = plane.send("GET", &format!("{path}/nodes/{node_id}"), &as_acme, "").await.expect(200);
    assert_eq!(shown, json!({"node": joined["node"], "allocation": joined["allocation"]}));
    assert_eq!(
        plane.agent(&agent, "POST", "heartbeat", json!({"state": "ready"})).await.expect(200),
        json!({"success": true})
    );
    let nodes = plane.send("GET", &format!("{path}/nodes"), &as_acme, "").await.expect(200);
    assert_eq!((&nodes["nodes"][0]["state"], &nodes["nodes"][0]["schedulable"]), (&json!("ready"), &json!(true)));
    assert!(nodes["nodes"][0]["last_heartbeat_at"].is_u64());
    assert_eq!(plane.agent(&agent, "GET", "allocation", Value::Null).await.expect(200), joined["allocation"]);

    let spec = json!({"name": "web", "replicas": 1, "image": "web:1", "command": ["/bin/web", "--port", "80"],
        "environment": {"MODE": "live"}, "something": {"new": [1, null]}});
    let workloads = format!("{path}/workloads");
    let (made, ()) = tokio::join!(plane.send("POST", &workloads, &as_acme, spec.to_string()), async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        plane.place(&id, Some(&agent)).await;
    });
    let made = made.expect(201);
    assert_eq!(made["spec"], spec);
    assert_eq!(
        made["status"],
        json!({"replicas": 1, "pending": 0, "assigned": 1, "running": 0, "failed": 0, "observed_generation": 1})
    );
    assert_eq!((&made["generation"], &made["source"]), (&json!(1), &Value::Null));

    let list = plane.agent(&agent, "GET", "placements", Value::Null).await;
    let tag = list.headers["etag"].to_str().expect("tag").to_owned();
    let list = list.expect(200);
    let assignment = &list["assignments"][0];
    let placement = assignment["placement"]["id"].as_str().expect("id").to_owned();
    assert_eq!(
        (&assignment["placement"]["state"], &assignment["placement"]["node_id"]),
        (&json!("assigned"), &json!(node_id))
    );
    assert_eq!((&assignment["workload"]["id"], &assignment["terminating"]), (&made["id"], &json!(false)));
    assert_eq!(
        (&assignment["pod"]["kind"], &assignment["materials"]),
        (&json!("Pod"), &json!({"env": {}, "files": {}}))
    );
    let headers = [("X-Quilt-Node-Token", agent.token.as_str()), ("If-None-Match", tag.as_str())];
    assert_eq!(plane.send("GET", &agent.path("placements"), &headers, "").await.status, 304);

    let report = format!("placements/{placement}/report");
    plane
        .agent(&agent, "POST", &report, json!({"state": "running", "container_id": "ctr-1", "message": null}))
        .await
        .expect(200);
    let placements = plane.send("GET", &format!("{path}/placements"), &as_acme, "").await.expect(200);
    let shown = &placements["placements"][0];
    assert_eq!(
        (&shown["state"], &shown["container_id"], &shown["message"]),
        (&json!("running"), &json!("ctr-1"), &Value::Null)
    );
    let workload = format!("{path}/workloads/{}", made["id"].as_str().expect("id"));
    let shown = plane.send("GET", &workload, &as_acme, "").await.expect(200);
    assert_eq!(shown["status"]["running"], 1);
    assert_eq!(
        plane.send("GET", &format!("{path}/workloads"), &as_acme, "").await.expect(200)["workloads"],
        json!([shown])
    );
    plane.agent(&agent, "POST", "placements/none/report", json!({"state": "running"})).await.refused(404, "NOT_FOUND");

    plane.send("POST", &format!("{path}/reconcile"), &as_acme, "").await.expect(200);
    let capabilities = plane.send("GET", &format!("{path}/capabilities"), &as_acme, "").await.expect(200);
    assert_eq!(
        (&capabilities["capabilities"]["drain"], &capabilities["metadata"]["kubernetes_path"]),
        (&json!(true), &json!(format!("/clusters/{id}")))
    );

    plane.send("DELETE", &workload, &as_acme, "").await.expect(200);
    plane.send("DELETE", &workload, &as_acme, "").await.refused(404, "NOT_FOUND");
    let placements = plane.send("GET", &format!("{path}/placements"), &as_acme, "").await.expect(200);
    assert_eq!(placements, json!({"placements": []}));
    assert_eq!(plane.agent(&agent, "GET", "placements", Value::Null).await.expect(200), json!({"assignments": []}));

    plane.agent(&agent, "POST", "deregister", Value::Null).await.expect(200);
    plane.agent(&agent, "POST", "deregister", Value::Null).await.refused(401, "UNAUTHORIZED");
    assert_eq!(plane.send("GET", &format!("{path}/nodes"), &as_acme, "").await.expect(200), json!({"nodes": []}));
    plane.send("DELETE", &path, &as_acme, "").await.expect(200);
    plane.send("GET", &path, &as_acme, "").await.refused(404, "NOT_FOUND");
}

/// A deleted cluster is 401 for its agents and 404 for its tenant, its name is free at once, and its keys die with its
/// tenant.
#[tokio::test]
async fn clusters_and_tenants_end() {
    let plane = Plane::start().await;
    let id = plane.cluster("one", "10.0.0.0/16", 24).await;
    plane
        .tenant("POST", "/api/clusters", json!({"name": "one", "pod_cidr": "10.0.0.0/16"}))
        .await
        .refused(409, "NAME_TAKEN");
    let node = plane.register(&id, "n", json!({})).await;
    let token = plane.join_token(&id, 5).await;
    plane.tenant("DELETE", &format!("/api/clusters/{id}"), Value::Null).await.expect(200);
    plane.agent(&node, "POST", "heartbeat", json!({"state": "ready"})).await.refused(401, "UNAUTHORIZED");
    plane.agent(&node, "GET", "placements", Value::Null).await.refused(401, "UNAUTHORIZED");
    plane.try_register(&id, &token, registration("m")).await.refused(401, "UNAUTHORIZED");
    plane.tenant("GET", &format!("/api/clusters/{id}/nodes"), Value::Null).await.refused(404, "NOT_FOUND");
    let again = plane.cluster("one", "10.0.0.0/16", 24).await;
    assert_ne!(id, again);
    plane.tenant("DELETE", "/api/clusters/default", Value::Null).await.refused(409, "BUILT_IN");
    plane.operator("DELETE", "/api/admin/tenants/default", Value::Null).await.refused(409, "BUILT_IN");

    let acme = plane.operator("POST", "/api/admin/tenants", json!({"name": "acme"})).await.expect(201);
    plane.operator("POST", "/api/admin/tenants", json!({"name": "acme"})).await.refused(409, "NAME_TAKEN");
    let (tenant, first) = (acme["tenant_id"].as_str().expect("id"), acme["api_key"].as_str().expect("key"));
    let second = plane.operator("POST", &format!("/api/admin/tenants/{tenant}/keys"), Value::Null).await.expect(201);
    let second_key = second["api_key"].as_str().expect("key");
    let as_key = async |key: &str| plane.send("GET", "/api/clusters", &[("X-Api-Key", key)], "").await.status;
    assert_eq!((as_key(first).await, as_key(second_key).await), (200, 200));
    let revoke = format!("/api/admin/tenants/{tenant}/keys/{}", second["key_id"].as_str().expect("id"));
    plane.operator("DELETE", &revoke, Value::Null).await.expect(200);
    plane.operator("DELETE", &revoke, Value::Null).await.refused(404, "NOT_FOUND");
    assert_eq!((as_key(first).await, as_key(second_key).await), (200, 401));
    let path = format!("/api/admin/tenants/{tenant}");
    plane.operator("PATCH", &path, json!({"disabled": true})).await.expect(200);
    assert_eq!(as_key(first).await, 401);
    plane.operator("PATCH", &path, json!({"disabled": false})).await.expect(200);
    assert_eq!(as_key(first).await, 200);
    let tenants = plane.operator("GET", "/api/admin/tenants", Value::Null).await.expect(200);
    assert_eq!(tenants["tenants"].as_array().map(Vec::len), Some(2));
    plane.operator("DELETE", &path, Value::Null).await.expect(200);
    assert_eq!(as_key(first).await, 401);
    plane.operator("DELETE", &path, Value::Null).await.refused(404, "NOT_FOUND");

    let set = plane.operator("PATCH", "/api/admin/clusters/default", json!({"node_timeout_secs": 5})).await.expect(200);
    assert_eq!((&set["node_timeout_secs"], &set["placement_grace_secs"]), (&json!(5), &json!(30)));
    plane
        .operator("PATCH", "/api/admin/clusters/default", json!({"node_timeout_secs": 4}))
        .await
        .refused(400, "VALIDATION_FAILED");
}

/// Every credential opens its own routes and no others; a foreign cluster looks like none at all.
#[tokio::test]
async fn credentials_open_their_own_routes_only() {
    let plane = Plane::start().await;
    let own = plane.cluster("own", "10.0.0.0/16", 24).await;
    let node = plane.register(&own, "n", json!({})).await;
    let other_node = plane.register(&own, "m", json!({})).await;
    let acme = plane.operator("POST", "/api/admin/tenants", json!({"name": "acme"})).await.expect(201);
    let acme = acme["api_key"].as_str().expect("key").to_owned();

    // A tenant's key on an agent route, and a node's token where it does not belong.
    plane.send("GET", &node.path("placements"), &[("X-Api-Key", &plane.key)], "").await.refused(401, "UNAUTHORIZED");
    plane.send("GET", "/api/clusters", &[("X-Quilt-Node-Token", &node.token)], "").await.refused(401, "UNAUTHORIZED");
    plane
        .send("GET", &node.path("placements"), &[("X-Quilt-Node-Token", &other_node.token)], "")
        .await
        .refused(401, "UNAUTHORIZED");
    plane
        .send("GET", &node.path("placements"), &[("X-Quilt-Node-Token", &node.token), ("X-Api-Key", "bad")], "")
        .await
        .expect(200);
    plane.send("GET", "/api/clusters", &[("X-Quilt-Admin-Key", &plane.admin)], "").await.refused(401, "UNAUTHORIZED");
    plane
        .send("GET", "/api/clusters", &[("Authorization", &format!("Bearer {}", plane.admin))], "")
        .await
        .refused(401, "UNAUTHORIZED");
    plane.send("GET", "/api/admin/tenants", &[("X-Api-Key", &plane.key)], "").await.refused(401, "UNAUTHORIZED");
    plane
        .send("GET", "/api/admin/tenants", &[("Authorization", &format!("Bearer {}", plane.admin))], "")
        .await
        .expect(200);
    // A bad X-Api-Key beside a good Bearer: the Bearer is tried; a good X-Api-Key wins.
    let bearer = format!("Bearer {}", plane.key);
    plane.send("GET", "/api/clusters", &[("X-Api-Key", "qk_bad"), ("Authorization", &bearer)], "").await.expect(200);
    plane.send("GET", "/api/clusters", &[("X-Api-Key", &acme), ("Authorization", &bearer)], "").await.expect(200);

    let routes = [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/reconcile"),
        ("GET", "/nodes"),
        ("GET", "/nodes/x"),
        ("DELETE", "/nodes/x"),
        ("POST", "/nodes/x/drain"),
        ("GET", "/workloads"),
        ("GET", "/workloads/x"),
        ("DELETE", "/workloads/x"),
        ("GET", "/placements"),
        ("GET", "/capabilities"),
        ("POST", "/join-tokens"),
    ];
    let spec = json!({"name": "w", "replicas": 0, "command": ["x"]});
    let routes = routes
        .map(|(method, path)| (method, path, Value::Null))
        .into_iter()
        .chain([("POST", "/workloads", spec.clone()), ("PUT", "/workloads/x", spec)]);
    for (method, rest, body) in routes {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let headers = [("X-Api-Key", acme.as_str()), ("X-Request-Id", "same")];
        let foreign = plane.send(method, &format!("/api/clusters/{own}{rest}"), &headers, text.clone()).await;
        foreign.refused(404, "NOT_FOUND");
        let unknown = plane.send(method, &format!("/api/clusters/nowhere{rest}"), &headers, text).await;
        assert_eq!(foreign.body, unknown.body, "{method} {rest}");
    }
}

/// `/health` needs nothing; stale reads say so; a request id comes back.
#[tokio::test]
async fn small_routes() {
    let plane = Plane::start().await;
    let health = plane.send("GET", "/health", &[("X-Request-Id", "abc")], "").await;
    assert_eq!(health.headers["x-request-id"], "abc");
    assert_eq!(health.expect(200), json!({"status": "ok"}));
    let stale = plane.tenant("GET", "/api/clusters?consistency=stale", Value::Null).await;
    assert_eq!(stale.headers["x-quilt-stale"], "true");
    assert_eq!(stale.expect(200)["clusters"][0]["id"], "default");
    plane.tenant("GET", "/api/clusters?consistency=none", Value::Null).await.refused(400, "VALIDATION_FAILED");
}
