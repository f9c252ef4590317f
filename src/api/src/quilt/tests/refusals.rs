//! Every route, and everything that can be wrong with a request for it: the documented status, the field by its name,
//! and not a single write.

use serde_json::{Value, json};

use super::{Joined, LONG, Plane, registration};

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Operator,
    Tenant,
    Joiner,
    Agent,
}

/// A field a body may have: its name, its type, whether it must be there.
type Field = (&'static str, &'static str, bool);

/// One route with a body, or with none.
struct Case {
    method: &'static str,
    path: String,
    who: Who,
    fields: &'static [Field],
    /// A body that would be taken.
    good: Value,
}

const SPEC: &[Field] = &[
    ("name", "string", true),
    ("replicas", "integer", true),
    ("command", "strings", true),
    ("image", "string", false),
    ("environment", "map", false),
    ("labels", "map", false),
    ("memory_limit_mb", "integer", false),
    ("cpu_limit_percent", "number", false),
    ("strict", "boolean", false),
    ("gpu_count", "integer", false),
    ("gpu_ids", "strings", false),
];
const FACTS: [Field; 11] = [
    ("public_ip", "string", false),
    ("private_ip", "string", false),
    ("agent_version", "string", false),
    ("labels", "map", false),
    ("labels_json", "string", false),
    ("taints_json", "string", false),
    ("gpu_devices", "devices", false),
    ("gpu_runtime", "object", false),
    ("vmm_runtime", "object", false),
    ("capacity", "map", false),
    ("kubelet_cert_sha256", "string", false),
];
const CLUSTER: &[Field] = &[
    ("name", "string", true),
    ("pod_cidr", "string", true),
    ("node_cidr_prefix", "integer", false),
    ("node_timeout_secs", "integer", false),
    ("placement_grace_secs", "integer", false),
];
const TOKEN: &[Field] = &[("ttl_secs", "integer", false), ("max_uses", "integer", false)];
const REPORT: &[Field] = &[
    ("state", "string", true),
    ("container_id", "string", false),
    ("message", "string", false),
    ("pod_status", "object", false),
];

fn with_facts(own: &[Field]) -> &'static [Field] {
    own.iter().copied().chain(FACTS).collect::<Vec<_>>().leak()
}

