//! Decisions as tables: nodes and a Pod in, node or reasons out; beside them the scheduler at work, and bugs planted into it.

pub(crate) mod museum;
mod rows;
mod runtime;

use std::collections::BTreeMap;

use quilt_proto::{Key, Record, Revision, compare, op};
use serde_json::{Value, json};

use crate::bind::{Batch, Binding, unschedulable};
use crate::decide::{Decision, decide};
use crate::node::Node;
use crate::pod::Pod;
use crate::snapshot::Snapshot;

fn record(value: &Value, revision: u64) -> Record {
    Record {
        create_revision: revision,
        mod_revision: revision,
        value: serde_json::to_vec(value).expect("json").into(),
        ..Record::default()
    }
}

fn node(name: &str, revision: u64, extra: &Value) -> Node {
    let key = Key::new("c", "", "nodes", "", name).expect("valid");
    let mut value = json!({
        "metadata": {"labels": {"quilt.sh/agent": "true"}}, "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    merge(&mut value, extra);
    Node::read(&key, &record(&value, revision)).expect("a node")
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

fn pod_key(name: &str) -> Key {
    Key::new("c", "", "pods", "default", name).expect("valid")
}

fn pod_value(name: &str, extra: &Value) -> Value {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
        "spec": {"containers": [{"name": "main"}]}, "status": {"phase": "Pending"},
    });
    merge(&mut value, extra);
    value
}

fn pod(name: &str, extra: &Value) -> Pod {
    Pod::read(&pod_key(name), &record(&pod_value(name, extra), 100)).expect("a pod")
}

fn owned(name: &str, owner: &str) -> Pod {
    let owner = json!({"kind": "Workload", "name": owner, "uid": owner, "controller": true});
    pod(name, &json!({"metadata": {"ownerReferences": [owner]}}))
}

fn cluster(nodes: impl IntoIterator<Item = Node>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in nodes {
        snapshot.put_node(node);
    }
    snapshot
}

fn put(snapshot: &mut Snapshot, name: &str, pod: Pod, node: &str) {
    snapshot.put_pod(&pod_key(name), Pod { node: node.to_owned(), ..pod });
}

fn chosen(decision: Decision) -> String {
    match decision {
        Decision::Bind { node, .. } => node,
        Decision::Unschedulable(refusal) => refusal.message(),
    }
}

/// On an empty cluster of equal nodes slot `i` goes to node `i mod n` in order of creation; a second workload begins
/// where fewest placements are.
#[test]
fn slots_go_round_the_nodes() {
    let mut snapshot = cluster([node("b", 2, &json!({})), node("a", 1, &json!({})), node("c", 3, &json!({}))]);
    let mut places = Vec::new();
    for slot in 0..7 {
        let name = format!("w-{slot}");
        let pod = owned(&name, "w");
        let node = chosen(decide(&snapshot, &pod));
        put(&mut snapshot, &name, pod, &node);
        places.push(node);
    }
    assert_eq!(places, ["a", "b", "c", "a", "b", "c", "a"], "oldest node first, whatever its name");
    assert_eq!(chosen(decide(&snapshot, &owned("v-0", "v"))), "b", "fewest placements in all");
}

/// Each filter's reason, and the sentence made of several of them.
#[test]
fn every_refusal_has_a_reason() {
    let cases = [
        (json!({"spec": {"unschedulable": true}}), json!({}), "1 node(s) were unschedulable"),
        (
            json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}),
            json!({}),
            "1 node(s) had untolerated taint {k: v}",
        ),
        (json!({"status": {"conditions": []}}), json!({}), "1 node(s) were not ready"),
        (
            json!({}),
            json!({"spec": {"nodeSelector": {"disk": "ssd"}}}),
            "1 node(s) didn't match Pod's node affinity/selector",
        ),
        (
            json!({"status": {"allocatable": {"cpu": "500m"}}}),
            json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "501m"}}}]}}),
            "1 Insufficient cpu",
        ),
        (json!({"status": {"allocatable": {"pods": "0"}}}), json!({}), "1 Too many pods"),
        (
            json!({}),
            json!({"spec": {"containers": [{"resources": {"limits": {"quilt.sh/gpu": "1"}}}]}}),
            "1 Insufficient quilt.sh/gpu",
        ),
        (
            json!({}),
            json!({"spec": {"containers": [{"resources": {"limits": {"example.com/fpga": 1}}}]}}),
            "1 Insufficient example.com/fpga",
        ),
    ];
    for (extra_node, extra_pod, reason) in cases {
        let snapshot = cluster([node("n", 1, &extra_node)]);
        let message = chosen(decide(&snapshot, &pod("p", &extra_pod)));
        assert_eq!(message, format!("0/1 nodes are available: {reason}."));
    }
    let tainted = json!({"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}});
    let cordoned = json!({"spec": {"unschedulable": true}});
    let snapshot = cluster([node("a", 1, &tainted), node("b", 2, &tainted), node("c", 3, &cordoned)]);
    assert_eq!(
        chosen(decide(&snapshot, &pod("p", &json!({})))),
        "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) had untolerated taint {k: }."
    );
    assert_eq!(chosen(decide(&cluster([]), &pod("p", &json!({})))), "no nodes available to schedule pods");
}

/// What lets a Pod pass: tolerations, matching affinity, an agent node that has not said what it has.
#[test]
fn tolerations_affinity_and_unknown_capacity_let_pass() {
    let tainted = node(
        "n",
        1,
        &json!({"metadata": {"labels": {"zone": "z1", "cores": "8"}},
        "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}),
    );
    let term = |operator: &str, values: &[&str]| {
        json!([{"matchExpressions": [
        {"key": "cores", "operator": operator, "values": values}]}])
    };
    for (tolerations, terms, passes) in [
        (json!([{"key": "k", "operator": "Exists"}]), term("Gt", &["4"]), true),
        (json!([{"key": "k", "value": "v"}]), term("In", &["8", "16"]), true),
        (json!([{"operator": "Exists"}]), term("NotIn", &["8"]), false),
        (json!([{"key": "k", "value": "other"}]), term("Exists", &[]), false),
    ] {
        let wishes = json!({"spec": {"tolerations": tolerations, "affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}});
        let decision = decide(&cluster([tainted.clone()]), &pod("p", &wishes));
        assert_eq!(matches!(decision, Decision::Bind { .. }), passes, "{wishes}");
    }
    let huge = json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "1000", "memory": "9Ti"}}}]}});
    assert_eq!(chosen(decide(&cluster([node("n", 1, &json!({}))]), &pod("p", &huge))), "n");
    let mut full = cluster([node("n", 1, &json!({}))]);
    for index in 0..110 {
        let name = format!("p{index}");
        put(&mut full, &name, pod(&name, &json!({})), "n");
    }
    assert_eq!(chosen(decide(&full, &pod("p", &json!({})))), "0/1 nodes are available: 1 Too many pods.");
}

