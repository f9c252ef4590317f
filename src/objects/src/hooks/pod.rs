//! Pods, alone and as templates: what upstream fills in, and the status a pod is born with.

use serde_json::{Value, json};

use crate::first;
use crate::place;
use crate::quantity::Quantity;

/// The lists of a pod spec that hold containers.
pub(crate) const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Defaults of a Pod: those of any pod spec, and those that only a running pod gets.
pub(super) fn defaults(pod: &mut Value) {
    let Some(spec) = place::get_mut(pod, &["spec"]) else { return };
    run_by_someone(spec);
    pod_spec(spec);
    place::fill(spec, "enableServiceLinks", true);
    for list in CONTAINER_LISTS {
        for container in place::items_mut(spec, &[list]) {
            requests_from_limits(container);
        }
    }
}

/// A Pod that names no service account is run by the one every namespace has.
pub fn run_by_someone(spec: &mut Value) {
    if ["serviceAccountName", "serviceAccount"].iter().all(|key| place::text_or_empty(spec, &[key]).is_empty()) {
        place::set(spec, &["serviceAccountName"], first::SERVICE_ACCOUNT);
        place::set(spec, &["serviceAccount"], first::SERVICE_ACCOUNT);
    }
}

/// Defaults of the pod template at `path`.
pub(super) fn template(object: &mut Value, path: &[&str]) {
    if let Some(spec) = place::get_mut(object, path).and_then(|template| template.get_mut("spec"))
        && spec.is_object()
    {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Value) {
    place::fill_text(spec, "dnsPolicy", "ClusterFirst");
    place::fill_text(spec, "restartPolicy", "Always");
    place::fill(spec, "securityContext", json!({}));
    place::fill(spec, "terminationGracePeriodSeconds", 30);
    place::fill_text(spec, "schedulerName", "default-scheduler");
    // The old name of the field is served as long as the API lives, always equal to the new one.
    let account =
        ["serviceAccountName", "serviceAccount"].iter().find_map(|key| place::text(spec, &[key])).map(str::to_owned);
    if let Some(account) = account.filter(|account| !account.is_empty()) {
        place::fill_text(spec, "serviceAccountName", &account);
        let account = place::text_or_empty(spec, &["serviceAccountName"]).to_owned();
        place::set(spec, &["serviceAccount"], account);
    }
    let host_network = place::flag(spec, &["hostNetwork"]);
    for list in CONTAINER_LISTS {
        for one in place::items_mut(spec, &[list]) {
            container(one);
            if host_network {
                for port in place::items_mut(one, &["ports"]) {
                    if let Some(number) = place::int(port, &["containerPort"]) {
                        place::fill(port, "hostPort", number);
                    }
                }
            }
        }
    }
    for one in place::items_mut(spec, &["volumes"]) {
        volume(one);
    }
    if let Some(overhead) = place::get_mut(spec, &["overhead"]) {
        quantities(overhead);
    }
}

fn container(container: &mut Value) {
    let image = place::text_or_empty(container, &["image"]);
    let policy = if is_moving_tag(image) { "Always" } else { "IfNotPresent" };
    place::fill_text(container, "imagePullPolicy", policy);
    place::fill_text(container, "terminationMessagePath", "/dev/termination-log");
    place::fill_text(container, "terminationMessagePolicy", "File");
    place::fill(container, "resources", json!({}));
    for group in ["requests", "limits"] {
        if let Some(amounts) = place::get_mut(container, &["resources", group]) {
            quantities(amounts);
        }
    }
    for port in place::items_mut(container, &["ports"]) {
        place::fill_text(port, "protocol", "TCP");
    }
    for variable in place::items_mut(container, &["env"]) {
        if let Some(reference) = place::get_mut(variable, &["valueFrom", "fieldRef"]) {
            place::fill_text(reference, "apiVersion", "v1");
        }
        if let Some(reference) = place::get_mut(variable, &["valueFrom", "resourceFieldRef"]) {
            place::fill(reference, "divisor", "0");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = place::get_mut(container, &[name]) {
            for (key, value) in
                [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
            {
                positive(probe, key, value);
            }
            http_get(probe);
            if let Some(grpc) = place::get_mut(probe, &["grpc"]) {
                place::fill(grpc, "service", "");
            }
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(handler) = place::get_mut(container, &["lifecycle", hook]) {
            http_get(handler);
        }
    }
}

/// Fills a number that counts zero as "not said".
fn positive(map: &mut Value, key: &str, value: i64) {
    place::fill(map, key, value);
    if place::int(map, &[key]) == Some(0) {
        place::set(map, &[key], value);
    }
}

fn http_get(handler: &mut Value) {
    if let Some(get) = place::get_mut(handler, &["httpGet"]) {
        place::fill_text(get, "path", "/");
        place::fill_text(get, "scheme", "HTTP");
    }
}

/// Whether an image reference names a tag that moves: `latest`, said or implied. A digest never moves.
fn is_moving_tag(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn requests_from_limits(container: &mut Value) {
    let Some(limits) = place::map(container, &["resources", "limits"]).cloned() else { return };
    let Some(requests) = place::map_made(container, &["resources", "requests"]) else { return };
    for (resource, amount) in limits {
        requests.entry(resource).or_insert(amount);
    }
}

/// Writes every amount of a resource list in its canonical form; what is no amount is left for validation to name.
pub(super) fn quantities(amounts: &mut Value) {
    for amount in amounts.as_object_mut().into_iter().flat_map(|map| map.values_mut()) {
        if let Ok(quantity) = Quantity::from_value(amount) {
            *amount = quantity.to_string().into();
        }
    }
}

fn volume(volume: &mut Value) {
    const MODE: i64 = 0o644;
    if volume.as_object().is_some_and(|map| map.iter().all(|(key, value)| key == "name" || value.is_null())) {
        place::fill(volume, "emptyDir", json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = place::get_mut(volume, &[source]) {
            place::fill(source, "defaultMode", MODE);
            field_references(source);
        }
    }
    for source in place::items_mut(volume, &["projected", "sources"]) {
        if let Some(token) = place::get_mut(source, &["serviceAccountToken"]) {
            positive(token, "expirationSeconds", 3600);
        }
        if let Some(downward) = place::get_mut(source, &["downwardAPI"]) {
            field_references(downward);
        }
    }
    if let Some(size) = place::get_mut(volume, &["emptyDir", "sizeLimit"])
        && let Ok(quantity) = Quantity::from_value(size)
    {
        *size = quantity.to_string().into();
    }
    if let Some(claim) = place::get_mut(volume, &["ephemeral", "volumeClaimTemplate", "spec"]) {
        place::fill_text(claim, "volumeMode", "Filesystem");
    }
    volume_source(volume);
}

/// Defaults of sources that pods and PersistentVolumes share.
pub(super) fn volume_source(volume: &mut Value) {
    if let Some(path) = place::get_mut(volume, &["hostPath"]) {
        place::fill(path, "type", "");
    }
    let table: [(&str, &[(&str, &str)]); 4] = [
        ("iscsi", &[("iscsiInterface", "default")]),
        ("rbd", &[("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")]),
        ("azureDisk", &[("cachingMode", "ReadWrite"), ("kind", "Shared"), ("fsType", "ext4")]),
        ("scaleIO", &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")]),
    ];
    for (source, texts) in table {
        if let Some(source) = place::get_mut(volume, &[source]) {
            for (key, value) in texts {
                place::fill_text(source, key, value);
            }
        }
    }
    if let Some(disk) = place::get_mut(volume, &["azureDisk"]) {
        place::fill(disk, "readOnly", false);
    }
}

fn field_references(source: &mut Value) {
    for item in place::items_mut(source, &["items"]) {
        if let Some(reference) = place::get_mut(item, &["fieldRef"]) {
            place::fill_text(reference, "apiVersion", "v1");
        }
        if let Some(reference) = place::get_mut(item, &["resourceFieldRef"]) {
            place::fill(reference, "divisor", "0");
        }
    }
}

/// Ephemeral containers come and go through their own subresource only.
pub(super) fn prepare(new: &mut Value, old: Option<&Value>) {
    if let Some(old) = old {
        place::keep(new, old, &["spec", "ephemeralContainers"]);
    }
}

/// The status of a new pod.
pub(super) fn initial_status(pod: &Value) -> Value {
    json!({"phase": "Pending", "qosClass": quality_of_service(pod)})
}

/// Class of service by requests and limits of CPU and memory.
fn quality_of_service(pod: &Value) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for list in ["initContainers", "containers"] {
        for container in place::items(pod, &["spec", list]) {
            for resource in ["cpu", "memory"] {
                let amount = |group| {
                    place::get(container, &["resources", group, resource])
                        .and_then(|amount| Quantity::from_value(amount).ok())
                        .filter(|amount| *amount != Quantity::ZERO)
                };
                let (request, limit) = (amount("requests"), amount("limits"));
                any |= request.is_some() || limit.is_some();
                guaranteed &= limit.is_some() && (request.is_none() || request == limit);
            }
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
