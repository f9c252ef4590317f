//! Nodes: an agent's node gives its token, its name and its subnet back in the transaction that deletes the Node, so
//! that a Kubernetes DELETE of it equals the Quilt one; and uncordoning ends draining in the same write.

use quilt_objects::place;
use serde_json::Value;

use super::{Allocation, Claims};
use crate::problem::Problem;
use crate::quilt;

/// Nothing is taken here: what a node holds, its registration took.
pub(super) fn allocate(at: &Allocation<'_>, old: Option<&Value>, new: Option<&mut Value>) -> Result<Claims, Problem> {
    match (old, new) {
        (Some(old), None) => release(at, old),
        (_, Some(new)) => {
            end_draining(new);
            Ok(Claims::default())
        }
        (None, None) => Ok(Claims::default()),
    }
}

/// Token, name and subnet are free at once, also while a finalizer keeps the Node; nothing is left to free then.
pub(super) fn release(at: &Allocation<'_>, node: &Value) -> Result<Claims, Problem> {
    let (compares, ops) = quilt::release(at.view, &at.cluster.id, node)?;
    Ok(Claims { compares, ops })
}

/// A node that takes Pods is not draining: a later cordon is a plain one.
fn end_draining(node: &mut Value) {
    if place::flag(node, &["spec", "unschedulable"]) {
        return;
    }
    let taints = place::items(node, &["spec", "taints"]);
    let kept: Vec<Value> = taints.iter().filter(|taint| taint["key"] != quilt::DRAINING).cloned().collect();
    if kept.len() == taints.len() {
        return;
    }
    if kept.is_empty() {
        place::remove(node, &["spec", "taints"]);
    } else {
        place::set(node, &["spec", "taints"], kept);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Only the taint that says draining goes, and only from a node that is not cordoned.
    #[test]
    fn uncordoning_ends_draining() {
        let taints =
            json!([{"key": "a", "effect": "NoSchedule"}, {"key": "quilt.sh/draining", "effect": "NoSchedule"}]);
        let mut node = json!({"spec": {"unschedulable": true, "taints": taints}});
        end_draining(&mut node);
        assert_eq!(node["spec"]["taints"], taints);
        node["spec"]["unschedulable"] = json!(false);
        end_draining(&mut node);
        assert_eq!(node["spec"]["taints"], json!([{"key": "a", "effect": "NoSchedule"}]));
        let mut only = json!({"spec": {"taints": [{"key": "quilt.sh/draining", "effect": "NoSchedule"}]}});
        end_draining(&mut only);
        assert_eq!(only, json!({"spec": {}}));
    }
}
