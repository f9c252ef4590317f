//! Conversions: each way as upstream documents it, and both ways together lossless.

use serde_json::{Value, json};

use super::{Conversion, to_served, to_stored};
use crate::decode::{FieldValidation, value};
use crate::kind::Kind;
use crate::registry::registry;

fn kind(group: &str, version: &str, plural: &str) -> &'static Kind {
    registry().resource(group, version, plural).expect("served")
}

/// Both forms of an object, checked against the types of both versions.
#[expect(clippy::needless_pass_by_value, reason = "the tests read better with literals")]
fn check(kind: &Kind, served: Value, stored: Value) {
    let mut converted = served.clone();
    to_stored(kind, &mut converted);
    assert_eq!(converted, stored, "as stored");
    let target =
        registry().kind(&kind.storage_group, &kind.storage_version, &kind.kind).expect("the stored kind is served too");
    assert_eq!(value(target, converted.clone(), FieldValidation::Strict).expect("fits").object, stored);
    to_served(kind, &mut converted);
    assert_eq!(converted, served, "as served");
    assert_eq!(value(kind, converted, FieldValidation::Strict).expect("fits").object, served);
}

/// An Event keeps every field under the names of the other group.
#[test]
fn events_change_names() {
    check(
        kind("events.k8s.io", "v1", "events"),
        json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "note": "n", "reason": "r",
            "regarding": {"kind": "Pod", "name": "p"}, "reportingController": "c", "reportingInstance": "i",
            "deprecatedCount": 2, "deprecatedSource": {"host": "h"}, "deprecatedFirstTimestamp": "2026-01-02T03:04:05Z",
            "deprecatedLastTimestamp": "2026-01-02T03:04:06Z", "eventTime": "2026-01-02T03:04:05.000000Z", "type": "Normal"}),
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "n", "reason": "r",
            "involvedObject": {"kind": "Pod", "name": "p"}, "reportingComponent": "c", "reportingInstance": "i",
            "count": 2, "source": {"host": "h"}, "firstTimestamp": "2026-01-02T03:04:05Z",
            "lastTimestamp": "2026-01-02T03:04:06Z", "eventTime": "2026-01-02T03:04:05.000000Z", "type": "Normal"}),
    );
}

/// A CPU target becomes a metric.
#[test]
fn a_cpu_target_is_a_metric() {
    let scaled = json!({"kind": "Deployment", "name": "d"});
    check(
        kind("autoscaling", "v1", "horizontalpodautoscalers"),
        json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {"scaleTargetRef": scaled, "maxReplicas": 3, "targetCPUUtilizationPercentage": 60},
            "status": {"currentCPUUtilizationPercentage": 5, "currentReplicas": 1, "desiredReplicas": 1}}),
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {"scaleTargetRef": scaled, "maxReplicas": 3, "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}}]},
            "status": {"currentReplicas": 1, "desiredReplicas": 1, "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 5}}}]}}),
    );
}

/// What `v1` has no field for comes back from the annotations it travelled in.
#[test]
fn nothing_is_lost_on_the_way_through_v1() {
    let stored = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 3,
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
            "metrics": [
                {"type": "Pods", "pods": {"metric": {"name": "m", "selector": {"matchLabels": {"a": "b"}}},
                    "target": {"type": "AverageValue", "averageValue": "5"}}},
                {"type": "Object", "object": {"metric": {"name": "m"}, "describedObject": {"kind": "Service", "name": "s"},
                    "target": {"type": "Value", "value": "7"}}},
                {"type": "External", "external": {"metric": {"name": "m"}, "target": {"type": "Value", "value": "7"}}},
                {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
                    "target": {"type": "Utilization", "averageUtilization": 50}}},
                {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}}]},
        "status": {"desiredReplicas": 1, "conditions": [{"type": "AbleToScale", "status": "True"}],
            "currentMetrics": [{"type": "Pods", "pods": {"metric": {"name": "m"}, "current": {"averageValue": "4"}}}]}});
    let kind = kind("autoscaling", "v1", "horizontalpodautoscalers");
    let mut object = stored.clone();
    to_served(kind, &mut object);
    assert_eq!(object["spec"], json!({"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 3}));
    assert_eq!(object["metadata"]["annotations"].as_object().map(serde_json::Map::len), Some(4));
    to_stored(kind, &mut object);
    assert_eq!(object, stored);
}

/// Every kind that is stored as another one has a conversion, and no other kind is touched.
#[test]
fn only_shared_stores_convert() {
    for kind in registry().kinds() {
        let aliased = kind.storage_group != kind.group || kind.storage_version != kind.version;
        assert_eq!(Conversion::of(kind) != Conversion::None, aliased, "{}", kind.kind);
    }
    let pods = kind("", "v1", "pods");
    let mut pod = json!({"apiVersion": "v1", "note": "x"});
    to_stored(pods, &mut pod);
    assert_eq!(pod, json!({"apiVersion": "v1", "note": "x"}));
}
