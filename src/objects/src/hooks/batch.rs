//! Jobs and CronJobs.

use serde_json::{Value, json};

use super::pod;
use crate::place;

pub(super) fn job_defaults(object: &mut Value) {
    pod::template(object, &["spec", "template"]);
    let Some(spec) = place::get_mut(object, &["spec"]) else { return };
    // A job that names neither runs one pod once; one that names only its parallelism is a work queue.
    if place::get(spec, &["completions"]).is_none() && place::get(spec, &["parallelism"]).is_none() {
        place::fill(spec, "completions", 1);
    }
    place::fill(spec, "parallelism", 1);
    let per_index = place::get(spec, &["backoffLimitPerIndex"]).is_some();
    place::fill(spec, "backoffLimit", if per_index { i64::from(i32::MAX) } else { 6 });
    place::fill_text(spec, "completionMode", "NonIndexed");
    place::fill(spec, "suspend", false);
    place::fill(spec, "manualSelector", false);
    let failure_policy = place::get(spec, &["podFailurePolicy"]).is_some();
    place::fill_text(spec, "podReplacementPolicy", if failure_policy { "Failed" } else { "TerminatingOrFailed" });
    for rule in place::items_mut(spec, &["podFailurePolicy", "rules"]) {
        for pattern in place::items_mut(rule, &["onPodConditions"]) {
            place::fill_text(pattern, "status", "True");
        }
    }
}

/// A new job selects its pods by its own uid, so that no two jobs can ever share one.
pub(super) fn job_prepare(new: &mut Value, old: Option<&Value>) {
    if let Some(old) = old {
        if place::get(new, &["spec", "selector"]).is_none() {
            place::keep(new, old, &["spec", "selector"]);
            for label in JOB_LABELS {
                let path = ["spec", "template", "metadata", "labels", label];
                if place::get(new, &path).is_none() && place::get(old, &path).is_some() {
                    place::keep(new, old, &path);
                }
            }
        }
        return;
    }
    if place::flag(new, &["spec", "manualSelector"]) || place::get(new, &["spec"]).is_none() {
        return;
    }
    let uid = place::text_or_empty(new, &["metadata", "uid"]).to_owned();
    let name = place::text_or_empty(new, &["metadata", "name"]).to_owned();
    for label in JOB_LABELS {
        let value = if label.ends_with("controller-uid") { &uid } else { &name };
        place::set(new, &["spec", "template", "metadata", "labels", label], value.as_str());
    }
    place::set(new, &["spec", "selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
}

/// New names, and the old ones that clients still look for.
const JOB_LABELS: [&str; 4] =
    ["batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name"];

pub(super) fn cron_job_defaults(object: &mut Value) {
    pod::template(object, &["spec", "jobTemplate", "spec", "template"]);
    let Some(spec) = place::get_mut(object, &["spec"]) else { return };
    place::fill_text(spec, "concurrencyPolicy", "Allow");
    place::fill(spec, "suspend", false);
    place::fill(spec, "successfulJobsHistoryLimit", 3);
    place::fill(spec, "failedJobsHistoryLimit", 1);
}
