//! Pods and pod templates.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{FieldError, Path, complain, labels, not_negative, one_of, port_number, required_text};
use crate::hooks::CONTAINER_LISTS;
use crate::names;
use crate::place;
use crate::quantity::Quantity;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub(crate) fn pod(object: &Value, errors: &mut Vec<FieldError>) {
    let at = Path::new("spec");
    match place::get(object, &["spec"]) {
        Some(spec) => pod_spec(spec, &at, errors),
        None => errors.push(FieldError::required(&at.child("containers"), "")),
    }
}

/// Complaints about the template of a workload at `at`.
pub(crate) fn template(template: &Value, at: &Path, errors: &mut Vec<FieldError>) {
    let metadata = at.child("metadata");
    labels(place::get(template, &["metadata", "labels"]), &metadata.child("labels"), errors);
    for (key, _) in place::map(template, &["metadata", "annotations"]).into_iter().flatten() {
        complain(errors, &metadata.child("annotations"), key, names::qualified_name(&key.to_lowercase()));
    }
    let at = at.child("spec");
    match place::get(template, &["spec"]) {
        Some(spec) => {
            if !place::items(spec, &["ephemeralContainers"]).is_empty() {
                errors.push(FieldError::forbidden(
                    &at.child("ephemeralContainers"),
                    "ephemeral containers not allowed in pod template",
                ));
            }
            pod_spec(spec, &at, errors);
        }
        None => errors.push(FieldError::required(&at.child("containers"), "")),
    }
}

fn pod_spec(spec: &Value, at: &Path, errors: &mut Vec<FieldError>) {
    let volumes = volumes(spec, &at.child("volumes"), errors);
    if place::items(spec, &["containers"]).is_empty() {
        errors.push(FieldError::required(&at.child("containers"), ""));
    }
    let mut container_names = BTreeSet::new();
    for list in CONTAINER_LISTS {
        for (index, one) in place::items(spec, &[list]).iter().enumerate() {
            let at = at.child(list).index(index);
            container(one, list, &at, &volumes, errors);
            if let Some(name) = place::text(one, &["name"]).filter(|name| !name.is_empty())
                && !container_names.insert(name)
            {
                errors.push(FieldError::duplicate(&at.child("name"), &name.into()));
            }
        }
    }
    one_of(spec, "restartPolicy", &["Always", "OnFailure", "Never"], at, errors);
    one_of(spec, "dnsPolicy", &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"], at, errors);
    not_negative(spec, "terminationGracePeriodSeconds", at, errors);
    if let Some(seconds) = place::int(spec, &["activeDeadlineSeconds"])
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = format!("must be between 1 and {}, inclusive", i32::MAX);
        errors.push(FieldError::invalid(&at.child("activeDeadlineSeconds"), &seconds.into(), &detail));
    }
    labels(place::get(spec, &["nodeSelector"]), &at.child("nodeSelector"), errors);
    type Rule = fn(&str) -> Vec<String>;
    let texts: [(&str, Rule); 5] = [
        ("serviceAccountName", names::dns1123_subdomain),
        ("nodeName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
        ("priorityClassName", names::dns1123_subdomain),
    ];
    for (key, rule) in texts {
        if let Some(text) = place::text(spec, &[key]).filter(|text| !text.is_empty()) {
            complain(errors, &at.child(key), text, rule(text));
        }
    }
    tolerations(spec, &at.child("tolerations"), errors);
    spread_constraints(spec, &at.child("topologySpreadConstraints"), errors);
}

fn volumes<'a>(spec: &'a Value, at: &Path, errors: &mut Vec<FieldError>) -> BTreeSet<&'a str> {
    let mut known = BTreeSet::new();
    for (index, volume) in place::items(spec, &["volumes"]).iter().enumerate() {
        let at = at.index(index);
        if let Some(name) = required_text(volume, "name", &at, errors) {
            complain(errors, &at.child("name"), name, names::dns1123_label(name));
            if !known.insert(name) {
                errors.push(FieldError::duplicate(&at.child("name"), &name.into()));
            }
        }
        let sources: Vec<&String> = volume
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, value)| *key != "name" && !value.is_null())
            .map(|(key, _)| key)
            .collect();
        for extra in sources.iter().skip(1) {
            errors.push(FieldError::forbidden(&at.child(extra), "may not specify more than 1 volume type"));
        }
        for (source, key) in [
            ("secret", "secretName"),
            ("configMap", "name"),
            ("hostPath", "path"),
            ("persistentVolumeClaim", "claimName"),
            ("nfs", "server"),
            ("nfs", "path"),
            ("csi", "driver"),
        ] {
            if let Some(value) = place::get(volume, &[source]) {
                required_text(value, key, &at.child(source), errors);
            }
        }
    }
    known
}

