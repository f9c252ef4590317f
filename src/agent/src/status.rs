//! What is seen of a pod, and how that reads as a v1 PodStatus and as a placement's state. Pure.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::pod::{Container, Pod, RestartPolicy};

/// One container as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) state: ContainerState,
    /// How the run before this one ended.
    pub(crate) last: Option<Ended>,
    pub(crate) restart_count: u32,
    pub(crate) started: bool,
    pub(crate) ready: bool,
    pub(crate) container_id: Option<String>,
}

impl Report {
    /// Whether the placement's word says that its containers have ended.
    pub(crate) fn says_ended(&self) -> bool {
        matches!(self.state, "stopped" | "failed")
    }
}

impl ContainerRecord {
    pub(crate) fn waiting(container: &Container, reason: &str) -> Self {
        Self {
            name: container.name.clone(),
            image: container.image.clone(),
            state: ContainerState::Waiting { reason: reason.to_owned(), message: None },
            last: None,
            restart_count: 0,
            started: false,
            ready: false,
            container_id: None,
        }
    }

    /// How it ended, now or before the pause it is in.
    fn end(&self) -> Option<&Ended> {
        match &self.state {
            ContainerState::Terminated(ended) => Some(ended),
            ContainerState::Waiting { .. } => self.last.as_ref(),
            ContainerState::Running { .. } => None,
        }
    }
}

/// What a container is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ContainerState {
    Waiting { reason: String, message: Option<String> },
    Running { started_at: String, process: Option<ProcessRecord> },
    Terminated(Ended),
}

/// A process, told apart from later ones of the same pid by its start time and the boot it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessRecord {
    pub(crate) pid: i32,
    pub(crate) start_ticks: u64,
    pub(crate) boot_id: String,
    /// Who waits for its end and writes it down.
    #[serde(default)]
    pub(crate) keeper: Option<KeeperRecord>,
}

/// The keeper of a container, of the same boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeeperRecord {
    pub(crate) pid: i32,
    pub(crate) start_ticks: u64,
}

/// The end of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) exit_code: i32,
    pub(crate) signal: Option<i32>,
    pub(crate) reason: String,
    pub(crate) message: Option<String>,
    pub(crate) started_at: String,
    pub(crate) finished_at: String,
    pub(crate) container_id: Option<String>,
}

/// Whether a pod is still to be kept going.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Progress {
    /// It runs, or will.
    #[default]
    Going,
    /// Its containers have ended for good by themselves.
    Done,
    /// It was told to end and nothing of it is left.
    Stopped,
}

/// All that is seen of a pod.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Observation {
    pub(crate) init: Vec<ContainerRecord>,
    pub(crate) containers: Vec<ContainerRecord>,
    pub(crate) started_at: String,
    pub(crate) progress: Progress,
}

/// What is reported of a placement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Report {
    pub(crate) state: &'static str,
    pub(crate) container_id: Option<String>,
    pub(crate) message: String,
    pub(crate) pod_status: Value,
}

/// The report of what is seen now. `now` stamps conditions that have changed since `before`.
pub(crate) fn report(pod: &Pod, seen: &Observation, node: IpAddr, before: &[Value], now: &str) -> Report {
    let phase = phase(pod, seen);
    let initialized = is_initialized(pod, seen);
    let all_ready = seen.containers.iter().all(|container| container.ready);
    let ready = phase == "Running" && initialized && all_ready && seen.progress == Progress::Going;
    let not_ready_reason = match phase {
        "Succeeded" => "PodCompleted",
        "Failed" => "PodFailed",
        _ => "ContainersNotReady",
    };
    let gates_are_open = pod.gates_are_open();
    let gated_reason = if ready { "ReadinessGatesNotReady" } else { not_ready_reason };
    let conditions = [
        ("Initialized", initialized, "ContainersNotInitialized"),
        ("ContainersReady", ready, not_ready_reason),
        ("Ready", ready && gates_are_open, gated_reason),
    ]
    .map(|(kind, holds, reason)| condition(kind, holds, reason, before, now));
    let mut status = json!({
        "phase": phase,
        "conditions": conditions,
        "hostIP": node.to_string(),
        "podIP": node.to_string(),
        "podIPs": [{"ip": node.to_string()}],
        "startTime": seen.started_at,
        "containerStatuses": seen.containers.iter().map(container_status).collect::<Vec<_>>(),
    });
    let message = message(seen);
    // Said even when there is nothing to say: that ends what was said before, which an absent message would not.
    status["message"] = json!(message);
    if !seen.init.is_empty() {
        status["initContainerStatuses"] = seen.init.iter().map(container_status).collect();
    }
    Report {
        state: state(phase, seen),
        container_id: seen.containers.first().and_then(|container| container.container_id.clone()),
        message,
        pod_status: status,
    }
}

