//! The Quilt view of Pods and slots: the state word of a Pod, and what a report makes of a Pod's status. Pure; must
//! not know routes, transactions or who asks.

use serde_json::{Map, Value, json};

use crate::problem::Problem;
use crate::quilt::fields::clip;
use crate::quilt::marks;
use crate::quilt::refuse;
use crate::store::{Stored, object, text, unix_seconds};

/// A state of a placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlacementState {
    /// Not bound, or the agent is waiting.
    Pending,
    /// Bound; the agent has said nothing yet.
    Assigned,
    /// The agent is starting it.
    Starting,
    /// It runs.
    Running,
    /// It ended well.
    Stopped,
    /// It ended badly.
    Failed,
}

const WORDS: [&str; 6] = ["pending", "assigned", "starting", "running", "stopped", "failed"];

/// Reasons of a waiting container that mean it has failed and will be tried again.
const FAILING: [&str; 8] = [
    "CrashLoopBackOff",
    "Error",
    "RunContainerError",
    "CreateContainerError",
    "CreateContainerConfigError",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
];

impl PlacementState {
    /// Reads the word of a report.
    ///
    /// # Errors
    /// 400 for any other word.
    pub(crate) fn parse(word: &str) -> Result<Self, Problem> {
        Self::of_word(word).ok_or_else(|| {
            let message = format!("state must be one of {}", WORDS.join(", "));
            refuse::invalid("state", message, &WORDS, json!(clip(word)))
        })
    }

    fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "pending" => Self::Pending,
            "assigned" => Self::Assigned,
            "starting" => Self::Starting,
            "running" => Self::Running,
            "stopped" => Self::Stopped,
            "failed" => Self::Failed,
            _ => return None,
        })
    }

    /// The word.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// The word as a condition's reason.
    const fn reason(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Assigned => "Assigned",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Stopped => "Stopped",
            Self::Failed => "Failed",
        }
    }

    /// States that have one Pod phase, Pending, in common.
    const fn is_before_running(self) -> bool {
        matches!(self, Self::Pending | Self::Assigned | Self::Starting)
    }

    /// Whether it says that the containers have ended.
    pub(crate) const fn is_end(self) -> bool {
        matches!(self, Self::Stopped | Self::Failed)
    }

    /// The state of a Pod.
    pub(crate) fn of(pod: &Value) -> Self {
        if text(pod, "/spec/nodeName").is_empty() {
            return Self::Pending;
        }
        let conditions = pod.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
        let said = conditions.into_iter().find(|condition| condition["type"] == marks::PLACEMENT_STATE);
        let reported = said.and_then(|said| Self::of_word(&text(said, "/reason").to_ascii_lowercase()));
        match (Self::of_status(&pod["status"]), reported) {
            (derived, Some(reported)) if derived.is_before_running() && reported.is_before_running() => reported,
            (derived, _) => derived,
        }
    }

    fn of_status(status: &Value) -> Self {
        match text(status, "/phase") {
            "Succeeded" => return Self::Stopped,
            "Failed" => return Self::Failed,
            _ => {}
        }
        let containers: Vec<&Value> =
            status.pointer("/containerStatuses").and_then(Value::as_array).into_iter().flatten().collect();
        let code =
            |container: &Value| container.pointer("/state/terminated").map(|end| end["exitCode"].as_i64().unwrap_or(1));
        let waits =
            |container: &Value| container.pointer("/state/waiting").map(|wait| text(wait, "/reason").to_owned());
        let failing = |container: &&Value| {
            code(container).is_some_and(|code| code != 0)
                || waits(container).is_some_and(|reason| FAILING.contains(&reason.as_str()))
        };
        if containers.iter().any(failing) {
            return Self::Failed;
        }
        if text(status, "/phase") == "Running" {
            if !containers.is_empty() && containers.iter().all(|container| code(container) == Some(0)) {
                return Self::Stopped;
            }
            let waiting = containers.iter().any(|container| waits(container).is_some());
            return if waiting { Self::Starting } else { Self::Running };
        }
        let mut reasons = containers.iter().filter_map(|container| waits(container)).peekable();
        match reasons.peek().map(String::as_str) {
            None if containers.is_empty() => Self::Assigned,
            None | Some("ContainerCreating" | "PodInitializing") => Self::Starting,
            Some(_) => Self::Pending,
        }
    }
}

