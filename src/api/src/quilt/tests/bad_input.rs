//! Bad input, by the table: the documented status, a field named, nothing stored, and the next request works.

use serde_json::{Value, json};

use super::{Plane, registration};

/// Each bad request with its status and the field its details name.
#[tokio::test]
async fn bad_requests_are_refused_by_name() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.0.0.0/16", 24).await;
    let (clusters, tokens, workloads) = (
        "/api/clusters".to_owned(),
        format!("/api/clusters/{id}/join-tokens"),
        format!("/api/clusters/{id}/workloads"),
    );
    let spec = |field: &str, value: Value| {
        let mut spec = json!({"name": "w", "replicas": 1, "command": ["x"]});
        spec[field] = value;
        spec
    };
    let cases = [
        (&clusters, json!({}), 422, "name"),
        (&clusters, json!({"name": "x"}), 422, "pod_cidr"),
        (&clusters, json!({"name": null, "pod_cidr": "10.0.0.0/16"}), 422, "name"),
        (&clusters, json!({"name": 3, "pod_cidr": "10.0.0.0/16"}), 422, "name"),
        (&clusters, json!({"name": "", "pod_cidr": "10.0.0.0/16"}), 400, "name"),
        (&clusters, json!({"name": "x".repeat(129), "pod_cidr": "10.0.0.0/16"}), 400, "name"),
        (&clusters, json!({"name": "x", "pod_cidr": "10.0.0.1/16"}), 400, "pod_cidr"),
        (&clusters, json!({"name": "x", "pod_cidr": "fd00::/64"}), 400, "pod_cidr"),
        (&clusters, json!({"name": "x", "pod_cidr": "10.0.0.0/7"}), 400, "pod_cidr"),
        (&clusters, json!({"name": "x", "pod_cidr": "10.0.0.0/31"}), 400, "pod_cidr"),
        (&clusters, json!({"name": "x", "pod_cidr": "10.0.0.0/28"}), 400, "node_cidr_prefix"),
        (&clusters, json!({"name": "x", "pod_cidr": "10.0.0.0/16", "node_cidr_prefix": 31}), 400, "node_cidr_prefix"),
        (&clusters, json!({"name": "x", "pod_cidr": "10.0.0.0/16", "node_cidr_prefix": 24.5}), 422, "node_cidr_prefix"),
        (&clusters, json!({"name": "x", "pod_cidr": "10.0.0.0/16", "node_timeout_secs": 4}), 400, "node_timeout_secs"),
        (
            &clusters,
            json!({"name": "x", "pod_cidr": "10.0.0.0/16", "placement_grace_secs": 3601}),
            400,
            "placement_grace_secs",
        ),
        (&tokens, json!({"ttl_secs": 59}), 400, "ttl_secs"),
        (&tokens, json!({"ttl_secs": 86_401}), 400, "ttl_secs"),
        (&tokens, json!({"max_uses": 0}), 400, "max_uses"),
        (&tokens, json!({"max_uses": 1001}), 400, "max_uses"),
        (&tokens, json!({"max_uses": "1"}), 422, "max_uses"),
        (&workloads, spec("replicas", json!(0)), 400, "replicas"),
        (&workloads, spec("replicas", json!(-1)), 400, "replicas"),
        (&workloads, spec("replicas", json!(1.5)), 422, "replicas"),
        (&workloads, spec("replicas", json!("3")), 422, "replicas"),
        (&workloads, spec("replicas", Value::Null), 422, "replicas"),
        (&workloads, spec("gpu_ids", json!(["a"])), 400, "gpu_ids"),
        (
            &workloads,
            json!({"name": "w", "replicas": 1, "command": ["x"], "gpu_count": 2, "gpu_ids": ["a"]}),
            400,
            "gpu_ids",
        ),
        (
            &workloads,
            json!({"name": "w", "replicas": 1, "command": ["x"], "gpu_count": 2, "gpu_ids": ["a", "a"]}),
            400,
            "gpu_ids",
        ),
        (&workloads, json!({"name": "w", "replicas": 1}), 422, "command"),
        (&workloads, spec("command", json!(["a", 1])), 422, "command"),
    ];
    for (path, body, status, field) in cases {
        let answer = plane.tenant("POST", path, body.clone()).await;
        let code = if status == 422 { "UNPROCESSABLE_ENTITY" } else { "VALIDATION_FAILED" };
        answer.refused(status, code);
        assert_eq!(answer.body["details"]["field"], field, "{path} {body}: {}", answer.body);
    }
    let listed = plane.tenant("GET", &clusters, Value::Null).await.expect(200);
    assert_eq!(listed["clusters"].as_array().map(Vec::len), Some(2));
    assert_eq!(plane.tenant("GET", &workloads, Value::Null).await.expect(200), json!({"workloads": []}));

    let several = plane.tenant("POST", &clusters, json!({"name": 1, "node_timeout_secs": "x"})).await;
    assert_eq!(
        several.body["details"]["expected"],
        json!(["name: string", "pod_cidr: string", "node_timeout_secs: integer"])
    );
}

