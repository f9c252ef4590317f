//! [`NodeReport`]: what an agent says about its node, at registration and in heartbeats, and how that changes the
//! Node object. Reading and changing are pure; must not know tokens, subnets or transactions.

use std::collections::BTreeMap;
use std::net::IpAddr;

use quilt_objects::{names, quantity};
use serde_json::{Map, Value, json};

use super::fields::{Fields, clip, in_range, string_map, type_name};
use super::marks;
use super::refuse;
use super::view::node as view;
use crate::problem::Problem;
use crate::store::{object, text};

/// Most bytes of one fact kept as an annotation; all of them together stay below Kubernetes' 256 KiB.
const FACT_BYTES_MAX: usize = 48 << 10;
/// Most bytes of an agent's version.
const VERSION_BYTES_MAX: usize = 1 << 10;

/// The facts of one report; `None` means "as before".
#[derive(Debug, Default)]
pub(crate) struct NodeReport {
    public_ip: Option<String>,
    private_ip: Option<String>,
    agent_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    taints: Option<Vec<Value>>,
    gpu_devices: Option<Vec<Value>>,
    gpu_runtime: Option<Value>,
    vmm_runtime: Option<Value>,
    capacity: Option<BTreeMap<String, String>>,
    kubelet_port: Option<i64>,
    kubelet_cert_sha256: Option<String>,
}

