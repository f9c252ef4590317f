//! Controllers over a real single replica: objects in by transactions, the rest happens by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quilt_controllers::{Controllers, plan};
use quilt_proto::{Compare, Event, Key, KeyPrefix, Op, ReplicaId, Revision, Txn};
use quilt_raft::{Consistency, Decision, Limit, Replica};
use serde_json::{Value, json};
use tokio::sync::oneshot;

const DEADLINE: Duration = Duration::from_secs(60);

struct Bench {
    replica: Replica,
    controllers: Controllers,
    stop: oneshot::Sender<()>,
    running: tokio::task::JoinHandle<()>,
}

fn key(group: &str, resource: &str, name: &str) -> Key {
    let namespace = if resource == "nodes" { "" } else { "default" };
    Key::new("default", group, resource, namespace, name).expect("valid")
}

impl Bench {
    async fn start() -> Self {
        let replica = Replica::memory(ReplicaId(1)).await;
        let controllers = Controllers::new(replica.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move {
            let _ = stopped.await;
        };
        let running = tokio::spawn(controllers.clone().run(shutdown));
        Self { replica, controllers, stop, running }
    }

    async fn put(&self, key: &Key, mut value: Value) {
        value["metadata"]["name"] = json!(key.parts().name);
        value["metadata"]["namespace"] = json!(key.parts().namespace);
        if value["metadata"]["uid"].is_null() {
            value["metadata"]["uid"] = json!(format!("uid-{}", key.parts().name));
        }
        if value["metadata"]["creationTimestamp"].is_null() {
            value["metadata"]["creationTimestamp"] = json!("2026-01-08T10:00:00Z");
        }
        let txn = Txn::new(Vec::new(), vec![plan::put(key, &value, Bytes::new(), 0)]);
        let decision = self.replica.propose(txn, DEADLINE).await.expect("proposed");
        assert!(matches!(decision, Decision::Applied { .. }));
    }

    async fn get(&self, key: &Key) -> Option<(Revision, Value)> {
        let view = self.replica.read(Consistency::Linearizable, DEADLINE).await.expect("read");
        let record = view.get(key).expect("readable")?;
        Some((Revision::new(record.mod_revision), serde_json::from_slice(&record.value).expect("json")))
    }

    async fn list(&self, group: &str, resource: &str) -> Vec<(Key, Revision, Value)> {
        let view = self.replica.read(Consistency::Linearizable, DEADLINE).await.expect("read");
        let prefix = KeyPrefix::resource("default", group, resource).expect("valid");
        let page = view.scan(&prefix, None, Limit { records: 10_000, bytes: 64 << 20 }).expect("readable");
        let parse = |(key, record): (Key, quilt_proto::Record)| {
            (key, Revision::new(record.mod_revision), serde_json::from_slice(&record.value).expect("json"))
        };
        page.records.into_iter().map(parse).collect()
    }

    /// Changes an object until nobody else has changed it meanwhile.
    async fn change(&self, key: &Key, change: impl Fn(&mut Value)) {
        loop {
            let (revision, mut value) = self.get(key).await.expect("present");
            change(&mut value);
            let txn = Txn::new(vec![Compare::at(key, revision)], vec![plan::put(key, &value, Bytes::new(), 0)]);
            if matches!(self.replica.propose(txn, DEADLINE).await, Ok(Decision::Applied { .. })) {
                return;
            }
        }
    }

    /// Does once what a scheduler and an agent do: binds, starts and ends Pods.
    async fn tend_pods(&self) {
        for (key, revision, mut pod) in self.list("", "pods").await {
            let op = if pod["metadata"]["deletionTimestamp"].is_string() {
                Op::delete(&key)
            } else if pod["status"]["phase"] == "Pending" {
                pod["spec"]["nodeName"] = json!("n1");
                pod["status"] = json!({"phase": "Running", "podIP": "10.0.0.1", "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-08T10:00:00Z"}]});
                plan::put(&key, &pod, Bytes::new(), 0)
            } else {
                continue;
            };
            // A Pod that has changed meanwhile is looked at in the next round.
            let _ = self.replica.propose(Txn::new(vec![Compare::at(&key, revision)], vec![op]), DEADLINE).await;
        }
    }

    /// Tends Pods until `done` says so.
    async fn until(&self, what: &str, done: impl AsyncFn(&Self) -> bool) {
        let waiting = async {
            while !done(self).await {
                self.tend_pods().await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("never happened: {what}"));
    }

    async fn end(self) {
        self.stop.send(()).expect("still running");
        self.running.await.expect("ended well");
        self.replica.shutdown().await;
    }
}

fn node() -> Value {
    json!({"metadata": {"labels": {"quilt.sh/agent": "true"}}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
}

fn deployment(replicas: i64) -> Value {
    json!({"metadata": {"generation": 1}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "web:1"}]}},
    }})
}

async fn rolled_out(bench: &Bench, replicas: i64, image: &str) -> bool {
    let (_, deployment) = bench.get(&key("apps", "deployments", "web")).await.expect("present");
    let pods = bench.list("", "pods").await;
    let new = pods.iter().filter(|(_, _, pod)| pod["spec"]["containers"][0]["image"] == image).count();
    deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"]
        && deployment["status"]["updatedReplicas"] == replicas
        && deployment["status"]["availableReplicas"] == replicas
        && i64::try_from(pods.len()).ok() == Some(replicas)
        && new == pods.len()
}

