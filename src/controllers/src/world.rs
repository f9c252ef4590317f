//! A whole cluster in memory for tests: records, the view over them, and a loop that reconciles until nothing moves.

use std::collections::{BTreeMap, BTreeSet};

use quilt_objects::canonical;
use quilt_proto::{Key, KeyPrefix, Record, Revision, compare, op};
use serde_json::{Value, json};

use crate::entropy::Entropy;
use crate::heartbeats::Heartbeats;
use crate::moment::Moment;
use crate::object::Object;
use crate::plan::Plan;
use crate::reconcile::Controller;
use crate::route::{Work, is_ignored, is_remembered, work_of};
use crate::view::{Cluster, LoadError, Occasion, Settings, Source, Urgency, View};

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) records: Records,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) now: Moment,
    pub(crate) cluster_ms: u64,
    pub(crate) urgency: Urgency,
    pub(crate) settings: Settings,
    revision: u64,
    work: BTreeSet<Work>,
    later: BTreeMap<Work, Moment>,
}

#[derive(Default)]
pub(crate) struct Records(pub(crate) BTreeMap<Key, Record>);

impl Source for Records {
    fn record(&self, key: &Key) -> Result<Option<Record>, LoadError> {
        Ok(self.0.get(key).cloned())
    }

    fn first(&self, prefix: &KeyPrefix, limit: u32) -> Result<Vec<(Key, Record)>, LoadError> {
        let found = self.0.iter().filter(|(key, _)| prefix.contains(key));
        Ok(found.take(limit as usize).map(|(key, record)| (key.clone(), record.clone())).collect())
    }
}

pub(crate) const START: Moment = Moment(1_767_866_400_000);

impl World {
    pub(crate) fn new() -> Self {
        let heartbeats = Heartbeats::default();
        heartbeats.gained(0);
        Self {
            cluster: Cluster::new("c"),
            records: Records::default(),
            heartbeats,
            now: START,
            cluster_ms: 0,
            urgency: Urgency::Usual,
            settings: Settings::default(),
            revision: 0,
            work: BTreeSet::new(),
            later: BTreeMap::new(),
        }
    }

    pub(crate) fn key(group: &str, resource: &str, namespace: &str, name: &str) -> Key {
        Key::new("c", group, resource, namespace, name).expect("valid")
    }

    /// Writes an object as a client would, filling in name, namespace and uid from the key.
    pub(crate) fn put(&mut self, key: &Key, mut value: Value) {
        let parts = key.parts();
        value["metadata"]["name"] = json!(parts.name);
        if !parts.namespace.is_empty() {
            value["metadata"]["namespace"] = json!(parts.namespace);
        }
        if value["metadata"]["uid"].is_null() {
            value["metadata"]["uid"] = json!(format!("uid-{}-{}", parts.resource, parts.name));
        }
        if value["metadata"]["creationTimestamp"].is_null() {
            value["metadata"]["creationTimestamp"] = json!(self.now.rfc3339());
        }
        let encoded = canonical::encode(&value);
        self.store(key, &encoded);
    }

    fn store(&mut self, key: &Key, encoded: &canonical::Canonical) {
        self.revision += 1;
        let created = self.records.0.get(key).map_or(self.revision, |record| record.create_revision);
        let record = Record {
            create_revision: created,
            mod_revision: self.revision,
            // The control plane's own records know no revision.
            value: if encoded.splice_at == 0 { encoded.bytes.clone() } else { encoded.splice(self.revision) },
            splice_at: encoded.splice_at,
            ..Record::default()
        };
        self.records.0.insert(key.clone(), record.clone());
        if is_ignored(key) {
            return;
        }
        let object = Object::read(key, Revision::new(self.revision), &record.value).expect("an object");
        let change = if is_remembered(&object) { self.cluster.put(object) } else { self.cluster.remove(key) };
        work_of(&self.cluster, &change, None, &mut self.work);
        self.cluster.reached(Revision::new(self.revision));
    }

