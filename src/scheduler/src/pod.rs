//! [`Pod`]: what the scheduler knows of one Pod, read from stored bytes without building a document.

use std::collections::BTreeMap;

use quilt_proto::{Key, Record, Revision};
use serde::Deserialize;
use serde_json::Value;

use crate::resources::{GPU, Resources};

/// Annotation: the placement a Workload's Pod fills.
pub const PLACEMENT_ID: &str = "quilt.sh/placement-id";
/// Annotation: index among the owner's Pods.
pub const REPLICA_INDEX: &str = "quilt.sh/replica-index";
/// Annotation: uid of the Pod that goes when this one is bound.
pub const REPLACES: &str = "quilt.sh/replaces";
/// Annotation: ids of devices; asked for by the Workload, or assigned when the Pod is bound.
pub const GPU_IDS: &str = "quilt.sh/gpu-ids";

/// One Pod.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// Where it is stored; `None` only for Pods made up in questions of "what if".
    pub key: Option<Key>,
    /// Its version.
    pub revision: Revision,
    /// When it was created, in the order of all changes.
    pub created: Revision,
    /// `metadata.uid`.
    pub uid: String,
    /// The managing controller.
    pub owner: Option<Owner>,
    /// `spec.nodeName`, empty while unbound.
    pub node: String,
    /// Its containers have all ended.
    pub ended: bool,
    /// It is being deleted.
    pub going: bool,
    /// What it asks of a node.
    pub requests: Resources,
    /// Taints it accepts.
    pub tolerations: Vec<Toleration>,
    /// Labels its node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Required node affinity: any of these terms must hold, if there are any.
    pub node_terms: Option<Vec<Term>>,
    /// Ports of the node it takes: protocol, address, port.
    pub host_ports: Vec<(String, String, i64)>,
    /// Devices it asks for by id, or holds.
    pub gpu_ids: Vec<String>,
    /// Uid of the Pod it replaces.
    pub replaces: Option<String>,
    /// Index among its owner's Pods, once assigned.
    pub replica_index: Option<u32>,
    /// Who schedules it.
    pub scheduler: String,
    /// Something else must happen first.
    pub gated: bool,
    /// `spec.priority`.
    pub priority: i64,
}

/// The managing controller of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// One toleration.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Toleration {
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    operator: Option<String>,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    effect: Option<String>,
}

impl Toleration {
    /// Whether it accepts this taint.
    #[must_use]
    pub fn accepts(&self, key: &str, value: &str, effect: &str) -> bool {
        let own_effect = self.effect.as_deref().unwrap_or_default();
        let own_key = self.key.as_deref().unwrap_or_default();
        let exists = self.operator.as_deref() == Some("Exists");
        (own_effect.is_empty() || own_effect == effect)
            && ((own_key.is_empty() && exists) || own_key == key)
            && (exists || self.value.as_deref().unwrap_or_default() == value)
    }
}

/// One term of required node affinity: all its requirements must hold.
#[derive(Clone, Debug, Default)]
pub struct Term {
    /// About labels.
    pub labels: Vec<Requirement>,
    /// About the node's name.
    pub fields: Vec<Requirement>,
}

/// One requirement of a term.
#[derive(Clone, Debug, Deserialize)]
pub struct Requirement {
    /// Label or field.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt`, `Lt`.
    pub operator: String,
    /// What to compare with.
    #[serde(default)]
    pub values: Option<Vec<String>>,
}

impl Requirement {
    /// Whether `value` (absent or not) meets it; an unknown operator is never met.
    #[must_use]
    pub fn holds(&self, value: Option<&str>) -> bool {
        let values = self.values.as_deref().unwrap_or_default();
        let listed = || value.is_some_and(|value| values.iter().any(|wanted| wanted == value));
        let numbers = || {
            let bound: i64 = values.first()?.parse().ok()?;
            Some((value?.parse::<i64>().ok()?, bound))
        };
        match self.operator.as_str() {
            "In" => listed(),
            "NotIn" => !listed(),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" => numbers().is_some_and(|(value, bound)| value > bound),
            "Lt" => numbers().is_some_and(|(value, bound)| value < bound),
            _ => false,
        }
    }
}