impl NodeReport {
    /// Reads the shape; wrong types are noted in `fields`.
    ///
    /// # Errors
    /// Text that should hold JSON and does not.
    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Self, Problem> {
        let not_empty = |text: Option<String>| text.filter(|text| !text.is_empty());
        let labels = fields.string_map("labels");
        let labels_text = fields.json_text("labels_json", "object of strings", string_map)?;
        let report = Self {
            public_ip: not_empty(fields.string("public_ip")),
            private_ip: not_empty(fields.string("private_ip")),
            agent_version: not_empty(fields.string("agent_version")),
            labels: labels.or(labels_text),
            taints: fields.json_text("taints_json", "array of {key, value, effect}", taints)?,
            gpu_devices: gpu_devices(fields),
            gpu_runtime: fields.object("gpu_runtime").cloned().map(Value::Object),
            vmm_runtime: fields.object("vmm_runtime").cloned().map(Value::Object),
            capacity: fields.string_map("capacity"),
            kubelet_port: fields.integer("kubelet_port"),
            kubelet_cert_sha256: fields.string("kubelet_cert_sha256"),
        };
        // Usage is shape-checked only: it is never part of the Node.
        fields.string_map("usage");
        Ok(report)
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// 400 naming the field.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        for (field, address) in [("public_ip", &self.public_ip), ("private_ip", &self.private_ip)] {
            if let Some(address) = address
                && address.parse::<IpAddr>().is_err()
            {
                let expected = ["an IP address"];
                let message = format!("{field} must be an IP address");
                return Err(refuse::invalid(field, message, &expected, json!(clip(address))));
            }
        }
        if let Some(port) = self.kubelet_port {
            in_range("kubelet_port", port, 1, 65_535)?;
        }
        if let Some(digest) = &self.kubelet_cert_sha256
            && !(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            let message = "kubelet_cert_sha256 must be 64 hexadecimal digits";
            return Err(refuse::invalid(
                "kubelet_cert_sha256",
                message,
                &["64 hexadecimal digits"],
                json!(clip(digest)),
            ));
        }
        self.check_taints()?;
        self.check_devices()?;
        for (name, amount) in self.capacity.iter().flatten() {
            if !["cpu", "memory", "ephemeral-storage", "pods"].contains(&name.as_str()) {
                let expected = ["cpu", "memory", "ephemeral-storage", "pods"];
                return Err(refuse::invalid(
                    "capacity",
                    format!("capacity.{} is not a known resource", clip(name)),
                    &expected,
                    json!(clip(name)),
                ));
            }
            if amount.starts_with('-') || quantity::Quantity::from_value(&json!(amount)).is_err() {
                let field = format!("capacity.{name}");
                let message = format!("{field} must be a quantity such as 4 or 16Gi");
                return Err(refuse::invalid(&field, message, &["a quantity"], json!(clip(amount))));
            }
        }
        let version_bytes = self.agent_version.as_ref().map_or(0, String::len);
        let facts = [
            ("labels", self.labels.as_ref().map_or(0, |labels| json!(labels).to_string().len())),
            ("taints_json", self.taints.as_ref().map_or(0, |taints| json!(taints).to_string().len())),
            ("gpu_devices", self.gpu_devices.as_ref().map_or(0, |devices| json!(devices).to_string().len())),
            ("gpu_runtime", self.gpu_runtime.as_ref().map_or(0, |runtime| runtime.to_string().len())),
            ("vmm_runtime", self.vmm_runtime.as_ref().map_or(0, |runtime| runtime.to_string().len())),
        ];
        let facts = facts.map(|(field, bytes)| (field, bytes, FACT_BYTES_MAX));
        for (field, bytes, most) in facts.into_iter().chain([("agent_version", version_bytes, VERSION_BYTES_MAX)]) {
            if bytes > most {
                let range = format!("at most {most} bytes");
                return Err(refuse::invalid(field, format!("{field} must have {range}"), &[&range], json!(bytes)));
            }
        }
        Ok(())
    }

    fn check_taints(&self) -> Result<(), Problem> {
        const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        for taint in self.taints.iter().flatten() {
            let (key, value, effect) = (text(taint, "/key"), text(taint, "/value"), text(taint, "/effect"));
            if !EFFECTS.contains(&effect) {
                let message = format!("taint effect must be one of {}", EFFECTS.join(", "));
                return Err(refuse::invalid("taints_json", message, &EFFECTS, json!(clip(effect))));
            }
            if !names::qualified_name(key).is_empty() || key.starts_with("quilt.sh/") {
                let message = "taint key must be a Kubernetes label name outside quilt.sh/";
                return Err(refuse::invalid("taints_json", message, &["a label name"], json!(clip(key))));
            }
            if !names::label_value(value).is_empty() {
                let message = "taint value must be a Kubernetes label value";
                return Err(refuse::invalid("taints_json", message, &["a label value"], json!(clip(value))));
            }
        }
        Ok(())
    }

    fn check_devices(&self) -> Result<(), Problem> {
        let mut seen = std::collections::BTreeSet::new();
        for device in self.gpu_devices.iter().flatten() {
            let id = text(device, "/id");
            if id.is_empty() || !seen.insert(id) {
                let message =
                    if id.is_empty() { "gpu_devices: id must not be empty" } else { "gpu_devices: id is repeated" };
                return Err(refuse::invalid("gpu_devices", message, &["distinct ids"], json!(clip(id))));
            }
        }
        Ok(())
    }

    /// Changes the Node as reported.
    pub(crate) fn apply(&self, node: &mut Value) {
        self.apply_addresses(node);
        self.apply_labels(node);
        self.apply_taints(node);
        self.apply_resources(node);
        let annotations = object(&mut node["metadata"], "annotations");
        let mut note = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                annotations.insert(name.into(), json!(value));
            }
        };
        note(marks::AGENT_VERSION, self.agent_version.clone());
        note(marks::GPU_INVENTORY, self.gpu_devices.as_ref().map(|devices| json!(devices).to_string()));
        note(marks::GPU_RUNTIME, self.gpu_runtime.as_ref().map(Value::to_string));
        note(marks::VMM_RUNTIME, self.vmm_runtime.as_ref().map(Value::to_string));
        note(marks::KUBELET_CERT_SHA256, self.kubelet_cert_sha256.as_ref().map(|digest| digest.to_ascii_lowercase()));
        if let Some(port) = self.kubelet_port {
            object(&mut node["status"], "daemonEndpoints").insert("kubeletEndpoint".into(), json!({"Port": port}));
        }
        if let Some(version) = &self.agent_version {
            object(&mut node["status"], "nodeInfo").insert("kubeletVersion".into(), json!(version));
        }
    }

    fn apply_addresses(&self, node: &mut Value) {
        if self.private_ip.is_none() && self.public_ip.is_none() {
            return;
        }
        let kept = |new: &Option<String>, kind| new.clone().or_else(|| view::address(node, kind).map(str::to_owned));
        let found = [
            ("InternalIP", kept(&self.private_ip, "InternalIP")),
            ("ExternalIP", kept(&self.public_ip, "ExternalIP")),
            ("Hostname", kept(&None, "Hostname")),
        ];
        let addresses: Vec<Value> = found
            .into_iter()
            .filter_map(|(kind, address)| address.map(|address| json!({"type": kind, "address": address})))
            .collect();
        object(node, "status").insert("addresses".into(), json!(addresses));
    }

    fn apply_labels(&self, node: &mut Value) {
        let Some(labels) = &self.labels else { return };
        let sent = json!(labels).to_string();
        let before = node["metadata"]["annotations"][marks::LABELS].as_str().map(str::to_owned);
        if before.as_deref() == Some(sent.as_str()) {
            return;
        }
        let before: BTreeMap<String, String> =
            before.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        object(&mut node["metadata"], "annotations").insert(marks::LABELS.into(), json!(sent));
        let shown = object(&mut node["metadata"], "labels");
        for name in before.keys().filter(|name| is_label(name, "")) {
            shown.remove(name);
        }
        for (name, value) in labels.iter().filter(|(name, value)| is_label(name, value)) {
            shown.insert(name.clone(), json!(value));
        }
    }

    fn apply_taints(&self, node: &mut Value) {
        let Some(taints) = &self.taints else { return };
        let sent = json!(taints).to_string();
        let before = node["metadata"]["annotations"][marks::REPORTED_TAINTS].as_str().map(str::to_owned);
        if before.as_deref() == Some(sent.as_str()) {
            return;
        }
        let before: Vec<Value> = before.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        object(&mut node["metadata"], "annotations").insert(marks::REPORTED_TAINTS.into(), json!(sent));
        let same = |one: &Value, two: &Value| one["key"] == two["key"] && one["effect"] == two["effect"];
        let mut all: Vec<Value> = node.pointer("/spec/taints").and_then(Value::as_array).cloned().unwrap_or_default();
        all.retain(|taint| !before.iter().chain(taints).any(|reported| same(reported, taint)));
        all.extend(taints.iter().cloned());
        object(node, "spec").insert("taints".into(), json!(all));
    }

    fn apply_resources(&self, node: &mut Value) {
        if self.capacity.is_none() && self.gpu_devices.is_none() {
            return;
        }
        let mut capacity =
            node.pointer("/status/capacity").and_then(Value::as_object).cloned().unwrap_or_else(Map::new);
        for (name, amount) in self.capacity.iter().flatten() {
            capacity.insert(name.clone(), json!(amount));
        }
        if let Some(devices) = &self.gpu_devices {
            if devices.is_empty() {
                capacity.remove(marks::GPU);
            } else {
                capacity.insert(marks::GPU.into(), json!(devices.len().to_string()));
            }
        }
        let status = object(node, "status");
        status.insert("capacity".into(), json!(capacity));
        status.insert("allocatable".into(), json!(capacity));
    }
}