/// Every route of the main flow, with a body where it takes one.
fn routes(cluster: &str, node: &str, placement: &str, workload: &str, tenant: &str) -> Vec<Case> {
    let own = format!("/api/clusters/{cluster}");
    let agents = format!("/api/agent/clusters/{cluster}/nodes");
    let admin = format!("/api/admin/tenants/{tenant}");
    let register: &[Field] = &[
        ("name", "string", true),
        ("bridge_name", "string", true),
        ("dns_port", "integer", true),
        ("egress_limit_mbit", "integer", true),
        ("kubelet_port", "integer", false),
        ("pod_agent", "boolean", false),
    ];
    let case = |method, path: String, who, fields, good| Case { method, path, who, fields, good };
    let spec = json!({"name": "w", "replicas": 1, "command": ["x"]});
    let clusters = json!({"name": "fresh", "pod_cidr": "10.0.0.0/16"});
    vec![
        case("POST", "/api/clusters".into(), Who::Tenant, CLUSTER, clusters),
        case("GET", "/api/clusters".into(), Who::Tenant, &[], Value::Null),
        case("GET", own.clone(), Who::Tenant, &[], Value::Null),
        case("DELETE", own.clone(), Who::Tenant, &[], Value::Null),
        case("POST", format!("{own}/reconcile"), Who::Tenant, &[], json!({})),
        case("GET", format!("{own}/capabilities"), Who::Tenant, &[], Value::Null),
        case("POST", format!("{own}/join-tokens"), Who::Tenant, TOKEN, json!({})),
        case("GET", format!("{own}/nodes"), Who::Tenant, &[], Value::Null),
        case("GET", format!("{own}/nodes/{node}"), Who::Tenant, &[], Value::Null),
        case("DELETE", format!("{own}/nodes/{node}"), Who::Tenant, &[], Value::Null),
        case("POST", format!("{own}/nodes/{node}/drain"), Who::Tenant, &[], json!({})),
        case("POST", format!("{own}/workloads"), Who::Tenant, SPEC, spec.clone()),
        case("GET", format!("{own}/workloads"), Who::Tenant, &[], Value::Null),
        case("GET", format!("{own}/workloads/{workload}"), Who::Tenant, &[], Value::Null),
        case("PUT", format!("{own}/workloads/{workload}"), Who::Tenant, SPEC, spec),
        case("DELETE", format!("{own}/workloads/{workload}"), Who::Tenant, &[], Value::Null),
        case("GET", format!("{own}/placements"), Who::Tenant, &[], Value::Null),
        case("POST", format!("{agents}/register"), Who::Joiner, with_facts(register), registration("fresh")),
        case(
            "POST",
            format!("{agents}/{node}/heartbeat"),
            Who::Agent,
            with_facts(&[("state", "string", true), ("kubelet_port", "integer", false)]),
            json!({"state": "not_ready"}),
        ),
        case("GET", format!("{agents}/{node}/allocation"), Who::Agent, &[], Value::Null),
        case("GET", format!("{agents}/{node}/placements"), Who::Agent, &[], Value::Null),
        case("GET", format!("{agents}/{node}/peers"), Who::Agent, &[], Value::Null),
        case(
            "POST",
            format!("{agents}/{node}/placements/{placement}/report"),
            Who::Agent,
            REPORT,
            json!({"state": "failed"}),
        ),
        case(
            "POST",
            format!("{agents}/{node}/events"),
            Who::Agent,
            &[("events", "devices", true)],
            json!({"events": []}),
        ),
        case("POST", format!("{agents}/{node}/deregister"), Who::Agent, &[], json!({})),
        case("POST", "/api/admin/tenants".into(), Who::Operator, &[("name", "string", true)], json!({"name": "fresh"})),
        case("GET", "/api/admin/tenants".into(), Who::Operator, &[], Value::Null),
        case("PATCH", admin.clone(), Who::Operator, &[("disabled", "boolean", true)], json!({"disabled": true})),
        case("DELETE", admin.clone(), Who::Operator, &[], Value::Null),
        case("POST", format!("{admin}/keys"), Who::Operator, &[], json!({})),
        case("DELETE", format!("{admin}/keys/unknown"), Who::Operator, &[], Value::Null),
        case("PATCH", format!("/api/admin/clusters/{cluster}"), Who::Operator, &CLUSTER[3..], json!({})),
    ]
}

/// Values that are of another type than this one.
fn of_other_types(kind: &str) -> Vec<Value> {
    let all = [json!("x"), json!(7), json!(1.5), json!(true), json!([1]), json!(["x"]), json!({"a": 1}), json!({})];
    let fits = |value: &Value| match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "strings" => *value == json!(["x"]),
        "map" => *value == json!({}),
        "object" => value.is_object(),
        "devices" => false,
        other => panic!("unknown type {other}"),
    };
    all.into_iter().filter(|value| !fits(value)).collect()
}

/// A control plane with one of everything.
struct World {
    plane: Plane,
    node: Joined,
    join: String,
    other_tenant: (String, String),
    cases: Vec<Case>,
}

impl World {
    async fn start() -> Self {
        let plane = Plane::start().await;
        let id = plane.cluster("c", "10.0.0.0/16", 24).await;
        let node = plane.register(&id, "n", json!({})).await;
        plane.ready(&node).await;
        let made = plane.workload(&id, json!({"name": "w", "replicas": 1, "command": ["x"]}), Some(&node)).await;
        let list = plane.agent(&node, "GET", "placements", Value::Null).await.expect(200);
        let placement = list["assignments"][0]["placement"]["id"].as_str().expect("id");
        let join = plane.join_token(&id, 5).await;
        let acme = plane.operator("POST", "/api/admin/tenants", json!({"name": "acme"})).await.expect(201);
        let acme = ["tenant_id", "api_key"].map(|field| acme[field].as_str().expect("text").to_owned());
        let cases = routes(&id, &node.id, placement, made["id"].as_str().expect("id"), &acme[0]);
        let [tenant, key] = acme;
        Self { plane, node, join, other_tenant: (tenant, key), cases }
    }