/// The ledger takes and gives back exactly, whatever order Pods come and go in.
#[test]
fn the_ledger_balances() {
    let mut snapshot = cluster([node("n", 1, &json!({"status": {"allocatable": {"cpu": "1", "pods": "10"}}}))]);
    let half = json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "500m"}}}]}});
    put(&mut snapshot, "a", pod("a", &half), "n");
    put(&mut snapshot, "b", pod("b", &half), "n");
    assert_eq!(chosen(decide(&snapshot, &pod("p", &half))), "0/1 nodes are available: 1 Insufficient cpu.");
    // An ended Pod takes nothing any more; a removed one neither.
    put(&mut snapshot, "a", Pod { ended: true, ..pod("a", &half) }, "n");
    assert_eq!(chosen(decide(&snapshot, &pod("p", &half))), "n");
    snapshot.remove_pod(&pod_key("a"));
    snapshot.remove_pod(&pod_key("b"));
    let whole = json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}]}});
    assert_eq!(chosen(decide(&snapshot, &pod("p", &whole))), "n");
}

/// Devices are given one by one, exclusively; those asked for by id must be free; a replacement may use what the Pod
/// it replaces gives back and stays on its node.
#[test]
fn devices_are_exclusive() {
    let inventory = json!([{"id": "g0"}, {"id": "g1"}]).to_string();
    let with_gpus = |name: &str, revision| {
        node(name, revision, &json!({"metadata": {"annotations": {"quilt.sh/gpu-inventory": inventory}}}))
    };
    let mut snapshot = cluster([with_gpus("n", 1), with_gpus("m", 2)]);
    let wants = |count: u32, ids: Option<&str>| {
        let mut extra =
            json!({"spec": {"containers": [{"resources": {"limits": {"quilt.sh/gpu": count.to_string()}}}]}});
        if let Some(ids) = ids {
            merge(&mut extra, &json!({"metadata": {"annotations": {"quilt.sh/gpu-ids": ids}}}));
        }
        extra
    };
    let Decision::Bind { node: first, gpus } = decide(&snapshot, &pod("a", &wants(1, None))) else { panic!("fits") };
    assert_eq!((first.as_str(), gpus.as_slice()), ("n", ["g0".to_owned()].as_slice()));
    let holding = Pod { gpu_ids: gpus, ..pod("a", &wants(1, None)) };
    put(&mut snapshot, "a", holding, "n");
    assert_eq!(chosen(decide(&snapshot, &pod("b", &wants(2, None)))), "m", "only one is left on n");
    assert_eq!(chosen(decide(&snapshot, &pod("b", &wants(1, Some("g0"))))), "m", "g0 of n is taken");
    put(&mut snapshot, "b", Pod { gpu_ids: vec!["g0".into(), "g1".into()], ..pod("b", &wants(2, None)) }, "m");
    let message = chosen(decide(&snapshot, &pod("c", &wants(2, None))));
    assert_eq!(message, "0/2 nodes are available: 2 Insufficient quilt.sh/gpu.");
    let successor = Pod { replaces: Some("uid-b".into()), ..pod("c", &wants(2, None)) };
    assert_eq!(chosen(decide(&snapshot, &successor)), "m", "counted once, on the same node");
}

