//! Nodes, ConfigMaps, Secrets, claims, role bindings and definitions.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::{FieldError, IMMUTABLE, Path, complain, immutable, one_of, pod, required_text};
use crate::names;
use crate::place;
use crate::quantity::Quantity;

/// All values of a ConfigMap or Secret together.
const DATA_BYTES_MAX: usize = 1 << 20;
const IMMUTABLE_SET: &str = "field is immutable when `immutable` is set";

pub(crate) fn node(object: &Value, errors: &mut Vec<FieldError>) {
    let at = Path::new("spec.taints");
    let mut known: Vec<(&str, &str)> = Vec::new();
    for (index, taint) in place::items(object, &["spec", "taints"]).iter().enumerate() {
        let at = at.index(index);
        let key = required_text(taint, "key", &at, errors).unwrap_or_default();
        if !key.is_empty() {
            complain(errors, &at.child("key"), key, names::qualified_name(key));
        }
        let value = place::text_or_empty(taint, &["value"]);
        complain(errors, &at.child("value"), value, names::label_value(value));
        let effect = required_text(taint, "effect", &at, errors).unwrap_or_default();
        one_of(taint, "effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"], &at, errors);
        if known.contains(&(key, effect)) {
            errors.push(FieldError::duplicate(&at, taint));
        }
        known.push((key, effect));
    }
    for list in ["capacity", "allocatable"] {
        let at = Path::new("status").child(list);
        for (resource, amount) in place::map(object, &["status", list]).into_iter().flatten() {
            match Quantity::from_value(amount) {
                Ok(quantity) if quantity.is_negative() => {
                    errors.push(FieldError::invalid(&at.key(resource), amount, super::NOT_NEGATIVE));
                }
                Ok(_) => {}
                Err(error) => errors.push(FieldError::invalid(&at.key(resource), amount, &error.to_string())),
            }
        }
    }
}

pub(crate) fn node_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    for (field, word) in [("podCIDR", "podCIDR"), ("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
        let path = ["spec", field];
        let before = place::get(old, &path).filter(|value| value.as_str() != Some(""));
        if before.is_some() && before != place::get(new, &path) {
            let detail = format!("node updates may not change {word} except from \"\" to valid");
            errors.push(FieldError::forbidden(&Path::new("spec").child(field), &detail));
        }
    }
}

fn data_keys(object: &Value, list: &str, errors: &mut Vec<FieldError>) {
    for (key, _) in place::map(object, &[list]).into_iter().flatten() {
        complain(errors, &Path::new(list).key(key), key, names::config_map_key(key));
    }
}

/// Bytes that a base64 text holds; `None` when it is none.
fn decoded_bytes(value: &Value) -> Option<usize> {
    STANDARD.decode(value.as_str().unwrap_or_default()).ok().map(|bytes| bytes.len())
}

/// Adds up `list`, complaining about values that are no base64, without showing them.
fn base64_bytes(object: &Value, list: &str, errors: &mut Vec<FieldError>) -> usize {
    let mut bytes = 0;
    for (key, value) in place::map(object, &[list]).into_iter().flatten() {
        match decoded_bytes(value) {
            Some(length) => bytes += length,
            None => {
                let at = Path::new(list).key(key);
                errors.push(FieldError::invalid(&at, &"<omitted>".into(), "must be valid base64"));
            }
        }
    }
    bytes
}

pub(crate) fn config_map(object: &Value, errors: &mut Vec<FieldError>) {
    data_keys(object, "data", errors);
    data_keys(object, "binaryData", errors);
    let mut bytes = base64_bytes(object, "binaryData", errors);
    for (key, value) in place::map(object, &["data"]).into_iter().flatten() {
        bytes += value.as_str().unwrap_or_default().len();
        if place::get(object, &["binaryData", key]).is_some() {
            let at = Path::new("data").key(key);
            errors.push(FieldError::invalid(&at, &key.as_str().into(), "duplicate of key present in binaryData"));
        }
    }
    if bytes > DATA_BYTES_MAX {
        errors.push(FieldError::too_long(&Path::new(""), DATA_BYTES_MAX));
    }
}

fn frozen(new: &Value, old: &Value, fields: &[&str], errors: &mut Vec<FieldError>) {
    if !place::flag(old, &["immutable"]) {
        return;
    }
    if !place::flag(new, &["immutable"]) {
        errors.push(FieldError::forbidden(&Path::new("immutable"), IMMUTABLE_SET));
    }
    for field in fields {
        if place::get(new, &[field]) != place::get(old, &[field]) {
            errors.push(FieldError::forbidden(&Path::new(field), IMMUTABLE_SET));
        }
    }
}

pub(crate) fn config_map_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    frozen(new, old, &["data", "binaryData"], errors);
}

