//! Workloads of Kubernetes: Deployments and their relatives, Jobs, CronJobs.

use serde_json::Value;

use super::{FieldError, Path, immutable, not_negative, one_of, pod, required_text};
use crate::int_or_string;
use crate::place;
use crate::select::LabelSelector;

pub(crate) fn deployment(object: &Value, errors: &mut Vec<FieldError>) {
    let (spec, at) = (&object["spec"], Path::new("spec"));
    not_negative(spec, "replicas", &at, errors);
    selected_template(object, "deployment", Restart::Always, errors);
    for field in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        not_negative(spec, field, &at, errors);
    }
    if let Some(deadline) = place::int(spec, &["progressDeadlineSeconds"])
        && deadline <= place::int(spec, &["minReadySeconds"]).unwrap_or(0)
    {
        let at = at.child("progressDeadlineSeconds");
        errors.push(FieldError::invalid(&at, &deadline.into(), "must be greater than minReadySeconds"));
    }
    let at = at.child("strategy");
    if let Some(strategy) = place::get(spec, &["strategy"]) {
        one_of(strategy, "type", &["Recreate", "RollingUpdate"], &at, errors);
        let rolling = place::get(strategy, &["rollingUpdate"]);
        match (place::text_or_empty(strategy, &["type"]), rolling) {
            ("Recreate", Some(_)) => errors.push(FieldError::forbidden(
                &at.child("rollingUpdate"),
                "may not be specified when strategy `type` is 'Recreate'",
            )),
            ("RollingUpdate", Some(rolling)) => rolling_update(rolling, &at.child("rollingUpdate"), errors),
            _ => {}
        }
    }
}

fn rolling_update(rolling: &Value, at: &Path, errors: &mut Vec<FieldError>) {
    let surge = share(rolling, "maxSurge", at, errors);
    let unavailable = share(rolling, "maxUnavailable", at, errors);
    let at = at.child("maxUnavailable");
    if let Some(percent) = place::text(rolling, &["maxUnavailable"])
        && unavailable.is_some_and(|percent| percent > 100)
    {
        errors.push(FieldError::invalid(&at, &percent.into(), "must not be greater than 100%"));
    }
    if surge == Some(0) && unavailable == Some(0) {
        let value = place::get(rolling, &["maxUnavailable"]).unwrap_or(&Value::Null);
        errors.push(FieldError::invalid(&at, value, "may not be 0 when `maxSurge` is 0"));
    }
}