/// As a kubelet decides it: what has not run yet makes a Pod Pending, what runs makes it Running, and only what will not be started again
/// makes it Succeeded or Failed.
fn phase(pod: &Pod, seen: &Observation) -> &'static str {
    let failed = |record: &ContainerRecord| record.end().is_none_or(|end| end.exit_code != 0);
    if seen.progress == Progress::Stopped {
        return if seen.containers.iter().any(failed) { "Failed" } else { "Succeeded" };
    }
    if !is_initialized(pod, seen) {
        let init_failed = pod.spec.restart_policy == RestartPolicy::Never
            && seen.progress == Progress::Done
            && seen
                .init
                .iter()
                .any(|record| matches!(&record.state, ContainerState::Terminated(end) if end.exit_code != 0));
        return if init_failed { "Failed" } else { "Pending" };
    }
    let mut ended = 0;
    for record in &seen.containers {
        match record.state {
            ContainerState::Running { .. } => {}
            ContainerState::Terminated(_) => ended += 1,
            ContainerState::Waiting { .. } if record.last.is_some() => ended += 1,
            ContainerState::Waiting { .. } => return "Pending",
        }
    }
    if ended < seen.containers.len() {
        return "Running";
    }
    match pod.spec.restart_policy {
        RestartPolicy::Always => "Running",
        _ if !seen.containers.iter().any(failed) => "Succeeded",
        RestartPolicy::Never => "Failed",
        RestartPolicy::OnFailure => "Running",
    }
}

/// Reasons for which a container waits after something went wrong, rather than because its turn has not come.
const FAILING: [&str; 3] = ["CrashLoopBackOff", "CreateContainerError", "CreateContainerConfigError"];

/// The placement's word for it. A container between two restarts is `failed` or `stopped` by how it ended last; one that waits for the host
/// to be able to run it is `pending`.
fn state(phase: &str, seen: &Observation) -> &'static str {
    let containers = &seen.containers;
    let waits_failing = |record: &ContainerRecord| matches!(&record.state, ContainerState::Waiting { reason, .. } if FAILING.contains(&reason.as_str()));
    let ended_badly =
        |record: &ContainerRecord| matches!(&record.state, ContainerState::Terminated(end) if end.exit_code != 0);
    let ended_well = |record: &ContainerRecord| {
        !matches!(record.state, ContainerState::Running { .. }) && record.end().is_some_and(|end| end.exit_code == 0)
    };
    match phase {
        "Succeeded" => "stopped",
        "Failed" => "failed",
        "Running" if containers.iter().all(ended_well) => "stopped",
        _ if containers.iter().any(|record| waits_failing(record) || ended_badly(record)) => "failed",
        "Running" if containers.iter().any(|record| matches!(record.state, ContainerState::Waiting { .. })) => {
            "starting"
        }
        "Running" => "running",
        _ => {
            let creating = |reason: &str| reason == "ContainerCreating" || reason == "PodInitializing";
            let waits_for_host = |record: &ContainerRecord| matches!(&record.state, ContainerState::Waiting { reason, .. } if !creating(reason));
            if seen.init.iter().chain(containers).any(waits_for_host) { "pending" } else { "starting" }
        }
    }
}

fn is_initialized(pod: &Pod, seen: &Observation) -> bool {
    pod.spec.init_containers.iter().zip(&seen.init).all(|(container, record)| {
        if Pod::is_sidecar(container) {
            record.started
        } else {
            matches!(&record.state, ContainerState::Terminated(end) if end.exit_code == 0)
        }
    })
}