fn container(container: &Value, list: &str, at: &Path, volumes: &BTreeSet<&str>, errors: &mut Vec<FieldError>) {
    if let Some(name) = required_text(container, "name", at, errors) {
        complain(errors, &at.child("name"), name, names::dns1123_label(name));
    }
    if let Some(image) = required_text(container, "image", at, errors)
        && image.trim() != image
    {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(&at.child("image"), &image.into(), detail));
    }
    one_of(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"], at, errors);
    one_of(container, "terminationMessagePolicy", &["FallbackToLogsOnError", "File"], at, errors);
    ports(container, &at.child("ports"), errors);
    environment(container, &at.child("env"), errors);
    mounts(container, &at.child("volumeMounts"), volumes, errors);
    resources(container, &at.child("resources"), errors);
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = place::get(container, &[name]) {
            let at = at.child(name);
            if list == "initContainers" && place::text(container, &["restartPolicy"]) != Some("Always") {
                errors.push(FieldError::forbidden(
                    &at,
                    "may not be set for init containers without restartPolicy=Always",
                ));
            }
            handler(probe, &at, errors);
            for key in
                ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
            {
                not_negative(probe, key, &at, errors);
            }
            if name != "readinessProbe"
                && let Some(threshold) = place::int(probe, &["successThreshold"]).filter(|threshold| *threshold > 1)
            {
                errors.push(FieldError::invalid(&at.child("successThreshold"), &threshold.into(), "must be 1"));
            }
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(one) = place::get(container, &["lifecycle", hook]) {
            handler(one, &at.child("lifecycle").child(hook), errors);
        }
    }
}

const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];

fn handler(holder: &Value, at: &Path, errors: &mut Vec<FieldError>) {
    let mut given = HANDLERS.iter().filter(|name| place::get(holder, &[name]).is_some());
    if given.next().is_none() {
        errors.push(FieldError::required(at, "must specify a handler type"));
    }
    for extra in given {
        errors.push(FieldError::forbidden(&at.child(extra), "may not specify more than 1 handler type"));
    }
    if place::get(holder, &["exec"]).is_some() && place::items(holder, &["exec", "command"]).is_empty() {
        errors.push(FieldError::required(&at.child("exec").child("command"), ""));
    }
    for name in ["httpGet", "tcpSocket", "grpc"] {
        if let Some(action) = place::get(holder, &[name]) {
            let at = at.child(name).child("port");
            match place::get(action, &["port"]) {
                Some(Value::String(text)) => complain(errors, &at, text, names::port_name(text)),
                port => port_number(port.and_then(Value::as_i64).unwrap_or(0), &at, errors),
            }
        }
    }
}

fn ports(container: &Value, at: &Path, errors: &mut Vec<FieldError>) {
    let mut known = BTreeSet::new();
    for (index, port) in place::items(container, &["ports"]).iter().enumerate() {
        let at = at.index(index);
        if let Some(name) = place::text(port, &["name"]).filter(|name| !name.is_empty()) {
            complain(errors, &at.child("name"), name, names::port_name(name));
            if !known.insert(name) {
                errors.push(FieldError::duplicate(&at.child("name"), &name.into()));
            }
        }
        match place::int(port, &["containerPort"]) {
            None | Some(0) => errors.push(FieldError::required(&at.child("containerPort"), "")),
            Some(number) => port_number(number, &at.child("containerPort"), errors),
        }
        if let Some(number) = place::int(port, &["hostPort"]).filter(|number| *number != 0) {
            port_number(number, &at.child("hostPort"), errors);
        }
        one_of(port, "protocol", &PROTOCOLS, &at, errors);
    }
}

