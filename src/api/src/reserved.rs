//! Fields only the control plane writes: `quilt.sh/*` labels and annotations on Nodes, Pods and Pod templates,
//! `Node.spec.podCIDR(s)`, `Workload.status`. Everyone else, cluster-admins included, is refused.

use quilt_objects::kind::Kind;
use quilt_objects::place;
use serde_json::Value;

use crate::identity::{Identity, IdentityKind};
use crate::problem::Problem;

/// Prefix of reserved labels and annotations.
const PREFIX: &str = "quilt.sh/";
/// The label by which Quilt's own manifests belong to an application: users own it.
const APPLICATION: &str = "quilt.sh/application";

/// Reserved places of one kind.
struct Reserved {
    group: &'static str,
    resource: &'static str,
    /// Metadata whose labels and annotations are reserved.
    metadata: &'static [&'static [&'static str]],
    /// Whole fields.
    fields: &'static [&'static [&'static str]],
}

const TEMPLATE: &[&[&str]] = &[&["spec", "template", "metadata"]];

const RESERVED: [Reserved; 10] = [
    Reserved {
        group: "",
        resource: "nodes",
        metadata: &[&["metadata"]],
        fields: &[&["spec", "podCIDR"], &["spec", "podCIDRs"]],
    },
    Reserved { group: "", resource: "pods", metadata: &[&["metadata"]], fields: &[] },
    Reserved { group: "quilt.sh", resource: "workloads", metadata: &[], fields: &[&["status"]] },
    Reserved { group: "apps", resource: "deployments", metadata: TEMPLATE, fields: &[] },
    Reserved { group: "apps", resource: "replicasets", metadata: TEMPLATE, fields: &[] },
    Reserved { group: "apps", resource: "statefulsets", metadata: TEMPLATE, fields: &[] },
    Reserved { group: "apps", resource: "daemonsets", metadata: TEMPLATE, fields: &[] },
    Reserved { group: "batch", resource: "jobs", metadata: TEMPLATE, fields: &[] },
    Reserved { group: "", resource: "replicationcontrollers", metadata: TEMPLATE, fields: &[] },
    Reserved { group: "", resource: "podtemplates", metadata: &[&["template", "metadata"]], fields: &[] },
];

/// Refuses a change of a reserved field by anybody but the control plane.
pub(crate) fn check(identity: &Identity, kind: &Kind, old: Option<&Value>, new: &Value) -> Result<(), Problem> {
    if identity.kind == IdentityKind::ControlPlane {
        return Ok(());
    }
    let Some(reserved) = RESERVED.iter().find(|entry| entry.resource == kind.plural && entry.group == kind.group)
    else {
        return Ok(());
    };
    let empty = Value::Null;
    let is_new = old.is_none();
    let old = old.unwrap_or(&empty);
    let name = place::text_or_empty(new, &["metadata", "name"]);
    let refuse =
        |field: String| Err(Problem::forbidden(kind, name, &format!("{field} is written by the control plane only")));
    for path in reserved.fields {
        // The status of a new object is never the client's: it is not looked at here.
        let looked_at = !is_new || path.first() != Some(&"status");
        if looked_at && place::get(old, path) != place::get(new, path) {
            return refuse(path.join("."));
        }
    }
    for path in reserved.metadata {
        for part in ["labels", "annotations"] {
            let path: Vec<&str> = path.iter().copied().chain([part]).collect();
            if let Some(key) = changed(place::map(old, &path), place::map(new, &path)) {
                return refuse(format!("{}[{key}]", path.join(".")));
            }
        }
    }
    Ok(())
}

type Map = serde_json::Map<String, Value>;

/// The first reserved key whose value differs.
fn changed(old: Option<&Map>, new: Option<&Map>) -> Option<String> {
    let reserved = |key: &&String| key.starts_with(PREFIX) && *key != APPLICATION;
    let keys = old.into_iter().chain(new).flat_map(Map::keys).filter(reserved);
    keys.into_iter().find(|key| old.and_then(|map| map.get(*key)) != new.and_then(|map| map.get(*key))).cloned()
}