fn condition(kind: &str, holds: bool, reason: &str, before: &[Value], now: &str) -> Value {
    let status = if holds { "True" } else { "False" };
    let since = before
        .iter()
        .find(|old| old["type"] == kind && old["status"] == status)
        .and_then(|old| old["lastTransitionTime"].as_str())
        .unwrap_or(now);
    let mut condition = json!({"type": kind, "status": status, "lastTransitionTime": since});
    if !holds {
        condition["reason"] = json!(reason);
    }
    condition
}

fn container_status(record: &ContainerRecord) -> Value {
    let state = match &record.state {
        ContainerState::Waiting { reason, message } => {
            let mut waiting = json!({"reason": reason});
            if let Some(message) = message {
                waiting["message"] = json!(message);
            }
            json!({"waiting": waiting})
        }
        ContainerState::Running { started_at, .. } => {
            json!({"running": {"startedAt": started_at}})
        }
        ContainerState::Terminated(ended) => json!({"terminated": ended_status(ended)}),
    };
    let mut status = json!({
        "name": record.name,
        "image": record.image,
        "imageID": "",
        "ready": record.ready,
        "started": record.started,
        "restartCount": record.restart_count,
        "state": state,
        "lastState": {},
    });
    if let Some(last) = &record.last {
        status["lastState"] = json!({"terminated": ended_status(last)});
    }
    if let Some(id) = &record.container_id {
        status["containerID"] = json!(id);
    }
    status
}

fn ended_status(ended: &Ended) -> Value {
    let mut status = json!({
        "exitCode": ended.exit_code,
        "reason": ended.reason,
        "startedAt": ended.started_at,
        "finishedAt": ended.finished_at,
    });
    if let Some(signal) = ended.signal {
        status["signal"] = json!(signal);
    }
    if let Some(message) = &ended.message {
        status["message"] = json!(message);
    }
    if let Some(id) = &ended.container_id {
        status["containerID"] = json!(id);
    }
    status
}