    pub(crate) fn delete(&mut self, key: &Key) {
        self.revision += 1;
        let Some(record) = self.records.0.remove(key) else { return };
        let change = self.cluster.remove(key);
        let value: Value = serde_json::from_slice(&record.value).expect("json");
        work_of(&self.cluster, &change, value["metadata"]["uid"].as_str(), &mut self.work);
        self.cluster.reached(Revision::new(self.revision));
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Value> {
        self.records.0.get(key).map(|record| serde_json::from_slice(&record.value).expect("json"))
    }

    /// Reads, changes and writes back.
    pub(crate) fn change(&mut self, key: &Key, change: impl FnOnce(&mut Value)) {
        let mut value = self.get(key).expect("present");
        change(&mut value);
        self.put(key, value);
    }

    /// All objects of a resource, by key.
    pub(crate) fn all(&self, group: &str, resource: &str) -> Vec<(Key, Value)> {
        let prefix = KeyPrefix::resource("c", group, resource).expect("valid");
        let found = self.records.0.iter().filter(|(key, _)| prefix.contains(key));
        found.map(|(key, record)| (key.clone(), serde_json::from_slice(&record.value).expect("json"))).collect()
    }

    /// One reconcile, not applied.
    pub(crate) fn plan(&self, controller: Controller, key: &Key) -> Plan {
        let view = View {
            cluster: &self.cluster,
            source: &self.records,
            settings: self.settings,
            heartbeats: &self.heartbeats,
            urgency: self.urgency,
        };
        let mut at = Occasion {
            now: self.now,
            cluster_ms: self.cluster_ms,
            entropy: Entropy::new(u128::from(self.revision) << 64 | u128::from(self.now.0)),
        };
        controller.reconcile(&view, key, &mut at).expect("readable")
    }

    /// Applies a plan as the state machine would: all or nothing.
    pub(crate) fn apply(&mut self, plan: &Plan) {
        let txn = plan.txn();
        for wanted in &txn.compares {
            let key = Key::from_bytes(wanted.key.clone()).expect("a key");
            let found = self.records.0.get(&key).map_or(0, |record| record.mod_revision);
            assert_eq!(wanted.condition, Some(compare::Condition::ModRevision(found)), "compare on {key:?}");
        }
        for op in &txn.ops {
            match op.kind.as_ref().expect("a kind") {
                op::Kind::Put(put) => {
                    let key = Key::from_bytes(put.key.clone()).expect("a key");
                    let encoded = canonical::Canonical { bytes: put.value.clone(), splice_at: put.splice_at };
                    self.store(&key, &encoded);
                }
                op::Kind::DeleteRange(_) => unreachable!("no plan deletes a range"),
                op::Kind::Delete(delete) => self.delete(&Key::from_bytes(delete.key.clone()).expect("a key")),
            }
        }
    }

    /// Reconciles until nothing moves, calling `check` after every transaction.
    pub(crate) fn settle_with(&mut self, mut check: impl FnMut(&Self)) {
        for _ in 0..10_000 {
            let due: Vec<Work> =
                self.later.iter().filter(|(_, at)| **at <= self.now).map(|(work, _)| work.clone()).collect();
            for work in due {
                self.later.remove(&work);
                self.work.insert(work);
            }
            let Some(work) = self.work.pop_first() else { return };
            let plan = self.plan(work.0, &work.1);
            if let Some(at) = plan.look_again_at {
                self.later.insert(work.clone(), at);
            }
            if !plan.writes.is_empty() {
                self.apply(&plan);
                check(self);
            }
            if plan.more {
                self.work.insert(work);
            }
        }
        panic!("does not settle: {:?}", self.work);
    }

    pub(crate) fn settle(&mut self) {
        self.settle_with(|_| {});
    }

    /// Time passes, with heartbeats of `alive`.
    pub(crate) fn pass(&mut self, seconds: u64, alive: &[&str]) {
        self.now = self.now.plus_secs(seconds);
        self.cluster_ms += seconds * 1000;
        for node in alive {
            self.heartbeats.beat("c", node, self.cluster_ms, self.now.0).expect("leads");
        }
        self.settle();
    }

    /// A ready node of a Quilt agent.
    pub(crate) fn node(&mut self, name: &str) -> Key {
        let key = Self::key("", "nodes", "", name);
        self.put(
            &key,
            json!({
                "metadata": {"labels": {"quilt.sh/agent": "true"}},
                "spec": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]},
            }),
        );
        key
    }

    /// Binds every waiting Pod to `node` and lets all Pods run, as a scheduler and an agent would.
    pub(crate) fn run_pods(&mut self, node: &str) {
        for (key, pod) in self.all("", "pods") {
            if pod["metadata"]["deletionTimestamp"].is_string() {
                self.delete(&key);
            } else if pod["status"]["phase"] == "Pending" {
                self.run_pod(&key, node);
            }
        }
    }

    pub(crate) fn run_pod(&mut self, key: &Key, node: &str) {
        let now = self.now.rfc3339();
        self.change(key, |pod| {
            if pod["spec"]["nodeName"].is_null() {
                pod["spec"]["nodeName"] = json!(node);
            }
            pod["status"]["phase"] = json!("Running");
            pod["status"]["podIP"] = json!("10.0.0.9");
            pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True", "lastTransitionTime": now}]);
        });
    }
}
