//! What of an object is recorded: its identity, the value a client wrote, and what product invariants need. Facts of the product's
//! kinds stand here and nowhere else in the workload.

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use crate::cluster::text;
use crate::history::{Facts, Seen};

/// Where our clients put their values on objects whose fields have another meaning.
pub(super) const ANNOTATION: &str = "oracle.quilt.sh/value";

/// Names the Pod that a Workload's new Pod takes the place of.
const REPLACES: &str = "quilt.sh/replaces";

/// How objects of one collection are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A `ConfigMap` of one namespace: `data.value`.
    ConfigMap,
    /// A Workload, by Kubernetes or by Quilt routes: `spec.environment.value`.
    Workload,
    /// A v1 Node.
    Node,
    /// A v1 Pod.
    Pod,
    /// An apps/v1 Deployment: its annotation.
    Deployment,
    /// An apps/v1 `ReplicaSet`.
    ReplicaSet,
}

impl Shape {
    /// Whether names stand with their namespace.
    fn spans_namespaces(self) -> bool {
        matches!(self, Self::Pod | Self::Deployment | Self::ReplicaSet)
    }

    /// One version as it is recorded.
    pub(super) fn seen(self, object: &Value) -> Seen {
        let metadata = &object["metadata"];
        let own = text(&metadata["name"]);
        let name = match self {
            _ if self.spans_namespaces() => format!("{}/{own}", text(&metadata["namespace"])),
            // A Quilt answer has no metadata.
            Self::Workload => text(&object["spec"]["name"]),
            _ => own,
        };
        let uid = metadata["uid"].as_str().or_else(|| object["id"].as_str()).unwrap_or_default().to_owned();
        let value = match self {
            Self::ConfigMap => &object["data"]["value"],
            Self::Workload => &object["spec"]["environment"]["value"],
            Self::Deployment => &metadata["annotations"][ANNOTATION],
            // A Pod's annotations are its template's.
            Self::Node | Self::Pod | Self::ReplicaSet => &Value::Null,
        };
        Seen {
            name,
            uid,
            revision: revision(&metadata["resourceVersion"]),
            value: text(value),
            group: text(&metadata["labels"]["group"]),
            print: print(object),
            facts: self.facts(object),
        }
    }

    fn facts(self, object: &Value) -> Option<Facts> {
        let spec = &object["spec"];
        match self {
            Self::ConfigMap | Self::Workload => None,
            Self::Pod => Some(Facts::Pod {
                node: spec["nodeName"].as_str().filter(|node| !node.is_empty()).map(str::to_owned),
                cpu_millis: requests(spec, "cpu", cpu_millis),
                memory_bytes: requests(spec, "memory", bytes),
                finished: matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed")),
                terminating: object["metadata"]["deletionTimestamp"].is_string(),
                owner: controller(object),
                replaces: object["metadata"]["annotations"][REPLACES].as_str().map(str::to_owned),
            }),
            Self::Node => {
                let allocatable = &object["status"]["allocatable"];
                Some(Facts::Node {
                    cpu_millis: allocatable["cpu"].as_str().and_then(cpu_millis),
                    memory_bytes: allocatable["memory"].as_str().and_then(bytes),
                    pods: allocatable["pods"].as_str().and_then(bytes),
                    subnet: spec["podCIDR"].as_str().map(str::to_owned),
                })
            }
            Self::Deployment => {
                let replicas = spec["replicas"].as_u64().unwrap_or(1);
                let surge = surge(&spec["strategy"]["rollingUpdate"]["maxSurge"], replicas);
                Some(Facts::Deployment { replicas, surge })
            }
            Self::ReplicaSet => {
                Some(Facts::ReplicaSet { owner: controller(object), replicas: spec["replicas"].as_u64().unwrap_or(1) })
            }
        }
    }
}

/// A `resourceVersion`; 0 where there is none.
pub(super) fn revision(version: &Value) -> u64 {
    version.as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A hash of an object's content. Lists show their items without kind and apiVersion.
fn print(object: &Value) -> u64 {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    xxh3_64(object.to_string().as_bytes())
}

fn controller(object: &Value) -> Option<String> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    owner["uid"].as_str().map(str::to_owned)
}

