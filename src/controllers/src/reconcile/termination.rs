//! Pods that nobody will end: on nodes that are gone, on nodes that have gone silent, and on nodes whose agent leaves
//! the end of deleted Pods to the control plane.

use quilt_proto::Key;

use crate::annotations::{AGENT, POD_AGENT};
use crate::object::{Object, Phase};
use crate::plan::{NoticeKind, Plan};
use crate::view::{LoadError, Occasion, Urgency, View};

/// One look at the Pod at `key`.
///
/// # Errors
/// State could not be read.
pub fn reconcile(view: &View<'_>, key: &Key, at: &mut Occasion) -> Result<Plan, LoadError> {
    let mut plan = Plan::nothing();
    let Some(pod) = view.cluster.get(key) else { return Ok(plan) };
    let Some(facts) = pod.pod() else { return Ok(plan) };
    if !pod.finalizers.is_empty() {
        return Ok(plan);
    }
    if facts.node.is_empty() {
        if pod.deletion.is_some() {
            plan.delete(key, pod.revision);
        }
        return Ok(plan);
    }
    let Some(node) = view.cluster.node(&facts.node) else {
        // A Workload's controller moves its slot and says why.
        if pod.deletion.is_some() || !is_kept_by_workload(view, pod) {
            plan.delete(key, pod.revision);
            let message = format!("Node {} is gone", facts.node);
            plan.tell(pod.about(), NoticeKind::Warning, "NodeGone", message);
        }
        return Ok(plan);
    };
    let Some(deletion) = pod.deletion else { return Ok(plan) };
    if facts.phase >= Phase::Succeeded && node.labels.contains_key(AGENT) {
        plan.delete(key, pod.revision);
        return Ok(plan);
    }
    if let Some(since) = node.node().and_then(|node| node.away_since) {
        // Nobody is there to report the Pod's end.
        let due = since.plus_secs(view.settings.placement_grace_secs).max(deletion);
        if due <= at.now || view.urgency == Urgency::Now {
            plan.delete(key, pod.revision);
            return Ok(plan);
        }
        plan.look_again(due);
    }
    let ends_pods = node.annotation(POD_AGENT) == Some("true");
    if node.labels.contains_key(AGENT) && !ends_pods {
        if deletion <= at.now {
            plan.delete(key, pod.revision);
        } else {
            plan.look_again(deletion);
        }
    }
    Ok(plan)
}

/// Whether a Workload that lives owns the Pod.
#[must_use]
pub fn is_kept_by_workload(view: &View<'_>, pod: &Object) -> bool {
    let Some(owner) = pod.controller().filter(|owner| owner.kind == "Workload") else { return false };
    let key = view.cluster.key("quilt.sh", "workloads", pod.namespace(), &owner.name);
    key.and_then(|key| view.cluster.get(&key))
        .is_some_and(|workload| workload.uid == owner.uid && workload.deletion.is_none())
}
