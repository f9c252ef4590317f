//! A control plane of one replica with cluster `default`, one more cluster of a tenant, and keys for all of them.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use quilt_api::authn::Digest;
use quilt_api::authn::credential::{admin_key_record, api_key_record};
use quilt_api::directory::Cluster;
use quilt_api::{Api, ApiOptions, RootKey, Server};
use quilt_proto::{Key, Op, ReplicaId, Txn};
use quilt_raft::{Decision, Replica};
use serde_json::{Value, json};

pub(crate) const ADMIN: &str = "qa_admin";
pub(crate) const TENANT: &str = "qk_tenant";
pub(crate) const OTHER: &str = "qk_other";

/// A running control plane.
pub(crate) struct Plane {
    pub(crate) server: Server,
    pub(crate) replica: Replica,
}

/// An answer, read whole.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    pub(crate) bytes: Bytes,
}

impl Answer {
    /// The answer, which has to have this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.bytes));
        self.body
    }

    /// The Status of a refusal, whose parts have to agree with each other and with the HTTP answer.
    #[track_caller]
    pub(crate) fn refusal(self, status: u16, reason: &str) -> Value {
        let body = self.expect(status);
        assert_eq!(body["kind"], "Status", "{body}");
        assert_eq!(body["apiVersion"], "v1");
        assert_eq!(body["status"], "Failure");
        assert_eq!(body["code"], status);
        assert_eq!(body["reason"], reason, "{body}");
        body
    }
}

fn cluster(id: &str, tenant: &str) -> Cluster {
    Cluster {
        id: id.into(),
        tenant_id: tenant.into(),
        name: id.into(),
        pod_cidr: "10.244.0.0/16".into(),
        node_cidr_prefix: 24,
        node_timeout_secs: 40,
        placement_grace_secs: 30,
        service_cidr: "10.96.0.0/12".into(),
        load_balancer_cidr: "203.0.113.0/24".into(),
        created_at: 0,
    }
}

fn record(resource: &str, name: &str, value: &Value) -> Op {
    let key = Key::new("", "quilt.sh", resource, "", name).expect("a key");
    Op::put(&key, value.to_string())
}

impl Plane {
    pub(crate) async fn start() -> Self {
        Self::start_with(ApiOptions::new("test", RootKey::new([7; 32]))).await
    }

    pub(crate) async fn start_with(options: ApiOptions) -> Self {
        let replica = Replica::memory(ReplicaId(1)).await;
        let digest = |key: &str| Digest::of(key).as_str().to_owned();
        let tenant = |id: &str| json!({"id": id, "name": id, "disabled": false, "token_epoch": 0, "created_at": 0});
        let value = |cluster: Cluster| serde_json::to_value(cluster).expect("serializes");
        let ops = vec![
            record("tenants", "t1", &tenant("t1")),
            record("tenants", "t2", &tenant("t2")),
            record("credentials", &digest(ADMIN), &admin_key_record("k0", 0)),
            record("credentials", &digest(TENANT), &api_key_record("t1", "k1", 0)),
            record("credentials", &digest(OTHER), &api_key_record("t2", "k2", 0)),
            record("clusters", "default", &value(cluster("default", "default"))),
            record("clusters", "c1", &value(cluster("c1", "t1"))),
        ];
        let decision = replica.propose(Txn::new(Vec::new(), ops), Duration::from_secs(10)).await.expect("stored");
        assert!(matches!(decision, Decision::Applied { .. }));
        let api = Api::new(options, replica.clone());
        let plane = Self { server: Server::new(api, axum::Router::new()), replica };
        for name in ["default", "kube-system"] {
            plane.post("/api/v1/namespaces", &json!({"metadata": {"name": name}})).await.expect(201);
        }
        plane
    }

    /// Sends any request.
    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.server.handle(request).await.expect("an answer")
    }

    /// A request of the admin.
    pub(crate) fn request(method: Method, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(path).header("authorization", format!("Bearer {ADMIN}"))
    }

    pub(crate) async fn call(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.send(request).await.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        assert!(parts.headers.contains_key("audit-id"), "every answer has an audit id");
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status.as_u16(), headers: parts.headers, body, bytes }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Self::request(Method::GET, path).body(Body::empty()).expect("a request")).await
    }

    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> Answer {
        let request = Self::request(Method::GET, path).header("accept", accept);
        self.call(request.body(Body::empty()).expect("a request")).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.with_body(Method::POST, path, "application/json", body.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.with_body(Method::PUT, path, "application/json", body.to_string()).await
    }

    pub(crate) async fn patch(&self, path: &str, content_type: &str, body: &Value) -> Answer {
        self.with_body(Method::PATCH, path, content_type, body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str, options: &Value) -> Answer {
        let body = if options.is_null() { String::new() } else { options.to_string() };
        self.with_body(Method::DELETE, path, "application/json", body).await
    }

    pub(crate) async fn with_body(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Self::request(method, path);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        self.call(request.body(body.into()).expect("a request")).await
    }

    /// Opens a watch.
    pub(crate) async fn watch(&self, path: &str) -> Watch {
        let request = Self::request(Method::GET, path).body(Body::empty()).expect("a request");
        let response = self.send(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        Watch { body: response.into_body(), buffer: Vec::new() }
    }
}

/// An open watch.
pub(crate) struct Watch {
    body: Body,
    buffer: Vec<u8>,
}

impl Watch {
    /// The next event; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a line of JSON"));
            }
            let frame = tokio::time::timeout(Duration::from_secs(20), self.body.frame());
            let frame = frame.await.expect("an event in time")?.expect("no error");
            self.buffer.extend_from_slice(&frame.into_data().expect("data"));
        }
    }

    /// Type and name of the next event.
    pub(crate) async fn named(&mut self) -> (String, String) {
        let event = self.next().await.expect("an event");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }

    /// That the stream ends here.
    pub(crate) async fn ends(&mut self) -> bool {
        let frame = tokio::time::timeout(Duration::from_secs(20), self.body.frame());
        self.buffer.is_empty() && frame.await.expect("an end in time").is_none()
    }

    /// That nothing comes for a while.
    pub(crate) async fn is_silent(&mut self) -> bool {
        self.buffer.is_empty() && tokio::time::timeout(Duration::from_millis(150), self.body.frame()).await.is_err()
    }
}

/// A ConfigMap.
pub(crate) fn config_map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"a": "b"}})
}

/// A Pod of one container.
pub(crate) fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": "busybox", "ports": [{"containerPort": 80}]}]}})
}

/// A Deployment of `replicas`.
pub(crate) fn deployment(name: &str, replicas: u32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "busybox:1"}]}}}})
}

pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";
pub(crate) const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
