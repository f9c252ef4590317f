//! What goes with what, when it goes, and what is always there.

use quilt_proto::Key;
use serde_json::{Value, json};

use super::{condition, deployment, status};
use crate::reconcile::Controller;
use crate::world::World;

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