/// The last report's message, or why the placement waits or moved.
pub(crate) fn message(pod: &Value) -> Option<String> {
    let status = &pod["status"];
    let containers = status.pointer("/containerStatuses").and_then(Value::as_array).into_iter().flatten();
    let of_containers = containers
        .flat_map(|container| ["/state/waiting/message", "/state/terminated/message"].map(|at| text(container, at)))
        .find(|message| !message.is_empty());
    let own = Some(text(status, "/message")).filter(|message| !message.is_empty());
    if let Some(reported) = own.or(of_containers) {
        return Some(reported.to_owned());
    }
    let moved = pod.pointer("/metadata/annotations").and_then(|all| all[marks::MESSAGE].as_str());
    let found: Vec<&str> = [moved, unscheduled(status)].into_iter().flatten().filter(|text| !text.is_empty()).collect();
    (!found.is_empty()).then(|| found.join("; "))
}

/// Why no node takes the Pod.
fn unscheduled(status: &Value) -> Option<&str> {
    let conditions = status.pointer("/conditions").and_then(Value::as_array)?;
    let scheduled = conditions.iter().find(|condition| condition["type"] == "PodScheduled")?;
    (scheduled["status"] == "False").then(|| text(scheduled, "/message"))
}

/// Id of the first container, as reported.
pub(crate) fn container_id(pod: &Value) -> Option<&str> {
    let containers = pod.pointer("/status/containerStatuses")?.as_array()?;
    containers.iter().map(|container| text(container, "/containerID")).find(|id| !id.is_empty())
}

/// Unix seconds of the last change that a reader of the placement can see.
pub(crate) fn updated_at(pod: &Stored) -> u64 {
    let conditions = pod.value.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let containers = pod.value.pointer("/status/containerStatuses").and_then(Value::as_array).into_iter().flatten();
    let times =
        conditions.map(|condition| text(condition, "/lastTransitionTime")).chain(containers.flat_map(|container| {
            ["/state/running/startedAt", "/state/terminated/finishedAt"].map(|at| text(container, at))
        }));
    times.map(unix_seconds).chain([pod.created_at()]).max().unwrap_or(0)
}

/// A report about one Pod.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    /// The word.
    pub(crate) state: PlacementState,
    /// Its container, or as before.
    pub(crate) container_id: Option<&'a str>,
    /// Its message, or as before.
    pub(crate) message: Option<&'a str>,
    /// A whole status from an agent that runs Pods.
    pub(crate) pod_status: Option<&'a Map<String, Value>>,
}

/// The fields of a reported status that are taken.
const STATUS_FIELDS: [&str; 10] = [
    "conditions",
    "phase",
    "podIP",
    "podIPs",
    "hostIP",
    "startTime",
    "containerStatuses",
    "initContainerStatuses",
    "reason",
    "message",
];

