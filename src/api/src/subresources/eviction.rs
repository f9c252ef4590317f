//! `pods/{name}/eviction`: a deletion that disruption budgets may hold up.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use quilt_objects::kind::{Kind, Target};
use quilt_objects::place;
use quilt_objects::registry::registry;
use quilt_objects::select::LabelSelector;
use quilt_objects::status::Status;
use quilt_proto::{Compare, KeyPrefix, Op, Revision};
use quilt_raft::View;
use serde_json::Value;

use crate::body;
use crate::commit::{Plan, commit};
use crate::metadata;
use crate::negotiate::Encoding;
use crate::problem::Problem;
use crate::query::DryRun;
use crate::records;
use crate::render::respond_value;
use crate::request::Call;
use crate::verbs::delete::{self, DeleteOptions};
use crate::verbs::list::PAGE;

/// Seconds after which a refused eviction may be tried again. Clients wait that long several times over before they say
/// a word to their user, and budgets are looked after within milliseconds here.
const RETRY_SECONDS: u32 = 1;

fn target() -> Target<'static> {
    registry().target("policy", "v1", "Eviction").expect("the kinds table has Eviction: a test asks for it")
}

fn budgets() -> &'static Kind {
    let kind = registry().resource("policy", "v1", "poddisruptionbudgets");
    kind.expect("the kinds table has disruption budgets: a test asks for them")
}

/// POST.
pub(crate) async fn create(call: &Call, bytes: Bytes) -> Result<Response<Body>, Problem> {
    let eviction = body::decode(call, &bytes, target())?.object;
    let named = place::text_or_empty(&eviction, &["metadata", "name"]);
    if !named.is_empty() && named != call.name {
        return Err(Problem::bad_request(format!("name in URL does not match name in Eviction object: {named:?}")));
    }
    let document = place::get(&eviction, &["deleteOptions"]).cloned().unwrap_or_default();
    let options = DeleteOptions::from_document(&document)?;
    let dry_run = if call.query.dry_run()? == DryRun::All { DryRun::All } else { options.dry_run() };
    let now = call.api.now();
    commit(call, dry_run, |view, admitted| {
        let mut plan = delete::plan(call, view, admitted, &call.name, &options)?;
        if let Plan::Commit(change) = &mut plan
            && let Some((compare, op)) = spend_budget(call, view, &now)?
        {
            change.compares.push(compare);
            change.ops.push(op);
        }
        Ok(plan)
    })
    .await?;
    let mut status = Status::success().to_value();
    place::set(&mut status, &["code"], 201);
    respond_value(StatusCode::CREATED, Encoding::Json, &status)
}

/// Takes one disruption from the budget that covers the Pod; refuses when there is none left.
fn spend_budget(call: &Call, view: &View, now: &str) -> Result<Option<(Compare, Op)>, Problem> {
    let root = &call.api.options.root_key;
    let Some(record) = view.get(&call.key(&call.name)?)? else { return Ok(None) };
    let pod = records::parse(root, call.kind, &record)?;
    let phase = place::text_or_empty(&pod, &["status", "phase"]);
    if matches!(phase, "Succeeded" | "Failed" | "Pending" | "") || metadata::is_deleting(&pod) {
        return Ok(None);
    }
    let kind = budgets();
    let prefix = KeyPrefix::namespace(call.cluster.id.as_str(), &kind.storage_group, &kind.plural, &call.namespace)
        .map_err(|error| Problem::bad_request(error.to_string()))?;
    let mut covering = Vec::new();
    let mut after = None;
    loop {
        let page = view.scan(&prefix, after.as_ref(), PAGE)?;
        for (key, record) in &page.records {
            let budget = records::parse(root, kind, record)?;
            let selector = LabelSelector::from_object(place::get(&budget, &["spec", "selector"]))
                .map_err(|error| Problem::internal(&error.to_string()))?;
            if place::get(&budget, &["spec", "selector"]).is_some() && selector.matches_object(&pod) {
                covering.push((key.clone(), record.mod_revision, budget));
            }
        }
        match page.records.last() {
            Some((key, _)) if page.more => after = Some(key.clone()),
            _ => break,
        }
    }
    let (key, revision, mut budget): (_, _, Value) = match covering.len() {
        0 => return Ok(None),
        1 => covering.remove(0),
        _ => {
            return Err(Problem::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
    };
    if !is_ready(&pod) && unready_may_go(&budget) {
        return Ok(None);
    }
    let allowed = place::int(&budget, &["status", "disruptionsAllowed"]).unwrap_or(0);
    let seen = place::int(&budget, &["status", "observedGeneration"]).unwrap_or(0);
    let generation = place::int(&budget, &["metadata", "generation"]).unwrap_or(0);
    if allowed <= 0 || seen < generation {
        let name = place::text_or_empty(&budget, &["metadata", "name"]);
        return Err(Status::disruption_budget(name, RETRY_SECONDS).into());
    }
    place::set(&mut budget, &["status", "disruptionsAllowed"], allowed - 1);
    place::set(&mut budget, &["status", "disruptedPods", &call.name], now);
    Ok(Some((Compare::at(&key, Revision::new(revision)), records::put(root, kind, &key, &budget)?)))
}

fn is_ready(pod: &Value) -> bool {
    let conditions = place::items(pod, &["status", "conditions"]);
    conditions.iter().any(|condition| {
        place::text_or_empty(condition, &["type"]) == "Ready" && place::text_or_empty(condition, &["status"]) == "True"
    })
}

/// Whether a Pod that serves nobody may go without spending anything: always, or while enough others serve.
fn unready_may_go(budget: &Value) -> bool {
    let count = |name: &str| place::int(budget, &["status", name]).unwrap_or(0);
    match place::text_or_empty(budget, &["spec", "unhealthyPodEvictionPolicy"]) {
        "AlwaysAllow" => true,
        _ => count("desiredHealthy") > 0 && count("currentHealthy") >= count("desiredHealthy"),
    }
}
