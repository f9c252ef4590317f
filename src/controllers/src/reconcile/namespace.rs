//! Deletion of namespaces: everything in them, of every resource, then the namespace.

use std::collections::BTreeSet;

use quilt_objects::kind::Scope;
use quilt_objects::registry::registry;
use quilt_proto::{Key, KeyPrefix};
use serde_json::Value;

use crate::ending::{end, remove};
use crate::fields;
use crate::plan::{Plan, WRITES_MAX};
use crate::view::{LoadError, Loaded, Occasion, View};

const FINALIZER: &str = "kubernetes";

/// One look at the Namespace at `key`.
///
/// # Errors
/// State could not be read.
pub fn reconcile(view: &View<'_>, key: &Key, at: &mut Occasion) -> Result<Plan, LoadError> {
    let mut plan = Plan::nothing();
    let Some(mut namespace) = view.load(key)? else { return Ok(plan) };
    if namespace.value.pointer("/metadata/deletionTimestamp").is_none() {
        return Ok(plan);
    }
    if fields::text(&namespace.value, "/status/phase") != "Terminating" {
        fields::set(&mut namespace.value, &["status", "phase"], "Terminating");
        plan.update(namespace);
        plan.more = true;
        return Ok(plan);
    }
    let mut remains = false;
    for (group, resource) in resources(view)? {
        let Ok(prefix) = KeyPrefix::namespace(view.cluster.id(), &group, &resource, key.parts().name) else { continue };
        let room = WRITES_MAX.saturating_sub(plan.writes.len());
        let limit = u32::try_from(room + 1).unwrap_or(u32::MAX);
        for (place, record) in view.source.first(&prefix, limit)? {
            remains = true;
            if plan.is_full() {
                return Ok(plan);
            }
            end(&mut plan, view, Loaded::parse(&place, &record)?, at.now)?;
        }
    }
    if remains {
        // What has finalizers or a grace period goes later; its going brings us back, and so does the clock.
        plan.more |= !plan.writes.is_empty();
        plan.look_again(at.now.plus_secs(5));
        return Ok(plan);
    }
    let finalizers = fields::list_mut(&mut namespace.value, &["spec", "finalizers"]);
    let held = finalizers.len();
    finalizers.retain(|finalizer| finalizer.as_str() != Some(FINALIZER));
    let (changed, none_left) = (finalizers.len() != held, finalizers.is_empty());
    if none_left && fields::list(&namespace.value, "/metadata/finalizers").is_empty() {
        remove(&mut plan, view.cluster, &namespace);
    } else if changed {
        plan.update(namespace);
    }
    Ok(plan)
}

/// Every namespaced resource of the cluster, built in or defined by it.
fn resources(view: &View<'_>) -> Result<BTreeSet<(String, String)>, LoadError> {
    let mut resources: BTreeSet<(String, String)> = registry()
        .kinds()
        .iter()
        .filter(|kind| kind.scope == Scope::Namespaced && !kind.list_kind.is_empty())
        .map(|kind| (kind.storage_group.to_string(), kind.plural.to_string()))
        .collect();
    let definitions = KeyPrefix::resource(view.cluster.id(), "apiextensions.k8s.io", "customresourcedefinitions");
    if let Ok(prefix) = definitions {
        for (_, record) in view.source.first(&prefix, 10_000)? {
            let Ok(definition) = serde_json::from_slice::<Value>(&record.value) else { continue };
            if fields::text(&definition, "/spec/scope") == "Namespaced" {
                let of = |pointer| fields::text(&definition, pointer).to_owned();
                resources.insert((of("/spec/group"), of("/spec/names/plural")));
            }
        }
    }
    Ok(resources)
}