/// The number, or the percentage, at `key`; complaints about one that is neither or negative.
fn share(holder: &Value, key: &str, at: &Path, errors: &mut Vec<FieldError>) -> Option<i64> {
    let at = at.child(key);
    let value = place::get(holder, &[key])?;
    match value {
        Value::String(text) => match int_or_string::percentage(text) {
            Ok(percent) => Some(percent),
            Err(error) => {
                errors.push(FieldError::invalid(&at, value, &error.to_string()));
                None
            }
        },
        _ => {
            let number = value.as_i64()?;
            if number < 0 {
                errors.push(FieldError::invalid(&at, value, super::NOT_NEGATIVE));
            }
            Some(number)
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Restart {
    Always,
    NotAlways,
}

/// The selector is there, not empty, selects the template's pods; the template is a good pod.
fn selected_template(object: &Value, word: &str, restart: Restart, errors: &mut Vec<FieldError>) {
    let at = Path::new("spec");
    let selector = place::get(object, &["spec", "selector"]);
    let template = place::get(object, &["spec", "template"]);
    let Some(value) = selector else {
        errors.push(FieldError::required(&at.child("selector"), ""));
        return restarting_template(template, &at, restart, errors);
    };
    match LabelSelector::from_object(Some(value)) {
        Err(error) => errors.push(FieldError::invalid(&at.child("selector"), value, &error.to_string())),
        Ok(selector) if selector.is_everything() => {
            let detail = format!("empty selector is invalid for {word}");
            errors.push(FieldError::invalid(&at.child("selector"), value, &detail));
        }
        Ok(selector) => {
            if let Some(template) = template {
                let labels = place::get(template, &["metadata", "labels"]);
                if !selector.matches(labels.and_then(Value::as_object)) {
                    let empty = Value::Object(serde_json::Map::new());
                    let at = at.child("template").child("metadata").child("labels");
                    let detail = "`selector` does not match template `labels`";
                    errors.push(FieldError::invalid(&at, labels.unwrap_or(&empty), detail));
                }
            }
        }
    }
    restarting_template(template, &at, restart, errors);
}

fn restarting_template(template: Option<&Value>, at: &Path, restart: Restart, errors: &mut Vec<FieldError>) {
    let at = at.child("template");
    let Some(template) = template else {
        errors.push(FieldError::required(&at, ""));
        return;
    };
    pod::template(template, &at, errors);
    let policy = place::text_or_empty(template, &["spec", "restartPolicy"]);
    let supported: &[&str] = match restart {
        Restart::Always => &["Always"],
        Restart::NotAlways => &["Never", "OnFailure"],
    };
    let known = ["Always", "Never", "OnFailure"].contains(&policy);
    if known && !supported.contains(&policy) {
        let at = at.child("spec").child("restartPolicy");
        errors.push(FieldError::not_supported(&at, &policy.into(), supported));
    }
    if restart == Restart::Always && place::get(template, &["spec", "activeDeadlineSeconds"]).is_some() {
        let at = at.child("spec").child("activeDeadlineSeconds");
        errors.push(FieldError::forbidden(&at, "activeDeadlineSeconds in ReplicaSet is not Supported"));
    }
}

pub(crate) fn selector_immutable(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    immutable(&new["spec"], &old["spec"], "selector", &Path::new("spec"), errors);
}

pub(crate) fn replica_set(object: &Value, errors: &mut Vec<FieldError>) {
    let (spec, at) = (&object["spec"], Path::new("spec"));
    not_negative(spec, "replicas", &at, errors);
    not_negative(spec, "minReadySeconds", &at, errors);
    selected_template(object, "replicaset", Restart::Always, errors);
}

pub(crate) fn replication_controller(object: &Value, errors: &mut Vec<FieldError>) {
    let (spec, at) = (&object["spec"], Path::new("spec"));
    not_negative(spec, "replicas", &at, errors);
    let selector = place::map(spec, &["selector"]);
    if selector.is_none_or(serde_json::Map::is_empty) {
        errors.push(FieldError::required(&at.child("selector"), ""));
    } else if let Some(template) = place::get(spec, &["template"])
        && !LabelSelector::from_map(selector).matches(place::map(template, &["metadata", "labels"]))
    {
        let at = at.child("template").child("metadata").child("labels");
        let labels = place::get(template, &["metadata", "labels"]).unwrap_or(&Value::Null);
        errors.push(FieldError::invalid(&at, labels, "`selector` does not match template `labels`"));
    }
    restarting_template(place::get(spec, &["template"]), &at, Restart::Always, errors);
}

pub(crate) fn stateful_set(object: &Value, errors: &mut Vec<FieldError>) {
    let (spec, at) = (&object["spec"], Path::new("spec"));
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        not_negative(spec, field, &at, errors);
    }
    one_of(spec, "podManagementPolicy", &["OrderedReady", "Parallel"], &at, errors);
    if let Some(strategy) = place::get(spec, &["updateStrategy"]) {
        let at = at.child("updateStrategy");
        one_of(strategy, "type", &["OnDelete", "RollingUpdate"], &at, errors);
        if let Some(rolling) = place::get(strategy, &["rollingUpdate"]) {
            if place::text(strategy, &["type"]) == Some("OnDelete") {
                let detail = "only allowed for updateStrategy 'RollingUpdate'";
                errors.push(FieldError::invalid(&at.child("rollingUpdate"), rolling, detail));
            }
            not_negative(rolling, "partition", &at.child("rollingUpdate"), errors);
        }
    }
    for (index, claim) in place::items(spec, &["volumeClaimTemplates"]).iter().enumerate() {
        let at = at.child("volumeClaimTemplates").index(index);
        if place::text_or_empty(claim, &["metadata", "name"]).is_empty() {
            errors.push(FieldError::required(&at.child("metadata").child("name"), ""));
        }
    }
    // Claims become volumes of every pod, so mounts may name them.
    let mut with_claims = object.clone();
    let claims: Vec<Value> = place::items(spec, &["volumeClaimTemplates"])
        .iter()
        .filter_map(|claim| place::text(claim, &["metadata", "name"]))
        .map(|name| serde_json::json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
        .collect();
    if let Some(pod_spec) = place::map_made(&mut with_claims, &["spec", "template", "spec"])
        && !claims.is_empty()
    {
        let volumes = pod_spec.entry("volumes").or_insert(Value::Null);
        let mut all = volumes.as_array().cloned().unwrap_or_default();
        let new = claims.into_iter().filter(|claim| all.iter().all(|volume| volume["name"] != claim["name"]));
        let new: Vec<Value> = new.collect();
        all.extend(new);
        *volumes = all.into();
    }
    let judged = if place::get(object, &["spec", "template"]).is_some() { &with_claims } else { object };
    selected_template(judged, "statefulset", Restart::Always, errors);
}

pub(crate) fn stateful_set_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    const CHANGEABLE: [&str; 7] = [
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let (Some(old_spec), Some(new_spec)) = (old.get("spec"), new.get("spec")) else { return };
    let mut judged = new_spec.clone();
    for field in CHANGEABLE {
        place::keep(&mut judged, old_spec, &[field]);
    }
    if judged != *old_spec {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                      'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                      'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden(&Path::new("spec"), detail));
    }
}

pub(crate) fn daemon_set(object: &Value, errors: &mut Vec<FieldError>) {
    let (spec, at) = (&object["spec"], Path::new("spec"));
    not_negative(spec, "minReadySeconds", &at, errors);
    not_negative(spec, "revisionHistoryLimit", &at, errors);
    selected_template(object, "daemonset", Restart::Always, errors);
    if let Some(strategy) = place::get(spec, &["updateStrategy"]) {
        let at = at.child("updateStrategy");
        one_of(strategy, "type", &["OnDelete", "RollingUpdate"], &at, errors);
        if let Some(rolling) = place::get(strategy, &["rollingUpdate"]) {
            let at = at.child("rollingUpdate");
            let surge = share(rolling, "maxSurge", &at, errors).unwrap_or(0);
            let unavailable = share(rolling, "maxUnavailable", &at, errors).unwrap_or(0);
            if surge == 0 && unavailable == 0 {
                let detail = "cannot be 0 when maxSurge is 0";
                let value = place::get(rolling, &["maxUnavailable"]).unwrap_or(&Value::Null);
                errors.push(FieldError::invalid(&at.child("maxUnavailable"), value, detail));
            }
        }
    }
}

pub(crate) fn job(object: &Value, errors: &mut Vec<FieldError>) {
    job_spec(&object["spec"], &Path::new("spec"), errors);
    selected_template(object, "job", Restart::NotAlways, errors);
}

fn job_spec(spec: &Value, at: &Path, errors: &mut Vec<FieldError>) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "maxFailedIndexes",
    ] {
        not_negative(spec, field, at, errors);
    }
    one_of(spec, "completionMode", &["Indexed", "NonIndexed"], at, errors);
    if place::text(spec, &["completionMode"]) == Some("Indexed") && place::get(spec, &["completions"]).is_none() {
        errors.push(FieldError::required(&at.child("completions"), "when completion mode is Indexed"));
    }
}

