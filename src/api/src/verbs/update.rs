//! PUT, and the one way in which any write changes an existing object: plan a new version from the stored one.

use axum::body::Body;
use bytes::Bytes;
use http::header::USER_AGENT;
use http::{Response, StatusCode};
use quilt_objects::apply::{self, Writer};
use quilt_objects::place;
use quilt_objects::status::Status;
use quilt_proto::{Compare, Op, Revision};
use quilt_raft::View;
use serde_json::Value;

use crate::access::Admitted;
use crate::admission::{self, Part};
use crate::body;
use crate::commit::{Change, Done, Plan, commit};
use crate::lifecycle::{self, Allocation};
use crate::metadata;
use crate::negotiate::{Form, PatchType, Shapes, accept, patch_type};
use crate::problem::Problem;
use crate::records;
use crate::render::{Renderer, include, respond_value, warn};
use crate::request::Call;
use crate::reserved;

/// Replaces an object, or one part of it, and answers with the new version.
pub(crate) async fn update(call: &Call, bytes: Bytes, part: Part) -> Result<Response<Body>, Problem> {
    let form = accept(&call.headers, Shapes::All)?;
    let dry_run = call.query.dry_run()?;
    let decoded = body::decode(call, &bytes, call.kind.target())?;
    check_place(call, &decoded.object)?;
    let done =
        commit(call, dry_run, |view, admitted| plan(call, view, admitted, part, &|_| Ok(decoded.object.clone())))
            .await?;
    answer(call, form, StatusCode::OK, done, &decoded.warnings)
}

/// Name and namespace of the body, where given, are those of the path.
pub(crate) fn check_place(call: &Call, object: &Value) -> Result<(), Problem> {
    let name = place::text_or_empty(object, &["metadata", "name"]);
    if name != call.name {
        let message = if name.is_empty() {
            "name is required in the body (metadata.name)".to_owned()
        } else {
            format!("the name of the object ({name}) does not match the name on the URL ({})", call.name)
        };
        return Err(Problem::bad_request(message));
    }
    let namespace = place::text_or_empty(object, &["metadata", "namespace"]);
    if !namespace.is_empty() && namespace != call.namespace {
        let message = format!(
            "the namespace of the object ({namespace}) does not match the namespace on the URL ({})",
            call.namespace
        );
        return Err(Problem::bad_request(message));
    }
    Ok(())
}

/// A new version of the call's object on one view; `make` gives it from the stored one.
pub(crate) fn plan(
    call: &Call,
    view: &View,
    admitted: &Admitted,
    part: Part,
    make: &(dyn Fn(&Value) -> Result<Value, Problem> + Sync),
) -> Result<Plan<Value>, Problem> {
    let kind = call.kind;
    let key = call.key(&call.name)?;
    let record = view.get(&key)?.ok_or_else(|| Problem::not_found(kind, &call.name))?;
    let old = records::parse(&call.api.options.root_key, kind, &record)?;
    let mut new = make(&old)?;
    check_preconditions(call, &old, &new)?;
    admission::update(kind, part, &old, &mut new)?;
    track(call, part, &old, &mut new);
    reserved::check(&admitted.identity, kind, Some(&old), &new)?;
    let lifecycle = lifecycle::of(kind);
    let at = Allocation { view, cluster: &admitted.cluster, now_ms: call.api.replica.wall_ms() };
    let mut compares = vec![Compare::at(&key, Revision::new(record.mod_revision))];
    let goes = metadata::is_deleting(&new)
        && metadata::finalizers(&new).is_empty()
        && place::int(&new, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or(0) == 0
        && (lifecycle.may_go)(&new);
    if goes {
        // The last thing that kept a deleted object is gone.
        let claims = (lifecycle.allocate)(&at, Some(&old), None)?;
        compares.extend(claims.compares);
        let mut ops = vec![Op::delete(&key)];
        ops.extend(claims.ops);
        return Ok(Plan::Commit(Change { compares, ops, answer: new }));
    }
    let claims = (lifecycle.allocate)(&at, Some(&old), Some(&mut new))?;
    if records::same(&old, &new) {
        return Ok(Plan::Unchanged(old));
    }
    compares.extend(claims.compares);
    let mut ops = vec![records::put(&call.api.options.root_key, kind, &key, &new)?];
    ops.extend(claims.ops);
    Ok(Plan::Commit(Change { compares, ops, answer: new }))
}

/// Keeps the record of who owns which field, once an object has one: the first apply makes it.
fn track(call: &Call, part: Part, old: &Value, new: &mut Value) {
    let applies = patch_type(&call.headers) == Ok(PatchType::Apply);
    if applies || place::items(old, &["metadata", "managedFields"]).is_empty() {
        return;
    }
    let agent = call.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let agent = agent.split('/').next().filter(|agent| !agent.is_empty()).unwrap_or("unknown");
    let manager = call.query.get("fieldManager").unwrap_or(agent);
    let subresource = if part == Part::Status { "status" } else { "" };
    apply::track(call.kind, Some(old), new, Writer { manager, subresource, now: &call.api.now() });
}

/// uid and resourceVersion, where the client sent them, are those of the stored object.
fn check_preconditions(call: &Call, old: &Value, new: &Value) -> Result<(), Problem> {
    let text = |object: &Value, field: &str| place::text_or_empty(object, &["metadata", field]).to_owned();
    let (uid, own_uid) = (text(new, "uid"), text(old, "uid"));
    if !uid.is_empty() && uid != own_uid {
        return Err(Status::uid_precondition(call.kind.into(), &call.name, &uid, &own_uid).into());
    }
    let version = text(new, "resourceVersion");
    if version.is_empty() || version == "0" || version == text(old, "resourceVersion") {
        return Ok(());
    }
    if version.parse::<u64>().is_err() {
        return Err(Problem::bad_request(format!(
            "metadata.resourceVersion is {version:?}, expected a decimal number"
        )));
    }
    Err(Problem::modified(call.kind, &call.name))
}

/// The answer of a write: its object with the revision it got.
pub(crate) fn answer(
    call: &Call,
    form: Form,
    code: StatusCode,
    done: Done<Value>,
    warnings: &[String],
) -> Result<Response<Body>, Problem> {
    let object = with_revision(done);
    let include_object = include(call.query.get("includeObject"))?;
    let renderer =
        Renderer::new(call.kind, form, include_object, &call.api.options.root_key, call.api.replica.wall_ms());
    let mut response = respond_value(code, form.encoding, &renderer.value(&object))?;
    warn(&mut response, warnings);
    Ok(response)
}

/// The object a write stored, as a reader would get it.
pub(crate) fn with_revision(done: Done<Value>) -> Value {
    let mut object = done.answer;
    if let Some(first) = done.first {
        place::set(&mut object, &["metadata", "resourceVersion"], first.to_string());
    }
    object
}
