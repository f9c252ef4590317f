//! Pods: ready containers, the reason that tells most, restarts.

use serde_json::Value;

use super::{AGE, NAME, Printer, age, cell_or, name, text, unix_seconds, wide};
use crate::place;

pub(crate) static PODS: Printer = Printer {
    columns: &[
        NAME,
        text("Ready", "Ready containers of all containers."),
        text("Status", "Phase of the pod, or the reason that tells more."),
        text("Restarts", "How often containers were restarted, and when last."),
        AGE,
        wide("IP", "Address of the pod."),
        wide("Node", "Node the pod is bound to."),
        wide("Nominated Node", "Node on which room is being made for the pod."),
        wide("Readiness Gates", "Passed gates of all readiness gates."),
    ],
    cells,
};

fn cells(pod: &Value, now: i64) -> Vec<Value> {
    let summary = Summary::of(pod);
    let restarts = match summary.last_restart {
        Some(then) if summary.restarts > 0 => {
            format!("{} ({} ago)", summary.restarts, super::duration_text(now.saturating_sub(then)))
        }
        _ => summary.restarts.to_string(),
    };
    let ip = place::items(pod, &["status", "podIPs"])
        .first()
        .and_then(|ip| place::text(ip, &["ip"]))
        .or_else(|| place::text(pod, &["status", "podIP"]))
        .filter(|ip| !ip.is_empty())
        .unwrap_or("<none>");
    vec![
        name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age(pod, now),
        ip.into(),
        cell_or(pod, &["spec", "nodeName"], "<none>"),
        cell_or(pod, &["status", "nominatedNodeName"], "<none>"),
        readiness_gates(pod).into(),
    ]
}

fn readiness_gates(pod: &Value) -> String {
    let gates = place::items(pod, &["spec", "readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let passed =
        gates.iter().filter(|gate| condition(pod, place::text_or_empty(gate, &["conditionType"])) == Some("True"));
    format!("{}/{}", passed.count(), gates.len())
}

fn condition<'a>(pod: &'a Value, condition_type: &str) -> Option<&'a str> {
    let conditions = place::items(pod, &["status", "conditions"]);
    let found = conditions.iter().find(|condition| place::text(condition, &["type"]) == Some(condition_type));
    found.and_then(|condition| place::text(condition, &["status"]))
}

/// What the columns of a pod say.
#[derive(Debug, Default)]
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<i64>,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let phase = place::text(pod, &["status", "phase"]).unwrap_or("Unknown");
        let pod_reason = place::text_or_empty(pod, &["status", "reason"]);
        let mut summary = Self {
            reason: if pod_reason.is_empty() { phase } else { pod_reason }.to_owned(),
            total: place::items(pod, &["spec", "containers"]).len(),
            ..Self::default()
        };
        let gated = place::items(pod, &["status", "conditions"]).iter().any(|condition| {
            place::text(condition, &["type"]) == Some("PodScheduled")
                && place::text(condition, &["reason"]) == Some("SchedulingGated")
        });
        if gated {
            "SchedulingGated".clone_into(&mut summary.reason);
        }
        let initializing = summary.add_init_containers(pod);
        if !initializing || condition(pod, "Initialized") == Some("True") {
            summary.add_containers(pod);
        }
        if place::get(pod, &["metadata", "deletionTimestamp"]).is_some() {
            if pod_reason == "NodeLost" {
                "Unknown".clone_into(&mut summary.reason);
            } else if !matches!(phase, "Failed" | "Succeeded") {
                "Terminating".clone_into(&mut summary.reason);
            }
        }
        summary
    }

    fn add_restarts(&mut self, status: &Value) -> i64 {
        let finished = place::text(status, &["lastState", "terminated", "finishedAt"]).and_then(unix_seconds);
        self.last_restart = self.last_restart.max(finished);
        place::int(status, &["restartCount"]).unwrap_or(0)
    }

    /// Counts init containers; true while they have not all done their work.
    fn add_init_containers(&mut self, pod: &Value) -> bool {
        let containers = place::items(pod, &["spec", "initContainers"]);
        let is_sidecar = |name: &str| {
            let container = containers.iter().find(|container| place::text(container, &["name"]) == Some(name));
            container.is_some_and(|container| place::text(container, &["restartPolicy"]) == Some("Always"))
        };
        self.total += containers.iter().filter(|one| place::text(one, &["restartPolicy"]) == Some("Always")).count();
        let mut sidecar_restarts = 0;
        let mut initializing = false;
        for (index, status) in place::items(pod, &["status", "initContainerStatuses"]).iter().enumerate() {
            let restarts = self.add_restarts(status);
            let sidecar = is_sidecar(place::text_or_empty(status, &["name"]));
            self.restarts += restarts;
            if sidecar {
                sidecar_restarts += restarts;
            }
            let terminated = place::get(status, &["state", "terminated"]);
            if terminated.is_some_and(|state| place::int(state, &["exitCode"]).unwrap_or(0) == 0) {
                continue;
            }
            if sidecar && place::flag(status, &["started"]) {
                self.ready += usize::from(place::flag(status, &["ready"]));
                continue;
            }
            let waiting = place::text_or_empty(status, &["state", "waiting", "reason"]);
            self.reason = match terminated {
                Some(state) => format!("Init:{}", terminated_reason(state)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
                None => format!("Init:{index}/{}", containers.len()),
            };
            initializing = true;
            break;
        }
        if !initializing || condition(pod, "Initialized") == Some("True") {
            // Once the work is done only what goes on running counts.
            self.restarts = sidecar_restarts;
        }
        initializing
    }

    fn add_containers(&mut self, pod: &Value) {
        let mut running = false;
        // The first container's reason wins, so it is looked at last.
        for status in place::items(pod, &["status", "containerStatuses"]).iter().rev() {
            self.restarts += self.add_restarts(status);
            let waiting = place::text_or_empty(status, &["state", "waiting", "reason"]);
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if let Some(state) = place::get(status, &["state", "terminated"]) {
                self.reason = terminated_reason(state);
            } else if place::flag(status, &["ready"]) && place::get(status, &["state", "running"]).is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            let ready = condition(pod, "Ready") == Some("True");
            if ready { "Running" } else { "NotReady" }.clone_into(&mut self.reason);
        }
    }
}

fn terminated_reason(state: &Value) -> String {
    let reason = place::text_or_empty(state, &["reason"]);
    let signal = place::int(state, &["signal"]).unwrap_or(0);
    match (reason.is_empty(), signal) {
        (false, _) => reason.to_owned(),
        (true, 0) => format!("ExitCode:{}", place::int(state, &["exitCode"]).unwrap_or(0)),
        (true, signal) => format!("Signal:{signal}"),
    }
}
