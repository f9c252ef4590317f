//! Autoscalers: `autoscaling/v1` knows a CPU target only; everything else `v2` has travels in annotations there.

use serde_json::{Map, Value, json};

use super::section;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// Where a field of a metric stands: name in `v1`, path in `v2`.
type Names = &'static [(&'static str, &'static [&'static str])];

/// Metrics wanted, by member.
const WANTED: &[(&str, Names)] = &[
    (
        "containerResource",
        &[
            ("container", &["container"]),
            ("name", &["name"]),
            ("targetAverageUtilization", &["target", "averageUtilization"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
            ("targetAverageValue", &["target", "averageValue"]),
            ("targetValue", &["target", "value"]),
        ],
    ),
    (
        "object",
        &[
            ("averageValue", &["target", "averageValue"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("target", &["describedObject"]),
            ("targetValue", &["target", "value"]),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
    (
        "resource",
        &[
            ("name", &["name"]),
            ("targetAverageUtilization", &["target", "averageUtilization"]),
            ("targetAverageValue", &["target", "averageValue"]),
        ],
    ),
];

/// Metrics measured, by member.
const MEASURED: &[(&str, Names)] = &[
    (
        "containerResource",
        &[
            ("container", &["container"]),
            ("currentAverageUtilization", &["current", "averageUtilization"]),
            ("currentAverageValue", &["current", "averageValue"]),
            ("name", &["name"]),
        ],
    ),
    (
        "external",
        &[
            ("currentAverageValue", &["current", "averageValue"]),
            ("currentValue", &["current", "value"]),
            ("metricName", &["metric", "name"]),
            ("metricSelector", &["metric", "selector"]),
        ],
    ),
    (
        "object",
        &[
            ("averageValue", &["current", "averageValue"]),
            ("currentValue", &["current", "value"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
            ("target", &["describedObject"]),
        ],
    ),
    (
        "pods",
        &[
            ("currentAverageValue", &["current", "averageValue"]),
            ("metricName", &["metric", "name"]),
            ("selector", &["metric", "selector"]),
        ],
    ),
    (
        "resource",
        &[
            ("currentAverageUtilization", &["current", "averageUtilization"]),
            ("currentAverageValue", &["current", "averageValue"]),
            ("name", &["name"]),
        ],
    ),
];

pub(super) fn to_v2(scaler: &mut Map<String, Value>) {
    let mut metrics = list(take_annotation(scaler, METRICS))
        .into_iter()
        .map(|metric| metric_to_v2(&metric, WANTED, true))
        .collect::<Vec<_>>();
    let mut current = list(take_annotation(scaler, CURRENT_METRICS))
        .into_iter()
        .map(|metric| metric_to_v2(&metric, MEASURED, false))
        .collect::<Vec<_>>();
    let behavior = take_annotation(scaler, BEHAVIOR).filter(Value::is_object);
    let conditions = take_annotation(scaler, CONDITIONS).filter(Value::is_array);
    if let Some(spec) = scaler.get_mut("spec").and_then(Value::as_object_mut) {
        if let Some(percent) = spec.remove("targetCPUUtilizationPercentage") {
            let target = json!({"type": "Utilization", "averageUtilization": percent});
            metrics.push(json!({"type": "Resource", "resource": {"name": "cpu", "target": target}}));
        }
        put(spec, "metrics", Some(Value::Array(metrics)).filter(|list| *list != json!([])));
        put(spec, "behavior", behavior);
    }
    let measured =
        scaler.get_mut("status").and_then(|status| status.as_object_mut()?.remove("currentCPUUtilizationPercentage"));
    if let Some(percent) = measured {
        current
            .push(json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}}));
    }
    let current = Some(Value::Array(current)).filter(|list| *list != json!([]));
    if (current.is_some() || conditions.is_some())
        && let Some(status) = section(scaler, "status")
    {
        put(status, "currentMetrics", current);
        put(status, "conditions", conditions);
    }
}

pub(super) fn to_v1(scaler: &mut Map<String, Value>) {
    let mut annotations = Vec::new();
    if let Some(spec) = scaler.get_mut("spec").and_then(Value::as_object_mut) {
        let mut metrics = list(spec.remove("metrics"));
        let percent = take_cpu(&mut metrics, "target");
        put(spec, "targetCPUUtilizationPercentage", percent);
        annotations.push((METRICS, converted(&metrics, WANTED)));
        annotations.push((BEHAVIOR, spec.remove("behavior")));
    }
    if let Some(status) = scaler.get_mut("status").and_then(Value::as_object_mut) {
        let mut current = list(status.remove("currentMetrics"));
        let percent = take_cpu(&mut current, "current");
        put(status, "currentCPUUtilizationPercentage", percent);
        annotations.push((CURRENT_METRICS, converted(&current, MEASURED)));
        annotations.push((CONDITIONS, status.remove("conditions").filter(|list| *list != json!([]))));
    }
    for (name, value) in annotations {
        let Some(value) = value else { continue };
        if let Some(annotations) = section(scaler, "metadata").and_then(|metadata| section(metadata, "annotations")) {
            annotations.insert(name.to_owned(), value.to_string().into());
        }
    }
}

fn converted(metrics: &[Value], names: &[(&str, Names)]) -> Option<Value> {
    (!metrics.is_empty()).then(|| metrics.iter().map(|metric| metric_to_v1(metric, names)).collect())
}

/// Takes out the first CPU metric with a percentage: the one `v1` has a field for.
fn take_cpu(metrics: &mut Vec<Value>, member: &str) -> Option<Value> {
    let percent = |metric: &Value| {
        let resource = metric.get("resource")?;
        let is_cpu = metric.get("type")? == "Resource" && resource.get("name")? == "cpu";
        let measured = resource.get(member)?;
        // A target that also names a value has more to say than the field of `v1` holds.
        measured.get("averageUtilization").filter(|_| is_cpu && measured.get("averageValue").is_none()).cloned()
    };
    let (at, found) = metrics.iter().enumerate().find_map(|(at, metric)| percent(metric).map(|found| (at, found)))?;
    metrics.remove(at);
    Some(found)
}

fn metric_to_v1(metric: &Value, names: &[(&str, Names)]) -> Value {
    let mut out = json!({"type": metric.get("type")});
    for (member, fields) in names {
        let Some(source) = metric.get(*member) else { continue };
        for (name, path) in *fields {
            if let Some(value) = path.iter().try_fold(source, |place, key| place.get(*key)) {
                set(&mut out, &[member, name], value.clone());
            }
        }
    }
    out
}

fn metric_to_v2(metric: &Value, names: &[(&str, Names)], is_target: bool) -> Value {
    let mut out = json!({"type": metric.get("type")});
    for (member, fields) in names {
        let Some(source) = metric.get(*member) else { continue };
        for (name, path) in *fields {
            if let Some(value) = source.get(*name) {
                let path: Vec<&str> = std::iter::once(*member).chain(path.iter().copied()).collect();
                set(&mut out, &path, value.clone());
            }
        }
        if is_target {
            let target = out.get(*member).and_then(|found| found.get("target"));
            let has = |name: &str| target.is_some_and(|target| target.get(name).is_some());
            let kind = match (has("averageUtilization"), has("averageValue")) {
                (true, _) => "Utilization",
                (false, true) => "AverageValue",
                (false, false) => "Value",
            };
            set(&mut out, &[member, "target", "type"], kind.into());
        }
    }
    out
}

fn set(out: &mut Value, path: &[&str], value: Value) {
    crate::place::set(out, path, value);
}

fn put(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value);
    }
}

fn list(value: Option<Value>) -> Vec<Value> {
    match value {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

/// Takes an annotation out and reads its JSON; a text that is none is left where it is.
fn take_annotation(scaler: &mut Map<String, Value>, name: &str) -> Option<Value> {
    let metadata = scaler.get_mut("metadata")?.as_object_mut()?;
    let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
    let value = serde_json::from_str(annotations.get(name)?.as_str()?).ok()?;
    annotations.remove(name);
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
    Some(value)
}
