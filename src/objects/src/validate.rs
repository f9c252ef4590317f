//! Validation: whether an object may be stored, and if not, which fields say why.
//!
//! Here is what holds of every kind: its metadata. What holds of one kind stands in the files beside, and is reached
//! through the kind's hooks. Objects are decoded and defaulted before, so types are right and enums are filled.

pub(crate) mod apps;
pub(crate) mod core;
mod declared;
mod field_error;
pub(crate) mod pod;
pub(crate) mod service;
pub(crate) mod workload;

pub use field_error::{FieldError, FieldErrorReason, Path};
use serde_json::Value;

use crate::kind::Kind;
use crate::names;
use crate::place;

/// Wording of a field that must not change.
pub(crate) const IMMUTABLE: &str = "field is immutable";
/// Wording of a number below zero.
pub(crate) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// Complaints about a new object.
#[must_use]
pub fn create(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata(kind, object, &mut errors);
    let hooks = crate::hooks::of(kind);
    (hooks.validate)(object, &mut errors);
    declared::check(kind, object, &mut errors);
    errors
}

/// Complaints about a changed object. `new` went through [`crate::hooks::prepare_for_update`].
#[must_use]
pub fn update(kind: &Kind, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata(kind, new, &mut errors);
    metadata_update(new, old, &mut errors);
    let hooks = crate::hooks::of(kind);
    (hooks.validate)(new, &mut errors);
    (hooks.validate_update)(new, old, &mut errors);
    declared::check(kind, new, &mut errors);
    declared::check_update(kind, new, old, &mut errors);
    errors
}

fn metadata(kind: &Kind, object: &Value, errors: &mut Vec<FieldError>) {
    let at = Path::new("metadata");
    let name = place::text_or_empty(object, &["metadata", "name"]);
    let generate_name = place::text_or_empty(object, &["metadata", "generateName"]);
    let rule = crate::hooks::of(kind).name_rule;
    if name.is_empty() {
        if generate_name.is_empty() {
            errors.push(FieldError::required(&at.child("name"), "name or generateName is required"));
        } else {
            // The suffix is alphanumeric, so only what stands before it can be wrong.
            complain(errors, &at.child("generateName"), generate_name, rule(&format!("{generate_name}x")));
        }
    } else {
        complain(errors, &at.child("name"), name, rule(name));
    }
    let namespace = place::text_or_empty(object, &["metadata", "namespace"]);
    match (kind.is_namespaced(), namespace.is_empty()) {
        (true, true) => errors.push(FieldError::required(&at.child("namespace"), "")),
        (true, false) => complain(errors, &at.child("namespace"), namespace, names::dns1123_label(namespace)),
        (false, true) => {}
        (false, false) => errors.push(FieldError::forbidden(&at.child("namespace"), "not allowed on this type")),
    }
    labels(place::get(object, &["metadata", "labels"]), &at.child("labels"), errors);
    annotations(object, &at.child("annotations"), errors);
    owner_references(object, &at.child("ownerReferences"), errors);
    for finalizer in place::items(object, &["metadata", "finalizers"]).iter().filter_map(Value::as_str) {
        complain(errors, &at.child("finalizers"), finalizer, names::qualified_name(finalizer));
    }
}

/// Adds one `Invalid` per complaint.
pub(crate) fn complain(errors: &mut Vec<FieldError>, at: &Path, value: &str, complaints: Vec<String>) {
    errors.extend(complaints.into_iter().map(|complaint| FieldError::invalid(at, &value.into(), &complaint)));
}

/// Adds `Required` when the text is missing or empty; answers whether it is there.
pub(crate) fn required_text<'a>(
    object: &'a Value,
    key: &str,
    at: &Path,
    errors: &mut Vec<FieldError>,
) -> Option<&'a str> {
    let text = place::text(object, &[key]).filter(|text| !text.is_empty());
    if text.is_none() {
        errors.push(FieldError::required(&at.child(key), ""));
    }
    text
}

/// Complains when the number at `key` is there and negative.
pub(crate) fn not_negative(object: &Value, key: &str, at: &Path, errors: &mut Vec<FieldError>) {
    if let Some(number) = place::int(object, &[key]).filter(|number| *number < 0) {
        errors.push(FieldError::invalid(&at.child(key), &number.into(), NOT_NEGATIVE));
    }
}

/// Complains when the text at `key` is there and not one of `supported`.
pub(crate) fn one_of(object: &Value, key: &str, supported: &[&str], at: &Path, errors: &mut Vec<FieldError>) {
    if let Some(text) = place::text(object, &[key]).filter(|text| !text.is_empty() && !supported.contains(text)) {
        errors.push(FieldError::not_supported(&at.child(key), &text.into(), supported));
    }
}

/// Complains about keys and values of a map of labels.
pub(crate) fn labels(labels: Option<&Value>, at: &Path, errors: &mut Vec<FieldError>) {
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        complain(errors, at, key, names::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        complain(errors, at, value, names::label_value(value));
    }
}

fn annotations(object: &Value, at: &Path, errors: &mut Vec<FieldError>) {
    let mut bytes = 0;
    for (key, value) in place::map(object, &["metadata", "annotations"]).into_iter().flatten() {
        complain(errors, at, key, names::qualified_name(&key.to_lowercase()));
        bytes += key.len() + value.as_str().unwrap_or_default().len();
    }
    if bytes > names::ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long(at, names::ANNOTATIONS_BYTES_MAX));
    }
}

fn owner_references(object: &Value, at: &Path, errors: &mut Vec<FieldError>) {
    let mut controller: Option<&str> = None;
    for reference in place::items(object, &["metadata", "ownerReferences"]) {
        for (key, complaint) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "kind must not be empty"),
            ("name", "name must not be empty"),
            ("uid", "uid must not be empty"),
        ] {
            if place::text_or_empty(reference, &[key]).is_empty() {
                errors.push(FieldError::invalid(&at.child(key), &"".into(), complaint));
            }
        }
        if place::flag(reference, &["controller"]) {
            let name = place::text_or_empty(reference, &["name"]);
            if let Some(first) = controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                );
                let value = place::get(object, &["metadata", "ownerReferences"]).unwrap_or(&Value::Null);
                errors.push(FieldError::invalid(at, value, &detail));
            }
            controller = Some(name);
        }
    }
}

fn metadata_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if place::get(old, &["metadata", "deletionTimestamp"]).is_none() {
        return;
    }
    let before = place::items(old, &["metadata", "finalizers"]);
    let added: Vec<&str> = place::items(new, &["metadata", "finalizers"])
        .iter()
        .filter(|finalizer| !before.contains(finalizer))
        .filter_map(Value::as_str)
        .collect();
    if !added.is_empty() {
        let detail =
            format!("no new finalizers can be added if the object is being deleted, found new finalizers {added:?}");
        errors.push(FieldError::forbidden(&Path::new("metadata.finalizers"), &detail));
    }
}

/// Complains when `key` of the two specs differs.
pub(crate) fn immutable(new: &Value, old: &Value, key: &str, at: &Path, errors: &mut Vec<FieldError>) {
    let (new, old) = (place::get(new, &[key]), place::get(old, &[key]));
    if new != old {
        errors.push(FieldError::invalid(&at.child(key), new.unwrap_or(&Value::Null), IMMUTABLE));
    }
}

/// Complains about a number that is no port.
pub(crate) fn port_number(number: i64, at: &Path, errors: &mut Vec<FieldError>) {
    if !(1..=65535).contains(&number) {
        errors.push(FieldError::invalid(at, &number.into(), "must be between 1 and 65535, inclusive"));
    }
}

#[cfg(test)]
mod tests;