/// Text that is no JSON, bodies that are too large or no objects, unknown routes and methods.
#[tokio::test]
async fn broken_requests_are_refused_in_order() {
    let plane = Plane::start().await;
    let key = [("X-Api-Key", plane.key.as_str())];
    plane.send("POST", "/api/clusters", &key, "{").await.refused(400, "BAD_REQUEST");
    plane.send("POST", "/api/clusters", &key, "[]").await.refused(400, "BAD_REQUEST");
    plane.send("POST", "/api/clusters", &key, "").await.refused(422, "UNPROCESSABLE_ENTITY");
    plane.send("POST", "/api/clusters", &key, vec![b' '; (4 << 20) + 1]).await.refused(413, "PAYLOAD_TOO_LARGE");
    // The credential comes before the body, the route before the credential.
    plane.send("POST", "/api/clusters", &[("X-Api-Key", "qk_bad")], "{").await.refused(401, "UNAUTHORIZED");
    plane.send("POST", "/api/clusters", &[], "{").await.refused(401, "UNAUTHORIZED");
    plane.send("GET", "/api/clusters/c/unknown", &[], "").await.refused(404, "NOT_FOUND");
    plane.send("GET", "/api/k8s/schema", &key, "").await.refused(404, "NOT_FOUND");
    let wrong = plane.send("PUT", "/api/clusters", &key, "").await;
    wrong.refused(405, "METHOD_NOT_ALLOWED");
    assert_eq!(wrong.headers["allow"], "GET, POST");
    // Types before path objects, path objects before ranges.
    let bad_type = plane.tenant("POST", "/api/clusters/none/workloads", json!({"replicas": "x"})).await;
    bad_type.refused(422, "UNPROCESSABLE_ENTITY");
    let bad_range = json!({"name": "w", "replicas": 0, "command": ["x"]});
    plane.tenant("POST", "/api/clusters/none/workloads", bad_range).await.refused(404, "NOT_FOUND");
    plane.tenant("GET", "/api/clusters", Value::Null).await.expect(200);
}

/// A registration that is refused spends nothing, whatever is wrong with it; the token's state is judged first.
#[tokio::test]
async fn refused_registrations_spend_nothing() {
    let plane = Plane::start().await;
    let id = plane.cluster("c", "10.0.0.0/16", 24).await;
    plane.register(&id, "taken", json!({})).await;
    let token = plane.join_token(&id, 1).await;
    let with = |field: &str, value: Value| {
        let mut body = registration("fresh");
        body[field] = value;
        body
    };
    let cases = [
        (with("name", Value::Null), 422, "UNPROCESSABLE_ENTITY"),
        (with("dns_port", json!("53")), 422, "UNPROCESSABLE_ENTITY"),
        (with("labels_json", json!("{")), 400, "BAD_REQUEST"),
        (with("taints_json", json!("{}")), 422, "UNPROCESSABLE_ENTITY"),
        (with("gpu_devices", json!([{"model": "x"}])), 422, "UNPROCESSABLE_ENTITY"),
        (with("gpu_devices", json!([{"id": "a"}, {"id": "a"}])), 400, "VALIDATION_FAILED"),
        (with("dns_port", json!(0)), 400, "VALIDATION_FAILED"),
        (with("bridge_name", json!("x".repeat(16))), 400, "VALIDATION_FAILED"),
        (with("egress_limit_mbit", json!(-1)), 400, "VALIDATION_FAILED"),
        (with("public_ip", json!("here")), 400, "VALIDATION_FAILED"),
        (registration("taken"), 409, "NAME_TAKEN"),
    ];
    for (body, status, code) in cases {
        plane.try_register(&id, &token, body).await.refused(status, code);
    }
    plane.try_register(&id, "qj_unknown", json!({})).await.refused(401, "UNAUTHORIZED");
    plane.try_register("nowhere", &token, json!({})).await.refused(401, "UNAUTHORIZED");
    let other = plane.cluster("other", "10.0.0.0/16", 24).await;
    plane.try_register(&other, &token, registration("fresh")).await.refused(401, "UNAUTHORIZED");
    plane.try_register(&id, &token, registration("fresh")).await.expect(201);
    plane.try_register(&id, &token, registration("again")).await.refused(401, "UNAUTHORIZED");
}
