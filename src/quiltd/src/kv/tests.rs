//! The service over a replica in memory: what is put is found, paged, watched, and kept from everybody else.

use std::time::Duration;

use futures::StreamExt;
use quilt_api::authn::{Secret, SecretKind};
use quilt_api::bootstrap::{ControlPlane, control_plane};
use quilt_proto::{Key, KeyPrefix, Op, ReplicaId, Txn};
use quilt_raft::{Consistency, Limit, Replica};
use tonic::{Code, Request, Status};

use super::Credentials;
use super::service::Service;
use super::wire::kv_server::Kv;
use super::wire::watch_request::What;
use super::wire::{
    DeleteRangeRequest, DeleteRequest, Event, GetRequest, PutRequest, RangeRequest, WatchRequest, event,
};

const DEADLINE: Duration = Duration::from_secs(10);

struct Fixture {
    replica: Replica,
    service: Service,
    admin: Secret,
}

impl Fixture {
    async fn new() -> Self {
        let replica = Replica::memory(ReplicaId(1)).await;
        let (admin, tenant) = (Secret::draw(SecretKind::AdminKey), Secret::draw(SecretKind::ApiKey));
        let first = ControlPlane {
            admin_key: admin.digest(),
            tenant_key: Some(tenant.digest()),
            pod_cidr: "10.244.0.0/16".into(),
            serving_ca_pem: String::new(),
        };
        control_plane(&replica, &first, DEADLINE).await.expect("the first objects are made");
        let credentials = Credentials::new(replica.clone());
        let (stop, stopping) = tokio::sync::watch::channel(false);
        tokio::spawn(credentials.clone().follow(stopping));
        // Listening goes on for as long as the test runs.
        std::mem::forget(stop);
        Self { service: Service::new(replica.clone(), credentials), replica, admin }
    }

    fn by<T>(&self, secret: &str, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value = format!("Bearer {secret}").parse().expect("ASCII");
        request.metadata_mut().insert("authorization", value);
        request
    }

    fn asked<T>(&self, message: T) -> Request<T> {
        self.by(self.admin.plain(), message)
    }

    async fn put(&self, key: &str, expected_revision: Option<u64>) -> Result<u64, Status> {
        let put = PutRequest { key: key.into(), value: "x".into(), expected_revision };
        Ok(self.service.put(self.asked(put)).await?.into_inner().revision)
    }

    async fn delete(&self, key: &str) -> u64 {
        let delete = DeleteRequest { key: key.into(), expected_revision: None };
        self.service.delete(self.asked(delete)).await.expect("deleted").into_inner().revision
    }

    async fn get(&self, key: &str, revision: u64) -> Option<u64> {
        let get = GetRequest { key: key.into(), revision, ..GetRequest::default() };
        let reply = self.service.get(self.asked(get)).await.expect("read").into_inner();
        reply.item.map(|item| item.mod_revision)
    }
}

/// A put is found at its revision and not before it; compares are held; a deletion is one, and history still reads.
#[tokio::test]
async fn keys_are_put_compared_and_deleted() {
    let kv = Fixture::new().await;
    let first = kv.put("a", Some(0)).await.expect("absent");
    assert_eq!(kv.put("a", Some(0)).await.expect_err("present").code(), Code::FailedPrecondition);
    let second = kv.put("a", Some(first)).await.expect("unchanged");
    assert_eq!(kv.get("a", 0).await, Some(second));
    assert_eq!(kv.get("a", first).await, Some(first));
    kv.delete("a").await;
    assert_eq!(kv.get("a", 0).await, None);
    assert_eq!(kv.get("a", second).await, Some(second));
    for bad in ["", "a\0b"] {
        assert_eq!(kv.put(bad, None).await.expect_err("no key").code(), Code::InvalidArgument);
    }
}

/// Pages give every key under a prefix once, in order, the prefix itself included, at one revision.
#[tokio::test]
async fn ranges_are_paged() {
    let kv = Fixture::new().await;
    for key in ["p", "p/1", "p/2", "p/3", "q", "o"] {
        kv.put(key, None).await.expect("put");
    }
    let (mut keys, mut after, mut revision) = (Vec::new(), String::new(), 0);
    loop {
        let range = RangeRequest { prefix: "p".into(), after: after.clone(), limit: 2, revision, consistency: 0 };
        let page = kv.service.range(kv.asked(range)).await.expect("read").into_inner();
        revision = page.revision;
        keys.extend(page.items.into_iter().map(|item| item.key));
        after = keys.last().cloned().expect("a first page");
        kv.put("p/9", None).await.expect("a later key is not in these pages");
        if !page.more {
            break;
        }
    }
    assert_eq!(keys, ["p", "p/1", "p/2", "p/3"]);
    let all = kv.service.range(kv.asked(RangeRequest::default())).await.expect("read").into_inner();
    assert_eq!(all.items.len(), 7);
    assert!(!all.more);
}

