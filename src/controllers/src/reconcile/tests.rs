//! What the controllers do together and one by one, over a cluster in memory. Plans print like diffs.

use quilt_objects::registry::registry;
use quilt_objects::{hooks, validate};
use quilt_proto::Key;
use serde_json::{Value, json};

use crate::reconcile::Controller;
use crate::view::Urgency;
use crate::world::World;

fn deployment(world: &mut World, replicas: i64, image: &str, rolling: &Value) -> Key {
    let key = World::key("apps", "deployments", "default", "web");
    world.put(
        &key,
        json!({"metadata": {"generation": 1}, "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
            "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": image}]}},
        }}),
    );
    key
}

fn set_image(world: &mut World, key: &Key, image: &str) {
    world.change(key, |object| {
        object["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        let generation = object["metadata"]["generation"].as_i64().expect("a generation");
        object["metadata"]["generation"] = json!(generation + 1);
    });
}

fn active(world: &World) -> usize {
    world.cluster.resource("", "pods", "").filter(|pod| pod.is_active_pod()).count()
}

fn ready(world: &World) -> usize {
    let pods = world.cluster.resource("", "pods", "");
    pods.filter(|pod| pod.is_active_pod() && pod.pod().is_some_and(|pod| pod.ready_since.is_some())).count()
}

fn status(world: &World, key: &Key) -> Value {
    world.get(key).expect("present")["status"].clone()
}

fn condition(world: &World, key: &Key, kind: &str) -> (String, String) {
    let object = world.get(key).expect("present");
    let condition = crate::fields::condition(&object, kind).expect("a condition");
    (condition["status"].as_str().expect("text").into(), condition["reason"].as_str().expect("text").into())
}

/// A Deployment becomes a `ReplicaSet`, that becomes Pods, and the status says so at every step.
#[test]
fn a_deployment_brings_up_its_pods() {
    let mut world = World::new();
    world.node("n1");
    let key = deployment(&mut world, 3, "web:1", &json!({}));
    let plan = world.plan(Controller::Deployment, &key).to_string();
    assert!(plan.starts_with("+ apps/replicasets default/web-"), "{plan}");
    assert!(plan.contains("~ apps/deployments default/web"), "{plan}");
    assert!(plan.contains("! web ScalingReplicaSet: Scaled up replica set web-"), "{plan}");
    world.settle();
    assert_eq!(active(&world), 3);
    assert_eq!(condition(&world, &key, "Available").0, "False");
    world.run_pods("n1");
    world.settle();
    let status = status(&world, &key);
    for field in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"] {
        assert_eq!(status[field], 3, "{field}");
    }
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(status["unavailableReplicas"], Value::Null);
    assert_eq!(condition(&world, &key, "Available"), ("True".into(), "MinimumReplicasAvailable".into()));
    assert_eq!(condition(&world, &key, "Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
    assert!(world.plan(Controller::Deployment, &key).writes.is_empty(), "nothing more to do");
}

/// What controllers make is as complete as what clients make: a Pod of theirs can be labelled, and nothing else of it
/// counts as changed.
#[test]
fn pods_of_controllers_can_be_labelled() {
    let mut world = World::new();
    deployment(&mut world, 1, "web:1", &json!({"maxSurge": 1, "maxUnavailable": 0}));
    workload(&mut world, 1);
    world.settle();
    let pods = world.all("", "pods");
    assert_eq!(pods.len(), 2);
    let kind = registry().kind("", "v1", "Pod").expect("in the table");
    for (_, pod) in pods {
        let mut labelled = pod.clone();
        labelled["metadata"]["labels"]["tier"] = json!("x");
        hooks::complete(kind, &mut labelled);
        assert_eq!(labelled["spec"], pod["spec"]);
        assert!(validate::update(kind, &labelled, &pod).is_empty());
    }
}

/// A roll never asks for more than `replicas + maxSurge` Pods nor serves with fewer than `replicas - maxUnavailable`,
/// after any transaction, for every shape of the bounds; it ends with the new template only.
#[test]
fn a_roll_stays_within_its_bounds() {
    for (surge, unavailable) in [(1, 0), (0, 1), (2, 1), (5, 5), (3, 0)] {
        let mut world = World::new();
        world.node("n1");
        let replicas = 5;
        let key = deployment(&mut world, replicas, "web:1", &json!({"maxSurge": surge, "maxUnavailable": unavailable}));
        world.settle();
        world.run_pods("n1");
        world.settle();
        set_image(&mut world, &key, "web:2");
        let most = usize::try_from(replicas + surge).expect("small");
        let least = usize::try_from(replicas - unavailable).expect("small");
        let check = |world: &World| {
            assert!(active(world) <= most, "{} Pods, surge {surge}", active(world));
            assert!(ready(world) >= least, "{} ready, unavailable {unavailable}", ready(world));
        };
        for _ in 0..50 {
            world.settle_with(check);
            let waiting = world.all("", "pods").into_iter().find(|(_, pod)| pod["status"]["phase"] == "Pending");
            // One Pod starts at a time: the slowest and strictest way to roll.
            if let Some((pod, _)) = waiting {
                world.run_pod(&pod, "n1");
            } else if let Some((pod, _)) =
                world.all("", "pods").into_iter().find(|(_, pod)| pod["metadata"]["deletionTimestamp"].is_string())
            {
                world.delete(&pod);
            } else {
                break;
            }
        }
        let images: Vec<Value> =
            world.all("", "pods").into_iter().map(|(_, pod)| pod["spec"]["containers"][0]["image"].clone()).collect();
        assert_eq!(images, vec![json!("web:2"); 5], "surge {surge}, unavailable {unavailable}");
        assert_eq!(condition(&world, &key, "Progressing").1, "NewReplicaSetAvailable");
        assert_eq!(
            world.get(&key).expect("present")["metadata"]["annotations"]["deployment.kubernetes.io/revision"],
            "2"
        );
    }
}

/// Going back to the first template uses its `ReplicaSet` again, under a new revision.
#[test]
fn an_undo_reuses_the_old_set() {
    let mut world = World::new();
    world.node("n1");
    let key = deployment(&mut world, 2, "web:1", &json!({}));
    for image in ["web:2", "web:1"] {
        for _ in 0..20 {
            world.settle();
            world.run_pods("n1");
        }
        world.settle();
        set_image(&mut world, &key, image);
    }
    for _ in 0..20 {
        world.settle();
        world.run_pods("n1");
    }
    world.settle();
    let sets = world.all("apps", "replicasets");
    assert_eq!(sets.len(), 2, "no third set");
    let first = sets.iter().find(|(_, set)| set["spec"]["template"]["spec"]["containers"][0]["image"] == "web:1");
    let (_, first) = first.expect("the first set");
    assert_eq!(first["spec"]["replicas"], 2);
    assert_eq!(first["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
}

/// Old sets are kept for an undo up to `revisionHistoryLimit`, the newest of them; a limit of zero keeps none, and a
/// roll that is under way loses nothing.
#[test]
fn old_sets_are_forgotten_beyond_the_limit() {
    let mut world = World::new();
    world.node("n1");
    let key = deployment(&mut world, 2, "web:1", &json!({}));
    world.change(&key, |object| object["spec"]["revisionHistoryLimit"] = json!(2));
    let roll = |world: &mut World| {
        for _ in 0..20 {
            world.settle();
            world.run_pods("n1");
        }
        world.settle();
    };
    let revisions = |world: &World| {
        let sets = world.all("apps", "replicasets");
        let of = |set: &Value| set["metadata"]["annotations"]["deployment.kubernetes.io/revision"].clone();
        let mut found: Vec<String> = sets.iter().map(|(_, set)| of(set).as_str().expect("a number").into()).collect();
        found.sort();
        found
    };
    roll(&mut world);
    for image in ["web:2", "web:3", "web:4"] {
        set_image(&mut world, &key, image);
        roll(&mut world);
    }
    assert_eq!(revisions(&world), ["2", "3", "4"]);
    set_image(&mut world, &key, "web:5");
    world.settle();
    assert_eq!(
        revisions(&world),
        ["2", "3", "4", "5"],
        "while the roll is under way it may be undone as far as before"
    );
    roll(&mut world);
    assert_eq!(revisions(&world), ["3", "4", "5"]);
    world.change(&key, |object| object["spec"]["revisionHistoryLimit"] = json!(0));
    roll(&mut world);
    assert_eq!(revisions(&world), ["5"]);
}

/// A rollout without progress for `progressDeadlineSeconds` is called stuck, not before and without anything happening;
/// each step of progress starts the time anew, and what comes up late ends the complaint.
#[test]
fn a_stuck_rollout_says_so() {
    let mut world = World::new();
    world.node("n1");
    let key = deployment(&mut world, 2, "web:1", &json!({}));
    world.settle();
    world.pass(599, &["n1"]);
    assert_eq!(condition(&world, &key, "Progressing").0, "True");
    world.pass(2, &["n1"]);
    let stuck = ("False".to_owned(), "ProgressDeadlineExceeded".to_owned());
    assert_eq!(condition(&world, &key, "Progressing"), stuck);
    assert!(world.plan(Controller::Deployment, &key).writes.is_empty(), "it is said once");
    let first = world.all("", "pods")[0].0.clone();
    world.run_pod(&first, "n1");
    world.settle();
    assert_eq!(condition(&world, &key, "Progressing"), ("True".into(), "ReplicaSetUpdated".into()));
    world.pass(599, &["n1"]);
    assert_eq!(condition(&world, &key, "Progressing").0, "True", "progress starts the time anew");
    world.pass(2, &["n1"]);
    assert_eq!(condition(&world, &key, "Progressing"), stuck);
    world.run_pods("n1");
    world.settle();
    assert_eq!(condition(&world, &key, "Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
    world.pass(1_000, &["n1"]);
    assert_eq!(condition(&world, &key, "Progressing").0, "True", "what is complete is not stuck");
    world.change(&key, |object| {
        object["spec"]["paused"] = json!(true);
        object["metadata"]["generation"] = json!(2);
    });
    world.settle();
    assert_eq!(condition(&world, &key, "Progressing"), ("Unknown".into(), "DeploymentPaused".into()));
}

/// Recreate makes new Pods only when all old ones are gone; scaling changes the set in place; a paused Deployment does
/// not roll.
#[test]
fn recreate_scale_and_pause() {
    let mut world = World::new();
    world.node("n1");
    let key = deployment(&mut world, 2, "web:1", &json!({}));
    world.change(&key, |object| object["spec"]["strategy"] = json!({"type": "Recreate"}));
    world.settle();
    world.run_pods("n1");
    world.settle();
    set_image(&mut world, &key, "web:2");
    world.settle();
    let going =
        world.all("", "pods").iter().filter(|(_, pod)| pod["metadata"]["deletionTimestamp"].is_string()).count();
    assert_eq!((going, active(&world)), (2, 0), "the old ones go first");
    world.run_pods("n1");
    world.settle();
    assert_eq!(active(&world), 2);
    world.change(&key, |object| object["spec"]["replicas"] = json!(4));
    world.settle();
    assert_eq!(active(&world), 4);
    world.run_pods("n1");
    world.settle();
    world.change(&key, |object| object["spec"]["paused"] = json!(true));
    set_image(&mut world, &key, "web:3");
    world.settle();
    assert_eq!(world.all("apps", "replicasets").len(), 2, "no third set while paused");
    world.change(&key, |object| object["spec"]["replicas"] = json!(1));
    world.settle();
    assert_eq!(active(&world), 1, "but it scales");
}

/// A set adopts matching orphans instead of making Pods, releases Pods that stop matching, and removes the least
/// useful first.
#[test]
fn a_set_adopts_releases_and_chooses_whom_to_delete() {
    let mut world = World::new();
    world.node("n1");
    let orphan = World::key("", "pods", "default", "orphan");
    let pod = json!({"metadata": {"labels": {"app": "db"}}, "spec": {}, "status": {"phase": "Pending"}});
    world.put(&orphan, pod);
    let set = World::key("apps", "replicasets", "default", "db");
    world.put(
        &set,
        json!({"metadata": {"generation": 1}, "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": []}}}}),
    );
    world.settle();
    assert_eq!(world.all("", "pods").len(), 2, "one made, one adopted");
    assert_eq!(world.get(&orphan).expect("present")["metadata"]["ownerReferences"][0]["name"], "db");
    world.run_pod(&orphan, "n1");
    world.settle();
    world.change(&set, |set| set["spec"]["replicas"] = json!(1));
    let plan = world.plan(Controller::ReplicaSet, &set).to_string();
    assert!(plan.starts_with("- pods default/db-"), "the one that does not run goes: {plan}");
    world.settle();
    world.change(&orphan, |pod| pod["metadata"]["labels"]["app"] = json!("other"));
    world.settle();
    assert_eq!(world.get(&orphan).expect("released, not deleted")["metadata"]["ownerReferences"], json!([]));
    assert_eq!(world.all("", "pods").len(), 2, "and replaced");
    assert_eq!(status(&world, &set)["replicas"], 1);
}

fn workload(world: &mut World, replicas: i64) -> Key {
    let key = World::key("quilt.sh", "workloads", "default", "job");
    world.put(
        &key,
        json!({"metadata": {"generation": 1}, "spec": {"name": "job", "replicas": replicas, "command": ["/bin/job"],
            "environment": {"MODE": "live"}, "memory_limit_mb": 64, "cpu_limit_percent": 50}}),
    );
    key
}

fn slots(world: &World, key: &Key) -> Vec<(i64, String, String)> {
    let status = status(world, key);
    let slots = status["slots"].as_array().expect("slots").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    slots
        .map(|slot| (slot["index"].as_i64().expect("int"), text(&slot["placementId"]), text(&slot["podName"])))
        .collect()
}

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

fn condition_of_node(world: &World, node: &Key) -> String {
    condition_text(&world.get(node).expect("present"))
}

fn condition_text(node: &Value) -> String {
    crate::fields::condition(node, "Ready").expect("a condition")["status"].as_str().expect("text").to_owned()
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

/// Deleting an owner in the background takes its dependents, transitively; foreground waits for them; orphan spares
/// them.
#[test]
fn owners_take_their_dependents_along() {
    for (finalizer, pods_left) in [(None, 0), (Some("foregroundDeletion"), 0), (Some("orphan"), 2)] {
        let mut world = World::new();
        world.node("n1");
        let key = deployment(&mut world, 2, "web:1", &json!({}));
        world.settle();
        if let Some(finalizer) = finalizer {
            let now = world.now.rfc3339();
            world.change(&key, |object| {
                object["metadata"]["finalizers"] = json!([finalizer]);
                object["metadata"]["deletionTimestamp"] = json!(now);
                object["metadata"]["deletionGracePeriodSeconds"] = json!(0);
            });
        } else {
            world.delete(&key);
        }
        world.settle();
        assert!(world.get(&key).is_none(), "{finalizer:?}: the owner is gone");
        assert_eq!(world.all("", "pods").len(), pods_left, "{finalizer:?}");
        assert_eq!(world.all("apps", "replicasets").len(), usize::from(pods_left > 0), "{finalizer:?}");
    }
}

/// A namespace being deleted takes everything in it and then goes itself; a Service gives its address back.
#[test]
fn a_namespace_goes_with_all_it_holds() {
    let mut world = World::new();
    let key = World::key("", "namespaces", "", "team");
    world.put(&key, json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}));
    for (group, resource) in [("", "configmaps"), ("", "secrets"), ("apps", "deployments"), ("batch", "jobs")] {
        world.put(&World::key(group, resource, "team", "x"), json!({"spec": {}}));
    }
    world.put(&World::key("", "services", "team", "web"), json!({"spec": {"clusterIPs": ["10.96.0.7"]}}));
    world.put(&World::key("internal.quilt.sh", "serviceips", "", "10.96.0.7"), json!({}));
    world.put(&World::key("", "configmaps", "default", "other"), json!({}));
    world.settle();
    let now = world.now.rfc3339();
    world.change(&key, |namespace| namespace["metadata"]["deletionTimestamp"] = json!(now));
    world.settle();
    assert!(world.get(&key).is_none(), "the namespace is gone");
    let left: Vec<&Key> = world.records.0.keys().collect();
    assert_eq!(left, [&World::key("", "configmaps", "default", "other")]);
}

/// Endpoints and slices show ready Pods with named and numbered target ports; they follow every change and go with
/// the Service.
#[test]
fn endpoints_follow_pods() {
    let mut world = World::new();
    let node = world.node("n1");
    let service = World::key("", "services", "default", "web");
    world.put(
        &service,
        json!({"spec": {"clusterIP": "10.96.0.5", "selector": {"app": "web"}, "ports": [
            {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
            {"name": "raw", "port": 81, "targetPort": 9000, "protocol": "TCP"}]}}),
    );
    let pod = World::key("", "pods", "default", "web-1");
    world.put(
        &pod,
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main",
            "ports": [{"name": "http", "containerPort": 8080}]}]}, "status": {"phase": "Pending"}}),
    );
    world.settle();
    let endpoints = World::key("", "endpoints", "default", "web");
    assert_eq!(world.get(&endpoints).expect("made")["subsets"], Value::Null, "no address, no subset");
    world.run_pod(&pod, "n1");
    world.settle();
    let subset = world.get(&endpoints).expect("present")["subsets"][0].clone();
    assert_eq!(subset["addresses"][0]["ip"], "10.0.0.9");
    assert_eq!(subset["addresses"][0]["nodeName"], "n1");
    assert_eq!(subset["addresses"][0]["targetRef"]["name"], "web-1");
    let ports: Vec<&Value> = subset["ports"].as_array().expect("ports").iter().map(|port| &port["port"]).collect();
    assert_eq!(ports, [&json!(8080), &json!(9000)]);
    let (_, slice) = &world.all("discovery.k8s.io", "endpointslices")[0];
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["10.0.0.9"]));
    assert_eq!(slice["endpoints"][0]["conditions"]["ready"], true);
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "web");

    // A silent node's Pods get no traffic.
    world.change(&node, |node| node["status"]["conditions"][0]["status"] = json!("Unknown"));
    world.settle();
    let subset = world.get(&endpoints).expect("present")["subsets"][0].clone();
    assert_eq!(subset["notReadyAddresses"][0]["ip"], "10.0.0.9");
    assert_eq!(subset["addresses"], Value::Null);

    world.delete(&service);
    world.settle();
    assert!(world.get(&endpoints).is_none());
    assert!(world.all("discovery.k8s.io", "endpointslices").is_empty());
}