impl Report<'_> {
    /// Whether state and status say the same.
    ///
    /// # Errors
    /// 400 naming both.
    pub(crate) fn check(&self) -> Result<(), Problem> {
        let Some(status) = self.pod_status else { return Ok(()) };
        for (field, right) in [
            ("conditions", Value::is_array as fn(&Value) -> bool),
            ("phase", Value::is_string),
            ("podIP", Value::is_string),
            ("podIPs", Value::is_array),
            ("hostIP", Value::is_string),
            ("startTime", Value::is_string),
            ("containerStatuses", Value::is_array),
            ("initContainerStatuses", Value::is_array),
            ("reason", Value::is_string),
            ("message", Value::is_string),
        ] {
            if let Some(value) = status.get(field).filter(|value| !value.is_null())
                && !right(value)
            {
                let message = format!("pod_status.{field} has the wrong type");
                return Err(refuse::invalid(&format!("pod_status.{field}"), message, &["a v1 PodStatus"], Value::Null));
            }
        }
        let phase = status.get("phase").and_then(Value::as_str).unwrap_or_default();
        if phase.is_empty() {
            return Ok(());
        }
        let derived = PlacementState::of_status(&Value::Object(status.clone()));
        let same = derived == self.state
            || (derived.is_before_running() && self.state.is_before_running())
            // Between two tries a container waits; the agent may call it by how the last try ended.
            || (self.state.is_end() && phase == "Running" && derived != PlacementState::Running);
        if same {
            return Ok(());
        }
        let message =
            format!("state '{}' does not agree with pod_status, which says '{}'", self.state.word(), derived.word());
        Err(refuse::invalid("state", message, &[derived.word()], json!(self.state.word())))
    }

    /// Changes the Pod as reported.
    pub(crate) fn apply(&self, pod: &mut Value, now: &str) {
        match self.pod_status {
            Some(status) if status.get("phase").is_some_and(Value::is_string) => self.take(pod, status),
            Some(status) => {
                self.make(pod, now);
                self.take(pod, status);
            }
            None => self.make(pod, now),
        }
        match self.message {
            // Null keeps the old message; an agent that has nothing to say any more sends an empty one.
            None => {}
            Some("") => drop(object(pod, "status").remove("message")),
            Some(message) => drop(object(pod, "status").insert("message".into(), json!(message))),
        }
        if let Some(id) = self.container_id {
            let name = text(pod, "/spec/containers/0/name").to_owned();
            let image = text(pod, "/spec/containers/0/image").to_owned();
            let statuses = object(pod, "status").entry("containerStatuses").or_insert_with(|| json!([]));
            if let Some(list) = statuses.as_array_mut() {
                if list.is_empty() {
                    list.push(json!({"name": name, "image": image, "imageID": "", "ready": false, "restartCount": 0,
                        "state": {"waiting": {"reason": "ContainerCreating"}}}));
                }
                list[0]["containerID"] = json!(id);
            }
        }
        // What else the status says may not tell which of the words before `running` was said; then the word is kept.
        let status = object(pod, "status");
        if let Some(conditions) = status.get_mut("conditions").and_then(Value::as_array_mut)
            && let Some(at) = conditions.iter().position(|condition| condition["type"] == marks::PLACEMENT_STATE)
            && conditions[at]["reason"] != self.state.reason()
        {
            conditions.remove(at);
        }
        if PlacementState::of(pod) != self.state {
            let said = json!({"type": marks::PLACEMENT_STATE, "status": "True", "reason": self.state.reason(), "lastTransitionTime": now});
            merge_conditions(object(pod, "status"), &json!([said]));
        }
    }

    fn take(&self, pod: &mut Value, reported: &Map<String, Value>) {
        let status = object(pod, "status");
        for field in STATUS_FIELDS {
            match reported.get(field) {
                Some(value) if !value.is_null() && field == "conditions" => merge_conditions(status, value),
                Some(value) if !value.is_null() => drop(status.insert(field.into(), value.clone())),
                _ => {}
            }
        }
    }

    /// The status the word stands for, for agents that know words only.
    fn make(&self, pod: &mut Value, now: &str) {
        let restarts = matches!(text(pod, "/spec/restartPolicy"), "" | "Always");
        let (phase, ready) = match self.state {
            PlacementState::Running => ("Running", true),
            PlacementState::Stopped if !restarts => ("Succeeded", false),
            PlacementState::Failed if !restarts => ("Failed", false),
            PlacementState::Stopped | PlacementState::Failed => ("Running", false),
            _ => ("Pending", false),
        };
        let said = self.message.unwrap_or_default();
        let started = text(pod, "/status/containerStatuses/0/state/running/startedAt").to_owned();
        let started = if started.is_empty() { now.to_owned() } else { started };
        let state = match self.state {
            PlacementState::Pending => json!({"waiting": {"reason": "AgentWaiting", "message": said}}),
            PlacementState::Assigned | PlacementState::Starting => {
                json!({"waiting": {"reason": "ContainerCreating", "message": said}})
            }
            PlacementState::Running => json!({"running": {"startedAt": started}}),
            PlacementState::Stopped => {
                json!({"terminated": {"exitCode": 0, "reason": "Completed", "message": said, "startedAt": started, "finishedAt": now}})
            }
            PlacementState::Failed if restarts => json!({"waiting": {"reason": "CrashLoopBackOff", "message": said}}),
            PlacementState::Failed => {
                json!({"terminated": {"exitCode": 1, "reason": "Error", "message": said, "startedAt": started, "finishedAt": now}})
            }
        };
        let containers: Vec<Value> =
            pod.pointer("/spec/containers").and_then(Value::as_array).cloned().unwrap_or_default();
        let old: Vec<Value> =
            pod.pointer("/status/containerStatuses").and_then(Value::as_array).cloned().unwrap_or_default();
        let statuses: Vec<Value> = containers
            .iter()
            .map(|container| {
                let old = old.iter().find(|old| old["name"] == container["name"]);
                let mut status = json!({"name": container["name"], "image": text(container, "/image"), "imageID": "",
                    "ready": ready, "started": ready,
                    "restartCount": old.and_then(|old| old["restartCount"].as_u64()).unwrap_or(0), "state": state});
                if let Some(id) = old.and_then(|old| old.get("containerID")) {
                    status["containerID"] = id.clone();
                }
                status
            })
            .collect();
        let met = if ready { "True" } else { "False" };
        let transition = |kind: &str| json!({"type": kind, "status": met, "lastTransitionTime": now});
        let initialized = if self.state.is_before_running() {
            None
        } else {
            Some(json!({"type": "Initialized", "status": "True", "lastTransitionTime": now}))
        };
        let conditions: Vec<Value> =
            initialized.into_iter().chain([transition("Ready"), transition("ContainersReady")]).collect();
        let status = object(pod, "status");
        status.insert("phase".into(), json!(phase));
        status.insert("containerStatuses".into(), json!(statuses));
        if !self.state.is_before_running() {
            status.entry("startTime").or_insert_with(|| json!(now));
        }
        merge_conditions(status, &json!(conditions));
    }
}

