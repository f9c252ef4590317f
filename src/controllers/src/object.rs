//! [`Object`]: what controllers remember of one object. A few dozen fields, read from the stored bytes without
//! building a document; the object itself is loaded from the replica when a plan needs to change it.

use std::collections::BTreeMap;

use quilt_objects::event::About;
use quilt_objects::select::LabelSelector;
use quilt_proto::{Key, Revision};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::moment::Moment;

/// Labels of one object.
pub type Labels = BTreeMap<String, String>;

/// The remembered part of one object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Where it is stored.
    pub key: Key,
    /// Its version.
    pub revision: Revision,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.labels`.
    pub labels: Labels,
    /// Annotations of the control plane (`quilt.sh/…`) and the deletion cost; others are not kept.
    pub annotations: BTreeMap<String, String>,
    /// `metadata.ownerReferences`.
    pub owners: Vec<Owner>,
    /// `metadata.finalizers`.
    pub finalizers: Vec<String>,
    /// When it goes for good, once it is being deleted.
    pub deletion: Option<Moment>,
    /// `metadata.creationTimestamp`.
    pub created: Moment,
    /// What else is kept, by kind.
    pub facts: Facts,
}

/// One owner reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Group and version of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner.
    pub name: String,
    /// Uid of the owner.
    pub uid: String,
    /// Whether the owner is the managing controller.
    pub controller: bool,
    /// Whether foreground deletion of the owner waits for this object.
    pub blocks: bool,
}

/// What is kept besides metadata.
#[derive(Clone, Debug)]
pub enum Facts {
    /// Nothing.
    Plain,
    /// A Pod's.
    Pod(PodFacts),
    /// A Node's.
    Node(NodeFacts),
    /// The selector of a Service, a ReplicaSet or a disruption budget.
    Selects(Option<LabelSelector>),
}

/// What is kept of a Pod.
#[derive(Clone, Debug, Default)]
pub struct PodFacts {
    /// `spec.nodeName`, empty while unbound.
    pub node: String,
    /// `status.phase`.
    pub phase: Phase,
    /// Condition Ready is True, and since when.
    pub ready_since: Option<Moment>,
    /// `status.podIP`.
    pub ip: String,
    /// Restarts of all containers.
    pub restarts: u64,
    /// A container waits after a failure, or ended with one.
    pub failing: bool,
    /// How long it stays on a node that is not ready.
    pub on_not_ready: Stay,
    /// How long it stays on a node that has fallen silent.
    pub on_unreachable: Stay,
}

/// How long a Pod stays on a node with a `NoExecute` taint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stay {
    /// It does not say: the cluster's `placement_grace_secs`.
    #[default]
    Unsaid,
    /// So many seconds.
    Secs(u64),
    /// For ever.
    Forever,
}

/// `status.phase` of a Pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not all containers have started.
    #[default]
    Pending,
    /// The node does not answer.
    Unknown,
    /// At least one container runs.
    Running,
    /// All containers ended well.
    Succeeded,
    /// A container ended badly.
    Failed,
}

/// What is kept of a Node.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// Condition Ready.
    pub ready: Ready,
    /// `spec.unschedulable`.
    pub cordoned: bool,
    /// Taint `quilt.sh/draining` is set.
    pub draining: bool,
    /// When the `NoExecute` taint of a node that is not ready was set.
    pub away_since: Option<Moment>,
}

/// Condition Ready of a Node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ready {
    /// True.
    Yes,
    /// False because the agent has registered and not yet reported.
    Registered,
    /// False.
    No,
    /// Unknown, or no such condition.
    #[default]
    Unknown,
}

impl Object {
    /// The managing controller's reference.
    #[must_use]
    pub fn controller(&self) -> Option<&Owner> {
        self.owners.iter().find(|owner| owner.controller)
    }

    /// A Pod's facts.
    #[must_use]
    pub const fn pod(&self) -> Option<&PodFacts> {
        match &self.facts {
            Facts::Pod(facts) => Some(facts),
            _ => None,
        }
    }

    /// A Node's facts.
    #[must_use]
    pub const fn node(&self) -> Option<&NodeFacts> {
        match &self.facts {
            Facts::Node(facts) => Some(facts),
            _ => None,
        }
    }

    /// The object's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.key.parts().name
    }

    /// The object's namespace; empty for cluster-scoped kinds.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.key.parts().namespace
    }

    /// This Pod, as Events name it.
    #[must_use]
    pub fn about(&self) -> About {
        About::pod(self.namespace(), self.name(), &self.uid)
    }

    /// A Pod that counts: not being deleted and not ended.
    #[must_use]
    pub fn is_active_pod(&self) -> bool {
        self.deletion.is_none() && self.pod().is_some_and(|pod| pod.phase < Phase::Succeeded)
    }

    /// The annotation `name` of the control plane.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str)
    }

    /// Reads the kept part from stored bytes.
    ///
    /// # Errors
    /// Bytes that are no object: a corrupt record, which is an alarm and never skipped silently.
    pub fn read(key: &Key, revision: Revision, bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let raw: Raw<'_> = serde_json::from_slice(bytes)?;
        let parts = key.parts();
        let facts = match (parts.group, parts.resource) {
            ("", "pods") => Facts::Pod(pod_facts(&raw)?),
            ("", "nodes") => Facts::Node(node_facts(&raw)?),
            ("", "services") => Facts::Selects(map_selector(selector(&raw)?.as_ref())),
            ("apps", "replicasets") | ("policy", "poddisruptionbudgets") => {
                Facts::Selects(label_selector(selector(&raw)?.as_ref()))
            }
            _ => Facts::Plain,
        };
        let meta = raw.metadata.unwrap_or_default();
        let kept = |name: &str| name.starts_with("quilt.sh/") || name == "controller.kubernetes.io/pod-deletion-cost";
        Ok(Self {
            key: key.clone(),
            revision,
            uid: meta.uid.unwrap_or_default(),
            labels: meta.labels.unwrap_or_default(),
            annotations: meta.annotations.unwrap_or_default().into_iter().filter(|(name, _)| kept(name)).collect(),
            owners: meta.owner_references.unwrap_or_default().into_iter().map(Owner::from).collect(),
            finalizers: meta.finalizers.unwrap_or_default(),
            deletion: meta.deletion_timestamp.as_deref().and_then(Moment::parse),
            created: meta.creation_timestamp.as_deref().and_then(Moment::parse).unwrap_or_default(),
            facts,
        })
    }
}

#[derive(Deserialize)]
struct Raw<'a> {
    metadata: Option<RawMeta>,
    #[serde(borrow)]
    spec: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMeta {
    uid: Option<String>,
    labels: Option<Labels>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<RawOwner>>,
    finalizers: Option<Vec<String>>,
    deletion_timestamp: Option<String>,
    creation_timestamp: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawOwner {
    api_version: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    uid: Option<String>,
    controller: Option<bool>,
    block_owner_deletion: Option<bool>,
}

impl From<RawOwner> for Owner {
    fn from(raw: RawOwner) -> Self {
        Self {
            api_version: raw.api_version.unwrap_or_default(),
            kind: raw.kind.unwrap_or_default(),
            name: raw.name.unwrap_or_default(),
            uid: raw.uid.unwrap_or_default(),
            controller: raw.controller.unwrap_or_default(),
            blocks: raw.block_owner_deletion.unwrap_or_default(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSpec {
    node_name: Option<String>,
    unschedulable: Option<bool>,
    taints: Option<Vec<RawTaint>>,
    selector: Option<Value>,
    tolerations: Option<Vec<RawToleration>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawToleration {
    key: Option<String>,
    operator: Option<String>,
    effect: Option<String>,
    toleration_seconds: Option<i64>,
}

impl RawToleration {
    fn covers(&self, taint: &str) -> bool {
        let effect = self.effect.as_deref().unwrap_or_default();
        let key = self.key.as_deref().unwrap_or_default();
        let any = key.is_empty() && self.operator.as_deref() == Some("Exists");
        (effect.is_empty() || effect == "NoExecute") && (any || key == taint)
    }
}

/// The shortest time any toleration grants; one without a time grants all of it.
fn stay(tolerations: &[RawToleration], taint: &str) -> Stay {
    let covering = tolerations.iter().filter(|toleration| toleration.covers(taint));
    covering.fold(Stay::Unsaid, |known, toleration| {
        match (known, toleration.toleration_seconds.map(|seconds| u64::try_from(seconds).unwrap_or_default())) {
            (Stay::Secs(known), Some(seconds)) => Stay::Secs(known.min(seconds)),
            (Stay::Unsaid | Stay::Forever, Some(seconds)) => Stay::Secs(seconds),
            (Stay::Unsaid, None) => Stay::Forever,
            (known, None) => known,
        }
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTaint {
    key: Option<String>,
    effect: Option<String>,
    time_added: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    conditions: Option<Vec<RawCondition>>,
    container_statuses: Option<Vec<RawContainer>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCondition {
    r#type: Option<String>,
    status: Option<String>,
    reason: Option<String>,
    last_transition_time: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawContainer {
    restart_count: Option<u64>,
    state: Option<RawContainerState>,
}

#[derive(Deserialize)]
struct RawContainerState {
    waiting: Option<RawWaiting>,
    terminated: Option<RawTerminated>,
}

#[derive(Deserialize)]
struct RawWaiting {
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTerminated {
    exit_code: Option<i64>,
}

fn spec(raw: &Raw<'_>) -> Result<RawSpec, serde_json::Error> {
    raw.spec.map_or_else(|| Ok(RawSpec::default()), |spec| serde_json::from_str(spec.get()))
}

fn status(raw: &Raw<'_>) -> Result<RawStatus, serde_json::Error> {
    raw.status.map_or_else(|| Ok(RawStatus::default()), |status| serde_json::from_str(status.get()))
}

/// The selector of a controller; `None` when it is absent or no selector, which must select nothing.
#[must_use]
pub fn label_selector(selector: Option<&Value>) -> Option<LabelSelector> {
    let selector = selector.filter(|selector| selector.is_object())?;
    LabelSelector::from_object(Some(selector)).ok()
}

/// A Service's selector, a plain map; `None` when it is absent or empty, which selects nothing there.
#[must_use]
pub fn map_selector(map: Option<&Value>) -> Option<LabelSelector> {
    let map = map?.as_object().filter(|map| !map.is_empty())?;
    Some(LabelSelector::from_map(Some(map)))
}

fn selector(raw: &Raw<'_>) -> Result<Option<Value>, serde_json::Error> {
    Ok(spec(raw)?.selector)
}

fn pod_facts(raw: &Raw<'_>) -> Result<PodFacts, serde_json::Error> {
    let spec = spec(raw)?;
    let status = status(raw)?;
    let ready =
        status.conditions.unwrap_or_default().into_iter().find(|condition| {
            condition.r#type.as_deref() == Some("Ready") && condition.status.as_deref() == Some("True")
        });
    let containers = status.container_statuses.unwrap_or_default();
    let failing = |container: &RawContainer| {
        container.state.as_ref().is_some_and(|state| {
            let ended_badly = state.terminated.as_ref().is_some_and(|end| end.exit_code.unwrap_or_default() != 0);
            let backs_off = state
                .waiting
                .as_ref()
                .is_some_and(|waiting| waiting.reason.as_deref().is_some_and(|reason| FAILING.contains(&reason)));
            ended_badly || backs_off
        })
    };
    let tolerations = spec.tolerations.unwrap_or_default();
    Ok(PodFacts {
        on_not_ready: stay(&tolerations, TAINT_NOT_READY),
        on_unreachable: stay(&tolerations, TAINT_UNREACHABLE),
        node: spec.node_name.unwrap_or_default(),
        phase: match status.phase.as_deref().unwrap_or_default() {
            "Running" => Phase::Running,
            "Succeeded" => Phase::Succeeded,
            "Failed" => Phase::Failed,
            "Unknown" => Phase::Unknown,
            _ => Phase::Pending,
        },
        ready_since: ready
            .map(|ready| ready.last_transition_time.as_deref().and_then(Moment::parse).unwrap_or_default()),
        ip: status.pod_ip.unwrap_or_default(),
        restarts: containers.iter().map(|container| container.restart_count.unwrap_or_default()).sum(),
        failing: containers.iter().any(failing),
    })
}

fn node_facts(raw: &Raw<'_>) -> Result<NodeFacts, serde_json::Error> {
    let spec = spec(raw)?;
    let status = status(raw)?;
    let conditions = status.conditions.unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.r#type.as_deref() == Some("Ready"));
    let taints = spec.taints.unwrap_or_default();
    let away = taints.iter().find(|taint| {
        taint.effect.as_deref() == Some("NoExecute")
            && taint.key.as_deref().is_some_and(|key| key == TAINT_NOT_READY || key == TAINT_UNREACHABLE)
    });
    Ok(NodeFacts {
        ready: ready.map_or(Ready::Unknown, |ready| match ready.status.as_deref() {
            Some("True") => Ready::Yes,
            Some("False") if ready.reason.as_deref() == Some("NodeRegistered") => Ready::Registered,
            Some("False") => Ready::No,
            _ => Ready::Unknown,
        }),
        cordoned: spec.unschedulable.unwrap_or_default(),
        draining: taints.iter().any(|taint| taint.key.as_deref() == Some(TAINT_DRAINING)),
        away_since: away.map(|taint| taint.time_added.as_deref().and_then(Moment::parse).unwrap_or_default()),
    })
}

/// Reasons of a waiting container that mean it has failed and will be tried again.
const FAILING: [&str; 8] = [
    "CrashLoopBackOff",
    "Error",
    "RunContainerError",
    "CreateContainerError",
    "CreateContainerConfigError",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
];

/// Taint of a node whose condition Ready is False.
pub const TAINT_NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of a node that has fallen silent.
pub const TAINT_UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Taint of a cordoned node.
pub const TAINT_UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Taint of a draining Quilt node.
pub const TAINT_DRAINING: &str = "quilt.sh/draining";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A Pod's kept fields come out of its stored bytes; nulls and unknown fields do no harm.
    #[test]
    fn a_pod_is_read_from_bytes() {
        let key = Key::new("c", "", "pods", "default", "web").expect("valid");
        let bytes = serde_json::to_vec(&json!({
            "metadata": {"name": "web", "uid": "u1", "labels": {"app": "web"}, "annotations": null,
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "o1", "controller": true}],
                "deletionTimestamp": "2026-01-08T10:00:00Z"},
            "spec": {"nodeName": "n1", "containers": [{"name": "main"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-08T09:00:00Z"}],
                "containerStatuses": [{"restartCount": 2, "state": {"running": {}}}]}
        }))
        .expect("json");
        let object = Object::read(&key, Revision::new(5), &bytes).expect("an object");
        assert_eq!(object.controller().expect("owned").uid, "o1");
        assert_eq!(object.deletion, Some(Moment(1_767_866_400_000)));
        let pod = object.pod().expect("a pod");
        assert_eq!((pod.node.as_str(), pod.phase, pod.restarts), ("n1", Phase::Running, 2));
        assert_eq!(pod.ready_since, Some(Moment(1_767_862_800_000)));
        assert!(Object::read(&key, Revision::new(5), b"{").is_err(), "a corrupt record is an error");
    }
}
