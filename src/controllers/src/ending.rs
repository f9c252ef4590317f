//! Ending objects the way the API does it: Pods with their grace, objects with finalizers by a mark, the rest at once.

use quilt_proto::Key;
use serde_json::{Value, json};

use crate::fields;
use crate::moment::Moment;
use crate::object::{Object, Phase};
use crate::plan::{Plan, Write};
use crate::view::{Cluster, LoadError, Loaded, View};

/// Group of the control plane's own records in a cluster's range.
const INTERNAL: &str = "internal.quilt.sh";

/// Ends a Pod: at once when no node runs it, else with its grace period, after which whoever runs it removes it.
///
/// # Errors
/// The Pod cannot be loaded.
pub fn end_pod(plan: &mut Plan, view: &View<'_>, pod: &Object, now: Moment) -> Result<(), LoadError> {
    if pod.deletion.is_some() {
        return Ok(());
    }
    let facts = pod.pod();
    let runs = facts.is_some_and(|facts| !facts.node.is_empty() && facts.phase < Phase::Succeeded);
    if !runs && pod.finalizers.is_empty() {
        plan.delete(&pod.key, pod.revision);
        return Ok(());
    }
    if let Some(mut loaded) = view.load_seen(pod)? {
        let grace = fields::int(&loaded.value, "/spec/terminationGracePeriodSeconds").unwrap_or(30).max(0);
        mark(&mut loaded.value, now, if runs { u64::try_from(grace).unwrap_or_default() } else { 0 });
        plan.update(loaded);
    }
    Ok(())
}

/// Ends any loaded object: finalizers delay it, otherwise it goes at once together with what it holds.
///
/// # Errors
/// A Pod cannot be loaded.
pub fn end(plan: &mut Plan, view: &View<'_>, loaded: Loaded, now: Moment) -> Result<(), LoadError> {
    if fields::list(&loaded.value, "/metadata/finalizers").is_empty() {
        if let Some(pod) = view.cluster.get(&loaded.key).filter(|object| object.pod().is_some()) {
            return if pod.revision == loaded.revision { end_pod(plan, view, pod, now) } else { Ok(()) };
        }
        remove(plan, view.cluster, &loaded);
        return Ok(());
    }
    if loaded.value.pointer("/metadata/deletionTimestamp").is_none() {
        let mut loaded = loaded;
        mark(&mut loaded.value, now, 0);
        plan.update(loaded);
    }
    Ok(())
}

/// Removes a loaded object for good, with the addresses and ports a Service holds.
pub fn remove(plan: &mut Plan, cluster: &Cluster, loaded: &Loaded) {
    plan.delete(&loaded.key, loaded.revision);
    let parts = loaded.key.parts();
    if parts.group.is_empty() && parts.resource == "services" {
        for key in held_by_service(cluster, &loaded.value) {
            plan.writes.push(Write::Free { key });
        }
    }
}

/// Takes `finalizer` off a loaded object; an object that is being deleted goes when it was the last one.
pub fn take_finalizer_off(plan: &mut Plan, cluster: &Cluster, mut loaded: Loaded, finalizer: &str) {
    let finalizers = fields::list_mut(&mut loaded.value, &["metadata", "finalizers"]);
    finalizers.retain(|held| held.as_str() != Some(finalizer));
    let last = finalizers.is_empty();
    if last {
        fields::remove(&mut loaded.value, &["metadata", "finalizers"]);
    }
    let ends = loaded.value.pointer("/metadata/deletionTimestamp").is_some();
    let grace = fields::int(&loaded.value, "/metadata/deletionGracePeriodSeconds").unwrap_or_default();
    if last && ends && grace == 0 {
        remove(plan, cluster, &loaded);
    } else {
        plan.update(loaded);
    }
}

/// Marks an object as being deleted, `grace_secs` from now.
pub fn mark(object: &mut Value, now: Moment, grace_secs: u64) {
    fields::set(object, &["metadata", "deletionTimestamp"], now.plus_secs(grace_secs).rfc3339());
    fields::set(object, &["metadata", "deletionGracePeriodSeconds"], json!(grace_secs));
    let generation = fields::int(object, "/metadata/generation");
    if let Some(generation) = generation {
        fields::set(object, &["metadata", "generation"], generation + 1);
    }
}

/// Records of addresses and ports taken by a Service.
fn held_by_service(cluster: &Cluster, service: &Value) -> Vec<Key> {
    let mut held: Vec<(&str, String)> = Vec::new();
    let given = |ip: &&str| !ip.is_empty() && *ip != "None";
    let addresses = fields::list(service, "/spec/clusterIPs").iter().filter_map(Value::as_str).filter(given);
    held.extend(addresses.map(|ip| ("serviceips", ip.to_owned())));
    let balancers = fields::list(service, "/status/loadBalancer/ingress").iter().map(|at| fields::text(at, "/ip"));
    held.extend(balancers.filter(given).map(|ip| ("loadbalancerips", ip.to_owned())));
    let ports = fields::list(service, "/spec/ports").iter().filter_map(|port| fields::int(port, "/nodePort"));
    let ports = ports.chain(fields::int(service, "/spec/healthCheckNodePort"));
    held.extend(ports.filter(|port| *port > 0).map(|port| ("nodeports", port.to_string())));
    let keys = held.into_iter().filter_map(|(resource, name)| cluster.key(INTERNAL, resource, "", &name));
    let mut keys: Vec<Key> = keys.collect();
    keys.sort();
    keys.dedup();
    keys
}