/// A range goes as far as it is allowed, says where to go on, and leaves what does not begin so.
#[tokio::test]
async fn ranges_are_deleted_in_steps() {
    let fixture = Fixture::new().await;
    for key in ["a", "b", "b1", "b2", "b3", "c"] {
        fixture.put(key, None).await.expect("stored");
    }
    let mut from = String::new();
    let mut deleted = Vec::new();
    loop {
        let request = DeleteRangeRequest { prefix: "b".into(), from, limit: 2 };
        let reply = fixture.service.delete_range(fixture.asked(request)).await.expect("deleted").into_inner();
        deleted.push(reply.deleted);
        from = reply.next;
        if from.is_empty() {
            break;
        }
    }
    assert_eq!(deleted, [2, 2]);
    for (key, there) in [("a", true), ("b", false), ("b3", false), ("c", true)] {
        assert_eq!(fixture.get(key, 0).await.is_some(), there, "{key}");
    }
    let behind = DeleteRangeRequest { prefix: "b".into(), from: "c".into(), limit: 0 };
    let refused = fixture.service.delete_range(fixture.asked(behind)).await.expect_err("nothing lies there");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let rest = fixture.service.delete_range(fixture.asked(DeleteRangeRequest::default())).await.expect("deleted");
    assert_eq!(rest.into_inner().deleted, 2);
}

/// A watch begins behind the given revision, gives each change under its prefix once and in order, and nothing else.
#[tokio::test]
async fn watches_are_narrowed_to_their_prefix() {
    let kv = Fixture::new().await;
    let before = kv.put("w/1", None).await.expect("put");
    let watch = WatchRequest { what: Some(What::Prefix("w/".into())), after_revision: before };
    let mut replies = kv.service.watch(kv.asked(watch)).await.expect("watching").into_inner();
    let opened = replies.next().await.expect("open").expect("open");
    assert!(opened.events.is_empty());
    let mut expected = vec![(event::Kind::Put, kv.put("w/2", None).await.expect("put"))];
    kv.put("v", None).await.expect("put");
    expected.push((event::Kind::Delete, kv.delete("w/1").await));
    let mut seen: Vec<Event> = Vec::new();
    while seen.len() < expected.len() {
        seen.extend(replies.next().await.expect("open").expect("events").events);
    }
    let seen: Vec<_> =
        seen.iter().map(|event| (event.kind(), event.item.as_ref().map_or(0, |item| item.mod_revision))).collect();
    assert_eq!(seen, expected);
}

/// Without the admin key, or with a tenant's, nothing is answered; and a key that is taken away stops being good.
#[tokio::test]
async fn only_the_operator_is_answered() {
    let kv = Fixture::new().await;
    let put = || PutRequest { key: "a".into(), value: "x".into(), expected_revision: None };
    let code = |answer: Result<_, Status>| answer.map(drop).map_err(|status| status.code());
    assert_eq!(code(kv.service.put(Request::new(put())).await), Err(Code::Unauthenticated));
    for secret in [Secret::draw(SecretKind::AdminKey), Secret::draw(SecretKind::ApiKey)] {
        assert_eq!(code(kv.service.put(kv.by(secret.plain(), put())).await), Err(Code::Unauthenticated));
    }
    for _ in 0..3 {
        assert_eq!(code(kv.service.put(kv.asked(put())).await), Ok(()));
    }
    let credential = Key::new("", "quilt.sh", "credentials", "", kv.admin.digest().as_str()).expect("valid");
    let revoke = Txn::new(Vec::new(), vec![Op::delete(&credential)]);
    kv.replica.propose(revoke, DEADLINE).await.expect("revoked");
    let gone = async {
        while kv.service.put(kv.asked(put())).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, gone).await.expect("a revoked key stops being good");
}

/// What is put here stands in no cluster that a directory entry names.
#[tokio::test]
async fn keys_are_in_no_cluster_of_the_directory() {
    let kv = Fixture::new().await;
    kv.put("a", None).await.expect("put");
    let view = kv.replica.read(Consistency::Linearizable, DEADLINE).await.expect("read");
    let limit = Limit { records: 100, bytes: 1 << 20 };
    let clusters = KeyPrefix::resource("", "quilt.sh", "clusters").expect("valid");
    let clusters = view.scan(&clusters, None, limit).expect("scan").records;
    assert!(!clusters.is_empty());
    for (cluster, _) in clusters {
        let all = KeyPrefix::cluster(cluster.parts().name).expect("valid");
        let keys = view.scan(&all, None, limit).expect("scan").records;
        assert!(keys.iter().all(|(key, _)| key.parts().name != "a"));
    }
}
