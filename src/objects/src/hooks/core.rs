//! Namespaces, Nodes, Secrets, volumes and claims, LimitRanges.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::pod;
use crate::place;

/// Every namespace carries its name as a label, so that selectors can name it.
pub(super) fn namespace_defaults(object: &mut Value) {
    if let Some(name) = place::text(object, &["metadata", "name"]).filter(|name| !name.is_empty()).map(str::to_owned) {
        place::set(object, &["metadata", "labels", "kubernetes.io/metadata.name"], name);
    }
}

/// A namespace goes only when its content is gone; its finalizers change through `finalize` alone.
pub(super) fn namespace_prepare(new: &mut Value, old: Option<&Value>) {
    match old {
        Some(old) => place::keep(new, old, &["spec", "finalizers"]),
        None => {
            let listed = place::items(new, &["spec", "finalizers"]);
            if !listed.iter().any(|finalizer| finalizer.as_str() == Some("kubernetes")) {
                let mut finalizers = listed.to_vec();
                finalizers.push("kubernetes".into());
                place::set(new, &["spec", "finalizers"], finalizers);
            }
        }
    }
}

pub(super) fn node_defaults(object: &mut Value) {
    for list in ["capacity", "allocatable"] {
        if let Some(amounts) = place::get_mut(object, &["status", list]) {
            pod::quantities(amounts);
        }
    }
    if place::get(object, &["status", "allocatable"]).is_none()
        && let Some(capacity) = place::get(object, &["status", "capacity"]).cloned()
    {
        place::set(object, &["status", "allocatable"], capacity);
    }
}

/// `stringData` is a writer's convenience: it is folded into `data` and never stored.
pub(super) fn secret_defaults(object: &mut Value) {
    place::fill_text(object, "type", "Opaque");
    let Some(Value::Object(texts)) = place::remove(object, &["stringData"]) else { return };
    if let Some(data) = place::map_made(object, &["data"]) {
        for (key, text) in texts {
            data.insert(key, STANDARD.encode(text.as_str().unwrap_or_default()).into());
        }
    }
}

pub(super) fn persistent_volume_defaults(object: &mut Value) {
    let Some(spec) = place::get_mut(object, &["spec"]) else { return };
    place::fill_text(spec, "persistentVolumeReclaimPolicy", "Retain");
    place::fill_text(spec, "volumeMode", "Filesystem");
    if let Some(capacity) = place::get_mut(spec, &["capacity"]) {
        pod::quantities(capacity);
    }
    pod::volume_source(spec);
}

pub(super) fn claim_defaults(object: &mut Value) {
    let Some(spec) = place::get_mut(object, &["spec"]) else { return };
    place::fill_text(spec, "volumeMode", "Filesystem");
    for list in ["requests", "limits"] {
        if let Some(amounts) = place::get_mut(spec, &["resources", list]) {
            pod::quantities(amounts);
        }
    }
}

pub(super) fn storage_class_defaults(object: &mut Value) {
    place::fill_text(object, "reclaimPolicy", "Delete");
    place::fill_text(object, "volumeBindingMode", "Immediate");
}

/// A container limit range defaults limits to its maxima and requests to its limits, then to its minima.
pub(super) fn limit_range_defaults(object: &mut Value) {
    for limit in place::items_mut(object, &["spec", "limits"]) {
        for list in ["default", "defaultRequest", "max", "min", "maxLimitRequestRatio"] {
            if let Some(amounts) = place::get_mut(limit, &[list]) {
                pod::quantities(amounts);
            }
        }
        if place::text(limit, &["type"]) != Some("Container") {
            continue;
        }
        for (target, sources) in [("default", ["max"].as_slice()), ("defaultRequest", &["default", "min"])] {
            for source in sources {
                let Some(amounts) = place::map(limit, &[source]).cloned() else { continue };
                if let Some(filled) = place::map_made(limit, &[target]) {
                    for (resource, amount) in amounts {
                        filled.entry(resource).or_insert_with(|| json!(amount));
                    }
                }
            }
        }
    }
}
