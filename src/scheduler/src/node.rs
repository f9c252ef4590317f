//! [`Node`]: what the scheduler knows of one Node.

use std::collections::BTreeMap;

use quilt_proto::{Key, Record, Revision};
use serde::Deserialize;
use serde_json::Value;

use crate::resources::{GPU, PODS, Resources};

/// Label of Nodes run by a Quilt agent.
const AGENT: &str = "quilt.sh/agent";
/// Annotation: the node's devices, as JSON.
const GPU_INVENTORY: &str = "quilt.sh/gpu-inventory";
/// Pods an agent's node takes when it has not said how many.
const AGENT_PODS: i64 = 110;

/// One Node.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Where it is stored; `None` only for Nodes made up in questions of "what if".
    pub key: Option<Key>,
    /// Its version.
    pub revision: Revision,
    /// When it was created, in the order of all changes.
    pub created: Revision,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// `spec.unschedulable`.
    pub cordoned: bool,
    /// Condition Ready is True.
    pub ready: bool,
    /// What it has for Pods.
    pub allocatable: Resources,
    /// Resources it has not said anything about are unlimited, not absent: an agent without `capacity`.
    pub unmeasured: bool,
    /// Ids of its devices.
    pub gpus: Vec<String>,
}

/// One taint.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value.
    #[serde(default)]
    pub value: Option<String>,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    #[serde(default)]
    pub effect: String,
}

impl Node {
    /// What it has of `resource`; `None` when that is unlimited.
    #[must_use]
    pub fn has(&self, resource: &str) -> Option<i64> {
        match self.allocatable.get(resource) {
            Some(amount) => Some(amount),
            None if resource == PODS && self.unmeasured => Some(AGENT_PODS),
            None if self.unmeasured && ["cpu", "memory", "ephemeral-storage"].contains(&resource) => None,
            None => Some(0),
        }
    }

    /// Reads a stored Node.
    ///
    /// # Errors
    /// Bytes that are no Node: a corrupt record.
    pub fn read(key: &Key, record: &Record) -> Result<Self, serde_json::Error> {
        let raw: Raw = serde_json::from_slice(&record.value)?;
        let meta = raw.metadata.unwrap_or_default();
        let spec = raw.spec.unwrap_or_default();
        let status = raw.status.unwrap_or_default();
        let labels = meta.labels.unwrap_or_default();
        let inventory = meta.annotations.unwrap_or_default().remove(GPU_INVENTORY).unwrap_or_default();
        let devices: Vec<Value> = serde_json::from_str(&inventory).unwrap_or_default();
        let gpus: Vec<String> =
            devices.iter().filter_map(|device| device.get("id")?.as_str().map(str::to_owned)).collect();
        let mut allocatable =
            status.allocatable.or(status.capacity).map(|map| Resources::read(&map)).unwrap_or_default();
        if !gpus.is_empty() {
            allocatable.set(GPU, i64::try_from(gpus.len()).unwrap_or(i64::MAX));
        }
        let conditions = status.conditions.unwrap_or_default();
        Ok(Self {
            key: Some(key.clone()),
            revision: Revision::new(record.mod_revision),
            created: Revision::new(record.create_revision),
            name: key.parts().name.to_owned(),
            unmeasured: labels.contains_key(AGENT),
            labels,
            taints: spec.taints.unwrap_or_default(),
            cordoned: spec.unschedulable.unwrap_or_default(),
            ready: conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True"),
            allocatable,
            gpus,
        })
    }
}

#[derive(Deserialize)]
struct Raw {
    metadata: Option<RawMeta>,
    spec: Option<RawSpec>,
    status: Option<RawStatus>,
}

#[derive(Default, Deserialize)]
struct RawMeta {
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
struct RawSpec {
    taints: Option<Vec<Taint>>,
    unschedulable: Option<bool>,
}

#[derive(Default, Deserialize)]
struct RawStatus {
    allocatable: Option<BTreeMap<String, Value>>,
    capacity: Option<BTreeMap<String, Value>>,
    conditions: Option<Vec<RawCondition>>,
}

#[derive(Deserialize)]
struct RawCondition {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    status: String,
}
