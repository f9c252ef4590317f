//! Bindings as one transaction: Pods get their nodes, replaced Pods go and slots change over, all or none, on exactly
//! the versions the decisions were made on.

use std::collections::BTreeMap;

use bytes::Bytes;
use quilt_proto::{Compare, Key, Op, Put, Record, Revision, Txn};
use serde_json::{Value, json};

use crate::pod::{GPU_IDS, PLACEMENT_ID, Pod, REPLACES, REPLICA_INDEX};
use crate::snapshot::Snapshot;

/// A Pod and where it goes.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The Pod, as in the snapshot.
    pub pod: Pod,
    /// Its node.
    pub node: String,
    /// Its devices.
    pub gpus: Vec<String>,
    /// Its index among its owner's Pods, if it has none yet.
    pub index: Option<u32>,
}

/// What a transaction's compare stands for, so that a rejection can be told from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The Pod with this key.
    Pod(Key),
    /// Something several bindings share: a node, a Workload.
    Shared(Key),
}

/// Bindings on their way into one transaction.
#[derive(Debug, Default)]
pub struct Batch {
    bases: Vec<Basis>,
    compares: Vec<Compare>,
    ops: Vec<Op>,
    workloads: BTreeMap<Key, (Revision, Value)>,
    bytes: usize,
}

/// Where whole objects are read: the replica's state at the snapshot's revision.
pub type Read<'a> = &'a dyn Fn(&Key) -> Option<Record>;

impl Batch {
    /// Bytes of values so far.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Adds one binding; answers `false`, and adds nothing, when the Pod is no longer what it was decided for.
    pub fn add(&mut self, binding: &Binding, snapshot: &Snapshot, read: Read<'_>, now: &str) -> bool {
        let Some(key) = &binding.pod.key else { return false };
        let Some(mut value) = load(read, key, binding.pod.revision) else { return false };
        let Some(node) = snapshot.node(&binding.node) else { return false };
        value["spec"]["nodeName"] = json!(binding.node);
        scheduled(&mut value, now);
        let annotations = object(&mut value["metadata"]["annotations"]);
        if let Some(index) = binding.index {
            annotations.insert(REPLICA_INDEX.into(), index.to_string().into());
        }
        if !binding.gpus.is_empty() {
            annotations.insert(GPU_IDS.into(), binding.gpus.join(",").into());
        }
        annotations.remove(REPLACES);
        let placement = annotations.get(PLACEMENT_ID).and_then(Value::as_str).map(str::to_owned);
        if annotations.is_empty() {
            object(&mut value["metadata"]).remove("annotations");
        }
        self.compare(Basis::Pod(key.clone()), key, binding.pod.revision);
        if let Some(node_key) = &node.key {
            self.compare(Basis::Shared(node_key.clone()), node_key, node.revision);
        }
        self.put(key, &value, &format!("n={}", binding.node));
        if let Some(uid) = &binding.pod.replaces {
            self.change_over(binding, uid, placement.as_deref(), snapshot, read, now);
        }
        true
    }

