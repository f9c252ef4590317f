//! The Quilt surface over one in-memory replica: the same code as in production over another store.
//!
//! Controllers and scheduler are other crates; where a test needs placements, [`Plane::place`] writes what they would.

mod bad_input;
mod flow;
pub(crate) mod museum;
mod nodes;
mod once;
mod races;
mod refusals;
mod shapes;
mod workloads;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use quilt_proto::{Compare, ReplicaId, Txn};
use quilt_raft::{Consistency, Replica, View};
use serde_json::{Value, json};

use super::Quilt;
use crate::authn::secret::{Secret, SecretKind, fresh_id};
use crate::bootstrap::{ControlPlane, control_plane};
use crate::context::{Api, ApiOptions, RootKey};
use crate::server::Server;
use crate::store::{NODES, PODS, Stored, WORKLOADS, put};

pub(super) const LONG: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Answer {
    /// The body, the status being `status`.
    #[track_caller]
    pub(super) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// The error code of a complete envelope with this status.
    #[track_caller]
    pub(super) fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.body["error_code"].as_str()), (status, Some(code)), "{}", self.body);
        let fields = self.body.as_object().expect("object");
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        assert_eq!(names, ["details", "error", "error_code", "hint", "request_id", "retry_after"]);
        assert!(self.body["error"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!(self.headers["x-request-id"].to_str().ok(), self.body["request_id"].as_str());
        for (field, kinds) in [("details", "object"), ("hint", "string"), ("retry_after", "number")] {
            let kind = super::fields::type_name(&self.body[field]);
            assert!(kind == kinds || kind == "null", "{field} is {kind}");
        }
    }
}

/// A control plane of one replica.
pub(super) struct Plane {
    pub(super) quilt: Arc<Quilt>,
    pub(super) replica: Replica,
    pub(super) admin: String,
    pub(super) key: String,
}

/// A registered node.
#[derive(Clone, Debug)]
pub(super) struct Joined {
    pub(super) cluster: String,
    pub(super) id: String,
    pub(super) token: String,
    pub(super) answer: Value,
}

impl Joined {
    pub(super) fn path(&self, rest: &str) -> String {
        format!("/api/agent/clusters/{}/nodes/{}/{rest}", self.cluster, self.id)
    }
}

impl Plane {
    pub(super) async fn start() -> Self {
        let replica = Replica::memory(ReplicaId(1)).await;
        serve_heartbeats(&replica);
        replica.serve("reconcile", Arc::new(|_| async { Ok(Bytes::from_static(b"{}")) }.boxed()));
        let (admin, tenant) = (Secret::draw(SecretKind::AdminKey), Secret::draw(SecretKind::ApiKey));
        let first = ControlPlane {
            admin_key: admin.digest(),
            tenant_key: Some(tenant.digest()),
            pod_cidr: "10.244.0.0/16".into(),
            serving_ca_pem: "-----BEGIN CERTIFICATE-----\n".into(),
        };
        control_plane(&replica, &first, LONG).await.expect("bootstrap");
        control_plane(&replica, &first, LONG).await.expect("bootstrap again changes nothing");
        let quilt = Arc::new(Quilt::new(api(&replica)));
        Self { quilt, replica, admin: admin.plain().into(), key: tenant.plain().into() }
    }

    /// The same state through another replica's surface: its requests wait for none of this one's.
    pub(super) fn other(&self) -> Self {
        let quilt = Arc::new(Quilt::new(api(&self.replica)));
        Self { quilt, replica: self.replica.clone(), admin: self.admin.clone(), key: self.key.clone() }
    }

    /// The Kubernetes surface over the same state.
    pub(super) fn kubernetes(&self) -> Server {
        Server::new(api(&self.replica), axum::Router::new())
    }

    /// Sends a request with these headers.
    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.quilt.serve(request.body(body.into()).expect("request")).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.expect("body").to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") };
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    /// As tenant `default`.
    pub(super) async fn tenant(&self, method: &str, path: &str, body: Value) -> Answer {
        self.send(method, path, &[("X-Api-Key", &self.key)], text(&body)).await
    }

