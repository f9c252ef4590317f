//! Services: Endpoints and `EndpointSlices` of the Pods a Service selects, in step with each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use quilt_objects::select::LabelSelector;
use quilt_proto::Key;
use serde_json::{Value, json};

use crate::ending;
use crate::fields;
use crate::object::{Object, Phase, map_selector};
use crate::plan::Plan;
use crate::pods;
use crate::view::{LoadError, Loaded, Occasion, View};

const SLICE_MAX: usize = 100;
const SLICES: (&str, &str) = ("discovery.k8s.io", "endpointslices");
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// One Pod behind the Service.
struct Member {
    address: Value,
    ip: String,
    node: String,
    target: Value,
    ready: bool,
    serving: bool,
    terminating: bool,
}

/// One look at the Service at `key`.
///
/// # Errors
/// State could not be read.
pub fn reconcile(view: &View<'_>, key: &Key, at: &mut Occasion) -> Result<Plan, LoadError> {
    let mut plan = Plan::nothing();
    let parts = key.parts();
    let Some(endpoints_key) = view.cluster.key("", "endpoints", parts.namespace, parts.name) else { return Ok(plan) };
    let Some(service) = view.load(key)? else {
        // Endpoints carry the Service's name and nothing else that would end them with it.
        if let Some(endpoints) = view.load(&endpoints_key)? {
            ending::end(&mut plan, view, endpoints, at.now)?;
        }
        return Ok(plan);
    };
    let Some(selector) = map_selector(service.value.pointer("/spec/selector")) else { return Ok(plan) };
    if service.value.pointer("/metadata/deletionTimestamp").is_some()
        || fields::text(&service.value, "/spec/type") == "ExternalName"
    {
        return Ok(plan);
    }
    let groups = members(view, &service, &selector)?;
    write_endpoints(&mut plan, view, &endpoints_key, &service, &groups, at)?;
    write_slices(&mut plan, view, &service, &groups, at)?;
    if !plan.writes.is_empty() {
        plan.rely_on(key, service.revision);
    }
    Ok(plan)
}

/// The Service's members by the ports they serve (named target ports may differ from Pod to Pod).
fn members(
    view: &View<'_>,
    service: &Loaded,
    selector: &LabelSelector,
) -> Result<BTreeMap<String, (Value, Vec<Member>)>, LoadError> {
    let publish_all = fields::is_true(&service.value, "/spec/publishNotReadyAddresses");
    let ports = fields::list(&service.value, "/spec/ports");
    let by_name = ports.iter().any(|port| port.get("targetPort").is_some_and(Value::is_string));
    let mut groups: BTreeMap<String, (Value, Vec<Member>)> = BTreeMap::new();
    let namespace = service.key.parts().namespace;
    for pod in view.cluster.pods_matching(namespace, selector) {
        let Some(facts) = pod.pod() else { continue };
        if facts.ip.is_empty() || facts.phase >= Phase::Succeeded {
            continue;
        }
        let ports = if by_name {
            let Some(loaded) = view.load(&pod.key)? else { continue };
            resolve(ports, Some(&loaded.value))
        } else {
            resolve(ports, None)
        };
        let (_, members) = groups.entry(ports.to_string()).or_insert_with(|| (ports, Vec::new()));
        members.push(member(view, pod, publish_all));
    }
    for (_, members) in groups.values_mut() {
        members.sort_by(|a, b| a.ip.cmp(&b.ip).then_with(|| a.target.to_string().cmp(&b.target.to_string())));
    }
    Ok(groups)
}

fn member(view: &View<'_>, pod: &Arc<Object>, publish_all: bool) -> Member {
    let facts = pod.pod().cloned().unwrap_or_default();
    let target = json!({ "kind": "Pod", "namespace": pod.namespace(), "name": pod.name(), "uid": pod.uid });
    let mut address = json!({ "ip": facts.ip, "targetRef": target });
    if !facts.node.is_empty() {
        fields::set(&mut address, &["nodeName"], facts.node.as_str());
    }
    let serving = view.is_ready(pod);
    let terminating = pod.deletion.is_some();
    Member {
        address,
        ip: facts.ip,
        node: facts.node,
        target,
        ready: (serving && !terminating) || publish_all,
        serving,
        terminating,
    }
}

