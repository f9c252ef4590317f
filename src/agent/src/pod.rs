//! The part of a v1 Pod an agent acts on. Reads; never writes. Fields it does not know are the control plane's.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

/// Seconds a Pod without another wish gets to end.
const GRACE_SECS: u64 = 30;

/// A Pod bound to this node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) metadata: Metadata,
    pub(crate) spec: PodSpec,
    /// Conditions as the control plane has them, whose times go on.
    pub(crate) conditions: Vec<Value>,
    /// The object as it came, without its status, kept to resume from.
    pub(crate) object: Value,
}

/// Why a Pod cannot be run as it is.
#[derive(Debug, Error)]
pub(crate) enum PodError {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{field} \"{value}\" cannot be part of a path")]
    Name { field: &'static str, value: String },
    #[error(transparent)]
    Shape(#[from] serde_json::Error),
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) deletion_timestamp: Option<String>,
    pub(crate) deletion_grace_period_seconds: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    pub(crate) init_containers: Vec<Container>,
    pub(crate) containers: Vec<Container>,
    pub(crate) restart_policy: RestartPolicy,
    pub(crate) termination_grace_period_seconds: Option<i64>,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) service_account_name: Option<String>,
    pub(crate) readiness_gates: Vec<ReadinessGate>,
}

/// A condition that somebody else sets and without which the Pod is not ready.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ReadinessGate {
    pub(crate) condition_type: String,
}

