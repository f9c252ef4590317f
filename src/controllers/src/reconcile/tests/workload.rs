//! Workloads, their slots, and the nodes that these are on.

use serde_json::{Value, json};

use super::{active, condition_of_node, deployment, slots, status, workload};
use crate::reconcile::Controller;
use crate::view::Urgency;
use crate::world::World;

/// A Workload has exactly its slots; scaling down takes the highest indexes and scaling up again makes new ids.
#[test]
fn a_workload_keeps_its_slots() {
    let mut world = World::new();
    world.node("n1");
    let key = workload(&mut world, 5);
    world.settle();
    let before = slots(&world, &key);
    assert_eq!(before.iter().map(|slot| slot.0).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    let (_, pod) = &world.all("", "pods")[0];
    let main = &pod["spec"]["containers"][0];
    assert_eq!((main["name"].as_str(), main["image"].as_str()), (Some("main"), Some("quilt.sh/none")));
    assert_eq!(main["env"], json!([{"name": "MODE", "value": "live"}]));
    assert_eq!(main["resources"]["limits"], json!({"cpu": "500m", "memory": "64Mi"}));
    assert_eq!(pod["metadata"]["annotations"]["quilt.sh/replica-index"].as_str().map(str::len), Some(1));
    world.run_pods("n1");
    world.settle();
    assert_eq!(status(&world, &key)["running"], 5);
    world.change(&key, |workload| workload["spec"]["replicas"] = json!(2));
    world.settle();
    assert_eq!(slots(&world, &key), before[..2]);
    assert_eq!(active(&world), 2);
    world.change(&key, |workload| workload["spec"]["replicas"] = json!(5));
    world.settle();
    let after = slots(&world, &key);
    assert_eq!(after[..2], before[..2]);
    assert!(after[2..].iter().all(|slot| before.iter().all(|old| old.1 != slot.1)), "new slots, new ids");
}

/// A Pod somebody deletes is made again for the same slot; a changed spec makes a replacement that names its
/// predecessor, and the slot waits for the scheduler's change-over.
#[test]
fn a_slot_outlives_its_pods() {
    let mut world = World::new();
    world.node("n1");
    let key = workload(&mut world, 1);
    world.settle();
    world.run_pods("n1");
    world.settle();
    let (index, placement, pod) = slots(&world, &key)[0].clone();
    world.delete(&World::key("", "pods", "default", &pod));
    world.settle();
    let again = slots(&world, &key)[0].clone();
    assert_eq!((again.0, &again.1), (index, &placement));
    assert_ne!(again.2, pod);
    world.run_pods("n1");
    world.settle();
    let uid = world.get(&World::key("", "pods", "default", &again.2)).expect("runs")["metadata"]["uid"].clone();
    world.change(&key, |workload| {
        workload["spec"]["command"] = json!(["/bin/other"]);
        workload["metadata"]["generation"] = json!(2);
    });
    world.settle();
    assert_eq!(slots(&world, &key)[0], again, "the old Pod is shown until its successor is bound");
    let replacement = world.all("", "pods").into_iter().find(|(_, pod)| pod["spec"]["nodeName"].is_null());
    let (_, replacement) = replacement.expect("a replacement waits");
    assert_eq!(replacement["metadata"]["annotations"]["quilt.sh/replaces"], uid);
    assert_eq!(replacement["metadata"]["annotations"]["quilt.sh/placement-id"], json!(placement));
    assert_eq!(status(&world, &key)["observed_generation"], 2);
}

/// Silence makes a node not ready after 40 s; its slots move after 30 s more, and not at all when it comes back first.
#[test]
fn silence_moves_slots_after_the_grace() {
    let mut world = World::new();
    let node = world.node("n1");
    world.node("n2");
    let key = workload(&mut world, 1);
    world.settle();
    world.run_pods("n1");
    world.settle();
    world.pass(39, &["n2"]);
    assert_eq!(condition_of_node(&world, &node), "True");
    world.pass(1, &["n2"]);
    assert_eq!(condition_of_node(&world, &node), "Unknown");
    assert_eq!(world.all("", "pods").len(), 1, "nothing moves yet");
    let taints = world.get(&node).expect("present")["spec"]["taints"].to_string();
    assert!(taints.contains("node.kubernetes.io/unreachable"), "{taints}");

    // Back before the grace has passed: nothing moves.
    world.pass(20, &["n1", "n2"]);
    world.change(&node, |node| node["status"]["conditions"][0]["status"] = json!("True"));
    world.pass(9, &["n1", "n2"]);
    assert_eq!(world.get(&node).expect("present")["spec"]["taints"], Value::Null);
    world.pass(30, &["n1", "n2"]);
    assert_eq!(world.all("", "pods").len(), 1);

    // Silent again, for good.
    world.pass(40, &["n2"]);
    assert_eq!(world.all("", "pods").len(), 1);
    world.pass(30, &["n2"]);
    let replacement = world.all("", "pods").into_iter().find(|(_, pod)| pod["spec"]["nodeName"].is_null());
    let (_, replacement) = replacement.expect("a replacement waits");
    assert_eq!(replacement["metadata"]["annotations"]["quilt.sh/message"], "node n1 is not ready");
    // The node comes back before anything was bound: the replacement goes, the old Pod stays.
    world.change(&node, |node| node["status"]["conditions"][0]["status"] = json!("True"));
    world.pass(1, &["n1", "n2"]);
    assert_eq!(world.all("", "pods").len(), 1);
    assert_eq!(slots(&world, &key).len(), 1);
}

/// A drained node keeps nothing that may go: slots get replacements at once, other Pods are evicted within disruption
/// budgets. A forced run does not wait for a silent node's grace either.
#[test]
fn draining_and_forcing_do_not_wait() {
    let mut world = World::new();
    let node = world.node("n1");
    workload(&mut world, 1);
    deployment(&mut world, 2, "web:1", &json!({}));
    world.settle();
    world.run_pods("n1");
    world.settle();
    world.put(
        &World::key("policy", "poddisruptionbudgets", "default", "web"),
        json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}}),
    );
    world.change(&node, |node| {
        node["spec"]["unschedulable"] = json!(true);
        node["spec"]["taints"] = json!([{"key": "quilt.sh/draining", "effect": "NoSchedule"}]);
    });
    world.settle();
    let going = |world: &World| {
        world.all("", "pods").iter().filter(|(_, pod)| pod["metadata"]["deletionTimestamp"].is_string()).count()
    };
    assert_eq!(going(&world), 1, "one of the two that a budget covers");
    let replacements = world
        .all("", "pods")
        .iter()
        .filter(|(_, pod)| pod["metadata"]["annotations"]["quilt.sh/replaces"].is_string())
        .count();
    assert_eq!(replacements, 1, "and a replacement for the slot");
    // Uncordoned: draining has ended.
    world.change(&node, |node| node["spec"]["unschedulable"] = json!(false));
    world.settle();
    assert_eq!(world.get(&node).expect("present")["spec"]["taints"], Value::Null);

    let mut world = World::new();
    world.node("n1");
    workload(&mut world, 1);
    world.settle();
    world.run_pods("n1");
    world.settle();
    world.pass(41, &[]);
    assert_eq!(world.all("", "pods").len(), 1);
    world.urgency = Urgency::Now;
    let key = World::key("quilt.sh", "workloads", "default", "job");
    let plan = world.plan(Controller::Workload, &key).to_string();
    assert!(plan.starts_with("+ pods default/job-"), "{plan}");
}

/// Pods of a removed node go with it: a slot's Pod is replaced and says why, others are removed for their owner.
#[test]
fn a_removed_node_takes_its_pods_along() {
    let mut world = World::new();
    let node = world.node("n1");
    let key = workload(&mut world, 1);
    deployment(&mut world, 1, "web:1", &json!({}));
    world.settle();
    world.run_pods("n1");
    world.settle();
    let placement = slots(&world, &key)[0].1.clone();
    world.delete(&node);
    world.settle();
    let pods = world.all("", "pods");
    assert!(pods.iter().all(|(_, pod)| pod["spec"]["nodeName"].is_null()), "none is left on it");
    assert_eq!(pods.len(), 2, "and each has a successor");
    assert_eq!(slots(&world, &key)[0].1, placement);
    let moved =
        pods.iter().find(|(_, pod)| pod["metadata"]["annotations"]["quilt.sh/placement-id"] == json!(placement));
    assert_eq!(moved.expect("the slot's").1["metadata"]["annotations"]["quilt.sh/message"], "node n1 was removed");
}