/// The lowest index no live Pod of the same Deployment holds, over all its sets.
#[test]
fn indexes_are_the_lowest_free_ones() {
    let mut snapshot = cluster([node("n", 1, &json!({}))]);
    let of_set = |name: &str, set: &str, index: Option<&str>| {
        let owner = json!({"kind": "ReplicaSet", "name": set, "uid": set, "controller": true});
        let mut extra = json!({"metadata": {"ownerReferences": [owner]}});
        if let Some(index) = index {
            extra["metadata"]["annotations"] = json!({"quilt.sh/replica-index": index});
        }
        pod(name, &extra)
    };
    snapshot.put_parent("old", Some("web"));
    snapshot.put_parent("new", Some("web"));
    put(&mut snapshot, "a", of_set("a", "old", Some("0")), "n");
    put(&mut snapshot, "b", of_set("b", "old", Some("2")), "n");
    assert_eq!(snapshot.free_index(&of_set("c", "new", None)), 1);
    put(&mut snapshot, "c", of_set("c", "new", Some("1")), "n");
    assert_eq!(snapshot.free_index(&of_set("d", "new", None)), 3);
    put(&mut snapshot, "a", Pod { going: true, ..of_set("a", "old", Some("0")) }, "n");
    assert_eq!(snapshot.free_index(&of_set("d", "new", None)), 0, "a going Pod holds none");
    assert_eq!(snapshot.free_index(&pod("alone", &json!({}))), 0);
}

