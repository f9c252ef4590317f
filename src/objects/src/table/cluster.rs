//! Policies, roles, leases, autoscalers, webhooks, definitions, metrics.

use serde_json::Value;

use super::{
    AGE, CREATED_AT, Cell, NAME, Printer, age, cell, cell_or, column, count, created_at, duration_text, integer,
    joined, name, text, wide,
};
use crate::place;

pub(crate) static LIMIT_RANGES: Printer =
    Printer { columns: &[NAME, CREATED_AT], cells: |object, _| vec![name(object), created_at(object)] };

pub(crate) static ROLES: Printer =
    Printer { columns: &[NAME, CREATED_AT], cells: |object, _| vec![name(object), created_at(object)] };

pub(crate) static CUSTOM_RESOURCE_DEFINITIONS: Printer =
    Printer { columns: &[NAME, CREATED_AT], cells: |object, _| vec![name(object), created_at(object)] };

pub(crate) static RESOURCE_QUOTAS: Printer = Printer {
    columns: &[
        NAME,
        text("Request", "Used of allowed, for requests and counts."),
        text("Limit", "Used of allowed, for limits."),
        AGE,
    ],
    cells: |object, now| {
        let hard = place::map(object, &["status", "hard"]).or_else(|| place::map(object, &["spec", "hard"]));
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (resource, allowed) in hard.into_iter().flatten() {
            let used = place::text(object, &["status", "used", resource]).unwrap_or("0");
            let line = format!("{resource}: {used}/{}", allowed.as_str().unwrap_or_default());
            if resource.starts_with("limits") { limits.push(line) } else { requests.push(line) }
        }
        vec![name(object), requests.join(", ").into(), limits.join(", ").into(), age(object, now)]
    },
};

pub(crate) static ROLE_BINDINGS: Printer = Printer {
    columns: &[
        NAME,
        text("Role", "Role that is granted."),
        AGE,
        wide("Users", "Users it is granted to."),
        wide("Groups", "Groups it is granted to."),
        wide("ServiceAccounts", "Service accounts it is granted to."),
    ],
    cells: |object, now| {
        let role = format!(
            "{}/{}",
            place::text_or_empty(object, &["roleRef", "kind"]),
            place::text_or_empty(object, &["roleRef", "name"])
        );
        let subjects = |kind: &str| -> Value {
            let subjects = place::items(object, &["subjects"]).iter();
            let texts: Vec<String> = subjects
                .filter(|subject| place::text(subject, &["kind"]) == Some(kind))
                .map(|subject| {
                    let name = place::text_or_empty(subject, &["name"]);
                    let namespace = place::text_or_empty(subject, &["namespace"]);
                    if kind == "ServiceAccount" { format!("{namespace}/{name}") } else { name.to_owned() }
                })
                .collect();
            texts.join(", ").into()
        };
        vec![
            name(object),
            role.into(),
            age(object, now),
            subjects("User"),
            subjects("Group"),
            subjects("ServiceAccount"),
        ]
    },
};

/// A count or percentage.
fn either(object: &Value, path: &[&str]) -> Value {
    match place::get(object, path) {
        Some(Value::String(text)) => text.as_str().into(),
        Some(number) => number.to_string().into(),
        None => "N/A".into(),
    }
}

pub(crate) static POD_DISRUPTION_BUDGETS: Printer = Printer {
    columns: &[
        NAME,
        text("Min Available", "Pods that must stay."),
        text("Max Unavailable", "Pods that may be missing."),
        integer("Allowed Disruptions", "Pods that may be evicted now."),
        AGE,
    ],
    cells: |object, now| {
        vec![
            name(object),
            either(object, &["spec", "minAvailable"]),
            either(object, &["spec", "maxUnavailable"]),
            count(object, &["status", "disruptionsAllowed"]),
            age(object, now),
        ]
    },
};

pub(crate) static HORIZONTAL_POD_AUTOSCALERS: Printer = Printer {
    columns: &[
        NAME,
        text("Reference", "What is scaled."),
        text("Targets", "Measured and wanted values."),
        text("MinPods", "Fewest pods."),
        integer("MaxPods", "Most pods."),
        integer("Replicas", "Pods there are."),
        AGE,
    ],
    cells: |object, now| {
        let reference = format!(
            "{}/{}",
            place::text_or_empty(object, &["spec", "scaleTargetRef", "kind"]),
            place::text_or_empty(object, &["spec", "scaleTargetRef", "name"])
        );
        let min =
            place::int(object, &["spec", "minReplicas"]).map_or_else(|| "<unset>".to_owned(), |min| min.to_string());
        vec![
            name(object),
            reference.into(),
            autoscaler_targets(object).into(),
            min.into(),
            count(object, &["spec", "maxReplicas"]),
            count(object, &["status", "currentReplicas"]),
            age(object, now),
        ]
    },
};

