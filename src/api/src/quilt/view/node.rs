//! The Quilt view of a v1 Node: its state word, its fields, its allocation. Pure; must not know routes or writes.

use serde_json::{Map, Value, json};

use crate::directory::Cluster;
use crate::quilt::marks;
use crate::store::{Stored, text};

/// The state word of a node.
pub(crate) fn state(node: &Value) -> &'static str {
    if is_draining(node) {
        return "draining";
    }
    match ready_condition(node) {
        Some(ready) if ready["status"] == "True" => "ready",
        Some(ready) if ready["status"] == "False" && ready["reason"] == "NodeRegistered" => "registered",
        _ => "not_ready",
    }
}

/// Whether its placements are to leave: cordoned, with the taint that says why.
pub(crate) fn is_draining(node: &Value) -> bool {
    is_cordoned(node) && taints(node).any(|taint| taint["key"] == marks::DRAINING)
}

fn is_cordoned(node: &Value) -> bool {
    node.pointer("/spec/unschedulable").and_then(Value::as_bool).unwrap_or(false)
}

fn taints(node: &Value) -> impl Iterator<Item = &Value> {
    node.pointer("/spec/taints").and_then(Value::as_array).into_iter().flatten()
}

/// The condition `Ready`.
pub(crate) fn ready_condition(node: &Value) -> Option<&Value> {
    let conditions = node.pointer("/status/conditions")?.as_array()?;
    conditions.iter().find(|condition| condition["type"] == "Ready")
}

/// Whether any heartbeat was ever taken.
pub(crate) fn has_beaten(node: &Value) -> bool {
    ready_condition(node).is_some_and(|ready| ready["lastHeartbeatTime"].is_string())
}

/// The text of an address of `kind`.
pub(crate) fn address<'a>(node: &'a Value, kind: &str) -> Option<&'a str> {
    let addresses = node.pointer("/status/addresses")?.as_array()?;
    addresses.iter().find(|address| address["type"] == kind)?["address"].as_str()
}

/// Whether its agent ends deleted Pods itself.
pub(crate) fn is_pod_agent(node: &Stored) -> bool {
    node.annotation(marks::POD_AGENT) == Some("true")
}

/// Its exact Quilt name.
pub(crate) fn exact_name(node: &Stored) -> &str {
    node.annotation(marks::NAME).unwrap_or_else(|| node.name())
}

fn json_annotation(node: &Stored, name: &str) -> Option<Value> {
    serde_json::from_str(node.annotation(name)?).ok()
}

/// Taints by which the control plane itself speaks; they are no news to a reader of `state`.
fn is_own_taint(taint: &Value) -> bool {
    let key = text(taint, "/key");
    key.starts_with("quilt.sh/") || key.starts_with("node.kubernetes.io/")
}

/// A node as Quilt shows it.
pub(crate) fn render(cluster: &str, node: &Stored, last_heartbeat_at: Option<u64>) -> Value {
    let state = state(&node.value);
    let labels = json_annotation(node, marks::LABELS)
        .or_else(|| node.value.pointer("/metadata/labels").cloned())
        .unwrap_or_else(|| json!({}));
    let taints: Vec<Value> = taints(&node.value)
        .filter(|taint| !is_own_taint(taint))
        .map(|taint| json!({"key": taint["key"], "value": text(taint, "/value"), "effect": taint["effect"]}))
        .collect();
    let version = node.annotation(marks::AGENT_VERSION);
    json!({
        "id": node.uid(),
        "cluster_id": cluster,
        "name": exact_name(node),
        "public_ip": address(&node.value, "ExternalIP"),
        "private_ip": address(&node.value, "InternalIP"),
        "agent_version": version,
        "state": state,
        "schedulable": state == "ready" && !is_cordoned(&node.value),
        "labels": labels,
        "taints": taints,
        "gpu_inventory": json_annotation(node, marks::GPU_INVENTORY).unwrap_or_else(|| json!([])),
        "gpu_runtime": json_annotation(node, marks::GPU_RUNTIME),
        "vmm_runtime": json_annotation(node, marks::VMM_RUNTIME),
        "last_heartbeat_at": last_heartbeat_at,
        "created_at": node.created_at(),
    })
}

/// A node's allocation; `null` for a kubelet's node without a subnet.
pub(crate) fn allocation(cluster: &Cluster, node: &Stored) -> Value {
    let pod_cidr = node.text("/spec/podCIDR");
    if pod_cidr.is_empty() {
        return Value::Null;
    }
    let facts = json_annotation(node, marks::ALLOCATION).unwrap_or_else(|| Value::Object(Map::new()));
    json!({
        "node_id": node.uid(),
        "cluster_id": cluster.id,
        "pod_cidr": pod_cidr,
        "bridge_name": text(&facts, "/bridge_name"),
        "dns_port": facts["dns_port"].as_u64().unwrap_or(0),
        "egress_limit_mbit": facts["egress_limit_mbit"].as_u64().unwrap_or(0),
        "allocated_at": facts["allocated_at"].as_u64().unwrap_or_else(|| node.created_at()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each Node status has its one word; draining needs cordon and taint, a cordon alone changes no state.
    #[test]
    fn states_follow_the_table() {
        let node = |status: &str, reason: &str, cordoned: bool, taint: Option<&str>| {
            json!({"spec": {"unschedulable": cordoned, "taints": taint.map(|key| vec![json!({"key": key, "effect": "NoSchedule"})])},
                   "status": {"conditions": [{"type": "Ready", "status": status, "reason": reason}]}})
        };
        assert_eq!(state(&node("True", "", false, None)), "ready");
        assert_eq!(state(&node("True", "", true, None)), "ready");
        assert_eq!(state(&node("False", "NodeRegistered", false, None)), "registered");
        assert_eq!(state(&node("False", "AgentNotReady", false, None)), "not_ready");
        assert_eq!(state(&node("Unknown", "", false, None)), "not_ready");
        assert_eq!(state(&node("True", "", true, Some(marks::DRAINING))), "draining");
        assert_eq!(state(&node("True", "", false, Some(marks::DRAINING))), "ready");
        assert_eq!(state(&json!({})), "not_ready");
    }
}