/// The Service's ports as one Pod serves them; a named port the Pod does not have is left out.
fn resolve(ports: &[Value], pod: Option<&Value>) -> Value {
    let mut resolved = Vec::new();
    for port in ports {
        let protocol = match fields::text(port, "/protocol") {
            "" => "TCP",
            protocol => protocol,
        };
        let target = match port.get("targetPort") {
            Some(Value::String(name)) => pod.and_then(|pod| container_port(pod, name, protocol)),
            Some(Value::Number(number)) if number.as_i64() != Some(0) => number.as_i64(),
            _ => fields::int(port, "/port"),
        };
        let Some(target) = target else { continue };
        let mut out = json!({ "port": target, "protocol": protocol });
        for name in ["name", "appProtocol"] {
            if let Some(value) = port.get(name).filter(|value| !value.is_null()) {
                fields::set(&mut out, &[name], value.clone());
            }
        }
        resolved.push(out);
    }
    Value::Array(resolved)
}

fn container_port(pod: &Value, name: &str, protocol: &str) -> Option<i64> {
    let sidecars = fields::list(pod, "/spec/initContainers");
    let sidecars = sidecars.iter().filter(|container| fields::text(container, "/restartPolicy") == "Always");
    fields::list(pod, "/spec/containers").iter().chain(sidecars).find_map(|container| {
        let port = fields::list(container, "/ports").iter().find(|port| {
            let of = fields::text(port, "/protocol");
            fields::text(port, "/name") == name && (of.is_empty() || of == protocol)
        })?;
        fields::int(port, "/containerPort")
    })
}

/// Labels of the Service, which its Endpoints and slices carry too.
fn labels(service: &Value) -> serde_json::Map<String, Value> {
    let mut labels = fields::map(service, "/metadata/labels").cloned().unwrap_or_default();
    if fields::text(service, "/spec/clusterIP") == "None" {
        labels.insert(HEADLESS.into(), "".into());
    } else {
        labels.remove(HEADLESS);
    }
    labels
}

fn write_endpoints(
    plan: &mut Plan,
    view: &View<'_>,
    key: &Key,
    service: &Loaded,
    groups: &BTreeMap<String, (Value, Vec<Member>)>,
    at: &mut Occasion,
) -> Result<(), LoadError> {
    let mut subsets = Vec::new();
    for (ports, members) in groups.values() {
        let pick = |ready: bool| -> Vec<Value> {
            let living = members.iter().filter(|member| !member.terminating && member.ready == ready);
            living.map(|member| member.address.clone()).collect()
        };
        let mut subset = json!({});
        for (name, addresses) in [("addresses", pick(true)), ("notReadyAddresses", pick(false))] {
            if !addresses.is_empty() {
                fields::set(&mut subset, &[name], addresses);
            }
        }
        if subset.as_object().is_some_and(|subset| !subset.is_empty()) {
            if ports.as_array().is_some_and(|ports| !ports.is_empty()) {
                fields::set(&mut subset, &["ports"], ports.clone());
            }
            subsets.push(subset);
        }
    }
    let labels = labels(&service.value);
    let Some(mut endpoints) = view.load(key)? else {
        let parts = key.parts();
        let mut value = json!({ "metadata": at.born(parts.namespace, parts.name) });
        if !labels.is_empty() {
            fields::set(&mut value, &["metadata", "labels"], labels);
        }
        if !subsets.is_empty() {
            fields::set(&mut value, &["subsets"], subsets);
        }
        plan.create(key.clone(), value);
        return Ok(());
    };
    let before = endpoints.value.clone();
    fields::set_or_remove(&mut endpoints.value, &["subsets"], (!subsets.is_empty()).then(|| subsets.into()));
    fields::set_or_remove(&mut endpoints.value, &["metadata", "labels"], (!labels.is_empty()).then(|| labels.into()));
    if endpoints.value != before {
        plan.update(endpoints);
    }
    Ok(())
}

