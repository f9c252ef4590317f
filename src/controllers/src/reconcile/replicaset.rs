//! `ReplicaSets`: keep as many Pods as asked for, adopt matching orphans, release Pods that no longer match.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use quilt_objects::select::LabelSelector;
use quilt_proto::Key;
use serde_json::{Value, json};

use crate::ending::end_pod;
use crate::fields;
use crate::moment::Moment;
use crate::object::{Labels, Object, Phase, label_selector};
use crate::plan::{About, NoticeKind, Plan};
use crate::pods;
use crate::view::{LoadError, Occasion, View};

/// One look at the `ReplicaSet` at `key`.
///
/// # Errors
/// State could not be read.
pub fn reconcile(view: &View<'_>, key: &Key, at: &mut Occasion) -> Result<Plan, LoadError> {
    let mut plan = Plan::nothing();
    let Some(mut set) = view.load(key)? else { return Ok(plan) };
    let seen = view.cluster.get(key).is_some_and(|object| object.revision == set.revision);
    if !seen || set.value.pointer("/metadata/deletionTimestamp").is_some() {
        return Ok(plan);
    }
    let uid = fields::text(&set.value, "/metadata/uid").to_owned();
    let Some(selector) = label_selector(set.value.pointer("/spec/selector")) else { return Ok(plan) };
    let owner = pods::controlled_by("apps/v1", "ReplicaSet", &set.value);
    let about = About::of("apps/v1", "ReplicaSet", &set.value);

    let claimed = claim(&mut plan, view, key, &uid, &selector, &owner)?;
    let mut active: Vec<Arc<Object>> = claimed.into_iter().filter(|pod| pod.is_active_pod()).collect();
    let status = status(view, &set.value, &active, at.now, &mut plan);

    let desired = usize::try_from(fields::int(&set.value, "/spec/replicas").unwrap_or(1)).unwrap_or_default();
    if active.len() < desired {
        let template = set.value.pointer("/spec/template").cloned().unwrap_or_default();
        let parts = key.parts();
        for _ in active.len()..desired {
            if plan.is_full() {
                break;
            }
            let name = generated_name(parts.name, at);
            let pod = pods::from_template(&template, parts.namespace, &name, &owner, view.settings, at);
            let Some(pod_key) = view.cluster.key("", "pods", parts.namespace, &name) else { break };
            plan.create(pod_key, pod);
            plan.tell(about.clone(), NoticeKind::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
        }
    } else if active.len() > desired {
        let siblings = crowding(&active);
        active.sort_by_key(|pod| deletion_rank(view, pod, &siblings));
        for pod in active.iter().take(active.len() - desired) {
            if plan.is_full() {
                break;
            }
            end_pod(&mut plan, view, pod, at.now)?;
            plan.tell(about.clone(), NoticeKind::Normal, "SuccessfulDelete", format!("Deleted pod: {}", pod.name()));
        }
    }

    if set.value.get("status") == Some(&status) && !plan.makes_something() {
        if !plan.writes.is_empty() {
            plan.rely_on(key, set.revision);
        }
    } else {
        fields::set(&mut set.value, &["status"], status);
        plan.update(set);
    }
    Ok(plan)
}

/// `name` with a generated ending, within the length of a Pod's name.
fn generated_name(name: &str, at: &mut Occasion) -> String {
    format!("{}-{}", &name[..name.floor_char_boundary(57)], at.entropy.suffix())
}

/// The Pods of the set: its own that still match, and orphans that do, which it adopts.
fn claim(
    plan: &mut Plan,
    view: &View<'_>,
    key: &Key,
    uid: &str,
    selector: &LabelSelector,
    owner: &Value,
) -> Result<Vec<Arc<Object>>, LoadError> {
    let mut claimed = Vec::new();
    for pod in view.cluster.pods_of(uid) {
        if selector.matches_labels(&pod.labels) {
            claimed.push(Arc::clone(pod));
        } else if pod.deletion.is_none()
            && let Some(mut loaded) = view.load_seen(pod)?
        {
            let owners = fields::list_mut(&mut loaded.value, &["metadata", "ownerReferences"]);
            owners.retain(|owner| fields::text(owner, "/uid") != uid);
            plan.update(loaded);
        }
    }
    for pod in view.cluster.pods_matching(key.parts().namespace, selector) {
        if pod.controller().is_none()
            && pod.is_active_pod()
            && let Some(mut loaded) = view.load_seen(pod)?
        {
            fields::list_mut(&mut loaded.value, &["metadata", "ownerReferences"]).push(owner.clone());
            plan.update(loaded);
            claimed.push(Arc::clone(pod));
        }
    }
    Ok(claimed)
}

/// How many of the set's Pods share each node.
fn crowding(pods: &[Arc<Object>]) -> HashMap<String, usize> {
    let mut nodes: HashMap<String, usize> = HashMap::new();
    for facts in pods.iter().filter_map(|pod| pod.pod()) {
        *nodes.entry(facts.node.clone()).or_default() += 1;
    }
    nodes
}

type Rank = (bool, Phase, bool, i64, Reverse<usize>, Reverse<Moment>, Reverse<u64>, Reverse<Moment>, Key);

/// Order in which surplus Pods go, first the least useful: unbound, pending, not ready, cheap by annotation, crowded
/// together, ready for the shortest time, often restarted, youngest.
fn deletion_rank(view: &View<'_>, pod: &Object, crowding: &HashMap<String, usize>) -> Rank {
    let facts = pod.pod().cloned().unwrap_or_default();
    let cost = pod.annotation("controller.kubernetes.io/pod-deletion-cost").and_then(|cost| cost.parse().ok());
    (
        !facts.node.is_empty(),
        facts.phase,
        view.is_ready(pod),
        cost.unwrap_or_default(),
        Reverse(crowding.get(&facts.node).copied().unwrap_or_default()),
        Reverse(facts.ready_since.unwrap_or_default()),
        Reverse(facts.restarts),
        Reverse(pod.created),
        pod.key.clone(),
    )
}

/// The set's status as the view shows it.
fn status(view: &View<'_>, set: &Value, active: &[Arc<Object>], now: Moment, plan: &mut Plan) -> Value {
    let wait = u64::try_from(fields::int(set, "/spec/minReadySeconds").unwrap_or_default()).unwrap_or_default();
    let template: Labels = fields::map(set, "/spec/template/metadata/labels")
        .map(|labels| {
            labels.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
        })
        .unwrap_or_default();
    let labelled = |pod: &Object| template.iter().all(|(name, value)| pod.labels.get(name) == Some(value));
    let (mut ready, mut available) = (0, 0);
    for pod in active.iter().filter(|pod| view.is_ready(pod)) {
        ready += 1;
        let since = pod.pod().and_then(|facts| facts.ready_since).unwrap_or_default();
        if wait == 0 || since.plus_secs(wait) <= now {
            available += 1;
        } else {
            plan.look_again(since.plus_secs(wait));
        }
    }
    let mut status = json!({ "replicas": active.len() });
    let counts = [
        ("fullyLabeledReplicas", active.iter().filter(|pod| labelled(pod)).count()),
        ("readyReplicas", ready),
        ("availableReplicas", available),
    ];
    for (name, count) in counts {
        if count > 0 {
            fields::set(&mut status, &[name], json!(count));
        }
    }
    fields::set_or_remove(&mut status, &["observedGeneration"], set.pointer("/metadata/generation").cloned());
    fields::set_or_remove(&mut status, &["conditions"], set.pointer("/status/conditions").cloned());
    if status["conditions"].is_null() {
        fields::remove(&mut status, &["conditions"]);
    }
    status
}
