//! The Quilt view of workloads: Quilt's own objects as they are, Kubernetes' owners of Pods as projections. Pure; must
//! not know routes or where objects are stored.

use serde_json::{Map, Value, json};

use super::placement::PlacementState;
use crate::quilt::marks;
use crate::store::{Owner, Stored, text};

/// What a workload is made from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A `quilt.sh/v1` Workload.
    Own(Stored),
    /// A Kubernetes object that owns Pods, or a bare Pod.
    Projected {
        /// `apiVersion` of the object.
        api_version: String,
        /// Its kind.
        kind: String,
        /// The object.
        object: Stored,
    },
    /// An owner of Pods of a kind that is not read here; known from its Pods only.
    Foreign {
        /// `apiVersion` of the owner.
        api_version: String,
        /// Its kind.
        kind: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// The oldest of its Pods.
        pod: Box<Stored>,
        /// How many Pods it has.
        pods: u64,
    },
}

impl Source {
    /// The owner a Pod names, known by nothing else.
    pub(crate) fn foreign(owner: Owner<'_>, pod: Stored) -> Self {
        Self::Foreign {
            api_version: owner.api_version.into(),
            kind: owner.kind.into(),
            namespace: pod.namespace().into(),
            name: owner.name.into(),
            uid: owner.uid.into(),
            pod: Box::new(pod),
            pods: 0,
        }
    }

    /// The workload's id.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Own(object) | Self::Projected { object, .. } => object.uid(),
            Self::Foreign { uid, .. } => uid,
        }
    }

    /// Unix seconds.
    pub(crate) fn created_at(&self) -> u64 {
        match self {
            Self::Own(object) | Self::Projected { object, .. } => object.created_at(),
            Self::Foreign { pod, .. } => pod.created_at(),
        }
    }

    /// How many replicas it wants.
    pub(crate) fn replicas(&self) -> u64 {
        let at = |object: &Stored, pointer: &str| object.value.pointer(pointer).and_then(Value::as_u64);
        match self {
            Self::Own(object) => at(object, "/spec/replicas").unwrap_or(0),
            Self::Projected { kind, object, .. } => match kind.as_str() {
                "Pod" => 1,
                "DaemonSet" => at(object, "/status/desiredNumberScheduled").unwrap_or(0),
                "Job" => at(object, "/spec/parallelism").unwrap_or(1),
                _ => at(object, "/spec/replicas").unwrap_or(1),
            },
            Self::Foreign { pods, .. } => *pods,
        }
    }

    /// The workload as Quilt shows it, its placements being in `states`.
    pub(crate) fn render(&self, cluster: &str, states: &[PlacementState]) -> Value {
        let count = |wanted: &[PlacementState]| states.iter().filter(|state| wanted.contains(state)).count() as u64;
        let replicas = self.replicas();
        // A slot no one has made yet is pending as well.
        let missing = replicas.saturating_sub(states.len() as u64);
        self.render_with(
            cluster,
            json!({
                "replicas": replicas,
                "pending": count(&[PlacementState::Pending]) + missing,
                "assigned": count(&[PlacementState::Assigned, PlacementState::Starting]),
                "running": count(&[PlacementState::Running]),
                "failed": count(&[PlacementState::Failed]),
            }),
        )
    }

    /// The workload with the counts its controller wrote last: for agents, who are told of it with every placement and
    /// whose question must not cost a look at all of its Pods.
    pub(crate) fn render_as_stored(&self, cluster: &str) -> Value {
        let replicas = self.replicas();
        let counted = |object: &Stored, field: &str| {
            object.value.pointer("/status").and_then(|status| status[field].as_u64()).unwrap_or(0)
        };
        let status = match self {
            Self::Own(object) => json!({
                "replicas": replicas, "pending": counted(object, "pending"), "assigned": counted(object, "assigned"),
                "running": counted(object, "running"), "failed": counted(object, "failed"),
            }),
            Self::Projected { object, .. } => {
                let running = counted(object, "readyReplicas").min(replicas);
                json!({"replicas": replicas, "pending": 0, "assigned": replicas - running, "running": running, "failed": 0})
            }
            Self::Foreign { .. } => {
                json!({"replicas": replicas, "pending": 0, "assigned": replicas, "running": 0, "failed": 0})
            }
        };
        self.render_with(cluster, status)
    }

    fn render_with(&self, cluster: &str, mut status: Value) -> Value {
        let replicas = self.replicas();
        let common = |object: &Stored| {
            let created_at = object.created_at();
            let updated_at =
                object.annotation(marks::UPDATED_AT).and_then(|text| text.parse().ok()).unwrap_or(created_at);
            (object.value.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or(1), created_at, updated_at)
        };
        let (name, spec, source, (generation, created_at, updated_at)) = match self {
            Self::Own(object) => {
                let observed = object.value.pointer("/status/observed_generation").and_then(Value::as_u64);
                status["observed_generation"] = json!(observed.unwrap_or(0));
                (object.text("/spec/name"), object.value["spec"].clone(), Value::Null, common(object))
            }
            Self::Projected { api_version, kind, object } => {
                let source = json!({"api_version": api_version, "kind": kind, "namespace": object.namespace(), "name": object.name()});
                let facts = common(object);
                let observed = object.value.pointer("/status/observedGeneration").and_then(Value::as_u64);
                status["observed_generation"] = json!(observed.unwrap_or(facts.0));
                (object.name(), projected_spec(kind, object, replicas), source, facts)
            }
            Self::Foreign { api_version, kind, namespace, name, pod, .. } => {
                let source = json!({"api_version": api_version, "kind": kind, "namespace": namespace, "name": name});
                status["observed_generation"] = json!(1);
                let mut spec = projected_spec("Pod", pod, replicas);
                spec["name"] = json!(name);
                (name.as_str(), spec, source, (1, pod.created_at(), pod.created_at()))
            }
        };
        json!({
            "id": self.id(), "cluster_id": cluster, "name": name, "spec": spec, "generation": generation,
            "status": status, "source": source, "created_at": created_at, "updated_at": updated_at,
        })
    }
}

/// The spec a Kubernetes object stands for: its first container and template.
fn projected_spec(kind: &str, object: &Stored, replicas: u64) -> Value {
    let template = if kind == "Pod" { &object.value } else { &object.value["spec"]["template"] };
    let container = template.pointer("/spec/containers/0").unwrap_or(&Value::Null);
    let list = |field: &str| container[field].as_array().cloned().unwrap_or_default();
    let command: Vec<Value> = list("command").into_iter().chain(list("args")).collect();
    let environment: Map<String, Value> = list("env")
        .iter()
        .filter_map(|variable| Some((text(variable, "/name").to_owned(), variable.get("value")?.clone())))
        .collect();
    let mut spec = json!({
        "name": object.name(), "replicas": replicas, "command": command, "environment": environment,
        "labels": template.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({})),
    });
    let image = text(container, "/image");
    if !image.is_empty() && image != marks::NO_IMAGE {
        spec["image"] = json!(image);
    }
    spec
}
