//! What every namespace is never without: the service account `default`, and the CA by which its Pods know the API; in
//! namespace `default` also the Service that leads to the API. What somebody deletes comes back as a new object.

use quilt_objects::first;
use quilt_proto::Key;
use serde_json::{Value, json};

use crate::plan::{Plan, Write};
use crate::view::{LoadError, Occasion, View};

/// Namespaces whose copy of the CA others are made from; the first that has one.
const HAVE_CA: [&str; 3] = ["kube-system", "default", "kube-public"];
/// Group of the control plane's own records.
const INTERNAL: &str = "internal.quilt.sh";

/// One look at the Namespace at `key`.
///
/// # Errors
/// State could not be read.
pub fn reconcile(view: &View<'_>, key: &Key, at: &mut Occasion) -> Result<Plan, LoadError> {
    let mut plan = Plan::nothing();
    let Some(namespace) = view.cluster.get(key).filter(|namespace| namespace.deletion.is_none()) else {
        return Ok(plan);
    };
    let name = namespace.name();
    if let Some(place) = absent(view, "serviceaccounts", name, first::SERVICE_ACCOUNT)? {
        let account = first::service_account(&at.born(name, first::SERVICE_ACCOUNT));
        plan.create(place, account);
    }
    if let Some(place) = absent(view, "configmaps", name, first::ROOT_CA)?
        && let Some(data) = ca(view)?
    {
        let map = first::root_ca(&at.born(name, first::ROOT_CA), &data);
        plan.create(place, map);
    }
    if name == first::API_SERVICE.0 {
        lead_to_api(&mut plan, view, at)?;
    }
    if !plan.writes.is_empty() {
        // Not into a namespace that goes in the same moment.
        plan.rely_on(key, namespace.revision);
    }
    Ok(plan)
}

/// The key of an object that is not there.
fn absent(view: &View<'_>, resource: &str, namespace: &str, name: &str) -> Result<Option<Key>, LoadError> {
    let Some(key) = view.cluster.key("", resource, namespace, name) else { return Ok(None) };
    Ok(if view.source.record(&key)?.is_none() { Some(key) } else { None })
}

/// The CA, from a namespace that has it.
fn ca(view: &View<'_>) -> Result<Option<Value>, LoadError> {
    for namespace in HAVE_CA {
        let Some(key) = view.cluster.key("", "configmaps", namespace, first::ROOT_CA) else { continue };
        let data = view.load(&key)?.and_then(|map| map.value.get("data").cloned());
        if data.is_some() {
            return Ok(data);
        }
    }
    Ok(None)
}

fn lead_to_api(plan: &mut Plan, view: &View<'_>, at: &mut Occasion) -> Result<(), LoadError> {
    let (namespace, name) = first::API_SERVICE;
    let Some(address) = view.settings.api_address else { return Ok(()) };
    let Some(place) = absent(view, "services", namespace, name)? else { return Ok(()) };
    let Some(claim) = view.cluster.key(INTERNAL, "serviceips", "", &address.to_string()) else { return Ok(()) };
    if view.source.record(&claim)?.is_some() {
        // Somebody was quicker to take the address; the Service comes back when that one has gone.
        tracing::warn!(%address, "the address of Service default/kubernetes belongs to another Service");
        return Ok(());
    }
    let service = first::api_service(at.born(namespace, name), address);
    plan.writes.push(Write::Claim { key: claim, holder: json!({"namespace": namespace, "name": name}) });
    plan.create(place, service);
    Ok(())
}
