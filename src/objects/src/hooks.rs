//! What is special about a kind, and only here: defaults beyond the declarative ones, what create and update reset,
//! extra validation, printer columns. Verbs ask [`of`] and never compare kinds themselves.

mod apps;
mod batch;
mod cluster;
mod core;
mod pod;
pub mod scale;
mod service;

pub use pod::run_by_someone;

pub(crate) use pod::CONTAINER_LISTS;

use serde_json::Value;

use crate::kind::{Generation, Kind};
use crate::place;
use crate::table::{self, Printer};
use crate::validate::{self, FieldError};

/// What becomes of the status a client sends with a create.
#[derive(Clone, Copy)]
pub enum InitialStatus {
    /// Dropped: status starts empty.
    Empty,
    /// Replaced by what this says.
    Made(fn(&Value) -> Value),
    /// Kept: nodes register with their status, plain data kinds have none.
    AsSent,
}

/// The hooks of one kind. Every function accepts any object shape and never panics.
pub struct Hooks {
    /// Fills what is absent. Runs after the declarative defaults, with `metadata.name` and `namespace` set.
    pub defaults: fn(&mut Value),
    /// Status of a new object.
    pub initial_status: InitialStatus,
    /// Carries over what an update may leave out, and fills what a create derives (labels from the uid, ...).
    pub prepare: fn(new: &mut Value, old: Option<&Value>),
    /// Complaints about any object of the kind, beyond its metadata.
    pub validate: fn(&Value, &mut Vec<FieldError>),
    /// Complaints about a change.
    pub validate_update: fn(new: &Value, old: &Value, &mut Vec<FieldError>),
    /// Rule for `metadata.name`.
    pub name_rule: fn(&str) -> Vec<String>,
    /// Printer columns.
    pub printer: &'static Printer,
}

impl Hooks {
    /// A kind with nothing special but its printer.
    const fn plain(printer: &'static Printer) -> Self {
        Self {
            defaults: |_| {},
            initial_status: InitialStatus::Empty,
            prepare: |_, _| {},
            validate: |_, _| {},
            validate_update: |_, _, _| {},
            name_rule: crate::names::dns1123_subdomain,
            printer,
        }
    }

    const fn defaults(mut self, defaults: fn(&mut Value)) -> Self {
        self.defaults = defaults;
        self
    }

    const fn status(mut self, status: InitialStatus) -> Self {
        self.initial_status = status;
        self
    }

    const fn prepare(mut self, prepare: fn(&mut Value, Option<&Value>)) -> Self {
        self.prepare = prepare;
        self
    }

    const fn validate(mut self, validate: fn(&Value, &mut Vec<FieldError>)) -> Self {
        self.validate = validate;
        self
    }

    const fn on_update(mut self, validate: fn(&Value, &Value, &mut Vec<FieldError>)) -> Self {
        self.validate_update = validate;
        self
    }

    const fn named(mut self, rule: fn(&str) -> Vec<String>) -> Self {
        self.name_rule = rule;
        self
    }
}