/// What follows when a container ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum RestartPolicy {
    #[default]
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    /// Whether a container that ended so is started again.
    pub(crate) fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) command: Vec<String>,
    pub(crate) args: Vec<String>,
    pub(crate) working_dir: Option<String>,
    pub(crate) env: Vec<EnvVar>,
    pub(crate) env_from: Vec<EnvFrom>,
    pub(crate) ports: Vec<Port>,
    pub(crate) volume_mounts: Vec<VolumeMount>,
    pub(crate) restart_policy: Option<RestartPolicy>,
    pub(crate) readiness_probe: Option<Probe>,
    pub(crate) liveness_probe: Option<Probe>,
    pub(crate) startup_probe: Option<Probe>,
    pub(crate) lifecycle: Lifecycle,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EnvVar {
    pub(crate) name: String,
    pub(crate) value: Option<String>,
    pub(crate) value_from: Option<EnvSource>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EnvSource {
    pub(crate) field_ref: Option<FieldRef>,
    pub(crate) resource_field_ref: Option<Value>,
    pub(crate) config_map_key_ref: Option<KeyRef>,
    pub(crate) secret_key_ref: Option<KeyRef>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct FieldRef {
    pub(crate) field_path: String,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct KeyRef {
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) optional: bool,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EnvFrom {
    pub(crate) prefix: String,
    pub(crate) config_map_ref: Option<ObjectRef>,
    pub(crate) secret_ref: Option<ObjectRef>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ObjectRef {
    pub(crate) name: String,
    pub(crate) optional: bool,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) container_port: u16,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct VolumeMount {
    pub(crate) name: String,
    pub(crate) mount_path: String,
    pub(crate) sub_path: String,
}

/// A volume and its source; exactly one source is set.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) empty_dir: Option<Value>,
    pub(crate) host_path: Option<HostPath>,
    pub(crate) config_map: Option<FileSource>,
    pub(crate) secret: Option<FileSource>,
    pub(crate) projected: Option<Projected>,
    #[serde(rename = "downwardAPI")]
    pub(crate) downward_api: Option<DownwardApi>,
    #[serde(flatten)]
    pub(crate) others: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct HostPath {
    pub(crate) path: String,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct FileSource {
    pub(crate) optional: bool,
    pub(crate) default_mode: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Projected {
    pub(crate) sources: Vec<Value>,
    pub(crate) default_mode: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DownwardApi {
    pub(crate) items: Vec<DownwardItem>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DownwardItem {
    pub(crate) path: String,
    pub(crate) field_ref: Option<FieldRef>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Lifecycle {
    pub(crate) pre_stop: Option<Action>,
}

/// Something done to a container from outside: a probe's or a hook's.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Action {
    pub(crate) exec: Option<ExecAction>,
    pub(crate) http_get: Option<HttpGetAction>,
    pub(crate) tcp_socket: Option<TcpSocketAction>,
    pub(crate) sleep: Option<SleepAction>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ExecAction {
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct HttpGetAction {
    pub(crate) path: String,
    pub(crate) port: Value,
    pub(crate) host: String,
    pub(crate) scheme: String,
    pub(crate) http_headers: Vec<HttpHeader>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct HttpHeader {
    pub(crate) name: String,
    pub(crate) value: String,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TcpSocketAction {
    pub(crate) port: Value,
    pub(crate) host: String,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SleepAction {
    pub(crate) seconds: u64,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Probe {
    #[serde(flatten)]
    pub(crate) action: Action,
    pub(crate) initial_delay_seconds: Option<u64>,
    pub(crate) period_seconds: Option<u64>,
    pub(crate) timeout_seconds: Option<u64>,
    pub(crate) success_threshold: Option<u32>,
    pub(crate) failure_threshold: Option<u32>,
}

impl Pod {
    /// Reads a Pod; whatever is a part of a path here is checked to be one name.
    pub(crate) fn parse(object: &Value) -> Result<Self, PodError> {
        let mut object = object.clone();
        drop_nulls(&mut object);
        let text = |field: &'static str, value: &Value| -> Result<String, PodError> {
            let value = value.as_str().ok_or(PodError::Missing(field))?;
            check_name(field, value)?;
            Ok(value.to_owned())
        };
        let namespace = text("metadata.namespace", &object["metadata"]["namespace"])?;
        let name = text("metadata.name", &object["metadata"]["name"])?;
        let uid = text("metadata.uid", &object["metadata"]["uid"])?;
        let metadata = Metadata::deserialize(&object["metadata"])?;
        let spec = PodSpec::deserialize(&object["spec"])?;
        if spec.containers.is_empty() {
            return Err(PodError::Missing("spec.containers"));
        }
        for container in spec.init_containers.iter().chain(&spec.containers) {
            check_name("spec.containers[].name", &container.name)?;
        }
        for volume in &spec.volumes {
            check_name("spec.volumes[].name", &volume.name)?;
        }
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        Ok(Self { namespace, name, uid, metadata, spec, conditions, object })
    }

    /// Whether every condition its readiness waits for has been set by those whose business it is.
    pub(crate) fn gates_are_open(&self) -> bool {
        self.spec.readiness_gates.iter().all(|gate| {
            let is_open =
                |condition: &Value| condition["type"] == *gate.condition_type && condition["status"] == "True";
            self.conditions.iter().any(is_open)
        })
    }

    pub(crate) fn deletion_requested(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// The time its processes get between being asked to end and being ended.
    pub(crate) fn grace(&self) -> Duration {
        let seconds = self
            .metadata
            .deletion_grace_period_seconds
            .or(self.spec.termination_grace_period_seconds)
            .map_or(GRACE_SECS, |seconds| u64::try_from(seconds).unwrap_or(0));
        Duration::from_secs(seconds)
    }

    /// Whether an init container runs beside the others instead of before them.
    pub(crate) fn is_sidecar(container: &Container) -> bool {
        container.restart_policy == Some(RestartPolicy::Always)
    }
}

fn check_name(field: &'static str, value: &str) -> Result<(), PodError> {
    let plain = !value.is_empty()
        && value.len() <= 253
        && value != "."
        && value != ".."
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if plain {
        return Ok(());
    }
    Err(PodError::Name { field, value: value.to_owned() })
}

/// A null field equals an absent one.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_name, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Pod, PodError, RestartPolicy};

    /// Nulls equal absent fields, and a name that would leave the pod's directory is refused.
    #[test]
    fn reads_what_it_needs_and_refuses_paths() {
        let object = json!({
            "metadata": {"namespace": "default", "name": "web", "uid": "u-1", "labels": null},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "command": ["/bin/true"], "args": null}]},
        });
        let pod = Pod::parse(&object).expect("a pod");
        assert_eq!(pod.spec.restart_policy, RestartPolicy::Never);
        assert_eq!(pod.grace().as_secs(), 30);

        let mut climbing = object;
        climbing["metadata"]["uid"] = json!("../..");
        assert!(matches!(Pod::parse(&climbing), Err(PodError::Name { .. })));
    }
}
