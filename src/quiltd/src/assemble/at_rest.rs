//! What a replica's data directory shows to somebody who reads its files: no data of a Secret, at any time.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quilt_api::authn::{Secret, SecretKind};
use quilt_api::bootstrap::{ControlPlane, control_plane};
use quilt_api::{Api, ApiOptions, RootKey, Server};
use quilt_proto::{ClusterId, ReplicaId};
use quilt_raft::{Consistency, Options, Parts, Replica};
use quilt_storage::{Home, Identity};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(20);

/// Text that no compressor shortens and nobody else writes.
fn marker() -> String {
    let random: Vec<u8> = (0..3).flat_map(|_| uuid::Uuid::new_v4().into_bytes()).collect();
    STANDARD.encode(random)
}

/// Whether any piece of `text` stands in a file below `dir`. Files are compressed block by block, so pieces do.
fn stands_in(dir: &Path, text: &str) -> bool {
    let pieces: Vec<&[u8]> = text.as_bytes().windows(12).collect();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).expect("listed").map(|entry| entry.expect("an entry").path()));
            continue;
        }
        // A file that has gone meanwhile holds nothing.
        let bytes = std::fs::read(&path).unwrap_or_default();
        if bytes.windows(12).any(|window| pieces.contains(&window)) {
            return true;
        }
    }
    false
}

struct Fixture {
    home: Home,
    replica: Replica,
    server: Server,
    admin: Secret,
}

impl Fixture {
    async fn open(dir: &Path) -> Self {
        let home = Home::open(dir, Identity { cluster: "test".into(), replica: 1 }).expect("a data directory");
        let options = Options::new(ReplicaId(1), "test");
        let replica = Replica::open(options, Parts::of(&home), None).await.expect("opens");
        if !replica.admin().is_initialized().await.expect("known") {
            let members = BTreeMap::from([(ReplicaId(1), String::new())]);
            replica.admin().initialize(members).await.expect("founded");
        }
        replica.ready().wait_for(|ready| *ready).await.expect("ready");
        let admin = Secret::draw(SecretKind::AdminKey);
        let first = ControlPlane {
            admin_key: admin.digest(),
            tenant_key: None,
            pod_cidr: "10.244.0.0/16".into(),
            serving_ca_pem: String::new(),
        };
        control_plane(&replica, &first, DEADLINE).await.expect("the first objects are made");
        let api = Api::new(ApiOptions::new("test", RootKey::new([7; 32])), replica.clone());
        let server = Server::new(api, axum::Router::new());
        Self { home, replica, server, admin }
    }

    async fn send(&self, method: &str, path: &str, body: &Value) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/namespaces/default/{path}"))
            .header("authorization", format!("Bearer {}", self.admin.plain()))
            .header("content-type", if method == "PATCH" { "application/merge-patch+json" } else { "application/json" })
            .body(Body::from(if body.is_null() { String::new() } else { body.to_string() }))
            .expect("a request");
        let (parts, body) = self.server.handle(request).await.expect("an answer").into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
        assert!(parts.status.is_success(), "{method} {path}: {}", String::from_utf8_lossy(&bytes));
        serde_json::from_slice(&bytes).expect("JSON")
    }

    /// Lets go of history, and takes a snapshot of what remains.
    async fn compact(&self) {
        let view = self.replica.read(Consistency::Linearizable, DEADLINE).await.expect("a view");
        let admin = self.replica.admin();
        admin.compact(&ClusterId::built_in(), view.revision()).await.expect("compacted");
        admin.snapshot().await.expect("a snapshot");
        admin.cut_log(0).await.expect("cut");
    }

    async fn close(self) {
        self.replica.shutdown().await;
        drop((self.server, self.replica, self.home));
    }
}

/// Secrets written in every way there is: their values stand in no file of the replica, whether it has just written
/// them, has flushed, compacted and snapshotted them, changed and deleted them, or was restarted. What is no secret does
/// stand there, so the search would find it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_stand_in_no_file() {
    let dir = std::env::temp_dir().join(format!("quiltd-at-rest-{}", uuid::Uuid::new_v4()));
    let plane = Fixture::open(&dir).await;
    let (open, secrets) = (marker(), [marker(), marker(), marker(), marker()]);
    let check = |when: &str| {
        for secret in &secrets {
            for form in [secret.clone(), STANDARD.encode(secret)] {
                assert!(!stands_in(&dir, &form), "a secret is readable {when}");
            }
        }
        assert!(stands_in(&dir, &open), "the search finds what is no secret, {when}");
    };
    let [posted, patched, applied, put] = &secrets;
    plane.send("POST", "configmaps", &json!({"metadata": {"name": "open"}, "data": {"k": open}})).await;
    plane.send("POST", "secrets", &json!({"metadata": {"name": "s"}, "stringData": {"k": posted}})).await;
    plane.send("PATCH", "secrets/s", &json!({"data": {"more": STANDARD.encode(patched)}})).await;
    let manifest = json!({"metadata": {"name": "t"}, "stringData": {"k": applied}});
    let mut with_note = manifest.clone();
    with_note["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": manifest.to_string()});
    let mut stored = plane.send("POST", "secrets", &with_note).await;
    stored["data"]["put"] = json!(STANDARD.encode(put));
    let stored = plane.send("PUT", "secrets/t", &stored).await;
    assert_eq!(stored["data"]["k"], STANDARD.encode(applied));
    check("after writes");
    plane.compact().await;
    check("after compaction and a snapshot");
    plane.close().await;
    check("after a stop");
    let plane = Fixture::open(&dir).await;
    plane.compact().await;
    check("after a restart");
    plane.close().await;
    std::fs::remove_dir_all(&dir).expect("removed");
}
