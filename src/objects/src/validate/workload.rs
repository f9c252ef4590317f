//! `quilt.sh/v1` Workloads: the rules of a Quilt workload's `spec`, the same through either API.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{FieldError, Path};
use crate::place;

const REPLICAS_MAX: i64 = 10_000;
const NAME_BYTES_MAX: usize = 253;

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
        name if name.len() > NAME_BYTES_MAX => errors.push(FieldError::too_long(&at.child("name"), NAME_BYTES_MAX)),
        _ => {}
    }
    if place::items(spec, &["command"]).is_empty() {
        errors.push(FieldError::required(&at.child("command"), "must not be empty"));
    }
    number(spec, "memory_limit_mb", 1, i64::MAX, &at, errors);
    if let Some(percent) = place::get(spec, &["cpu_limit_percent"])
        && !percent.as_f64().is_some_and(|percent| percent > 0.0)
    {
        errors.push(FieldError::invalid(&at.child("cpu_limit_percent"), percent, "must be greater than 0"));
    }
    number(spec, "gpu_count", 0, i64::from(i32::MAX), &at, errors);
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
}

fn number(spec: &Value, key: &str, min: i64, max: i64, at: &Path, errors: &mut Vec<FieldError>) {
    if let Some(value) = place::get(spec, &[key])
        && !value.as_i64().is_some_and(|number| (min..=max).contains(&number))
    {
        let detail = if max == i64::MAX {
            format!("must be greater than or equal to {min}")
        } else {
            format!("must be between {min} and {max}, inclusive")
        };
        errors.push(FieldError::invalid(&at.child(key), value, &detail));
    }
}
