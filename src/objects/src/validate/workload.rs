//! `quilt.sh/v1` Workloads: the rules of a Quilt workload's `spec`, the same through either API.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{FieldError, Path};
use crate::place;

const REPLICAS_MAX: i64 = 10_000;
const NAME_CHARS_MAX: usize = 253;
/// Far above any machine; keeps every amount derived from it inside a quantity.
const CPU_PERCENT_MAX: f64 = 1e9;
const GPUS_MAX: i64 = 1024;
/// Largest spec: what a stored object may hold, less room for metadata and status.
const SPEC_BYTES_MAX: usize = 1 << 20;

pub(crate) fn workload(object: &Value, errors: &mut Vec<FieldError>) {
    let at = Path::new("spec");
    let Some(spec) = place::get(object, &["spec"]) else {
        errors.push(FieldError::required(&at, ""));
        return;
    };
    number(spec, "replicas", 1, REPLICAS_MAX, &at, errors);
    if place::get(spec, &["replicas"]).is_none() {
        errors.push(FieldError::required(&at.child("replicas"), ""));
    }
    match place::text_or_empty(spec, &["name"]) {
        "" => errors.push(FieldError::required(&at.child("name"), "")),
        name if name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) => {
            let detail = format!("must have 1 to {NAME_CHARS_MAX} printable characters");
            errors.push(FieldError::invalid(&at.child("name"), &Value::from(shown(name)), &detail));
        }
        _ => {}
    }
    if place::items(spec, &["command"]).is_empty() {
        errors.push(FieldError::required(&at.child("command"), "must not be empty"));
    }
    number(spec, "memory_limit_mb", 1, i64::from(i32::MAX), &at, errors);
    if let Some(percent) = place::get(spec, &["cpu_limit_percent"])
        && !percent.as_f64().is_some_and(|percent| percent > 0.0 && percent <= CPU_PERCENT_MAX)
    {
        errors.push(FieldError::invalid(
            &at.child("cpu_limit_percent"),
            percent,
            "must be greater than 0 and at most 1000000000",
        ));
    }
    number(spec, "gpu_count", 0, GPUS_MAX, &at, errors);
    let ids = place::items(spec, &["gpu_ids"]);
    if place::get(spec, &["gpu_ids"]).is_some() {
        let count = place::int(spec, &["gpu_count"]).unwrap_or(0);
        if i64::try_from(ids.len()) != Ok(count) {
            let value = spec.get("gpu_ids").unwrap_or(&Value::Null);
            let detail = format!("must hold exactly gpu_count ({count}) ids");
            errors.push(FieldError::invalid(&at.child("gpu_ids"), value, &detail));
        }
        let mut known = BTreeSet::new();
        for (index, id) in ids.iter().enumerate() {
            if !known.insert(id.to_string()) {
                errors.push(FieldError::duplicate(&at.child("gpu_ids").index(index), id));
            }
        }
    }
    for field in ["environment", "labels"] {
        for name in place::map(spec, &[field]).into_iter().flatten().map(|(name, _)| name) {
            if name.is_empty() || name.contains(['\0', '=']) {
                let detail = "names must not be empty or hold '='";
                errors.push(FieldError::invalid(&at.child(field), &Value::from(shown(name)), detail));
            }
        }
    }
    if spec.to_string().len() > SPEC_BYTES_MAX {
        errors.push(FieldError::too_long(&at, SPEC_BYTES_MAX));
    }
}

/// Enough of a text to know it by.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

fn number(spec: &Value, key: &str, min: i64, max: i64, at: &Path, errors: &mut Vec<FieldError>) {
    if let Some(value) = place::get(spec, &[key])
        && !value.as_i64().is_some_and(|number| (min..=max).contains(&number))
    {
        let detail = format!("must be between {min} and {max}, inclusive");
        errors.push(FieldError::invalid(&at.child(key), value, &detail));
    }
}
