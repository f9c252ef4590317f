//! Which keys a change concerns: from one change to the work it makes.

use std::collections::BTreeSet;

use quilt_objects::first;
use quilt_proto::Key;

use crate::object::{Facts, Object};
use crate::reconcile::Controller;
use crate::view::{Change, Cluster};

/// One piece of work.
pub type Work = (Controller, Key);

/// Whether an object is remembered at all: what controllers act on, and whatever has owners, finalizers or an end.
#[must_use]
pub fn is_remembered(object: &Object) -> bool {
    let parts = object.key.parts();
    let acted_on = matches!(
        (parts.group, parts.resource),
        ("", "pods" | "nodes" | "services" | "namespaces")
            | ("apps", "deployments" | "replicasets")
            | ("policy", "poddisruptionbudgets")
            | ("quilt.sh", "workloads")
    );
    acted_on || !object.owners.is_empty() || !object.finalizers.is_empty() || object.deletion.is_some()
}

/// Records that no controller looks at: the control plane's own, and those that change often and matter to nobody here.
#[must_use]
pub fn is_ignored(key: &Key) -> bool {
    let parts = key.parts();
    parts.group == "internal.quilt.sh" || parts.resource == "events" || parts.resource == "leases"
}

/// The work one change makes. `uid_gone` is the uid of an object that was deleted, remembered or not.
pub fn work_of(cluster: &Cluster, change: &Change, uid_gone: Option<&str>, into: &mut BTreeSet<Work>) {
    for object in change.ends() {
        own(cluster, object, into);
        owners(cluster, object, into);
    }
    if let Some(after) = &change.after {
        let going = after.deletion.is_some() && !after.finalizers.is_empty();
        if going || (change.before.is_none() && !after.owners.is_empty()) || owners_changed(change) {
            into.insert((Controller::Garbage, change.key.clone()));
        }
        if after.deletion.is_some() && change.before.as_ref().is_none_or(|before| before.deletion.is_none()) {
            // Its dependents may have to go with it.
            for owner in &after.owners {
                dependents_of_going_owner(cluster, &owner.uid, into);
            }
        }
    }
    if let Some(uid) = uid_gone {
        for dependent in cluster.owned_by(uid) {
            into.insert((Controller::Garbage, dependent.key.clone()));
        }
    }
    if change.after.is_none() {
        in_ending_namespace(cluster, &change.key, into);
        missed_in_namespace(cluster, &change.key, into);
        // An owner that waits for its dependents looks again when one has gone.
        for owner in change.before.iter().flat_map(|before| &before.owners) {
            wake_waiting_owner(cluster, change, &owner.uid, into);
        }
    }
}

fn owners_changed(change: &Change) -> bool {
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => before.owners != after.owners,
        _ => false,
    }
}

fn dependents_of_going_owner(cluster: &Cluster, uid: &str, into: &mut BTreeSet<Work>) {
    for dependent in cluster.owned_by(uid) {
        if dependent.deletion.is_some() {
            into.insert((Controller::Garbage, dependent.key.clone()));
        }
    }
}

/// Owners are found through the remembered objects of the dependent's namespace that are going.
fn wake_waiting_owner(cluster: &Cluster, change: &Change, uid: &str, into: &mut BTreeSet<Work>) {
    let Some(before) = &change.before else { return };
    for owner in before.owners.iter().filter(|owner| owner.uid == uid) {
        if let Some(key) = cluster.owner_key(before, owner)
            && cluster.get(&key).is_some_and(|owner| owner.deletion.is_some())
        {
            into.insert((Controller::Garbage, key));
        }
    }
}

/// The object's own controller.
fn own(cluster: &Cluster, object: &Object, into: &mut BTreeSet<Work>) {
    let parts = object.key.parts();
    let controller = match (parts.group, parts.resource) {
        ("quilt.sh", "workloads") => Controller::Workload,
        ("apps", "deployments") => Controller::Deployment,
        ("apps", "replicasets") => Controller::ReplicaSet,
        ("policy", "poddisruptionbudgets") => Controller::Budget,
        ("", "services") => Controller::Endpoints,
        ("", "namespaces") => {
            let controller = if object.deletion.is_some() { Controller::Namespace } else { Controller::Furnish };
            into.insert((controller, object.key.clone()));
            return;
        }
        ("", "nodes") => {
            into.insert((Controller::Node, object.key.clone()));
            concerned_by_node(cluster, object.name(), into);
            return;
        }
        ("", "pods") => {
            concerned_by_pod(cluster, object, into);
            return;
        }
        _ => return,
    };
    into.insert((controller, object.key.clone()));
}

