//! Deployments and their sets.

use quilt_objects::registry::registry;
use quilt_objects::{hooks, validate};
use serde_json::{Value, json};

use super::{active, condition, deployment, ready, set_image, status, workload};
use crate::reconcile::Controller;
use crate::world::World;

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