/// The first thing worth telling; empty when all is well, which clears what was said before.
fn message(seen: &Observation) -> String {
    for record in seen.init.iter().chain(&seen.containers) {
        match &record.state {
            ContainerState::Waiting { reason, message }
                if reason != "PodInitializing" && reason != "ContainerCreating" =>
            {
                return match message {
                    Some(message) => format!("container \"{}\": {reason}: {message}", record.name),
                    None => format!("container \"{}\": {reason}", record.name),
                };
            }
            ContainerState::Terminated(ended) if ended.exit_code != 0 => {
                let detail = ended.message.as_deref().unwrap_or(&ended.reason);
                return format!("container \"{}\" ended with exit code {}: {detail}", record.name, ended.exit_code);
            }
            _ => {}
        }
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use serde_json::json;

    use super::{ContainerRecord, ContainerState, Ended, Observation, Progress, report};
    use crate::pod::Pod;

    const NODE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn pod(policy: &str) -> Pod {
        Pod::parse(&json!({
            "metadata": {"namespace": "default", "name": "web", "uid": "u-1"},
            "spec": {"restartPolicy": policy, "containers": [{"name": "main", "image": "i"}]},
        }))
        .expect("a pod")
    }

    fn ended(exit_code: i32) -> Ended {
        Ended {
            exit_code,
            signal: None,
            reason: "Error".into(),
            message: None,
            started_at: "2026-01-08T10:00:00Z".into(),
            finished_at: "2026-01-08T10:00:01Z".into(),
            container_id: None,
        }
    }

    fn check(policy: &str, state: ContainerState, last: Option<Ended>, expect: (&str, &str)) {
        let pod = pod(policy);
        let mut record = ContainerRecord::waiting(&pod.spec.containers[0], "ContainerCreating");
        record.ready = matches!(state, ContainerState::Running { .. });
        record.state = state;
        record.last = last;
        let seen = Observation { containers: vec![record], progress: Progress::Going, ..Observation::default() };
        let report = report(&pod, &seen, NODE, &[], "2026-01-08T10:00:02Z");
        let phase = report.pod_status["phase"].as_str().expect("a phase");
        assert_eq!((phase, report.state), expect, "{policy}");
    }

    /// Phase and placement state agree with each other for each way a container can stand, by restart policy.
    #[test]
    fn phase_and_state_follow_the_containers() {
        let waiting = |reason: &str| ContainerState::Waiting { reason: reason.into(), message: None };
        let running = ContainerState::Running { started_at: "2026-01-08T10:00:00Z".into(), process: None };
        check("Always", waiting("ContainerCreating"), None, ("Pending", "starting"));
        check("Always", waiting("ImageNotRunnable"), None, ("Pending", "pending"));
        check("Always", waiting("CreateContainerConfigError"), None, ("Pending", "failed"));
        check("Always", running, Some(ended(1)), ("Running", "running"));
        check("Always", waiting("CrashLoopBackOff"), Some(ended(1)), ("Running", "failed"));
        check("Always", waiting("CrashLoopBackOff"), Some(ended(0)), ("Running", "stopped"));
        check("Never", ContainerState::Terminated(ended(0)), None, ("Succeeded", "stopped"));
        check("Never", ContainerState::Terminated(ended(3)), None, ("Failed", "failed"));
        check("OnFailure", ContainerState::Terminated(ended(0)), None, ("Succeeded", "stopped"));
        check("OnFailure", waiting("CrashLoopBackOff"), Some(ended(3)), ("Running", "failed"));
    }

    /// Behind its readiness gates a Pod is ready when its containers are and every gate's condition is true; one that is
    /// missing is not.
    #[test]
    fn readiness_waits_for_its_gates() {
        let gates = json!([{"conditionType": "example.com/lb"}, {"conditionType": "example.com/dns"}]);
        let open = |kind: &str| json!({"type": kind, "status": "True"});
        let closed = |kind: &str| json!({"type": kind, "status": "False"});
        let (lb, dns) = ("example.com/lb", "example.com/dns");
        for (containers, conditions, expected) in [
            (true, json!([]), ("True", "False", json!("ReadinessGatesNotReady"))),
            (true, json!([open(lb)]), ("True", "False", json!("ReadinessGatesNotReady"))),
            (true, json!([open(lb), closed(dns)]), ("True", "False", json!("ReadinessGatesNotReady"))),
            (true, json!([open(lb), open(dns)]), ("True", "True", json!(null))),
            (false, json!([open(lb), open(dns)]), ("False", "False", json!("ContainersNotReady"))),
        ] {
            let pod = Pod::parse(&json!({
                "metadata": {"namespace": "default", "name": "web", "uid": "u-1"},
                "spec": {"readinessGates": gates, "containers": [{"name": "main", "image": "i"}]},
                "status": {"conditions": conditions},
            }))
            .expect("a pod");
            let mut record = ContainerRecord::waiting(&pod.spec.containers[0], "ContainerCreating");
            record.ready = containers;
            record.state = ContainerState::Running { started_at: "2026-01-08T10:00:00Z".into(), process: None };
            let seen = Observation { containers: vec![record], ..Observation::default() };
            let said = report(&pod, &seen, NODE, &[], "2026-01-08T10:00:02Z").pod_status;
            let of = |kind: &str| {
                let all = said["conditions"].as_array().expect("a list").iter();
                all.clone().find(|condition| condition["type"] == kind).expect("there").clone()
            };
            let (all, ready) = (of("ContainersReady"), of("Ready"));
            let status = |condition: &serde_json::Value| condition["status"].as_str().expect("a word").to_owned();
            assert_eq!((status(&all).as_str(), status(&ready).as_str(), ready["reason"].clone()), expected, "{said}");
        }
    }

    /// A condition keeps its time for as long as its status stays the same.
    #[test]
    fn conditions_keep_their_time() {
        let pod = pod("Always");
        let seen = Observation {
            containers: vec![ContainerRecord::waiting(&pod.spec.containers[0], "ContainerCreating")],
            ..Observation::default()
        };
        let first = report(&pod, &seen, NODE, &[], "2026-01-08T10:00:00Z");
        let before = first.pod_status["conditions"].as_array().expect("a list").clone();
        let second = report(&pod, &seen, NODE, &before, "2026-01-08T11:00:00Z");
        assert_eq!(first.pod_status, second.pod_status);
    }
}