/// A Deployment comes up, rolls within its bounds at every revision of the Pods' watch history, and its deletion takes
/// sets and Pods along; Events tell of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_lives_rolls_and_goes() {
    let bench = Bench::start().await;
    bench.put(&key("", "nodes", "n1"), node()).await;
    let web = key("apps", "deployments", "web");
    bench.put(&web, deployment(4)).await;
    bench.until("four Pods available", async |bench| rolled_out(bench, 4, "web:1").await).await;

    let start = bench.replica.read(Consistency::Linearizable, DEADLINE).await.expect("read").revision();
    let before = bench.list("", "pods").await;
    bench
        .change(&web, |web| {
            web["spec"]["template"]["spec"]["containers"][0]["image"] = json!("web:2");
            web["metadata"]["generation"] = json!(2);
        })
        .await;
    bench.until("rolled to web:2", async |bench| rolled_out(bench, 4, "web:2").await).await;
    let end = bench.replica.read(Consistency::Linearizable, DEADLINE).await.expect("read").revision();
    let mut pods: BTreeMap<Key, Value> = before.into_iter().map(|(key, _, pod)| (key, pod)).collect();
    let mut history = bench.replica.watch(KeyPrefix::resource("default", "", "pods").expect("valid"), start);
    let mut transactions = 0;
    while history.position() < end {
        // Behind the last change the position moves while waiting, without a batch.
        let Ok(batch) = tokio::time::timeout(Duration::from_millis(200), history.next()).await else { continue };
        let batch = batch.expect("history");
        let mut events: Vec<Arc<Event>> = batch.events;
        events.sort_by_key(|event| event.revision);
        for event in &events {
            match &event.record {
                Some(record) => {
                    pods.insert(event.key.clone(), serde_json::from_slice(&record.value).expect("json"));
                }
                None => {
                    pods.remove(&event.key);
                }
            }
            if event.revision != event.txn_end {
                continue;
            }
            transactions += 1;
            let live = || pods.values().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
            assert!(live().count() <= 5, "more than replicas + maxSurge at {}", event.revision);
            let ready = live().filter(|pod| pod["status"]["phase"] == "Running").count();
            assert!(ready >= 3, "fewer than replicas - maxUnavailable at {}", event.revision);
        }
    }
    assert!(transactions >= 8, "the roll took {transactions} transactions");

    let txn = Txn::new(Vec::new(), vec![Op::delete(&web)]);
    bench.replica.propose(txn, DEADLINE).await.expect("deleted");
    bench
        .until("all of it is gone", async |bench| {
            bench.list("apps", "replicasets").await.is_empty() && bench.list("", "pods").await.is_empty()
        })
        .await;
    bench
        .until("Events tell of it", async |bench| {
            let events = bench.list("", "events").await;
            let told = |reason: &str| events.iter().any(|(_, _, event)| event["reason"] == reason);
            told("ScalingReplicaSet") && told("SuccessfulCreate")
        })
        .await;
    bench.end().await;
}

/// Heartbeats are answered by the leader; a forced run moves what a silent node holds without waiting for the grace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forced_run_does_not_wait() {
    let bench = Bench::start().await;
    bench.put(&key("", "nodes", "n1"), node()).await;
    let workload = key("quilt.sh", "workloads", "job");
    bench
        .put(
            &workload,
            json!({"metadata": {"generation": 1}, "spec": {"name": "job", "replicas": 2, "command": ["x"]}}),
        )
        .await;
    bench
        .until("both slots run", async |bench| {
            let (_, workload) = bench.get(&workload).await.expect("present");
            workload["status"]["running"] == 2
        })
        .await;
    let beat = Bytes::from_static(
        br#"{"beat":[{"cluster":"default","node":"n1"}],"last":[{"cluster":"default","node":"n1"}]}"#,
    );
    let answer = bench.replica.ask_leader("heartbeats", beat, DEADLINE).await.expect("answered");
    let answer: Value = serde_json::from_slice(&answer).expect("json");
    assert!(answer["last"][0].as_u64().is_some_and(|last| last > 1_700_000_000), "{answer}");

    bench
        .change(&key("", "nodes", "n1"), |node| {
            node["status"]["conditions"] = json!([{"type": "Ready", "status": "False", "reason": "Reported"}]);
        })
        .await;
    let scheduled = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counter = Arc::clone(&scheduled);
    let service = bench.controllers.reconcile_service(move |cluster| {
        assert_eq!(cluster, "default");
        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Box::pin(async { Ok(()) })
    });
    bench.replica.serve("reconcile", service);
    let request = Bytes::from_static(br#"{"cluster":"default"}"#);
    let answer = bench.replica.ask_leader("reconcile", request.clone(), DEADLINE).await.expect("answered");
    assert_eq!(answer.as_ref(), b"{}");
    assert_eq!(scheduled.load(std::sync::atomic::Ordering::SeqCst), 1);
    let waiting = bench.list("", "pods").await;
    let waiting = waiting.iter().filter(|(_, _, pod)| pod["metadata"]["annotations"]["quilt.sh/replaces"].is_string());
    assert_eq!(waiting.count(), 2, "a replacement for each slot");
    // Another run changes nothing, once the controllers that work beside it have nothing left to do.
    let settled = async {
        loop {
            let before = bench.list("", "pods").await;
            bench.replica.ask_leader("reconcile", request.clone(), DEADLINE).await.expect("answered");
            if bench.list("", "pods").await == before {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, settled).await.expect("runs come to an end");
    let unknown = Bytes::from_static(br#"{"cluster":"nowhere"}"#);
    let refused = bench.replica.ask_leader("reconcile", unknown, DEADLINE).await.expect_err("no such cluster");
    assert!(refused.to_string().contains("nowhere"), "{refused}");
    bench.end().await;
}