/// One line per kind: group, kind, hooks. Kinds not listed are [`PLAIN`].
static HOOKS: &[(&str, &str, Hooks)] = &[
    (
        "",
        "Pod",
        Hooks::plain(&table::pods::PODS)
            .defaults(pod::defaults)
            .status(InitialStatus::Made(pod::initial_status))
            .prepare(pod::prepare)
            .validate(validate::pod::pod)
            .on_update(validate::pod::pod_update),
    ),
    (
        "",
        "PodTemplate",
        Hooks::plain(&table::apps::POD_TEMPLATES).defaults(|object| pod::template(object, &["template"])),
    ),
    (
        "",
        "Service",
        Hooks::plain(&table::core::SERVICES)
            .defaults(service::defaults)
            .prepare(service::prepare)
            .validate(validate::service::service)
            .on_update(validate::service::service_update)
            .named(crate::names::dns1123_label),
    ),
    ("", "Endpoints", Hooks::plain(&table::core::ENDPOINTS).defaults(service::endpoints_defaults)),
    (
        "",
        "Namespace",
        Hooks::plain(&table::core::NAMESPACES)
            .defaults(core::namespace_defaults)
            .status(InitialStatus::Made(|_| serde_json::json!({"phase": "Active"})))
            .prepare(core::namespace_prepare)
            .named(crate::names::dns1123_label),
    ),
    (
        "",
        "Node",
        Hooks::plain(&table::core::NODES)
            .defaults(core::node_defaults)
            .status(InitialStatus::AsSent)
            .validate(validate::core::node)
            .on_update(validate::core::node_update),
    ),
    (
        "",
        "ConfigMap",
        Hooks::plain(&table::core::CONFIG_MAPS)
            .status(InitialStatus::AsSent)
            .validate(validate::core::config_map)
            .on_update(validate::core::config_map_update),
    ),
    (
        "",
        "Secret",
        Hooks::plain(&table::core::SECRETS)
            .defaults(core::secret_defaults)
            .status(InitialStatus::AsSent)
            .validate(validate::core::secret)
            .on_update(validate::core::secret_update),
    ),
    ("", "Event", Hooks::plain(&table::core::EVENTS).status(InitialStatus::AsSent)),
    ("events.k8s.io", "Event", Hooks::plain(&table::core::EVENTS).status(InitialStatus::AsSent)),
    ("", "ServiceAccount", Hooks::plain(&table::core::SERVICE_ACCOUNTS).status(InitialStatus::AsSent)),
    (
        "",
        "PersistentVolume",
        Hooks::plain(&table::storage::PERSISTENT_VOLUMES)
            .defaults(core::persistent_volume_defaults)
            .status(InitialStatus::Made(|_| serde_json::json!({"phase": "Pending"}))),
    ),
    (
        "",
        "PersistentVolumeClaim",
        Hooks::plain(&table::storage::PERSISTENT_VOLUME_CLAIMS)
            .defaults(core::claim_defaults)
            .status(InitialStatus::Made(|_| serde_json::json!({"phase": "Pending"})))
            .validate(validate::core::claim),
    ),
    ("", "LimitRange", Hooks::plain(&table::cluster::LIMIT_RANGES).defaults(core::limit_range_defaults)),
    ("", "ResourceQuota", Hooks::plain(&table::cluster::RESOURCE_QUOTAS)),
    (
        "",
        "ReplicationController",
        Hooks::plain(&table::apps::REPLICATION_CONTROLLERS)
            .defaults(apps::replication_controller_defaults)
            .status(InitialStatus::Made(|_| serde_json::json!({"replicas": 0})))
            .validate(validate::apps::replication_controller),
    ),
    (
        "apps",
        "Deployment",
        Hooks::plain(&table::apps::DEPLOYMENTS)
            .defaults(apps::deployment_defaults)
            .validate(validate::apps::deployment)
            .on_update(validate::apps::selector_immutable),
    ),
    (
        "apps",
        "ReplicaSet",
        Hooks::plain(&table::apps::REPLICA_SETS)
            .defaults(apps::replica_set_defaults)
            .status(InitialStatus::Made(|_| serde_json::json!({"replicas": 0})))
            .validate(validate::apps::replica_set)
            .on_update(validate::apps::selector_immutable),
    ),
    (
        "apps",
        "StatefulSet",
        Hooks::plain(&table::apps::STATEFUL_SETS)
            .defaults(apps::stateful_set_defaults)
            .status(InitialStatus::Made(|_| serde_json::json!({"replicas": 0})))
            .validate(validate::apps::stateful_set)
            .on_update(validate::apps::stateful_set_update)
            .named(crate::names::dns1123_label),
    ),
    (
        "apps",
        "DaemonSet",
        Hooks::plain(&table::apps::DAEMON_SETS)
            .defaults(apps::daemon_set_defaults)
            .status(InitialStatus::Made(apps::daemon_set_status))
            .validate(validate::apps::daemon_set)
            .on_update(validate::apps::selector_immutable),
    ),
    ("apps", "ControllerRevision", Hooks::plain(&table::apps::CONTROLLER_REVISIONS)),
    (
        "batch",
        "Job",
        Hooks::plain(&table::apps::JOBS)
            .defaults(batch::job_defaults)
            .prepare(batch::job_prepare)
            .validate(validate::apps::job)
            .on_update(validate::apps::job_update),
    ),
    (
        "batch",
        "CronJob",
        Hooks::plain(&table::apps::CRON_JOBS).defaults(batch::cron_job_defaults).validate(validate::apps::cron_job),
    ),
    (
        "discovery.k8s.io",
        "EndpointSlice",
        Hooks::plain(&table::core::ENDPOINT_SLICES).defaults(service::slice_defaults),
    ),
    ("networking.k8s.io", "Ingress", Hooks::plain(&table::core::INGRESSES).validate(validate::service::ingress)),
    ("networking.k8s.io", "IngressClass", Hooks::plain(&table::core::INGRESS_CLASSES)),
    (
        "networking.k8s.io",
        "NetworkPolicy",
        Hooks::plain(&table::core::NETWORK_POLICIES).defaults(cluster::network_policy_defaults),
    ),
    (
        "storage.k8s.io",
        "StorageClass",
        Hooks::plain(&table::storage::STORAGE_CLASSES).defaults(core::storage_class_defaults),
    ),
    ("storage.k8s.io", "CSIDriver", Hooks::plain(&table::storage::CSI_DRIVERS).defaults(cluster::csi_driver_defaults)),
    ("storage.k8s.io", "CSINode", Hooks::plain(&table::storage::CSI_NODES)),
    ("storage.k8s.io", "VolumeAttachment", Hooks::plain(&table::storage::VOLUME_ATTACHMENTS)),
    (
        "autoscaling",
        "HorizontalPodAutoscaler",
        Hooks::plain(&table::cluster::HORIZONTAL_POD_AUTOSCALERS).defaults(cluster::autoscaler_defaults),
    ),
    ("policy", "PodDisruptionBudget", Hooks::plain(&table::cluster::POD_DISRUPTION_BUDGETS)),
    ("coordination.k8s.io", "Lease", Hooks::plain(&table::cluster::LEASES)),
    (
        "scheduling.k8s.io",
        "PriorityClass",
        Hooks::plain(&table::cluster::PRIORITY_CLASSES).defaults(cluster::priority_class_defaults),
    ),
    ("node.k8s.io", "RuntimeClass", Hooks::plain(&table::cluster::RUNTIME_CLASSES)),
    ("rbac.authorization.k8s.io", "Role", Hooks::plain(&table::cluster::ROLES).named(crate::names::path_segment)),
    (
        "rbac.authorization.k8s.io",
        "ClusterRole",
        Hooks::plain(&table::cluster::ROLES).named(crate::names::path_segment),
    ),
    (
        "rbac.authorization.k8s.io",
        "RoleBinding",
        Hooks::plain(&table::cluster::ROLE_BINDINGS)
            .defaults(cluster::binding_defaults)
            .on_update(validate::core::role_ref_immutable)
            .named(crate::names::path_segment),
    ),
    (
        "rbac.authorization.k8s.io",
        "ClusterRoleBinding",
        Hooks::plain(&table::cluster::ROLE_BINDINGS)
            .defaults(cluster::binding_defaults)
            .on_update(validate::core::role_ref_immutable)
            .named(crate::names::path_segment),
    ),
    (
        "admissionregistration.k8s.io",
        "ValidatingWebhookConfiguration",
        Hooks::plain(&table::cluster::WEBHOOK_CONFIGURATIONS).defaults(cluster::webhook_defaults),
    ),
    (
        "admissionregistration.k8s.io",
        "MutatingWebhookConfiguration",
        Hooks::plain(&table::cluster::WEBHOOK_CONFIGURATIONS).defaults(cluster::mutating_webhook_defaults),
    ),
    (
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        Hooks::plain(&table::cluster::CUSTOM_RESOURCE_DEFINITIONS)
            .defaults(cluster::definition_defaults)
            .validate(validate::core::definition)
            .on_update(validate::core::definition_update),
    ),
    ("apiregistration.k8s.io", "APIService", Hooks::plain(&table::cluster::API_SERVICES)),
    ("certificates.k8s.io", "CertificateSigningRequest", Hooks::plain(&table::cluster::SIGNING_REQUESTS)),
    (
        "quilt.sh",
        "Workload",
        Hooks::plain(&table::apps::WORKLOADS).validate(validate::workload::workload).status(InitialStatus::Empty),
    ),
    ("metrics.k8s.io", "NodeMetrics", Hooks::plain(&table::cluster::NODE_METRICS)),
    ("metrics.k8s.io", "PodMetrics", Hooks::plain(&table::cluster::POD_METRICS)),
];