/// A node's state concerns the Pods on it, their owners, and the Services that send them traffic.
fn concerned_by_node(cluster: &Cluster, node: &str, into: &mut BTreeSet<Work>) {
    for pod in cluster.on_node(node) {
        concerned_by_pod(cluster, pod, into);
        owners(cluster, pod, into);
    }
}

fn concerned_by_pod(cluster: &Cluster, pod: &Object, into: &mut BTreeSet<Work>) {
    let facts = pod.pod();
    let lost = facts.is_some_and(|facts| !facts.node.is_empty() && cluster.node(&facts.node).is_none());
    if pod.deletion.is_some() || lost {
        into.insert((Controller::Termination, pod.key.clone()));
    }
    if let Some(facts) = facts
        && let Some(node) = cluster.node(&facts.node)
        && node.node().is_some_and(|node| node.draining || node.away_since.is_some())
    {
        into.insert((Controller::Node, node.key.clone()));
    }
    let selecting = [(Controller::Endpoints, "", "services"), (Controller::Budget, "policy", "poddisruptionbudgets")];
    for (controller, group, resource) in selecting {
        for object in cluster.resource(group, resource, pod.namespace()) {
            if let Facts::Selects(Some(selector)) = &object.facts
                && selector.matches_labels(&pod.labels)
            {
                into.insert((controller, object.key.clone()));
            }
        }
    }
    if pod.controller().is_none() {
        for set in cluster.resource("apps", "replicasets", pod.namespace()) {
            if let Facts::Selects(Some(selector)) = &set.facts
                && selector.matches_labels(&pod.labels)
            {
                into.insert((Controller::ReplicaSet, set.key.clone()));
            }
        }
    }
}

/// The controllers of the object's owner, and of the owner's owner for Pods of a Deployment's `ReplicaSet`.
fn owners(cluster: &Cluster, object: &Object, into: &mut BTreeSet<Work>) {
    let Some(owner) = object.controller() else {
        if object.key.parts().resource == "replicasets" {
            // An orphan may be adopted.
            for deployment in cluster.resource("apps", "deployments", object.namespace()) {
                into.insert((Controller::Deployment, deployment.key.clone()));
            }
        }
        return;
    };
    let (controller, group, resource) = match owner.kind.as_str() {
        "Workload" => (Controller::Workload, "quilt.sh", "workloads"),
        "Deployment" => (Controller::Deployment, "apps", "deployments"),
        "ReplicaSet" => (Controller::ReplicaSet, "apps", "replicasets"),
        "Service" => (Controller::Endpoints, "", "services"),
        _ => return,
    };
    let Some(key) = cluster.key(group, resource, object.namespace(), &owner.name) else { return };
    if controller == Controller::ReplicaSet
        && let Some(set) = cluster.get(&key)
    {
        owners(cluster, set, into);
    }
    into.insert((controller, key));
}

/// What every namespace has comes back. Any Service that goes may have held the address of the one that leads to the API.
fn missed_in_namespace(cluster: &Cluster, key: &Key, into: &mut BTreeSet<Work>) {
    let parts = key.parts();
    let namespace = match (parts.group, parts.resource, parts.name) {
        ("", "serviceaccounts", first::SERVICE_ACCOUNT) | ("", "configmaps", first::ROOT_CA) => parts.namespace,
        ("", "services", _) => first::API_SERVICE.0,
        _ => return,
    };
    let namespace = cluster.key("", "namespaces", "", namespace);
    if let Some(key) = namespace.filter(|key| cluster.get(key).is_some_and(|namespace| namespace.deletion.is_none())) {
        into.insert((Controller::Furnish, key));
    }
}

fn in_ending_namespace(cluster: &Cluster, key: &Key, into: &mut BTreeSet<Work>) {
    let namespace = cluster.key("", "namespaces", "", key.parts().namespace);
    if let Some(key) = namespace
        && cluster.get(&key).is_some_and(|namespace| namespace.deletion.is_some())
    {
        into.insert((Controller::Namespace, key));
    }
}
