//! The scheduler over a real single replica: Pods and nodes in by transactions, bindings and reasons out.

use std::time::Duration;

use quilt_proto::{KeyPrefix, Op, ReplicaId, Txn};
use quilt_raft::{Consistency, Decision, Limit, Replica};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::rows::{DEADLINE, key, put};
use crate::Scheduler;

fn node() -> Value {
    json!({"metadata": {"labels": {"quilt.sh/agent": "true"}}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
}

fn pod(owner: &str) -> Value {
    json!({"metadata": {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "uid": owner,
        "controller": true}]}, "spec": {"containers": [{"name": "main"}]}, "status": {"phase": "Pending"}})
}

async fn propose(replica: &Replica, ops: Vec<Op>) {
    let decision = replica.propose(Txn::new(Vec::new(), ops), DEADLINE).await.expect("proposed");
    assert!(matches!(decision, Decision::Applied { .. }));
}

async fn list(replica: &Replica, resource: &str) -> Vec<Value> {
    let view = replica.read(Consistency::Linearizable, DEADLINE).await.expect("read");
    let prefix = KeyPrefix::resource("default", "", resource).expect("valid");
    let page = view.scan(&prefix, None, Limit { records: 10_000, bytes: 64 << 20 }).expect("readable");
    page.records.into_iter().map(|(_, record)| serde_json::from_slice(&record.value).expect("json")).collect()
}

async fn until(what: &str, done: impl AsyncFn() -> bool) {
    let waiting = async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

/// Pods wait with a reason while there is no node, are bound evenly as soon as there are, each with its own index; a
/// removed node's successor gets what waits then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_wait_with_a_reason_and_are_bound_when_nodes_come() {
    let replica = Replica::memory(ReplicaId(1)).await;
    let scheduler = Scheduler::new(replica.clone());
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async move {
        let _ = stopped.await;
    };
    let running = tokio::spawn(scheduler.clone().run(shutdown));

    propose(&replica, (0..6).map(|index| put(&key("pods", &format!("p{index}")), pod("web"))).collect()).await;
    until("every Pod says why it waits", async || {
        list(&replica, "pods").await.iter().all(|pod| {
            let condition = &pod["status"]["conditions"][0];
            condition["reason"] == "Unschedulable" && condition["message"] == "no nodes available to schedule pods"
        })
    })
    .await;
    until("Events say so too", async || {
        list(&replica, "events").await.iter().filter(|event| event["reason"] == "FailedScheduling").count() == 6
    })
    .await;

    let mut cordoned = node();
    cordoned["spec"]["unschedulable"] = json!(true);
    propose(&replica, vec![put(&key("nodes", "c"), cordoned)]).await;
    until("the reason follows the cluster", async || {
        list(&replica, "pods").await.iter().all(|pod| {
            pod["status"]["conditions"][0]["message"] == "0/1 nodes are available: 1 node(s) were unschedulable."
        })
    })
    .await;

    propose(&replica, vec![put(&key("nodes", "b"), node()), put(&key("nodes", "a"), node())]).await;
    scheduler.force("default").await.expect("runs here");
    until("every Pod is bound", async || {
        list(&replica, "pods").await.iter().all(|pod| pod["spec"]["nodeName"].is_string())
    })
    .await;
    let pods = list(&replica, "pods").await;
    let places: Vec<&str> = pods.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
    assert_eq!(places, ["b", "a", "b", "a", "b", "a"], "by creation, in order");
    let mut indexes: Vec<&str> =
        pods.iter().filter_map(|pod| pod["metadata"]["annotations"]["quilt.sh/replica-index"].as_str()).collect();
    indexes.sort_unstable();
    assert_eq!(indexes, ["0", "1", "2", "3", "4", "5"]);
    assert!(pods.iter().all(|pod| pod["status"]["conditions"][0]["status"] == "True"));
    until("Events tell of it", async || {
        list(&replica, "events").await.iter().filter(|event| event["reason"] == "Scheduled").count() == 6
    })
    .await;
    assert!(scheduler.force("nowhere").await.is_err());
    stop.send(()).expect("still running");
    running.await.expect("ended well");
    replica.shutdown().await;
}