/// A kind with nothing special at all: custom resources among them.
static PLAIN: Hooks = Hooks::plain(&table::PLAIN);

/// Fills in what an object of `kind` leaves open: every object that is stored went through this. Doing it twice changes
/// nothing.
pub fn complete(kind: &Kind, object: &mut Value) {
    crate::default::fill(kind.node(), object);
    (of(kind).defaults)(object);
}

/// The hooks of `kind`.
#[must_use]
pub fn of(kind: &Kind) -> &'static Hooks {
    let own = HOOKS.iter().find(|(group, name, _)| *group == kind.group && *name == kind.kind);
    own.map_or(&PLAIN, |(_, _, hooks)| hooks)
}

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The object itself: everything but its status.
    Main,
    /// The `status` subresource: nothing but the status.
    Status,
}

/// Fields of metadata that only the control plane writes.
const OWN_METADATA: [&str; 7] =
    ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"];

/// Whether status is written through its own subresource.
fn has_status(kind: &Kind) -> bool {
    kind.subresource("status").is_some()
}

/// Makes a decoded and defaulted object what it is at its birth: status, generation, no trace of an earlier life.
///
/// `metadata.uid`, `name`, `namespace` and `creationTimestamp` are set before; ids and time come with the request.
pub fn prepare_for_create(kind: &Kind, object: &mut Value) {
    for field in ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        place::remove(object, &["metadata", field]);
    }
    let hooks = of(kind);
    if has_status(kind) {
        match hooks.initial_status {
            InitialStatus::AsSent => {}
            InitialStatus::Empty => {
                place::set(object, &["status"], serde_json::json!({}));
            }
            InitialStatus::Made(make) => {
                let status = make(object);
                place::set(object, &["status"], status);
            }
        }
    }
    (hooks.prepare)(object, None);
    if kind.generation != Generation::None {
        place::set(object, &["metadata", "generation"], 1);
    }
}

