//! Life of nodes: silence makes a node not ready, taints follow its state, its Pods leave after their grace, and a
//! draining node is emptied.
//!
//! Slots of Workloads are not touched here: their controller moves them.

use quilt_proto::Key;
use serde_json::{Value, json};

use crate::annotations::AGENT;
use crate::ending::end_pod;
use crate::fields;
use crate::object::{
    Object, Phase, Ready, Stay, TAINT_DRAINING, TAINT_NOT_READY, TAINT_UNREACHABLE, TAINT_UNSCHEDULABLE,
};
use crate::plan::{About, NoticeKind, Plan};
use crate::reconcile::disruption;
use crate::reconcile::termination::is_kept_by_workload;
use crate::view::{LoadError, Loaded, Occasion, Urgency, View};

/// How long an eviction that a disruption budget forbids waits for its next try.
const EVICTION_RETRY_SECS: u64 = 5;

/// One look at the Node at `key`.
///
/// # Errors
/// State could not be read.
pub fn reconcile(view: &View<'_>, key: &Key, at: &mut Occasion) -> Result<Plan, LoadError> {
    let mut plan = Plan::nothing();
    let Some(object) = view.cluster.get(key) else { return Ok(plan) };
    let Some(mut node) = view.load_seen(object)? else { return Ok(plan) };
    let before = node.value.clone();
    watch_silence(&mut plan, view, &mut node, at);
    let ready = readiness(&node.value);
    sync_taints(&mut node.value, ready, at);
    if node.value != before {
        // Pods leave once the taint, and with it the start of their grace, is on record.
        plan.update(node);
        return Ok(plan);
    }
    let Some(facts) = object.node() else { return Ok(plan) };
    if facts.draining {
        drain(&mut plan, view, object, at)?;
    } else if let Some(since) = facts.away_since {
        evict_after_grace(&mut plan, view, object, since, at)?;
    }
    Ok(plan)
}

/// Counts silence from the later of the last heartbeat and the start of this leadership.
fn watch_silence(plan: &mut Plan, view: &View<'_>, node: &mut Loaded, at: &Occasion) {
    let name = fields::text(&node.value, "/metadata/name").to_owned();
    let Some(since_ms) = view.heartbeats.silent_since(view.cluster.id(), &name) else { return };
    let timeout_ms = view.settings.node_timeout_secs * 1000;
    let silent_ms = at.cluster_ms.saturating_sub(since_ms);
    if silent_ms < timeout_ms {
        plan.look_again(crate::moment::Moment(at.now.0 + timeout_ms - silent_ms));
        return;
    }
    if readiness(&node.value) == Ready::Unknown {
        return;
    }
    let seconds = silent_ms / 1000;
    let message = format!("No heartbeat for {seconds} s.");
    fields::set_condition(&mut node.value, "Ready", "Unknown", "NodeStatusUnknown", &message, &at.now.rfc3339());
    let about = About::of("v1", "Node", &node.value);
    plan.tell(about, NoticeKind::Warning, "NodeNotReady", format!("Node {name} has sent no heartbeat for {seconds} s"));
}

fn readiness(node: &Value) -> Ready {
    let condition = fields::condition(node, "Ready");
    match condition.map(|ready| (fields::text(ready, "/status"), fields::text(ready, "/reason"))) {
        Some(("True", _)) => Ready::Yes,
        Some(("False", "NodeRegistered")) => Ready::Registered,
        Some(("False", _)) => Ready::No,
        _ => Ready::Unknown,
    }
}