fn write_slices(
    plan: &mut Plan,
    view: &View<'_>,
    service: &Loaded,
    groups: &BTreeMap<String, (Value, Vec<Member>)>,
    at: &mut Occasion,
) -> Result<(), LoadError> {
    let uid = fields::text(&service.value, "/metadata/uid");
    let mut existing: Vec<Loaded> = Vec::new();
    let owned = view.cluster.owned_by(uid).filter(|object| object.key.parts().resource == SLICES.1);
    for object in owned.filter(|object| object.labels.get(MANAGED_BY).is_some_and(|by| by == MANAGER)) {
        existing.extend(view.load(&object.key)?);
    }
    let mut existing = existing.into_iter();
    let mut labels = labels(&service.value);
    let parts = service.key.parts();
    labels.insert(SERVICE_NAME.into(), parts.name.into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    let empty = (json!([]), Vec::new());
    // A Service without Pods has one empty slice, so that readers see it is looked after.
    let filled: Vec<&(Value, Vec<Member>)> = if groups.is_empty() { vec![&empty] } else { groups.values().collect() };
    for (ports, members) in filled {
        let chunks: Vec<&[Member]> = if members.is_empty() { vec![&[]] } else { members.chunks(SLICE_MAX).collect() };
        for chunk in chunks {
            let endpoints: Vec<Value> = chunk.iter().map(endpoint).collect();
            let ports = slice_ports(ports);
            let Some(mut slice) = existing.next() else {
                let name = format!("{}-{}", &parts.name[..parts.name.floor_char_boundary(57)], at.entropy.suffix());
                let Some(key) = view.cluster.key(SLICES.0, SLICES.1, parts.namespace, &name) else { continue };
                let value = json!({
                    "metadata": {
                        "name": name, "generateName": format!("{}-", parts.name), "namespace": parts.namespace,
                        "uid": at.entropy.uid(), "generation": 1, "creationTimestamp": at.now.rfc3339(),
                        "labels": labels,
                        "ownerReferences": [pods::controlled_by("v1", "Service", &service.value)],
                    },
                    "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
                });
                plan.create(key, value);
                continue;
            };
            let before = slice.value.clone();
            fields::set(&mut slice.value, &["endpoints"], endpoints);
            fields::set(&mut slice.value, &["ports"], ports);
            let content = slice.value != before;
            fields::set(&mut slice.value, &["metadata", "labels"], labels.clone());
            if slice.value != before {
                if content {
                    let generation = fields::int(&slice.value, "/metadata/generation").unwrap_or_default();
                    fields::set(&mut slice.value, &["metadata", "generation"], generation + 1);
                }
                plan.update(slice);
            }
        }
    }
    for surplus in existing {
        ending::end(plan, view, surplus, at.now)?;
    }
    Ok(())
}

/// Ports as slices have them: a port without a name has the empty one, on which clients rely.
fn slice_ports(ports: &Value) -> Value {
    let mut ports = ports.clone();
    for port in ports.as_array_mut().into_iter().flatten().filter(|port| port.get("name").is_none()) {
        fields::set(port, &["name"], "");
    }
    ports
}

fn endpoint(member: &Member) -> Value {
    let mut endpoint = json!({
        "addresses": [member.ip],
        "conditions": { "ready": member.ready, "serving": member.serving, "terminating": member.terminating },
        "targetRef": member.target,
    });
    if !member.node.is_empty() {
        fields::set(&mut endpoint, &["nodeName"], member.node.as_str());
    }
    endpoint
}