    fn credential(&self, who: Who) -> (&'static str, &str) {
        match who {
            Who::Operator => ("X-Quilt-Admin-Key", &self.plane.admin),
            Who::Tenant => ("X-Api-Key", &self.plane.key),
            Who::Joiner => ("X-Quilt-Join-Token", &self.join),
            Who::Agent => ("X-Quilt-Node-Token", &self.node.token),
        }
    }

    async fn send(
        &self,
        case: &Case,
        credentials: &[(&str, &str)],
        body: impl Into<axum::body::Body>,
    ) -> super::Answer {
        self.plane.send(case.method, &case.path, credentials, body).await
    }
}

/// What is no JSON object, and what is too large, is refused on every route that reads a body; what is missing, null
/// or of another type is refused by its name, one field at a time; and nothing of it is stored.
#[tokio::test]
async fn bodies_are_judged_field_by_field() {
    let world = World::start().await;
    let before = world.plane.view().await.revision();
    for case in world.cases.iter().filter(|case| !case.good.is_null()) {
        let what = format!("{} {}", case.method, case.path);
        let own = [world.credential(case.who)];
        for broken in ["{", "[1]", "\"text\"", "7", "{\"a\": }", "{} {}", "\u{1}", "{\"a\": 1e}"] {
            let answer = world.send(case, &own, broken).await;
            answer.refused(400, "BAD_REQUEST");
            assert_eq!(answer.body["details"]["field"], "body", "{what} {broken}");
        }
        world.send(case, &own, vec![0xff, 0xfe]).await.refused(400, "BAD_REQUEST");
        world.send(case, &own, "[".repeat(100_000)).await.refused(400, "BAD_REQUEST");
        let large = json!({"nobody_knows": "x".repeat(4 << 20)}).to_string();
        let answer = world.send(case, &own, large).await;
        answer.refused(413, "PAYLOAD_TOO_LARGE");
        assert_eq!(answer.body["details"]["field"], "body", "{what}");
        for (field, kind, required) in case.fields {
            let mut bad: Vec<Value> = of_other_types(kind);
            bad.extend(required.then_some(Value::Null));
            for value in bad {
                let mut body = case.good.clone();
                body[*field] = value.clone();
                refused_by_name(&world.send(case, &own, body.to_string()).await, field, &format!("{what} {body}"));
            }
            if *required {
                let mut body = case.good.clone();
                body.as_object_mut().expect("object").remove(*field);
                refused_by_name(&world.send(case, &own, body.to_string()).await, field, &format!("{what} {body}"));
            }
        }
    }
    assert_eq!(world.plane.view().await.revision(), before, "something was stored");
}

#[track_caller]
fn refused_by_name(answer: &super::Answer, field: &str, what: &str) {
    assert_eq!(answer.status, 422, "{what}: {}", answer.body);
    answer.refused(422, "UNPROCESSABLE_ENTITY");
    let named = answer.body["details"]["field"].as_str().unwrap_or_default();
    assert!(named == field || named.starts_with(&format!("{field}[")), "{what} names {named}");
    assert!(answer.body["error"].as_str().is_some_and(|error| error.contains(field)), "{what}: {}", answer.body);
}