pub(crate) fn job_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let (new, old, at) = (&new["spec"], &old["spec"], Path::new("spec"));
    for field in ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy"] {
        immutable(new, old, field, &at, errors);
    }
    let indexed = place::text(new, &["completionMode"]) == Some("Indexed");
    if !(indexed && place::get(new, &["completions"]) == place::get(new, &["parallelism"])) {
        immutable(new, old, "completions", &at, errors);
    }
    if !place::flag(old, &["suspend"]) {
        immutable(new, old, "template", &at, errors);
    }
}

/// Longest CronJob name: its Jobs' names add a dash and ten digits and must stay labels.
const CRON_JOB_NAME_BYTES_MAX: usize = 52;

pub(crate) fn cron_job(object: &Value, errors: &mut Vec<FieldError>) {
    let (spec, at) = (&object["spec"], Path::new("spec"));
    let name = place::text_or_empty(object, &["metadata", "name"]);
    if name.len() > CRON_JOB_NAME_BYTES_MAX {
        let detail = format!("must be no more than {CRON_JOB_NAME_BYTES_MAX} characters");
        errors.push(FieldError::invalid(&Path::new("metadata.name"), &name.into(), &detail));
    }
    if let Some(schedule) = required_text(spec, "schedule", &at, errors) {
        let fields = schedule.split_whitespace().count();
        if schedule.contains("TZ") {
            let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.push(FieldError::invalid(&at.child("schedule"), &schedule.into(), detail));
        } else if !schedule.starts_with('@') && fields != 5 {
            let detail = format!("expected exactly 5 fields, found {fields}");
            errors.push(FieldError::invalid(&at.child("schedule"), &schedule.into(), &detail));
        }
    }
    one_of(spec, "concurrencyPolicy", &["Allow", "Forbid", "Replace"], &at, errors);
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        not_negative(spec, field, &at, errors);
    }
    let at = at.child("jobTemplate").child("spec");
    match place::get(spec, &["jobTemplate", "spec"]) {
        Some(job) => {
            job_spec(job, &at, errors);
            restarting_template(place::get(job, &["template"]), &at, Restart::NotAlways, errors);
        }
        None => errors.push(FieldError::required(&at.child("template"), "")),
    }
}