fn environment(container: &Value, at: &Path, errors: &mut Vec<FieldError>) {
    for (index, variable) in place::items(container, &["env"]).iter().enumerate() {
        let at = at.index(index);
        if let Some(name) = required_text(variable, "name", &at, errors) {
            complain(errors, &at.child("name"), name, names::env_var_name(name));
        }
        let Some(source) = place::get(variable, &["valueFrom"]) else { continue };
        let at = at.child("valueFrom");
        let given = source.as_object().map_or(0, |map| map.values().filter(|value| !value.is_null()).count());
        if given == 0 {
            let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or \
                          `fileKeyRef`";
            errors.push(FieldError::invalid(&at, &"".into(), detail));
        }
        if given > 1 {
            errors.push(FieldError::invalid(&at, &"".into(), "may not have more than one field specified at a time"));
        }
        if given > 0 && !place::text_or_empty(variable, &["value"]).is_empty() {
            errors.push(FieldError::invalid(&at, &"".into(), "may not be specified when `value` is not empty"));
        }
        for reference in ["configMapKeyRef", "secretKeyRef"] {
            if let Some(value) = place::get(source, &[reference]) {
                required_text(value, "name", &at.child(reference), errors);
                required_text(value, "key", &at.child(reference), errors);
            }
        }
        if let Some(value) = place::get(source, &["fieldRef"]) {
            required_text(value, "fieldPath", &at.child("fieldRef"), errors);
        }
        if let Some(value) = place::get(source, &["resourceFieldRef"]) {
            required_text(value, "resource", &at.child("resourceFieldRef"), errors);
        }
    }
}

fn mounts(container: &Value, at: &Path, volumes: &BTreeSet<&str>, errors: &mut Vec<FieldError>) {
    let mut paths = BTreeSet::new();
    for (index, mount) in place::items(container, &["volumeMounts"]).iter().enumerate() {
        let at = at.index(index);
        if let Some(name) = required_text(mount, "name", &at, errors)
            && !volumes.contains(name)
        {
            errors.push(FieldError::not_found(&at.child("name"), &name.into()));
        }
        if let Some(path) = required_text(mount, "mountPath", &at, errors)
            && !paths.insert(path)
        {
            errors.push(FieldError::invalid(&at.child("mountPath"), &path.into(), "must be unique"));
        }
        if let Some(path) = place::text(mount, &["subPath"])
            && (path.starts_with('/') || path.split('/').any(|step| step == ".."))
        {
            let detail = if path.starts_with('/') { "must be a relative path" } else { "must not contain '..'" };
            errors.push(FieldError::invalid(&at.child("subPath"), &path.into(), detail));
        }
    }
}

/// Complaints about requests and limits of a container or a claim.
pub(crate) fn resources(holder: &Value, at: &Path, errors: &mut Vec<FieldError>) {
    for group in ["limits", "requests"] {
        for (resource, amount) in place::map(holder, &["resources", group]).into_iter().flatten() {
            let place = at.child(group).key(resource);
            complain(errors, &at.child(group), resource, names::qualified_name(resource));
            let quantity = match Quantity::from_value(amount) {
                Ok(quantity) => quantity,
                Err(error) => {
                    errors.push(FieldError::invalid(&place, amount, &error.to_string()));
                    continue;
                }
            };
            if quantity.is_negative() {
                errors.push(FieldError::invalid(&place, &quantity.to_string().into(), super::NOT_NEGATIVE));
            }
            if is_counted(resource) && !quantity.is_whole() {
                errors.push(FieldError::invalid(&place, &quantity.to_string().into(), "must be an integer"));
            }
            if group == "requests"
                && let Some(limit) = place::get(holder, &["resources", "limits", resource])
                && let Ok(limit) = Quantity::from_value(limit)
                && quantity > limit
            {
                let detail = format!("must be less than or equal to {resource} limit of {limit}");
                errors.push(FieldError::invalid(&at.child("requests"), &quantity.to_string().into(), &detail));
            }
        }
    }
}

/// Whether a resource comes in whole pieces: devices do, compute and storage do not.
fn is_counted(resource: &str) -> bool {
    resource.contains('/') && !resource.starts_with("kubernetes.io/")
}

fn tolerations(spec: &Value, at: &Path, errors: &mut Vec<FieldError>) {
    for (index, toleration) in place::items(spec, &["tolerations"]).iter().enumerate() {
        let at = at.index(index);
        let key = place::text_or_empty(toleration, &["key"]);
        let operator = place::text_or_empty(toleration, &["operator"]);
        let value = place::text_or_empty(toleration, &["value"]);
        if !key.is_empty() {
            complain(errors, &at.child("key"), key, names::qualified_name(key));
        } else if operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&at.child("operator"), &operator.into(), detail));
        }
        one_of(toleration, "operator", &["Equal", "Exists"], &at, errors);
        if operator == "Exists" && !value.is_empty() {
            let detail = "value must be empty when `operator` is 'Exists'";
            errors.push(FieldError::invalid(&at.child("operator"), &value.into(), detail));
        }
        one_of(toleration, "effect", &["NoExecute", "NoSchedule", "PreferNoSchedule"], &at, errors);
        if place::get(toleration, &["tolerationSeconds"]).is_some()
            && place::text_or_empty(toleration, &["effect"]) != "NoExecute"
        {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            let effect = place::text_or_empty(toleration, &["effect"]);
            errors.push(FieldError::invalid(&at.child("effect"), &effect.into(), detail));
        }
    }
}