fn requests(spec: &Value, resource: &str, read: fn(&str) -> Option<u64>) -> u64 {
    let containers = spec["containers"].as_array().into_iter().flatten();
    containers.filter_map(|container| container["resources"]["requests"][resource].as_str().and_then(read)).sum()
}

fn surge(text: &Value, replicas: u64) -> u64 {
    match (text.as_u64(), text.as_str()) {
        (Some(count), _) => count,
        (None, Some(percent)) => {
            let percent: u64 = percent.trim_end_matches('%').parse().unwrap_or(0);
            (replicas * percent).div_ceil(100)
        }
        // The default is a quarter.
        (None, None) => (replicas * 25).div_ceil(100),
    }
}

/// A CPU quantity in thousandths, rounded up.
fn cpu_millis(text: &str) -> Option<u64> {
    match text.strip_suffix('m') {
        Some(millis) => millis.parse().ok(),
        None => scaled(text, 1000),
    }
}

/// A quantity of bytes or of things.
fn bytes(text: &str) -> Option<u64> {
    const SUFFIXES: [(&str, u64); 9] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("", 1),
    ];
    SUFFIXES.iter().find_map(|(suffix, factor)| scaled(text.strip_suffix(suffix)?, *factor))
}

/// A decimal number times a factor, rounded up.
fn scaled(text: &str, factor: u64) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = u32::try_from(part.len()).ok()?;
    let part: u64 = part.parse().ok()?;
    let whole: u64 = whole.parse().ok()?;
    Some(whole.checked_mul(factor)? + (part * factor).div_ceil(10_u64.checked_pow(digits)?))
}

#[cfg(test)]
mod tests {
    use super::{Shape, bytes, cpu_millis};
    use crate::history::Facts;
    use serde_json::json;

    /// Quantities are read as Kubernetes writes them.
    #[test]
    fn quantities() {
        assert_eq!(["100m", "2", "0.5", "1.25"].map(cpu_millis), [100, 2000, 500, 1250].map(Some));
        assert_eq!(
            ["128Mi", "1Gi", "1k", "110", "1.5Gi"].map(bytes),
            [Some(128 << 20), Some(1 << 30), Some(1000), Some(110), Some(3 << 29)]
        );
        assert_eq!(bytes("much"), None);
    }

    /// A list's item and the same object with its kind have one print; another revision has another.
    #[test]
    fn one_content_one_print() {
        let item = json!({"metadata": {"name": "a", "uid": "u", "resourceVersion": "7"}, "data": {"value": "v"}});
        let mut object = item.clone();
        object["kind"] = "ConfigMap".into();
        object["apiVersion"] = "v1".into();
        let seen = Shape::ConfigMap.seen(&item);
        assert_eq!(seen, Shape::ConfigMap.seen(&object));
        assert_eq!((seen.revision, seen.value.as_str()), (7, "v"));
        object["metadata"]["resourceVersion"] = "8".into();
        assert_ne!(seen.print, Shape::ConfigMap.seen(&object).print);
    }

    /// What invariants need of a Pod and of a Deployment.
    #[test]
    fn facts_are_read() {
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "annotations": {"quilt.sh/replaces": "old"},
            "ownerReferences": [{"uid": "x"}, {"uid": "rs", "controller": true}]},
            "spec": {"nodeName": "n1", "containers": [{"resources": {"requests": {"cpu": "100m", "memory": "1Mi"}}},
                {"resources": {"requests": {"cpu": "1"}}}]}, "status": {"phase": "Running"}});
        let seen = Shape::Pod.seen(&pod);
        assert_eq!(seen.name, "n/p");
        let expected = Facts::Pod {
            node: Some("n1".into()),
            cpu_millis: 1100,
            memory_bytes: 1 << 20,
            finished: false,
            terminating: false,
            owner: Some("rs".into()),
            replaces: Some("old".into()),
        };
        assert_eq!(seen.facts, Some(expected));
        let deployment = json!({"metadata": {"name": "d", "namespace": "n"},
            "spec": {"replicas": 5, "strategy": {"rollingUpdate": {"maxSurge": "25%"}}}});
        assert_eq!(Shape::Deployment.seen(&deployment).facts, Some(Facts::Deployment { replicas: 5, surge: 2 }));
    }
}
