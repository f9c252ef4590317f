//! Deployments, ReplicaSets, StatefulSets, DaemonSets, ReplicationControllers.

use serde_json::{Value, json};

use super::pod;
use crate::place;

const TEMPLATE: [&str; 2] = ["spec", "template"];

pub(super) fn deployment_defaults(object: &mut Value) {
    pod::template(object, &TEMPLATE);
    let Some(spec) = place::get_mut(object, &["spec"]) else { return };
    place::fill(spec, "replicas", 1);
    place::fill(spec, "strategy", json!({}));
    place::fill(spec, "revisionHistoryLimit", 10);
    place::fill(spec, "progressDeadlineSeconds", 600);
    if let Some(strategy) = place::get_mut(spec, &["strategy"]) {
        place::fill_text(strategy, "type", "RollingUpdate");
        if place::text(strategy, &["type"]) == Some("RollingUpdate") {
            place::fill(strategy, "rollingUpdate", json!({}));
            if let Some(rolling) = place::get_mut(strategy, &["rollingUpdate"]) {
                place::fill(rolling, "maxUnavailable", "25%");
                place::fill(rolling, "maxSurge", "25%");
            }
        }
    }
}

pub(super) fn replica_set_defaults(object: &mut Value) {
    pod::template(object, &TEMPLATE);
    if let Some(spec) = place::get_mut(object, &["spec"]) {
        place::fill(spec, "replicas", 1);
    }
}

pub(super) fn replication_controller_defaults(object: &mut Value) {
    pod::template(object, &TEMPLATE);
    let labels = place::get(object, &["spec", "template", "metadata", "labels"]).cloned();
    if let Some(spec) = place::get_mut(object, &["spec"]) {
        place::fill(spec, "replicas", 1);
        if let Some(labels) = labels {
            place::fill(spec, "selector", labels.clone());
            if place::get(object, &["metadata", "labels"]).is_none() {
                place::set(object, &["metadata", "labels"], labels);
            }
        }
    }
}

pub(super) fn stateful_set_defaults(object: &mut Value) {
    pod::template(object, &TEMPLATE);
    let Some(spec) = place::get_mut(object, &["spec"]) else { return };
    place::fill(spec, "replicas", 1);
    place::fill(spec, "revisionHistoryLimit", 10);
    place::fill_text(spec, "podManagementPolicy", "OrderedReady");
    place::fill(spec, "updateStrategy", json!({}));
    if let Some(strategy) = place::get_mut(spec, &["updateStrategy"]) {
        place::fill_text(strategy, "type", "RollingUpdate");
        if place::text(strategy, &["type"]) == Some("RollingUpdate") {
            place::fill(strategy, "rollingUpdate", json!({}));
            if let Some(rolling) = place::get_mut(strategy, &["rollingUpdate"]) {
                place::fill(rolling, "partition", 0);
            }
        }
    }
    place::fill(spec, "persistentVolumeClaimRetentionPolicy", json!({}));
    if let Some(policy) = place::get_mut(spec, &["persistentVolumeClaimRetentionPolicy"]) {
        place::fill_text(policy, "whenDeleted", "Retain");
        place::fill_text(policy, "whenScaled", "Retain");
    }
    for claim in place::items_mut(spec, &["volumeClaimTemplates"]) {
        place::fill_text(claim, "apiVersion", "v1");
        place::fill_text(claim, "kind", "PersistentVolumeClaim");
        super::core::claim_defaults(claim);
        place::set(claim, &["status", "phase"], "Pending");
    }
}

pub(super) fn daemon_set_defaults(object: &mut Value) {
    pod::template(object, &TEMPLATE);
    let Some(spec) = place::get_mut(object, &["spec"]) else { return };
    place::fill(spec, "revisionHistoryLimit", 10);
    place::fill(spec, "updateStrategy", json!({}));
    if let Some(strategy) = place::get_mut(spec, &["updateStrategy"]) {
        place::fill_text(strategy, "type", "RollingUpdate");
        if place::text(strategy, &["type"]) == Some("RollingUpdate") {
            place::fill(strategy, "rollingUpdate", json!({}));
            if let Some(rolling) = place::get_mut(strategy, &["rollingUpdate"]) {
                place::fill(rolling, "maxUnavailable", 1);
                place::fill(rolling, "maxSurge", 0);
            }
        }
    }
}

/// Counts that are required fields, so they stand even before a controller has looked.
pub(super) fn daemon_set_status(_: &Value) -> Value {
    json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0})
}