/// Deleted Pods whose agent does not end them itself go when their grace is over; a Pod agent's stay for its report.
#[test]
fn nobody_waits_for_an_agent_that_will_not_report() {
    let mut world = World::new();
    let simple = world.node("n1");
    world.node("n2");
    world.change(&simple, |_| {});
    world.change(&World::key("", "nodes", "", "n2"), |node| {
        node["metadata"]["annotations"] = json!({"quilt.sh/pod-agent": "true"});
    });
    for name in ["n1", "n2"] {
        let until = world.now.plus_secs(30).rfc3339();
        world.put(
            &World::key("", "pods", "default", &format!("on-{name}")),
            json!({"metadata": {"deletionTimestamp": until}, "spec": {"nodeName": name}, "status": {"phase": "Running"}}),
        );
    }
    world.settle();
    world.pass(29, &["n1", "n2"]);
    assert_eq!(world.all("", "pods").len(), 2);
    world.pass(1, &["n1", "n2"]);
    let left: Vec<Key> = world.all("", "pods").into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, [World::key("", "pods", "default", "on-n2")]);
}

/// A budget's status follows its Pods: how many there are, how many serve, and how many may go; an allowed eviction
/// counts until its Pod goes or the eviction has evidently come to nothing.
#[test]
fn a_budget_says_how_many_may_go() {
    let mut world = World::new();
    world.node("n1");
    let deployment = deployment(&mut world, 4, "web:1", &json!({}));
    let key = World::key("policy", "poddisruptionbudgets", "default", "b");
    let selector = json!({"matchLabels": {"app": "web"}});
    world.put(&key, json!({"metadata": {"generation": 1}, "spec": {"minAvailable": 3, "selector": selector}}));
    world.settle();
    let counts = |world: &World| {
        let status = status(world, &key);
        let of = |name: &str| status[name].as_i64().expect("a number");
        (of("expectedPods"), of("currentHealthy"), of("desiredHealthy"), of("disruptionsAllowed"))
    };
    assert_eq!(counts(&world), (4, 0, 3, 0));
    assert_eq!(condition(&world, &key, "DisruptionAllowed"), ("False".into(), "InsufficientPods".into()));
    world.run_pods("n1");
    world.settle();
    assert_eq!(counts(&world), (4, 4, 3, 1));
    assert_eq!(condition(&world, &key, "DisruptionAllowed"), ("True".into(), "SufficientPods".into()));
    assert!(world.plan(Controller::Budget, &key).writes.is_empty(), "nothing more to do");
    for (bound, desired, allowed) in [
        (json!({"minAvailable": "50%", "selector": selector}), 2, 2),
        (json!({"maxUnavailable": 1, "selector": selector}), 3, 1),
        (json!({"maxUnavailable": "30%", "selector": selector}), 2, 2),
        (json!({"maxUnavailable": 0, "selector": selector}), 4, 0),
        (json!({"minAvailable": 9, "selector": selector}), 9, 0),
    ] {
        world.change(&key, |budget| {
            budget["spec"] = bound.clone();
            budget["metadata"]["generation"] = json!(budget["metadata"]["generation"].as_i64().expect("a number") + 1);
        });
        world.settle();
        assert_eq!(counts(&world), (4, 4, desired, allowed), "{bound}");
        assert_eq!(
            status(&world, &key)["observedGeneration"],
            world.get(&key).expect("present")["metadata"]["generation"]
        );
    }
    world.change(&key, |budget| budget["spec"] = json!({"minAvailable": 3, "selector": selector}));
    world.settle();
    let pod = world.all("", "pods")[0].0.clone();
    let evicted = json!({pod.parts().name: world.now.rfc3339()});
    world.change(&key, |budget| {
        budget["status"]["disruptedPods"] = evicted.clone();
        budget["status"]["disruptionsAllowed"] = json!(0);
    });
    world.settle();
    assert_eq!(counts(&world), (4, 3, 3, 0), "the eviction counts before the Pod shows it");
    assert_eq!(status(&world, &key)["disruptedPods"], evicted);
    world.pass(121, &["n1"]);
    assert_eq!(counts(&world), (4, 4, 3, 1), "it came to nothing");
    assert_eq!(status(&world, &key)["disruptedPods"], Value::Null);
    world.change(&deployment, |object| object["spec"]["replicas"] = json!(2));
    world.settle();
    world.run_pods("n1");
    world.settle();
    assert_eq!(counts(&world), (2, 2, 3, 0));
    world.put(&key, json!({"metadata": {"generation": 9}, "spec": {"minAvailable": 1}}));
    world.settle();
    assert_eq!(counts(&world).0, 0, "without a selector it covers nothing");
}