/// Whether a label as sent can stand as a label of the Node; the control plane's own names never come from agents.
fn is_label(name: &str, value: &str) -> bool {
    let own = name.starts_with("quilt.sh/") || name == "kubernetes.io/hostname";
    !own && names::qualified_name(name).is_empty() && names::label_value(value).is_empty()
}

fn taints(value: &Value) -> Option<Vec<Value>> {
    let taint = |value: &Value| {
        let taint = value.as_object()?;
        let key = taint.get("key")?.as_str()?;
        let effect = taint.get("effect")?.as_str()?;
        let value = match taint.get("value") {
            None | Some(Value::Null) => "",
            Some(value) => value.as_str()?,
        };
        Some(if value.is_empty() {
            json!({"key": key, "effect": effect})
        } else {
            json!({"key": key, "value": value, "effect": effect})
        })
    };
    value.as_array()?.iter().map(taint).collect()
}

fn gpu_devices(fields: &mut Fields<'_>) -> Option<Vec<Value>> {
    const TEXTS: [&str; 4] = ["vendor", "device_path", "model", "driver_version"];
    const NUMBERS: [&str; 3] = ["card_index", "major", "minor"];
    let devices = fields.array("gpu_devices")?;
    let mut known = Vec::with_capacity(devices.len());
    for (index, device) in devices.iter().enumerate() {
        let Some(device) = device.as_object() else {
            fields.note(format!("gpu_devices[{index}]"), "object", type_name(device));
            continue;
        };
        let mut shown = Map::new();
        match device.get("id") {
            Some(Value::String(id)) => drop(shown.insert("id".into(), json!(id))),
            other => {
                fields.note(format!("gpu_devices[{index}].id"), "string", type_name(other.unwrap_or(&Value::Null)));
            }
        }
        for (names, expected) in [(&TEXTS[..], "string"), (&NUMBERS[..], "integer")] {
            for name in names {
                let value = device.get(*name).cloned().unwrap_or(Value::Null);
                let right = value.is_null()
                    || if expected == "string" { value.is_string() } else { value.is_i64() || value.is_u64() };
                if !right {
                    fields.note(format!("gpu_devices[{index}].{name}"), expected, type_name(&value));
                }
                shown.insert((*name).into(), value);
            }
        }
        known.push(Value::Object(shown));
    }
    Some(known)
}

