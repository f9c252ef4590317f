//! Policies, autoscalers, bindings, webhooks and definitions: small defaults of kinds that administrators write.

use serde_json::{Value, json};

use crate::place;

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) fn network_policy_defaults(object: &mut Value) {
    let Some(spec) = place::get_mut(object, &["spec"]) else { return };
    for direction in ["ingress", "egress"] {
        for rule in place::items_mut(spec, &[direction]) {
            for port in place::items_mut(rule, &["ports"]) {
                place::fill_text(port, "protocol", "TCP");
            }
        }
    }
    if place::items(spec, &["policyTypes"]).is_empty() {
        let egress = !place::items(spec, &["egress"]).is_empty();
        let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        place::set(spec, &["policyTypes"], types);
    }
}

pub(super) fn csi_driver_defaults(object: &mut Value) {
    let Some(spec) = place::get_mut(object, &["spec"]) else { return };
    place::fill(spec, "attachRequired", true);
    for flag in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        place::fill(spec, flag, false);
    }
    place::fill_text(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if place::items(spec, &["volumeLifecycleModes"]).is_empty() {
        place::set(spec, &["volumeLifecycleModes"], json!(["Persistent"]));
    }
}

/// Both versions: v1 says its target in one field, v2 in a list of metrics that then defaults to CPU at 80 %.
pub(super) fn autoscaler_defaults(object: &mut Value) {
    let is_v1 = place::text(object, &["apiVersion"]) == Some("autoscaling/v1");
    let Some(spec) = place::get_mut(object, &["spec"]) else { return };
    place::fill(spec, "minReplicas", 1);
    if !is_v1 && place::items(spec, &["metrics"]).is_empty() {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        place::set(spec, &["metrics"], json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]));
    }
    if let Some(behavior) = place::get_mut(spec, &["behavior"]) {
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        for (direction, policies) in [("scaleUp", json!([pods, percent])), ("scaleDown", json!([percent]))] {
            place::fill(behavior, direction, json!({}));
            if let Some(rules) = place::get_mut(behavior, &[direction]) {
                place::fill_text(rules, "selectPolicy", "Max");
                place::fill(rules, "policies", policies);
                if direction == "scaleUp" {
                    place::fill(rules, "stabilizationWindowSeconds", 0);
                }
            }
        }
    }
}

pub(super) fn priority_class_defaults(object: &mut Value) {
    place::fill_text(object, "preemptionPolicy", "PreemptLowerPriority");
}

pub(super) fn binding_defaults(object: &mut Value) {
    if let Some(reference) = place::get_mut(object, &["roleRef"]) {
        place::fill_text(reference, "apiGroup", RBAC);
    }
    for subject in place::items_mut(object, &["subjects"]) {
        if matches!(place::text_or_empty(subject, &["kind"]), "User" | "Group") {
            place::fill_text(subject, "apiGroup", RBAC);
        }
    }
}

pub(super) fn webhook_defaults(object: &mut Value) {
    for webhook in place::items_mut(object, &["webhooks"]) {
        place::fill_text(webhook, "failurePolicy", "Fail");
        place::fill_text(webhook, "matchPolicy", "Equivalent");
        place::fill(webhook, "namespaceSelector", json!({}));
        place::fill(webhook, "objectSelector", json!({}));
        place::fill(webhook, "timeoutSeconds", 10);
        if let Some(service) = place::get_mut(webhook, &["clientConfig", "service"]) {
            place::fill(service, "port", 443);
        }
        for rule in place::items_mut(webhook, &["rules"]) {
            place::fill_text(rule, "scope", "*");
        }
    }
}

pub(super) fn mutating_webhook_defaults(object: &mut Value) {
    webhook_defaults(object);
    for webhook in place::items_mut(object, &["webhooks"]) {
        place::fill_text(webhook, "reinvocationPolicy", "Never");
    }
}

pub(super) fn definition_defaults(object: &mut Value) {
    let Some(spec) = place::get_mut(object, &["spec"]) else { return };
    place::fill(spec, "conversion", json!({"strategy": "None"}));
    if let Some(service) = place::get_mut(spec, &["conversion", "webhook", "clientConfig", "service"]) {
        place::fill(service, "port", 443);
    }
    let kind = place::text_or_empty(spec, &["names", "kind"]).to_owned();
    if let Some(names) = place::get_mut(spec, &["names"]).filter(|_| !kind.is_empty()) {
        place::fill_text(names, "singular", &kind.to_lowercase());
        place::fill_text(names, "listKind", &format!("{kind}List"));
    }
}
