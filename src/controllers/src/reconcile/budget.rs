//! Disruption budgets: how many Pods a budget covers, how many of them serve, and how many may be evicted now. Evictions
//! spend from what stands in the status; this is what puts it there.

use std::collections::BTreeMap;
use std::sync::Arc;

use quilt_proto::Key;
use serde_json::{Map, Value, json};

use crate::fields;
use crate::moment::Moment;
use crate::object::{Object, label_selector};
use crate::plan::Plan;
use crate::view::{LoadError, Occasion, View};

/// How long an eviction that was allowed counts against the budget while its Pod shows no sign of going.
const EVICTION_TIMEOUT_SECS: u64 = 120;
/// The condition that says whether a disruption is possible now.
const CONDITION: &str = "DisruptionAllowed";

/// One look at the `PodDisruptionBudget` at `key`.
///
/// # Errors
/// State could not be read.
pub fn reconcile(view: &View<'_>, key: &Key, at: &mut Occasion) -> Result<Plan, LoadError> {
    let mut plan = Plan::nothing();
    let Some(mut budget) = view.load(key)? else { return Ok(plan) };
    if budget.value.pointer("/metadata/deletionTimestamp").is_some() {
        return Ok(plan);
    }
    // Without a selector a budget covers nothing.
    let covered: Vec<&Arc<Object>> = match label_selector(budget.value.pointer("/spec/selector")) {
        Some(selector) => view.cluster.pods_matching(key.parts().namespace, &selector),
        None => Vec::new(),
    };
    let pods: Vec<&Arc<Object>> = covered.into_iter().filter(|pod| pod.is_active_pod()).collect();
    let evicted = being_evicted(&mut plan, &budget.value, &pods, at.now);
    let healthy = pods.iter().filter(|pod| !evicted.contains_key(pod.name()) && view.is_ready(pod)).count();
    let healthy = i64::try_from(healthy).unwrap_or(i64::MAX);
    let (expected, desired) = wanted(view, &budget.value, &pods)?;
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };

    let before = budget.value.get("status").cloned().unwrap_or_default();
    let mut status = before.as_object().cloned().unwrap_or_default();
    let generation = fields::int(&budget.value, "/metadata/generation").unwrap_or_default();
    for (name, value) in [
        ("currentHealthy", healthy),
        ("desiredHealthy", desired),
        ("disruptionsAllowed", allowed),
        ("expectedPods", expected),
        ("observedGeneration", generation),
    ] {
        status.insert(name.to_owned(), value.into());
    }
    if evicted.is_empty() {
        status.remove("disruptedPods");
    } else {
        status.insert("disruptedPods".to_owned(), evicted.into());
    }
    say_whether_allowed(&mut status, allowed, generation, at.now);
    if Value::Object(status.clone()) != before {
        fields::set(&mut budget.value, &["status"], status);
        plan.update(budget);
    }
    Ok(plan)
}

/// Pods whose eviction was allowed and that still look as if nothing had happened.
fn being_evicted(plan: &mut Plan, budget: &Value, pods: &[&Arc<Object>], now: Moment) -> Map<String, Value> {
    let mut evicted = Map::new();
    for (name, since) in fields::map(budget, "/status/disruptedPods").into_iter().flatten() {
        let until = since.as_str().and_then(Moment::parse).map(|since| since.plus_secs(EVICTION_TIMEOUT_SECS));
        let Some(until) = until.filter(|until| *until > now) else { continue };
        if pods.iter().any(|pod| pod.name() == name) {
            plan.look_again(until);
            evicted.insert(name.clone(), since.clone());
        }
    }
    evicted
}

/// How many Pods there should be, and how many of them have to serve.
fn wanted(view: &View<'_>, budget: &Value, pods: &[&Arc<Object>]) -> Result<(i64, i64), LoadError> {
    let bound = |name: &str| budget.pointer(name).filter(|value| !value.is_null());
    let count = i64::try_from(pods.len()).unwrap_or(i64::MAX);
    if let Some(most) = bound("/spec/maxUnavailable") {
        let expected = scale(view, pods)?;
        return Ok((expected, (expected - share(most, expected)).max(0)));
    }
    match bound("/spec/minAvailable") {
        Some(least) if least.is_string() => {
            let expected = scale(view, pods)?;
            Ok((expected, share(least, expected)))
        }
        Some(least) => Ok((count, share(least, count))),
        None => Ok((count, count)),
    }
}

/// A number, or a percentage of `whole` rounded up.
fn share(bound: &Value, whole: i64) -> i64 {
    let percent = || bound.as_str().and_then(|text| text.strip_suffix('%')?.parse::<i64>().ok());
    bound.as_i64().unwrap_or_else(|| whole.saturating_mul(percent().unwrap_or_default()).saturating_add(99) / 100)
}

/// What the controllers of these Pods aim at, counted once each; a Pod without a controller stands for itself.
fn scale(view: &View<'_>, pods: &[&Arc<Object>]) -> Result<i64, LoadError> {
    let mut aims: BTreeMap<String, i64> = BTreeMap::new();
    for pod in pods {
        let (uid, aim) = aim_of(view, pod)?.unwrap_or_else(|| (pod.uid.clone(), 1));
        aims.insert(uid, aim);
    }
    Ok(aims.values().fold(0, |sum: i64, aim| sum.saturating_add(*aim)))
}

/// The topmost controller of `object` that has a number of replicas, and that number.
fn aim_of(view: &View<'_>, object: &Object) -> Result<Option<(String, i64)>, LoadError> {
    let Some(owner) = object.controller() else { return Ok(None) };
    let Some(key) = view.cluster.owner_key(object, owner) else { return Ok(None) };
    if let Some(set) = view.cluster.get(&key)
        && let Some(above) = aim_of(view, set)?
    {
        return Ok(Some(above));
    }
    let Some(loaded) = view.load(&key)? else { return Ok(None) };
    let replicas = fields::int(&loaded.value, "/spec/replicas");
    Ok(replicas
        .filter(|_| fields::text(&loaded.value, "/metadata/uid") == owner.uid)
        .map(|aim| (owner.uid.clone(), aim)))
}

fn say_whether_allowed(status: &mut Map<String, Value>, allowed: i64, generation: i64, now: Moment) {
    let (word, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let mut conditions = status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let known = conditions.iter().find(|condition| fields::text(condition, "/type") == CONDITION);
    let since = known.filter(|known| fields::text(known, "/status") == word);
    let since = since.map_or_else(|| now.rfc3339(), |known| fields::text(known, "/lastTransitionTime").to_owned());
    conditions.retain(|condition| fields::text(condition, "/type") != CONDITION);
    conditions.push(json!({
        "type": CONDITION, "status": word, "reason": reason, "message": "",
        "observedGeneration": generation, "lastTransitionTime": since,
    }));
    status.insert("conditions".to_owned(), conditions.into());
}
