//! POST of an object.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use quilt_objects::kind::Kind;
use quilt_objects::place;
use quilt_objects::registry::registry;
use quilt_objects::status::Status;
use quilt_proto::{Compare, Revision};
use quilt_raft::View;
use serde_json::Value;

use crate::access::Admitted;
use crate::admission;
use crate::authn::secret::fresh_id;
use crate::body;
use crate::commit::{Change, Plan, commit};
use crate::lifecycle::{self, Allocation};
use crate::metadata;
use crate::negotiate::{Shapes, accept};
use crate::problem::Problem;
use crate::records;
use crate::request::Call;
use crate::reserved;
use crate::verbs::update;

/// Names tried for one `generateName` before giving up.
const NAMES_MAX: u32 = 8;

/// Stores a new object and answers with it.
pub(crate) async fn create(call: &Call, bytes: Bytes) -> Result<Response<Body>, Problem> {
    let form = accept(&call.headers, Shapes::All)?;
    let dry_run = call.query.dry_run()?;
    let decoded = body::decode(call, &bytes, call.kind.target())?;
    let mut object = decoded.object;
    check_place(call, &mut object)?;
    let mut tries = 0;
    let done = commit(call, dry_run, |view, admitted| {
        tries += 1;
        plan(call, view, admitted, &object, tries)
    })
    .await?;
    update::answer(call, form, StatusCode::CREATED, done, &decoded.warnings)
}

/// Namespace and name of the body have to agree with the path.
fn check_place(call: &Call, object: &mut Value) -> Result<(), Problem> {
    let namespace = place::text_or_empty(object, &["metadata", "namespace"]);
    if !namespace.is_empty() && namespace != call.namespace {
        let message = if call.kind.is_namespaced() {
            "the namespace of the provided object does not match the namespace sent on the request"
        } else {
            "namespace is not allowed on this type of object"
        };
        return Err(Problem::bad_request(message));
    }
    if call.kind.is_namespaced() {
        place::set(object, &["metadata", "namespace"], call.namespace.as_str());
    } else {
        place::remove(object, &["metadata", "namespace"]);
    }
    let name = place::text_or_empty(object, &["metadata", "name"]).to_owned();
    if name.is_empty() && place::text_or_empty(object, &["metadata", "generateName"]).is_empty() {
        return Err(Problem::invalid(
            call.kind,
            "",
            &[quilt_objects::validate::FieldError::required(
                &quilt_objects::validate::Path::new("metadata.name"),
                "name or generateName is required",
            )],
        ));
    }
    if !place::text_or_empty(object, &["metadata", "resourceVersion"]).is_empty() {
        return Err(Problem::bad_request("resourceVersion should not be set on objects to be created"));
    }
    Ok(())
}

/// A new object on one view. Also how server-side apply and patches create what is absent.
pub(crate) fn plan(
    call: &Call,
    view: &View,
    admitted: &Admitted,
    wanted: &Value,
    tries: u32,
) -> Result<Plan<Value>, Problem> {
    plan_with_uid(call, view, admitted, wanted, tries, &fresh_id())
}

/// As [`plan`], for whoever has to know the uid before the object exists.
pub(crate) fn plan_with_uid(
    call: &Call,
    view: &View,
    admitted: &Admitted,
    wanted: &Value,
    tries: u32,
    uid: &str,
) -> Result<Plan<Value>, Problem> {
    let kind = call.kind;
    let mut object = wanted.clone();
    let generated = place::text_or_empty(&object, &["metadata", "name"]).is_empty();
    if generated {
        let name = metadata::generated_name(place::text_or_empty(&object, &["metadata", "generateName"]))?;
        place::set(&mut object, &["metadata", "name"], name);
    }
    let name = place::text_or_empty(&object, &["metadata", "name"]).to_owned();
    let mut compares = Vec::new();
    if kind.is_namespaced() {
        compares.push(namespace_takes_more(call, view, &name)?);
    }
    metadata::born(&mut object, uid, &call.api.now());
    admission::create(kind, &mut object)?;
    reserved::check(&admitted.identity, kind, None, &object)?;
    let key = call.key(&name)?;
    if view.get(&key)?.is_some() {
        return Err(if generated && tries >= NAMES_MAX {
            Status::generate_name_conflict(kind.into(), &name).into()
        } else {
            Status::already_exists(kind.into(), &name).into()
        });
    }
    compares.push(Compare::absent(&key));
    let lifecycle = lifecycle::of(kind);
    let at = Allocation { view, cluster: &admitted.cluster, now_ms: call.api.replica.wall_ms() };
    let claims = (lifecycle.allocate)(&at, None, Some(&mut object))?;
    compares.extend(claims.compares);
    let mut ops = vec![records::put(&call.api.options.root_key, kind, &key, &object)?];
    ops.extend(claims.ops);
    Ok(Plan::Commit(Change { compares, ops, answer: object }))
}

/// The namespace exists and is not being deleted, and still is so when the object is stored.
fn namespace_takes_more(call: &Call, view: &View, name: &str) -> Result<Compare, Problem> {
    let kind = namespaces();
    let key = call.key_of(kind, "", &call.namespace)?;
    let record = view.get(&key)?.ok_or_else(|| Problem::not_found(kind, &call.namespace))?;
    let namespace = records::parse(&call.api.options.root_key, kind, &record)?;
    if metadata::is_deleting(&namespace) || place::text_or_empty(&namespace, &["status", "phase"]) == "Terminating" {
        let namespace = &call.namespace;
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let cause = format!("namespace {namespace} is being terminated");
        return Err(Problem::forbidden(call.kind, name, &why).with_cause(
            "NamespaceTerminating",
            &cause,
            "metadata.namespace",
        ));
    }
    Ok(Compare::at(&key, Revision::new(record.mod_revision)))
}

/// The kind whose objects other objects live in.
pub(crate) fn namespaces() -> &'static Kind {
    registry().resource("", "v1", "namespaces").expect("the kinds table has namespaces: a test asks for them")
}