    /// The replaced Pod goes, and the slot is filled by the new one.
    fn change_over(
        &mut self,
        binding: &Binding,
        replaced: &str,
        placement: Option<&str>,
        snapshot: &Snapshot,
        read: Read<'_>,
        now: &str,
    ) {
        if let Some(old) = snapshot.pod_by_uid(replaced).filter(|old| !old.going)
            && let Some(key) = &old.key
            && let Some(mut value) = load(read, key, old.revision)
        {
            self.compare(Basis::Pod(key.clone()), key, old.revision);
            let node_lives = snapshot.node(&old.node).is_some();
            let finalizers = value.pointer("/metadata/finalizers").and_then(Value::as_array);
            if (old.node.is_empty() || old.ended || !node_lives) && finalizers.is_none_or(Vec::is_empty) {
                self.ops.push(Op::delete(key));
            } else {
                let grace = value.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(30);
                value["metadata"]["deletionTimestamp"] = json!(later(now, grace));
                value["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
                self.put(key, &value, &format!("n={}", old.node));
            }
        }
        let Some((owner, pod)) = binding.pod.owner.as_ref().zip(binding.pod.key.as_ref()) else { return };
        let Some(placement) = placement.filter(|_| owner.kind == "Workload") else { return };
        let parts = pod.parts();
        let Ok(key) = Key::new(parts.cluster, "quilt.sh", "workloads", parts.namespace, &owner.name) else { return };
        if !self.workloads.contains_key(&key) {
            let Some(record) = read(&key) else { return };
            let Ok(value) = serde_json::from_slice::<Value>(&record.value) else { return };
            let revision = Revision::new(record.mod_revision);
            self.compare(Basis::Shared(key.clone()), &key, revision);
            self.workloads.insert(key.clone(), (revision, value));
        }
        let Some((_, workload)) = self.workloads.get_mut(&key) else { return };
        let slots = workload.pointer_mut("/status/slots").and_then(Value::as_array_mut);
        let mut slots = slots.into_iter().flatten();
        if let Some(slot) = slots.find(|slot| slot["placementId"] == placement) {
            slot["podName"] = json!(parts.name);
        }
    }

    fn compare(&mut self, basis: Basis, key: &Key, at: Revision) {
        #[cfg(test)]
        if crate::tests::museum::leaves_out(&basis) {
            return;
        }
        if !self.bases.contains(&basis) {
            self.bases.push(basis);
            self.compares.push(Compare::at(key, at));
        }
    }

    fn put(&mut self, key: &Key, value: &Value, tag: &str) {
        let op = put(key, value, tag, 0);
        self.bytes += key.bytes().len() + value_bytes(&op);
        self.ops.push(op);
    }

    /// The transaction, and what each of its compares stands for.
    #[must_use]
    pub fn finish(mut self) -> (Txn, Vec<Basis>) {
        for (key, (_, value)) in std::mem::take(&mut self.workloads) {
            self.put(&key, &value, "");
        }
        (Txn::new(self.compares, self.ops), self.bases)
    }
}

fn value_bytes(op: &Op) -> usize {
    match &op.kind {
        Some(quilt_proto::op::Kind::Put(put)) => put.value.len(),
        _ => 0,
    }
}

/// The operation that stores `value`, tagged for watchers when `tag` says something.
#[must_use]
pub fn put(key: &Key, value: &Value, tag: &str, ttl_ms: u64) -> Op {
    let encoded = quilt_objects::canonical::encode(value);
    let tags = if tag.is_empty() { Vec::new() } else { vec![Bytes::copy_from_slice(tag.as_bytes())] };
    Op::from(Put {
        key: key.bytes().clone(),
        value: encoded.bytes,
        splice_at: encoded.splice_at,
        sealed: Bytes::new(),
        ttl_ms,
        tags,
    })
}

/// The object at `key`, if it still is at `revision`.
pub(crate) fn load(read: Read<'_>, key: &Key, revision: Revision) -> Option<Value> {
    let record = read(key).filter(|record| record.mod_revision == revision.get())?;
    let value: Value = serde_json::from_slice(&record.value).ok()?;
    // The parts that are written into must be objects; a stored Pod always has them.
    (value.get("metadata")?.is_object() && value.get("spec")?.is_object()).then_some(value)
}

fn object(value: &mut Value) -> &mut serde_json::Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("made an object above")
}

fn later(now: &str, seconds: i64) -> String {
    let now: Result<jiff::Timestamp, _> = now.parse();
    let at = now.and_then(|now| now.checked_add(jiff::SignedDuration::from_secs(seconds.clamp(0, 1 << 31))));
    at.map(|at| at.to_string()).unwrap_or_default()
}

/// Condition `PodScheduled` of a bound Pod.
fn scheduled(pod: &mut Value, now: &str) {
    set_condition(pod, &json!({ "type": "PodScheduled", "status": "True", "lastProbeTime": null }), now);
}

/// Condition `PodScheduled` of a Pod no node takes; answers whether that says anything new.
pub fn unschedulable(pod: &mut Value, message: &str, now: &str) -> bool {
    let condition = json!({
        "type": "PodScheduled", "status": "False", "lastProbeTime": null,
        "reason": "Unschedulable", "message": message,
    });
    set_condition(pod, &condition, now)
}

fn set_condition(pod: &mut Value, condition: &Value, now: &str) -> bool {
    let status = object(&mut pod["status"]);
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else { return false };
    let place = conditions.iter().position(|known| known["type"] == condition["type"]);
    let known = place.map(|place| conditions.remove(place));
    let same = |field: &str| known.as_ref().is_some_and(|known| known.get(field) == condition.get(field));
    let news = !(same("status") && same("reason") && same("message"));
    let since = known.as_ref().filter(|_| same("status")).and_then(|known| known.get("lastTransitionTime").cloned());
    let mut condition = condition.clone();
    condition["lastTransitionTime"] = since.unwrap_or_else(|| now.into());
    conditions.insert(place.unwrap_or(conditions.len()), condition);
    news
}