/// Makes `new` a legal successor of `old`: what this part may not change is taken from `old`, and a change of what
/// counts raises the generation. `new` is decoded and defaulted.
pub fn prepare_for_update(kind: &Kind, new: &mut Value, old: &Value, part: Part) {
    match part {
        Part::Status => {
            let managed_fields = place::get(new, &["metadata", "managedFields"]).cloned();
            let status = place::get(new, &["status"]).cloned();
            new.clone_from(old);
            for (path, value) in [(["metadata", "managedFields"].as_slice(), managed_fields), (&["status"], status)] {
                match value {
                    Some(value) => place::set(new, path, value),
                    None => {
                        place::remove(new, path);
                    }
                }
            }
        }
        Part::Main => {
            place::remove(new, &["metadata", "selfLink"]);
            place::remove(new, &["metadata", "resourceVersion"]);
            for field in OWN_METADATA {
                place::keep(new, old, &["metadata", field]);
            }
            if has_status(kind) {
                place::keep(new, old, &["status"]);
            }
            (of(kind).prepare)(new, Some(old));
            raise_generation(kind, new, old);
        }
    }
}

fn raise_generation(kind: &Kind, new: &mut Value, old: &Value) {
    let changed = match kind.generation {
        Generation::None => return,
        Generation::Spec => place::get(new, &["spec"]) != place::get(old, &["spec"]),
        Generation::Content => content_differs(new, old),
    };
    let generation = place::int(old, &["metadata", "generation"]).unwrap_or(0) + i64::from(changed);
    if generation > 0 {
        place::set(new, &["metadata", "generation"], generation);
    }
}

/// Whether anything but type, metadata and status differs.
fn content_differs(new: &Value, old: &Value) -> bool {
    const NOT_CONTENT: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];
    let content = |object: &Value| {
        let map = object.as_object().cloned().unwrap_or_default();
        map.into_iter()
            .filter(|(key, value)| !NOT_CONTENT.contains(&key.as_str()) && !value.is_null())
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    content(new) != content(old)
}

#[cfg(test)]
mod tests;