/// Sets the taints that follow from the node's state and leaves all others alone.
fn sync_taints(node: &mut Value, ready: Ready, at: &Occasion) {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match ready {
        Ready::Yes => {}
        Ready::Registered => wanted.push((TAINT_NOT_READY, "NoSchedule")),
        Ready::No => wanted.extend([(TAINT_NOT_READY, "NoSchedule"), (TAINT_NOT_READY, "NoExecute")]),
        Ready::Unknown => wanted.extend([(TAINT_UNREACHABLE, "NoSchedule"), (TAINT_UNREACHABLE, "NoExecute")]),
    }
    let cordoned = fields::is_true(node, "/spec/unschedulable");
    if cordoned {
        wanted.push((TAINT_UNSCHEDULABLE, "NoSchedule"));
    }
    let before = fields::list(node, "/spec/taints").to_vec();
    let mut taints = before.clone();
    // When the kind of absence changes (silent, then reported), the grace goes on from its start.
    let away_since = before.iter().find_map(|taint| {
        let away = [TAINT_NOT_READY, TAINT_UNREACHABLE].contains(&fields::text(taint, "/key"));
        (away && fields::text(taint, "/effect") == "NoExecute").then(|| fields::text(taint, "/timeAdded").to_owned())
    });
    taints.retain(|taint| {
        let (key, effect) = (fields::text(taint, "/key"), fields::text(taint, "/effect"));
        let ours = [TAINT_NOT_READY, TAINT_UNREACHABLE, TAINT_UNSCHEDULABLE].contains(&key);
        // Uncordoning through the Kubernetes API ends draining.
        let drained = key == TAINT_DRAINING && !cordoned;
        !drained && (!ours || wanted.contains(&(key, effect)))
    });
    for (key, effect) in wanted {
        let there =
            taints.iter().any(|taint| fields::text(taint, "/key") == key && fields::text(taint, "/effect") == effect);
        if !there {
            let since = away_since.clone().filter(|since| effect == "NoExecute" && !since.is_empty());
            let since = since.unwrap_or_else(|| at.now.rfc3339());
            taints.push(json!({ "key": key, "effect": effect, "timeAdded": since }));
        }
    }
    if taints != before {
        fields::set_or_remove(node, &["spec", "taints"], (!taints.is_empty()).then(|| taints.into()));
        let generation = fields::int(node, "/metadata/generation");
        if let Some(generation) = generation {
            fields::set(node, &["metadata", "generation"], generation + 1);
        }
    }
}

/// Whether evicting the Pod is somebody else's business, or pointless.
fn stays(view: &View<'_>, pod: &Object) -> bool {
    let ended = pod.pod().is_none_or(|facts| facts.phase >= Phase::Succeeded);
    let daemon = pod.controller().is_some_and(|owner| owner.kind == "DaemonSet");
    let mirror = pod.controller().is_some_and(|owner| owner.kind == "Node");
    pod.deletion.is_some() || ended || daemon || mirror || is_kept_by_workload(view, pod)
}

/// Empties a draining node, as fast as disruption budgets allow.
fn drain(plan: &mut Plan, view: &View<'_>, node: &Object, at: &Occasion) -> Result<(), LoadError> {
    let mut budgets = disruption::Budgets::new(view);
    for pod in view.cluster.on_node(node.name()).filter(|pod| !stays(view, pod)) {
        if plan.is_full() {
            break;
        }
        if budgets.take(pod)? {
            end_pod(plan, view, pod, at.now)?;
            let message = format!("Node {} is draining", node.name());
            plan.tell(pod.about(), NoticeKind::Normal, "Killing", message);
        } else {
            plan.look_again(at.now.plus_secs(EVICTION_RETRY_SECS));
        }
    }
    Ok(())
}

/// Pods leave a node that is away when their time on it is over.
fn evict_after_grace(
    plan: &mut Plan,
    view: &View<'_>,
    node: &Object,
    since: crate::moment::Moment,
    at: &Occasion,
) -> Result<(), LoadError> {
    let unreachable = node.node().is_some_and(|facts| facts.ready == Ready::Unknown);
    for pod in view.cluster.on_node(node.name()).filter(|pod| !stays(view, pod)) {
        let Some(facts) = pod.pod() else { continue };
        let stay = if unreachable { facts.on_unreachable } else { facts.on_not_ready };
        let grace = match stay {
            Stay::Forever => continue,
            Stay::Secs(seconds) => seconds,
            Stay::Unsaid => view.settings.placement_grace_secs,
        };
        let due = since.plus_secs(grace);
        if due > at.now && view.urgency == Urgency::Usual {
            plan.look_again(due);
            continue;
        }
        if plan.is_full() {
            break;
        }
        let message = format!("Node {} is not ready", node.name());
        plan.tell(pod.about(), NoticeKind::Warning, "NodeLost", message);
        if unreachable && node.labels.contains_key(AGENT) && pod.finalizers.is_empty() {
            // Nobody is there to end it, and the agent ends what is no longer in its list when it comes back.
            plan.delete(&pod.key, pod.revision);
        } else {
            end_pod(plan, view, pod, at.now)?;
        }
    }
    Ok(())
}