    /// As the operator.
    pub(super) async fn operator(&self, method: &str, path: &str, body: Value) -> Answer {
        self.send(method, path, &[("X-Quilt-Admin-Key", &self.admin)], text(&body)).await
    }

    /// As the agent of `node`.
    pub(super) async fn agent(&self, node: &Joined, method: &str, rest: &str, body: Value) -> Answer {
        self.send(method, &node.path(rest), &[("X-Quilt-Node-Token", &node.token)], text(&body)).await
    }

    pub(super) async fn cluster(&self, name: &str, pod_cidr: &str, prefix: u8) -> String {
        let body = json!({"name": name, "pod_cidr": pod_cidr, "node_cidr_prefix": prefix});
        let cluster = self.tenant("POST", "/api/clusters", body).await.expect(201);
        cluster["id"].as_str().expect("id").into()
    }

    pub(super) async fn join_token(&self, cluster: &str, max_uses: u32) -> String {
        let path = format!("/api/clusters/{cluster}/join-tokens");
        let token = self.tenant("POST", &path, json!({"max_uses": max_uses})).await.expect(201);
        token["join_token"].as_str().expect("token").into()
    }

    pub(super) async fn try_register(&self, cluster: &str, token: &str, body: Value) -> Answer {
        let path = format!("/api/agent/clusters/{cluster}/nodes/register");
        self.send("POST", &path, &[("X-Quilt-Join-Token", token)], text(&body)).await
    }

    pub(super) async fn register(&self, cluster: &str, name: &str, extra: Value) -> Joined {
        let token = self.join_token(cluster, 1).await;
        let mut body = registration(name);
        body.as_object_mut().expect("object").extend(extra.as_object().cloned().unwrap_or_default());
        let answer = self.try_register(cluster, &token, body).await.expect(201);
        Joined {
            cluster: cluster.into(),
            id: answer["node"]["id"].as_str().expect("id").into(),
            token: answer["node_token"].as_str().expect("token").into(),
            answer,
        }
    }

    pub(super) async fn ready(&self, node: &Joined) {
        self.agent(node, "POST", "heartbeat", json!({"state": "ready"})).await.expect(200);
    }

    pub(super) async fn view(&self) -> View {
        self.replica.read(Consistency::Linearizable, LONG).await.expect("view")
    }