fn autoscaler_targets(object: &Value) -> String {
    let percent = |number: Option<i64>| number.map_or_else(|| "<unknown>".to_owned(), |number| format!("{number}%"));
    if let Some(wanted) = place::int(object, &["spec", "targetCPUUtilizationPercentage"]) {
        let now = place::int(object, &["status", "currentCPUUtilizationPercentage"]);
        return format!("cpu: {}/{wanted}%", percent(now));
    }
    let current = place::items(object, &["status", "currentMetrics"]);
    joined(place::items(object, &["spec", "metrics"]).iter().enumerate().map(|(index, metric)| {
        let resource = place::text_or_empty(metric, &["resource", "name"]);
        let wanted = place::int(metric, &["resource", "target", "averageUtilization"]);
        let now = current.get(index).and_then(|now| place::int(now, &["resource", "current", "averageUtilization"]));
        if resource.is_empty() {
            return "<unknown>".to_owned();
        }
        format!("{resource}: {}/{}", percent(now), percent(wanted))
    }))
}

pub(crate) static LEASES: Printer = Printer {
    columns: &[NAME, text("Holder", "Who holds the lease."), AGE],
    cells: |object, now| vec![name(object), cell(object, &["spec", "holderIdentity"]), age(object, now)],
};

pub(crate) static PRIORITY_CLASSES: Printer = Printer {
    columns: &[
        NAME,
        integer("Value", "Priority of its pods."),
        column("Global-Default", Cell::Flag, "Whether pods without a class get it."),
        AGE,
        text("PreemptionPolicy", "Whether its pods may displace others."),
    ],
    cells: |object, now| {
        vec![
            name(object),
            count(object, &["value"]),
            place::flag(object, &["globalDefault"]).into(),
            age(object, now),
            cell_or(object, &["preemptionPolicy"], "<none>"),
        ]
    },
};

pub(crate) static RUNTIME_CLASSES: Printer = Printer {
    columns: &[NAME, text("Handler", "Runtime configuration it stands for."), AGE],
    cells: |object, now| vec![name(object), cell(object, &["handler"]), age(object, now)],
};

pub(crate) static WEBHOOK_CONFIGURATIONS: Printer = Printer {
    columns: &[NAME, integer("Webhooks", "Number of webhooks."), AGE],
    cells: |object, now| vec![name(object), place::items(object, &["webhooks"]).len().into(), age(object, now)],
};

pub(crate) static API_SERVICES: Printer = Printer {
    columns: &[
        NAME,
        text("Service", "Who serves the group and version."),
        text("Available", "Whether it answers."),
        AGE,
    ],
    cells: |object, now| {
        let service = place::get(object, &["spec", "service"]).map_or_else(
            || "Local".to_owned(),
            |service| {
                format!(
                    "{}/{}",
                    place::text_or_empty(service, &["namespace"]),
                    place::text_or_empty(service, &["name"])
                )
            },
        );
        let conditions = place::items(object, &["status", "conditions"]);
        let available = conditions.iter().find(|condition| place::text(condition, &["type"]) == Some("Available"));
        let status = available.and_then(|condition| place::text(condition, &["status"])).unwrap_or("Unknown");
        let reason = available.and_then(|condition| place::text(condition, &["reason"])).unwrap_or_default();
        let status =
            if status == "True" || reason.is_empty() { status.to_owned() } else { format!("{status} ({reason})") };
        vec![name(object), service.into(), status.into(), age(object, now)]
    },
};

pub(crate) static SIGNING_REQUESTS: Printer = Printer {
    columns: &[
        NAME,
        AGE,
        text("SignerName", "Who is asked to sign."),
        text("Requestor", "Who asks."),
        text("RequestedDuration", "How long the certificate should last."),
        text("Condition", "What became of it."),
    ],
    cells: |object, now| {
        let duration = place::int(object, &["spec", "expirationSeconds"]);
        let conditions = place::items(object, &["status", "conditions"]);
        let mut words: Vec<&str> =
            conditions.iter().filter_map(|condition| place::text(condition, &["type"])).collect();
        if words.is_empty() {
            words.push("Pending");
        }
        if !place::text_or_empty(object, &["status", "certificate"]).is_empty() {
            words.push("Issued");
        }
        vec![
            name(object),
            age(object, now),
            cell(object, &["spec", "signerName"]),
            cell(object, &["spec", "username"]),
            duration.map_or_else(|| "<none>".to_owned(), duration_text).into(),
            words.join(",").into(),
        ]
    },
};

pub(crate) static NODE_METRICS: Printer = Printer {
    columns: &[
        NAME,
        text("CPU", "CPU in use."),
        text("Memory", "Memory in use."),
        text("Window", "Time the figures are taken over."),
    ],
    cells: |object, _| {
        vec![
            name(object),
            cell(object, &["usage", "cpu"]),
            cell(object, &["usage", "memory"]),
            cell(object, &["window"]),
        ]
    },
};

pub(crate) static POD_METRICS: Printer = Printer {
    columns: &[
        NAME,
        text("CPU", "CPU in use, over all containers."),
        text("Memory", "Memory in use, over all containers."),
        text("Window", "Time the figures are taken over."),
    ],
    cells: |object, _| {
        let sum = |resource: &str| {
            let containers = place::items(object, &["containers"]).iter();
            let amounts = containers.filter_map(|container| place::get(container, &["usage", resource]));
            let amounts = amounts.filter_map(|amount| crate::quantity::Quantity::from_value(amount).ok());
            amounts.fold(crate::quantity::Quantity::ZERO, crate::quantity::Quantity::plus).to_string()
        };
        vec![name(object), sum("cpu").into(), sum("memory").into(), cell(object, &["window"])]
    },
};