/// Every namespace has the account `default` and the CA, from birth and again when somebody deletes them; one that is
/// going gets nothing back.
#[test]
fn namespaces_keep_what_they_need() {
    let mut world = World::new();
    let account = |namespace: &str| World::key("", "serviceaccounts", namespace, "default");
    let ca = |namespace: &str| World::key("", "configmaps", namespace, "kube-root-ca.crt");
    world.put(&ca("kube-system"), json!({"data": {"ca.crt": "the CA"}}));
    for name in ["kube-system", "team"] {
        world.put(&World::key("", "namespaces", "", name), json!({"spec": {"finalizers": ["kubernetes"]}}));
    }
    world.settle();
    assert_eq!(world.get(&ca("team")).expect("made")["data"]["ca.crt"], "the CA");
    let first = world.get(&account("team")).expect("made")["metadata"]["uid"].clone();
    world.delete(&account("team"));
    world.delete(&ca("team"));
    world.settle();
    assert_eq!(world.get(&ca("team")).expect("made again")["data"]["ca.crt"], "the CA");
    assert_ne!(world.get(&account("team")).expect("made again")["metadata"]["uid"], first);
    world.delete(&account("kube-system"));
    world.delete(&ca("kube-system"));
    world.put(&World::key("", "namespaces", "", "default"), json!({}));
    world.settle();
    assert!(world.get(&account("kube-system")).is_some());
    assert_eq!(world.get(&ca("kube-system")), None, "no place that has it is left");
    let team = World::key("", "namespaces", "", "team");
    world.change(&team, |namespace| {
        namespace["metadata"]["deletionTimestamp"] = json!("2026-01-08T10:00:00Z");
        namespace["status"] = json!({"phase": "Terminating"});
    });
    world.settle();
    assert_eq!((world.get(&team), world.get(&account("team")), world.get(&ca("team"))), (None, None, None));
}