/// A state an agent may report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReportedState {
    /// It has joined and takes no work yet.
    Registered,
    /// It takes work.
    Ready,
    /// It cannot run work.
    NotReady,
    /// It is to be emptied.
    Draining,
}

impl ReportedState {
    /// Reads the word.
    ///
    /// # Errors
    /// 400 for any other word.
    pub(crate) fn parse(word: &str) -> Result<Self, Problem> {
        match word {
            "registered" => Ok(Self::Registered),
            "ready" => Ok(Self::Ready),
            "not_ready" => Ok(Self::NotReady),
            "draining" => Ok(Self::Draining),
            other => {
                let expected = ["registered", "ready", "not_ready", "draining"];
                let problem = refuse::invalid(
                    "state",
                    format!("state must be one of {}", expected.join(", ")),
                    &expected,
                    json!(clip(other)),
                );
                Err(if other == "deleted" { problem.hint("deregister the node to delete it") } else { problem })
            }
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Ready => "ready",
            Self::NotReady => "not_ready",
            Self::Draining => "draining",
        }
    }

    /// Changes the Node as the state table says; `draining` sticks until someone uncordons.
    pub(crate) fn apply(self, node: &mut Value, now: &str) {
        let remembered = match self {
            Self::Draining => {
                drain(node, now);
                let last = node["metadata"]["annotations"][marks::REPORTED_STATE].as_str();
                last.and_then(|word| Self::parse(word).ok()).unwrap_or(Self::Ready)
            }
            reported => reported,
        };
        object(&mut node["metadata"], "annotations").insert(marks::REPORTED_STATE.into(), json!(remembered.word()));
        match remembered {
            Self::Ready => set_ready(node, "True", "AgentReady", "the agent reports ready", now),
            Self::Registered => {
                set_ready(node, "False", "NodeRegistered", "the agent has registered and takes no work yet", now);
            }
            Self::NotReady | Self::Draining => {
                set_ready(node, "False", "AgentNotReady", "the agent reports not_ready", now);
            }
        }
    }
}

/// Cordons the Node and taints it as draining.
pub(crate) fn drain(node: &mut Value, now: &str) {
    let spec = object(node, "spec");
    spec.insert("unschedulable".into(), json!(true));
    let taints = spec.entry("taints").or_insert_with(|| json!([]));
    if let Some(list) = taints.as_array_mut()
        && !list.iter().any(|taint| taint["key"] == marks::DRAINING)
    {
        list.push(json!({"key": marks::DRAINING, "effect": "NoSchedule", "timeAdded": now}));
    }
}