/// A binding that replaces binds, ends the replaced Pod and changes the slot over in one transaction, on the versions
/// of all four objects; the tag wakes the node's agent.
#[test]
fn a_replacement_changes_over_in_one_transaction() {
    let owner = json!({"kind": "Workload", "name": "w", "uid": "w", "controller": true});
    let workload_key = Key::new("c", "quilt.sh", "workloads", "default", "w").expect("valid");
    let old_key = pod_key("old");
    let new_key = pod_key("new");
    let mut values: BTreeMap<Key, Value> = BTreeMap::new();
    values.insert(
        workload_key.clone(),
        json!({"metadata": {}, "spec": {}, "status": {"slots": [{"index": 0, "placementId": "p", "podName": "old"}]}}),
    );
    let old = pod_value("old", &json!({"metadata": {"ownerReferences": [owner]}, "spec": {"nodeName": "a"}}));
    values.insert(old_key.clone(), old);
    let annotations =
        json!({"quilt.sh/placement-id": "p", "quilt.sh/replica-index": "0", "quilt.sh/replaces": "uid-old"});
    let new = pod_value("new", &json!({"metadata": {"ownerReferences": [owner], "annotations": annotations}}));
    values.insert(new_key.clone(), new);
    let mut snapshot = cluster([node("a", 1, &json!({"spec": {"unschedulable": true}})), node("b", 2, &json!({}))]);
    for key in [&old_key, &new_key] {
        snapshot.put_pod(key, Pod::read(key, &record(&values[key], 100)).expect("a pod"));
    }
    let pod = snapshot.pod(&new_key).expect("known").clone();
    let Decision::Bind { node, gpus } = decide(&snapshot, &pod) else { panic!("b takes it") };
    assert_eq!(node, "b");
    let read = |key: &Key| values.get(key).map(|value| record(value, 100));
    let mut batch = Batch::default();
    let binding = Binding { pod, node, gpus, index: None };
    assert!(batch.add(&binding, &snapshot, &read, "2026-01-08T10:00:00Z"));
    let (txn, bases) = batch.finish();
    assert_eq!((txn.compares.len(), bases.len()), (4, 4), "new Pod, node, old Pod, Workload");
    assert!(txn.compares.iter().all(|wanted| matches!(wanted.condition, Some(compare::Condition::ModRevision(_)))));
    let puts: BTreeMap<Key, Value> = txn
        .ops
        .iter()
        .filter_map(|op| match op.kind.as_ref()? {
            op::Kind::Put(put) => {
                let value = quilt_objects::canonical::Canonical { bytes: put.value.clone(), splice_at: put.splice_at };
                let value = serde_json::from_slice(&value.splice(7)).expect("json");
                if put.key == *new_key.bytes() {
                    assert_eq!(put.tags, [bytes::Bytes::from_static(b"n=b")]);
                }
                Some((Key::from_bytes(put.key.clone()).expect("a key"), value))
            }
            op::Kind::Delete(_) | op::Kind::DeleteRange(_) => None,
        })
        .collect();
    let bound = &puts[&new_key];
    assert_eq!(bound["spec"]["nodeName"], "b");
    assert_eq!(bound["metadata"]["annotations"]["quilt.sh/replaces"], Value::Null);
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    assert_eq!(bound["status"]["conditions"][0]["status"], "True");
    assert_eq!(puts[&old_key]["metadata"]["deletionTimestamp"], "2026-01-08T10:00:30Z");
    assert_eq!(puts[&workload_key]["status"]["slots"][0]["podName"], "new");
    // A Pod that has moved on since the decision is left alone.
    let mut stale = Batch::default();
    let moved = Binding { pod: Pod { revision: Revision::new(99), ..binding.pod }, ..binding };
    assert!(!stale.add(&moved, &snapshot, &read, "") && stale.is_empty());
}

/// The condition of a Pod no node takes is written when it says something new, and only then.
#[test]
fn a_refusal_is_told_once() {
    let mut value = pod_value("p", &json!({}));
    assert!(unschedulable(&mut value, "0/1 nodes are available: 1 Too many pods.", "2026-01-08T10:00:00Z"));
    assert!(!unschedulable(&mut value, "0/1 nodes are available: 1 Too many pods.", "2026-01-08T10:00:05Z"));
    assert!(unschedulable(&mut value, "no nodes available to schedule pods", "2026-01-08T10:00:09Z"));
    let condition = &value["status"]["conditions"][0];
    assert_eq!(condition["reason"], "Unschedulable");
    assert_eq!(condition["lastTransitionTime"], "2026-01-08T10:00:00Z", "the status has not changed since");
}