    /// What the controllers write for every Workload of `cluster`: slots, their Pods, and the bind to `node`.
    pub(super) async fn place(&self, cluster: &str, node: Option<&Joined>) {
        let view = self.view().await;
        let node = node.map(|node| NODES.by_uid(&view, cluster, &node.id).expect("read").expect("node"));
        for mut workload in WORKLOADS.list(&view, cluster, |_| true).expect("read") {
            let replicas = workload.value["spec"]["replicas"].as_u64().expect("replicas");
            let old = workload.value["status"]["slots"].as_array().cloned().unwrap_or_default();
            let (mut slots, mut ops) = (Vec::new(), Vec::new());
            for index in 0..replicas {
                if let Some(slot) = old.iter().find(|slot| slot["index"] == index) {
                    slots.push(slot.clone());
                    continue;
                }
                let name = format!("{}-{}", workload.name(), &fresh_id()[..8]);
                let id = fresh_id();
                slots.push(json!({"index": index, "placementId": id, "podName": name}));
                let mut spec = json!({"containers": [{"name": "main", "image": "i"}]});
                let mut status = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
                    "reason": "Unschedulable", "message": "0/0 nodes are available"}]});
                if let Some(node) = &node {
                    spec["nodeName"] = json!(node.name());
                    status = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]});
                }
                let key = PODS.key(cluster, workload.namespace(), &name).expect("key");
                let pod = json!({"metadata": {"name": name, "namespace": workload.namespace(), "uid": fresh_id(),
                    "creationTimestamp": crate::store::rfc3339(self.replica.wall_ms()),
                    "annotations": {"quilt.sh/placement-id": id, "quilt.sh/replica-index": index.to_string()},
                    "ownerReferences": [{"apiVersion": "quilt.sh/v1", "kind": "Workload", "name": workload.name(),
                        "uid": workload.uid(), "controller": true}]},
                    "spec": spec, "status": status});
                ops.push(put(&key, &pod));
            }
            workload.value["status"]["slots"] = json!(slots);
            workload.value["status"]["observed_generation"] = workload.value["metadata"]["generation"].clone();
            ops.push(put(&workload.key, &workload.value));
            self.replica.propose(Txn::new(vec![], ops), LONG).await.expect("proposed");
        }
    }

    /// Makes a workload on `node`, without waiting for the two seconds nobody fills here.
    pub(super) async fn workload(&self, cluster: &str, body: Value, node: Option<&Joined>) -> Value {
        let path = format!("/api/clusters/{cluster}/workloads");
        let (made, ()) = tokio::join!(self.tenant("POST", &path, body), async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.place(cluster, node).await;
        });
        made.expect(201)
    }

    pub(super) async fn pods(&self, cluster: &str) -> Vec<Stored> {
        PODS.list(&self.view().await, cluster, |_| true).expect("read")
    }

    /// Writes an object as a Kubernetes client would.
    pub(super) async fn store(&self, stored: &Stored) {
        self.replica.propose(Txn::new(vec![], vec![put(&stored.key, &stored.value)]), LONG).await.expect("proposed");
    }

    /// Makes an object as a Kubernetes client would.
    pub(super) async fn make(&self, shelf: crate::store::Shelf, cluster: &str, mut value: Value) -> String {
        let uid = fresh_id();
        value["metadata"]["uid"] = json!(uid);
        value["metadata"]["creationTimestamp"] = json!(crate::store::rfc3339(self.replica.wall_ms()));
        let namespace = value["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let name = value["metadata"]["name"].as_str().expect("name").to_owned();
        let key = shelf.key(cluster, &namespace, &name).expect("key");
        let txn = Txn::new(vec![Compare::absent(&key)], vec![put(&key, &value)]);
        self.replica.propose(txn, LONG).await.expect("proposed");
        uid
    }
}

fn api(replica: &Replica) -> Arc<Api> {
    Api::new(ApiOptions::new("0.1.0", RootKey::new([7; 32])), replica.clone())
}

pub(super) fn registration(name: &str) -> Value {
    json!({"name": name, "public_ip": "203.0.113.10", "private_ip": "10.0.0.10", "agent_version": "agent-build",
        "labels": {"suite": "control-plane"}, "bridge_name": "quilt0", "dns_port": 1053, "egress_limit_mbit": 1000,
        "gpu_devices": []})
}

fn text(body: &Value) -> String {
    if body.is_null() { String::new() } else { body.to_string() }
}

/// The leader's table of heartbeats, as small as it can be.
fn serve_heartbeats(replica: &Replica) {
    let table: Arc<Mutex<BTreeMap<(String, String), u64>>> = Arc::default();
    let clock = replica.clone();
    replica.serve(
        "heartbeats",
        Arc::new(move |request: Bytes| {
            let request: Value = serde_json::from_slice(&request).expect("JSON");
            let now = clock.wall_ms() / 1000;
            let key = |node: &Value| {
                (node["cluster"].as_str().expect("cluster").to_owned(), node["node"].as_str().expect("node").to_owned())
            };
            let mut table = table.lock();
            for node in request["beat"].as_array().into_iter().flatten() {
                table.insert(key(node), now);
            }
            let last: Vec<Option<u64>> =
                request["last"].as_array().into_iter().flatten().map(|node| table.get(&key(node)).copied()).collect();
            let answer = json!({"last": last}).to_string();
            async move { Ok(Bytes::from(answer)) }.boxed()
        }),
    );
}