/// No credential, a wrong one and one of every other kind open nothing, whatever the body; a foreign tenant sees what
/// nobody has; a method a route has not is refused with those it has.
#[tokio::test]
async fn doors_stay_shut() {
    let world = World::start().await;
    let acme = world.other_tenant.1.clone();
    let before = world.plane.view().await.revision();
    let all = [Who::Operator, Who::Tenant, Who::Joiner, Who::Agent];
    for case in &world.cases {
        let what = format!("{} {}", case.method, case.path);
        let body = case.good.to_string();
        let wrong = vec![
            ("X-Api-Key", "qk_no"),
            ("X-Quilt-Admin-Key", "qa_no"),
            ("X-Quilt-Join-Token", "qj_no"),
            ("X-Quilt-Node-Token", "qn_no"),
            ("Authorization", "Bearer x.y.z"),
        ];
        let others = all.iter().filter(|who| **who != case.who).map(|who| world.credential(*who));
        let sets: Vec<Vec<(&str, &str)>> = [vec![], wrong]
            .into_iter()
            .chain(others.map(|other| vec![other]))
            .chain([vec![("X-Api-Key", "\u{e9}")]])
            .collect();
        for credentials in sets {
            for body in [body.as_str(), "{"] {
                let answer = world.send(case, &credentials, body.to_owned()).await;
                assert_eq!(answer.status, 401, "{what} {credentials:?}: {}", answer.body);
                answer.refused(401, "UNAUTHORIZED");
            }
        }
        if case.who == Who::Tenant && case.path != "/api/clusters" {
            world.send(case, &[("X-Api-Key", &acme)], body.clone()).await.refused(404, "NOT_FOUND");
        }
        let own = [world.credential(case.who)];
        let answer = world.plane.send("OPTIONS", &case.path, &own, body).await;
        answer.refused(405, "METHOD_NOT_ALLOWED");
        let allowed = answer.headers["allow"].to_str().expect("text");
        assert!(allowed.split(", ").any(|method| method == case.method), "{what}: {allowed}");
        world.plane.send(case.method, &format!("{}/x/y", case.path), &own, "").await.refused(404, "NOT_FOUND");
    }
    assert_eq!(world.plane.view().await.revision(), before, "something was stored");
}