/// Sets the condition Ready; nothing at all changes when status and reason are as they were and a heartbeat was seen.
pub(crate) fn set_ready(node: &mut Value, status: &str, reason: &str, message: &str, now: &str) {
    let beaten = view::has_beaten(node);
    let conditions = object(node, "status").entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return };
    let old = list.iter().position(|condition| condition["type"] == "Ready");
    let moved = match old.and_then(|at| list.get(at)) {
        Some(old) if old["status"] == status && old["reason"] == reason && beaten => return,
        Some(old) if old["status"] == status => old["lastTransitionTime"].clone(),
        _ => json!(now),
    };
    let condition = json!({"type": "Ready", "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": now, "lastTransitionTime": moved});
    match old.and_then(|at| list.get_mut(at)) {
        Some(old) => *old = condition,
        None => list.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &Value) -> NodeReport {
        let body = body.as_object().expect("object");
        let mut fields = Fields::of(body);
        let report = NodeReport::read(&mut fields).expect("JSON");
        fields.finish().expect("types");
        report.check().expect("ranges");
        report
    }

    /// Valid labels become Node labels, all of them stay readable, and a later report replaces only its own.
    #[test]
    fn labels_come_and_go() {
        let mut node = json!({"metadata": {"labels": {"mine": "1", "quilt.sh/agent": "true"}}});
        read(&json!({"labels": {"zone": "a", "not a label": "x", "quilt.sh/agent": "false"}})).apply(&mut node);
        assert_eq!(node["metadata"]["labels"], json!({"mine": "1", "quilt.sh/agent": "true", "zone": "a"}));
        read(&json!({"labels": {}})).apply(&mut node);
        assert_eq!(node["metadata"]["labels"], json!({"mine": "1", "quilt.sh/agent": "true"}));
        assert_eq!(node["metadata"]["annotations"][marks::LABELS], "{}");
    }

    /// A report that says what the Node says already changes nothing; null and absent keep.
    #[test]
    fn an_unchanged_report_changes_nothing() {
        let mut node = json!({"metadata": {}, "spec": {}, "status": {}});
        let report = json!({"private_ip": "10.0.0.1", "labels": {"a": "b"}, "capacity": {"cpu": "4"}, "kubelet_port": 1,
            "taints_json": "[{\"key\":\"k\",\"effect\":\"NoSchedule\"}]", "gpu_devices": [{"id": "g0"}]});
        read(&report).apply(&mut node);
        ReportedState::Ready.apply(&mut node, "2026-01-01T00:00:00Z");
        let before = node.clone();
        read(&report).apply(&mut node);
        read(&json!({"labels": null, "private_ip": ""})).apply(&mut node);
        ReportedState::Ready.apply(&mut node, "2026-01-01T00:00:10Z");
        assert_eq!(node, before);
        assert_eq!(node["status"]["capacity"], json!({"cpu": "4", "quilt.sh/gpu": "1"}));
    }

    /// Draining sticks through later reports, which are remembered.
    #[test]
    fn draining_sticks() {
        let mut node = json!({});
        ReportedState::Ready.apply(&mut node, "t");
        ReportedState::Draining.apply(&mut node, "t");
        assert_eq!(view::state(&node), "draining");
        ReportedState::NotReady.apply(&mut node, "t");
        assert_eq!(view::state(&node), "draining");
        node["spec"]["unschedulable"] = json!(false);
        assert_eq!(view::state(&node), "not_ready");
    }

    /// Words, ranges and shapes are refused by name.
    #[test]
    fn bad_reports_are_refused() {
        assert!(ReportedState::parse("deleted").is_err());
        for bad in [
            json!({"public_ip": "nowhere"}),
            json!({"kubelet_port": 0}),
            json!({"gpu_devices": [{"id": "a"}, {"id": "a"}]}),
            json!({"taints_json": "[{\"key\":\"k\",\"effect\":\"Never\"}]"}),
            json!({"capacity": {"cpu": "many"}}),
            json!({"capacity": {"gold": "1"}}),
        ] {
            let body = bad.as_object().expect("object");
            let mut fields = Fields::of(body);
            let report = NodeReport::read(&mut fields).expect("JSON");
            fields.finish().expect("types");
            assert!(report.check().is_err(), "{bad}");
        }
    }
}