impl Pod {
    /// Whether this scheduler has to find a node for it.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.node.is_empty()
            && !self.going
            && !self.ended
            && !self.gated
            && (self.scheduler.is_empty() || self.scheduler == "default-scheduler")
    }

    /// How many devices it asks for.
    #[must_use]
    pub fn gpus(&self) -> usize {
        usize::try_from(self.requests.get(GPU).unwrap_or_default()).unwrap_or_default()
    }

    /// Reads a stored Pod.
    ///
    /// # Errors
    /// Bytes that are no Pod: a corrupt record.
    pub fn read(key: &Key, record: &Record) -> Result<Self, serde_json::Error> {
        let raw: Raw = serde_json::from_slice(&record.value)?;
        let spec = raw.spec.unwrap_or_default();
        let meta = raw.metadata.unwrap_or_default();
        let annotations = meta.annotations.unwrap_or_default();
        let owner = meta.owner_references.unwrap_or_default().into_iter().find(|owner| owner.controller == Some(true));
        let phase = raw.status.and_then(|status| status.phase).unwrap_or_default();
        let affinity = spec.affinity.and_then(|affinity| affinity.node_affinity);
        let terms = affinity.and_then(|affinity| affinity.required).and_then(|required| required.terms);
        let gpu_ids = annotations.get(GPU_IDS).map(|ids| ids.split(',').map(str::to_owned).collect());
        let containers = spec.containers.unwrap_or_default();
        let starters = spec.init_containers.unwrap_or_default();
        let mut host_ports = Vec::new();
        for port in containers.iter().chain(&starters).flat_map(|container| container.ports.iter().flatten()) {
            if let Some(number) = port.host_port.filter(|number| *number > 0) {
                let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
                host_ports.push((protocol, port.host_ip.clone().unwrap_or_default(), number));
            }
        }
        Ok(Self {
            key: Some(key.clone()),
            revision: Revision::new(record.mod_revision),
            created: Revision::new(record.create_revision),
            uid: meta.uid.unwrap_or_default(),
            owner: owner.map(|owner| Owner {
                kind: owner.kind.unwrap_or_default(),
                name: owner.name.unwrap_or_default(),
                uid: owner.uid.unwrap_or_default(),
            }),
            node: spec.node_name.unwrap_or_default(),
            ended: phase == "Succeeded" || phase == "Failed",
            going: meta.deletion_timestamp.is_some(),
            requests: requests(&containers, &starters, spec.overhead.as_ref()),
            tolerations: spec.tolerations.unwrap_or_default(),
            node_selector: spec.node_selector.unwrap_or_default(),
            node_terms: terms.map(|terms| terms.into_iter().map(Term::from).collect()),
            host_ports,
            gpu_ids: gpu_ids.unwrap_or_default(),
            replaces: annotations.get(REPLACES).cloned(),
            replica_index: annotations.get(REPLICA_INDEX).and_then(|index| index.parse().ok()),
            scheduler: spec.scheduler_name.unwrap_or_default(),
            gated: spec.scheduling_gates.is_some_and(|gates| !gates.is_empty()),
            priority: spec.priority.unwrap_or_default(),
        })
    }
}

/// What all containers ask for together: the sum of those that run side by side, or the largest starter if that is
/// more. Starters that keep running count as both.
fn requests(
    containers: &[RawContainer],
    starters: &[RawContainer],
    overhead: Option<&BTreeMap<String, Value>>,
) -> Resources {
    let of = |container: &RawContainer| {
        let Some(resources) = &container.resources else { return Resources::default() };
        // A limit without a request asks for as much.
        let mut asked = resources.limits.clone().unwrap_or_default();
        asked.extend(resources.requests.clone().unwrap_or_default());
        Resources::read(&asked)
    };
    let mut running = Resources::default();
    for container in containers {
        running.add(&of(container));
    }
    let mut staying = Resources::default();
    let mut largest = Resources::default();
    for starter in starters {
        let mut together = staying.clone();
        together.add(&of(starter));
        largest.at_least(&together);
        if starter.restart_policy.as_deref() == Some("Always") {
            staying = together;
        }
    }
    running.add(&staying);
    running.at_least(&largest);
    if let Some(overhead) = overhead {
        running.add(&Resources::read(overhead));
    }
    running
}

#[derive(Deserialize)]
struct Raw {
    metadata: Option<RawMeta>,
    spec: Option<RawSpec>,
    status: Option<RawStatus>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMeta {
    uid: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<RawOwner>>,
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
struct RawOwner {
    kind: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    controller: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSpec {
    node_name: Option<String>,
    scheduler_name: Option<String>,
    node_selector: Option<BTreeMap<String, String>>,
    tolerations: Option<Vec<Toleration>>,
    affinity: Option<RawAffinity>,
    containers: Option<Vec<RawContainer>>,
    init_containers: Option<Vec<RawContainer>>,
    overhead: Option<BTreeMap<String, Value>>,
    scheduling_gates: Option<Vec<Value>>,
    priority: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAffinity {
    node_affinity: Option<RawNodeAffinity>,
}

#[derive(Deserialize)]
struct RawNodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    required: Option<RawNodeSelector>,
}

#[derive(Deserialize)]
struct RawNodeSelector {
    #[serde(rename = "nodeSelectorTerms")]
    terms: Option<Vec<RawTerm>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTerm {
    match_expressions: Option<Vec<Requirement>>,
    match_fields: Option<Vec<Requirement>>,
}

impl From<RawTerm> for Term {
    fn from(raw: RawTerm) -> Self {
        Self { labels: raw.match_expressions.unwrap_or_default(), fields: raw.match_fields.unwrap_or_default() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawContainer {
    resources: Option<RawResources>,
    ports: Option<Vec<RawPort>>,
    restart_policy: Option<String>,
}

#[derive(Deserialize)]
struct RawResources {
    requests: Option<BTreeMap<String, Value>>,
    limits: Option<BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPort {
    host_port: Option<i64>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    protocol: Option<String>,
}

#[derive(Deserialize)]
struct RawStatus {
    phase: Option<String>,
}