/// Puts `new` conditions over those of the same type, keeping others (PodScheduled is the scheduler's) and the time of
/// the last transition where the status is the same.
fn merge_conditions(status: &mut Map<String, Value>, new: &Value) {
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else { return };
    for condition in new.as_array().into_iter().flatten().filter(|condition| condition["type"].is_string()) {
        match list.iter_mut().find(|old| old["type"] == condition["type"]) {
            Some(old) => {
                let since = (old["status"] == condition["status"]).then(|| old["lastTransitionTime"].clone());
                *old = condition.clone();
                if let Some(since) = since.filter(Value::is_string) {
                    old["lastTransitionTime"] = since;
                }
            }
            None => list.push(condition.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(policy: &str) -> Value {
        json!({"metadata": {}, "spec": {"nodeName": "n", "restartPolicy": policy, "containers": [{"name": "main", "image": "i"}]},
               "status": {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}})
    }

    /// Every word an agent reports is the word a reader gets, whatever the restart policy; messages and ids last.
    #[test]
    fn words_round_trip() {
        for policy in ["Always", "OnFailure", "Never"] {
            for word in WORDS {
                let state = PlacementState::parse(word).expect("word");
                let mut pod = pod(policy);
                let report = Report { state, container_id: Some("ctr-1"), message: Some("m"), pod_status: None };
                report.apply(&mut pod, "2026-01-01T00:00:00Z");
                assert_eq!(PlacementState::of(&pod), state, "{word} under {policy}: {}", pod["status"]);
                assert_eq!(container_id(&pod), Some("ctr-1"));
                assert_eq!(message(&pod).as_deref(), Some("m"));
                let again = Report { state, container_id: None, message: None, pod_status: None };
                again.apply(&mut pod, "2026-01-01T00:00:09Z");
                assert_eq!(container_id(&pod), Some("ctr-1"), "{word}");
                assert_eq!(message(&pod).as_deref(), Some("m"), "{word}");
                assert_eq!(pod["status"]["conditions"][0]["type"], "PodScheduled");
            }
        }
        assert_eq!(PlacementState::of(&pod("Always")), PlacementState::Assigned);
        assert_eq!(PlacementState::of(&json!({"spec": {}})), PlacementState::Pending);
    }

    /// A status that contradicts the word is refused, one that leaves room is not.
    #[test]
    fn state_and_status_must_agree() {
        let check = |word: &str, status: Value| {
            let state = PlacementState::parse(word).expect("word");
            let status = status.as_object().cloned().expect("object");
            Report { state, container_id: None, message: None, pod_status: Some(&status) }.check().is_ok()
        };
        assert!(check("running", json!({"phase": "Running"})));
        assert!(check("starting", json!({"phase": "Pending"})));
        assert!(check("stopped", json!({"phase": "Succeeded"})));
        assert!(!check("stopped", json!({"phase": "Failed"})));
        assert!(!check("running", json!({"phase": "Pending"})));
        assert!(!check("failed", json!({"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]})));
        let crash =
            json!({"phase": "Running", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]});
        assert!(check("failed", crash));
        assert!(!check("running", json!({"phase": 3})));
    }
}