pub(crate) fn secret(object: &Value, errors: &mut Vec<FieldError>) {
    data_keys(object, "data", errors);
    let at = Path::new("data");
    if base64_bytes(object, "data", errors) > DATA_BYTES_MAX {
        errors.push(FieldError::too_long(&at, DATA_BYTES_MAX));
    }
    let has = |key: &str| place::get(object, &["data", key]).is_some();
    let secret_type = place::text_or_empty(object, &["type"]);
    let needed: &[&str] = match secret_type {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in needed.iter().filter(|key| !has(key)) {
        errors.push(FieldError::required(&at.key(key), ""));
    }
    if secret_type == "kubernetes.io/basic-auth" && !has("username") && !has("password") {
        errors.push(FieldError::required(&at.key("username"), ""));
        errors.push(FieldError::required(&at.key("password"), ""));
    }
    if secret_type == "kubernetes.io/service-account-token" {
        let key = "kubernetes.io/service-account.name";
        if place::text_or_empty(object, &["metadata", "annotations", key]).is_empty() {
            errors.push(FieldError::required(&Path::new("metadata.annotations").key(key), ""));
        }
    }
}

pub(crate) fn secret_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    immutable_text(new, old, "type", errors);
    frozen(new, old, &["data"], errors);
}

fn immutable_text(new: &Value, old: &Value, field: &str, errors: &mut Vec<FieldError>) {
    let before = place::get(old, &[field]);
    if before.is_some() && before != place::get(new, &[field]) {
        let value = place::get(new, &[field]).unwrap_or(&Value::Null);
        errors.push(FieldError::invalid(&Path::new(field), value, IMMUTABLE));
    }
}

pub(crate) fn claim(object: &Value, errors: &mut Vec<FieldError>) {
    let at = Path::new("spec");
    let Some(spec) = place::get(object, &["spec"]) else {
        errors.push(FieldError::required(&at, ""));
        return;
    };
    if place::items(spec, &["accessModes"]).is_empty() {
        errors.push(FieldError::required(&at.child("accessModes"), "at least 1 access mode is required"));
    }
    let size = at.child("resources").key("storage");
    if place::get(spec, &["resources", "requests", "storage"]).is_none() {
        errors.push(FieldError::required(&size, ""));
    }
    pod::resources(spec, &at.child("resources"), errors);
}

pub(crate) fn role_ref_immutable(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let (new, old) = (place::get(new, &["roleRef"]), place::get(old, &["roleRef"]));
    if new != old {
        errors.push(FieldError::invalid(&Path::new("roleRef"), new.unwrap_or(&Value::Null), "cannot change roleRef"));
    }
}

pub(crate) fn definition(object: &Value, errors: &mut Vec<FieldError>) {
    let (spec, at) = (object.get("spec").unwrap_or(&Value::Null), Path::new("spec"));
    let group = required_text(spec, "group", &at, errors).unwrap_or_default();
    let names_at = at.child("names");
    let names = spec.get("names").unwrap_or(&Value::Null);
    let plural = required_text(names, "plural", &names_at, errors).unwrap_or_default();
    required_text(names, "kind", &names_at, errors);
    let name = place::text_or_empty(object, &["metadata", "name"]);
    let wanted = format!("{plural}.{group}");
    if !plural.is_empty() && !group.is_empty() && name != wanted {
        let detail = format!("must be spec.names.plural+\".\"+spec.group, that is {wanted}");
        errors.push(FieldError::invalid(&Path::new("metadata.name"), &name.into(), &detail));
    }
    if required_text(spec, "scope", &at, errors).is_some() {
        one_of(spec, "scope", &["Cluster", "Namespaced"], &at, errors);
    }
    let versions = place::items(spec, &["versions"]);
    let versions_at = at.child("versions");
    let stored = versions.iter().filter(|version| place::flag(version, &["storage"])).count();
    if stored != 1 {
        let value = spec.get("versions").unwrap_or(&Value::Null);
        let detail = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(&versions_at, value, detail));
    }
    let mut known: Vec<&str> = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        let at = versions_at.index(index);
        if let Some(name) = required_text(version, "name", &at, errors) {
            complain(errors, &at.child("name"), name, names::dns1035_label(name));
            if known.contains(&name) {
                errors.push(FieldError::duplicate(&at.child("name"), &name.into()));
            }
            known.push(name);
        }
        if place::get(version, &["schema", "openAPIV3Schema"]).is_none() {
            errors.push(FieldError::required(&at.child("schema").child("openAPIV3Schema"), "schemas are required"));
        }
    }
}

/// A definition's group, scope and kind are its identity.
pub(crate) fn definition_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let at = Path::new("spec");
    for field in ["group", "scope"] {
        immutable(&new["spec"], &old["spec"], field, &at, errors);
    }
    let (nothing, at) = (Value::Null, at.child("names"));
    let names = |object| place::get(object, &["spec", "names"]).unwrap_or(&nothing).clone();
    for field in ["kind", "plural"] {
        immutable(&names(new), &names(old), field, &at, errors);
    }
}