fn spread_constraints(spec: &Value, at: &Path, errors: &mut Vec<FieldError>) {
    for (index, constraint) in place::items(spec, &["topologySpreadConstraints"]).iter().enumerate() {
        let at = at.index(index);
        let skew = place::int(constraint, &["maxSkew"]).unwrap_or(0);
        if skew <= 0 {
            errors.push(FieldError::invalid(&at.child("maxSkew"), &skew.into(), "must be greater than zero"));
        }
        required_text(constraint, "topologyKey", &at, errors);
        if required_text(constraint, "whenUnsatisfiable", &at, errors).is_some() {
            one_of(constraint, "whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"], &at, errors);
        }
    }
}

const UPDATE_FORBIDDEN: &str = "pod updates may not change fields other than \
    `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
    additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
    previously negative)";

/// A pod is what it was made as, but for images, its deadline and further tolerations.
pub(crate) fn pod_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let (Some(new_spec), Some(old_spec)) = (new.get("spec"), old.get("spec")) else { return };
    if new_spec == old_spec {
        return;
    }
    let at = Path::new("spec");
    let mut judged = new_spec.clone();
    for list in ["containers", "initContainers"] {
        let before = place::items(old_spec, &[list]);
        if before.len() != place::items(new_spec, &[list]).len() {
            errors.push(FieldError::forbidden(&at.child(list), "pod updates may not add or remove containers"));
            return;
        }
        for (container, before) in place::items_mut(&mut judged, &[list]).iter_mut().zip(before) {
            place::keep(container, before, &["image"]);
        }
    }
    // Only through `ephemeralcontainers` do these change, which is judged by the same function.
    place::keep(&mut judged, old_spec, &["ephemeralContainers"]);
    deadline_update(new_spec, old_spec, &at, errors);
    place::keep(&mut judged, old_spec, &["activeDeadlineSeconds"]);
    if place::int(old_spec, &["terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0)
        && place::int(new_spec, &["terminationGracePeriodSeconds"]) == Some(1)
    {
        place::keep(&mut judged, old_spec, &["terminationGracePeriodSeconds"]);
    }
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        place::remove(&mut toleration, &["tolerationSeconds"]);
        toleration
    };
    let tolerations: Vec<Value> = place::items(new_spec, &["tolerations"]).iter().map(without_seconds).collect();
    if place::items(old_spec, &["tolerations"]).iter().any(|one| !tolerations.contains(&without_seconds(one))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(&at.child("tolerations"), detail));
    }
    place::keep(&mut judged, old_spec, &["tolerations"]);
    if place::text_or_empty(old_spec, &["nodeName"]).is_empty() {
        // Gates only go away, and while one is left the scheduler has not looked yet.
        let gates = place::items(new_spec, &["schedulingGates"]);
        let before = place::items(old_spec, &["schedulingGates"]);
        if gates.iter().all(|gate| before.contains(gate)) {
            place::keep(&mut judged, old_spec, &["schedulingGates"]);
        }
    }
    if judged != *old_spec {
        errors.push(FieldError::forbidden(&at, UPDATE_FORBIDDEN));
    }
}

fn deadline_update(new: &Value, old: &Value, at: &Path, errors: &mut Vec<FieldError>) {
    let seconds = |spec: &Value| place::int(spec, &["activeDeadlineSeconds"]);
    let at = at.child("activeDeadlineSeconds");
    match (seconds(new), seconds(old)) {
        (Some(new), Some(old)) if new > old => {
            let detail = "must be less than or equal to previous value";
            errors.push(FieldError::invalid(&at, &new.into(), detail));
        }
        (None, Some(_)) => {
            errors.push(FieldError::invalid(&at, &Value::Null, "must not update from a positive integer to nil value"));
        }
        _ => {}
    }
}