/// The Service that leads to the API comes back at its address, with a new uid; while another Service holds the address it
/// waits for that one to go.
#[test]
fn the_way_to_the_api_comes_back() {
    let mut world = World::new();
    world.settings.api_address = Some([10, 96, 0, 1].into());
    let service = World::key("", "services", "default", "kubernetes");
    let claim = World::key("internal.quilt.sh", "serviceips", "", "10.96.0.1");
    world.put(&World::key("", "namespaces", "", "default"), json!({}));
    world.settle();
    let made = world.get(&service).expect("made");
    assert_eq!(made["spec"]["clusterIP"], "10.96.0.1");
    assert_eq!(world.get(&claim).expect("held"), json!({"namespace": "default", "name": "kubernetes"}));
    assert!(world.plan(Controller::Furnish, &World::key("", "namespaces", "", "default")).writes.is_empty());
    world.delete(&claim);
    world.delete(&service);
    world.settle();
    let again = world.get(&service).expect("made again");
    assert_ne!(again["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(again["spec"], made["spec"]);
    let other = World::key("", "services", "team", "quicker");
    world.delete(&service);
    world.put(&other, json!({"spec": {"clusterIP": "10.96.0.1"}}));
    world.settle();
    assert_eq!(world.get(&service), None, "the address is another's");
    world.delete(&claim);
    world.delete(&other);
    world.settle();
    assert!(world.get(&service).is_some() && world.get(&claim).is_some());
}