/// Values of the right type and out of range, field by field.
#[tokio::test]
async fn ranges_are_checked() {
    let world = World::start().await;
    let before = world.plane.view().await.revision();
    let long = |count: usize| json!("x".repeat(count));
    let by_name = [
        ("/api/clusters", "name", vec![json!(""), long(129), json!("a\u{0}b")]),
        (
            "/api/clusters",
            "pod_cidr",
            vec![
                json!(""),
                json!("x"),
                json!("10.0.0.1/16"),
                json!("fd00::/64"),
                json!("10.0.0.0/7"),
                json!("10.0.0.0/31"),
            ],
        ),
        ("/api/clusters", "node_cidr_prefix", vec![json!(15), json!(31), json!(-1), json!(u64::MAX)]),
        ("/api/clusters", "node_timeout_secs", vec![json!(4), json!(3601)]),
        ("/api/clusters", "placement_grace_secs", vec![json!(-1), json!(3601)]),
        ("/join-tokens", "ttl_secs", vec![json!(59), json!(86_401)]),
        ("/join-tokens", "max_uses", vec![json!(0), json!(1001)]),
        ("/workloads", "name", vec![json!(""), long(254), json!("a\nb")]),
        ("/workloads", "replicas", vec![json!(0), json!(-1), json!(10_001)]),
        ("/workloads", "command", vec![json!([])]),
        ("/workloads", "environment", vec![json!({"": "x"}), json!({"A=B": "x"})]),
        ("/workloads", "memory_limit_mb", vec![json!(0), json!(-1), json!(u64::MAX)]),
        ("/workloads", "cpu_limit_percent", vec![json!(0), json!(-0.5)]),
        ("/workloads", "gpu_count", vec![json!(-1)]),
        ("/workloads", "gpu_ids", vec![json!(["a"])]),
        ("/register", "name", vec![json!(""), long(254)]),
        ("/register", "bridge_name", vec![json!(""), long(16)]),
        ("/register", "dns_port", vec![json!(0), json!(65_536)]),
        ("/register", "egress_limit_mbit", vec![json!(-1), json!(4_294_967_296_u64)]),
        ("/register", "public_ip", vec![json!("here")]),
        ("/register", "private_ip", vec![json!("10.0.0.256")]),
        ("/register", "kubelet_port", vec![json!(0), json!(65_536)]),
        ("/register", "kubelet_cert_sha256", vec![json!("ab")]),
        ("/register", "gpu_devices", vec![json!([{"id": "a"}, {"id": "a"}]), json!([{"id": ""}])]),
        ("/register", "taints_json", vec![json!(r#"[{"key": "a", "effect": "Sometimes"}]"#)]),
        ("/heartbeat", "state", vec![json!("deleted"), json!("Ready"), json!("")]),
        ("/heartbeat", "agent_version", vec![long(1025)]),
        ("/heartbeat", "public_ip", vec![json!("here")]),
        ("/report", "state", vec![json!("pausing"), json!("")]),
        ("/api/admin/tenants", "name", vec![json!(""), long(129)]),
    ];
    for (end, field, values) in by_name {
        let cases: Vec<&Case> = world
            .cases
            .iter()
            .filter(|case| !case.good.is_null() && case.path.ends_with(end) && !case.fields.is_empty())
            .collect();
        assert!(!cases.is_empty(), "no route ends with {end}");
        for (case, value) in cases.iter().flat_map(|case| values.iter().map(move |value| (case, value))) {
            let mut body = case.good.clone();
            body[field] = value.clone();
            let answer = world.send(case, &[world.credential(case.who)], body.to_string()).await;
            assert_eq!(answer.status, 400, "{} {body}: {}", case.path, answer.body);
            answer.refused(400, "VALIDATION_FAILED");
            assert_eq!(answer.body["details"]["field"], field, "{} {body}: {}", case.path, answer.body);
        }
    }
    for text in ["labels_json", "taints_json"] {
        let case = world.cases.iter().find(|case| case.path.ends_with("/register")).expect("a route");
        let mut body = case.good.clone();
        body["labels"] = Value::Null;
        body[text] = json!("{");
        let answer = world.send(case, &[world.credential(case.who)], body.to_string()).await;
        answer.refused(400, "BAD_REQUEST");
        assert_eq!(answer.body["details"]["field"], text);
    }
    let unknown = "/api/agent/clusters/nowhere/nodes/register";
    let headers = [world.credential(Who::Joiner)];
    world.plane.send("POST", unknown, &headers, registration("x").to_string()).await.refused(401, "UNAUTHORIZED");
    assert_eq!(world.plane.view().await.revision(), before, "something was stored");
    // The token has lost no use by any of it.
    for name in ["1", "2", "3", "4", "5"] {
        world.plane.try_register(&world.node.cluster, &world.join, registration(name)).await.expect(201);
    }
    world.plane.try_register(&world.node.cluster, &world.join, registration("6")).await.refused(401, "UNAUTHORIZED");
}

/// Names in use, what is not there, and path objects before ranges.
#[tokio::test]
async fn states_are_judged_last() {
    let world = World::start().await;
    let (plane, cluster) = (&world.plane, &world.node.cluster);
    let before = plane.view().await.revision();
    let taken = plane.tenant("POST", "/api/clusters", json!({"name": "c", "pod_cidr": "10.0.0.0/16"})).await;
    taken.refused(409, "NAME_TAKEN");
    assert_eq!((&taken.body["details"]["field"], &taken.body["details"]["received"]), (&json!("name"), &json!("c")));
    let taken = plane.try_register(cluster, &world.join, registration("n")).await;
    taken.refused(409, "NAME_TAKEN");
    assert_eq!(taken.body["details"]["received"], "n");
    plane.operator("POST", "/api/admin/tenants", json!({"name": "acme"})).await.refused(409, "NAME_TAKEN");
    let path = format!("/api/clusters/{cluster}");
    let bad = json!({"name": "w", "replicas": 0, "command": ["x"]});
    plane.tenant("PUT", &format!("{path}/workloads/none"), bad).await.refused(404, "NOT_FOUND");
    for (method, rest) in [
        ("GET", "nodes/none"),
        ("DELETE", "nodes/none"),
        ("POST", "nodes/none/drain"),
        ("GET", "workloads/none"),
        ("DELETE", "workloads/none"),
    ] {
        plane.tenant(method, &format!("{path}/{rest}"), Value::Null).await.refused(404, "NOT_FOUND");
    }
    plane
        .agent(&world.node, "POST", "placements/none/report", json!({"state": "running"}))
        .await
        .refused(404, "NOT_FOUND");
    let word = json!({"state": "pausing"});
    plane.agent(&world.node, "POST", "placements/none/report", word).await.refused(404, "NOT_FOUND");
    plane.operator("POST", "/api/admin/tenants/none/keys", json!({})).await.refused(404, "NOT_FOUND");
    plane.operator("PATCH", "/api/admin/tenants/none", json!({"disabled": true})).await.refused(404, "NOT_FOUND");
    let patience = json!({"node_timeout_secs": 4});
    plane.operator("PATCH", "/api/admin/clusters/none", patience).await.refused(404, "NOT_FOUND");
    for (wait, status) in [("31", 400), ("-1", 400), ("x", 422), ("1.5", 422)] {
        let answer = plane.agent(&world.node, "GET", &format!("placements?wait_secs={wait}"), Value::Null).await;
        assert_eq!((answer.status, &answer.body["details"]["field"]), (status, &json!("wait_secs")), "{wait}");
    }
    assert_eq!(plane.view().await.revision(), before, "something was stored");
}

/// One connection takes every kind of refusal and serves the next request as if nothing had been.
#[tokio::test]
async fn a_connection_outlives_refusals() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = World::start().await;
    let quilt = std::sync::Arc::clone(&world.plane.quilt);
    let router = axum::Router::new().fallback(move |request| {
        let quilt = std::sync::Arc::clone(&quilt);
        async move { quilt.serve(request).await }
    });
    let server = crate::server::Server::new(super::api(&world.plane.replica), router);
    let (mut client, connection) = tokio::io::duplex(64 << 10);
    let serving = tokio::spawn(async move {
        server.serve_connection(connection, crate::identity::PeerCertificate(None)).await.is_ok()
    });
    let own = format!("x-api-key: {}\r\n", world.plane.key);
    let some = "x".repeat(300 << 10);
    let large = "x".repeat((4 << 20) + 1);
    let requests: [(&str, &str, &str, &str, u16); 10] = [
        ("POST", "/api/clusters", &own, "{", 400),
        ("GET", "/api/clusters", &own, "", 200),
        ("POST", "/api/clusters", &own, &large, 413),
        ("GET", "/api/clusters", &own, "", 200),
        ("POST", "/api/clusters", "", &some, 401),
        ("POST", "/api/clusters", "x-api-key: qk_no\r\n", &some, 401),
        ("POST", "/api/clusters/none/nothing", &own, &some, 404),
        ("PUT", "/api/clusters", &own, &some, 405),
        ("GET", "/api/clusters", &own, &some, 200),
        ("POST", "/api/clusters", &own, "{\"name\": 7}", 422),
    ];
    for (method, path, headers, body, status) in requests {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {}\r\n\r\n", body.len());
        let exchange = async {
            client.write_all(head.as_bytes()).await.expect("sent");
            client.write_all(body.as_bytes()).await.expect("sent");
            let mut answer = Vec::new();
            let mut length = None;
            loop {
                let mut buffer = [0; 4096];
                let count = client.read(&mut buffer).await.expect("received");
                assert!(count > 0, "{method} {path}: the connection was closed");
                answer.extend_from_slice(&buffer[..count]);
                let text = String::from_utf8_lossy(&answer).into_owned();
                let Some((head, rest)) = text.split_once("\r\n\r\n") else { continue };
                let known = length.get_or_insert_with(|| {
                    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
                    let found = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
                    found.expect("a length").1.parse::<usize>().expect("a number")
                });
                if rest.len() >= *known {
                    break text;
                }
            }
        };
        let answer = tokio::time::timeout(LONG, exchange).await.expect("answered in time");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {answer}");
    }
    drop(client);
    assert!(serving.await.expect("served"));
}
