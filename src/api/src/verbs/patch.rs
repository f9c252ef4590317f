//! PATCH: four patch types over the one way of changing an object. An apply may also make it.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use quilt_objects::apply::{self, Force, Writer};
use quilt_objects::decode::{self, Decoded, FieldValidation};
use quilt_objects::kind::{Origin, Target};
use quilt_objects::{patch, place};
use serde_json::Value;

use crate::admission::Part;
use crate::body;
use crate::commit::commit;
use crate::negotiate::{PatchType, Shapes, accept, patch_type};
use crate::problem::Problem;
use crate::request::Call;
use crate::verbs::{create, update};

/// Media types a PATCH may have.
const ACCEPTED: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// A patch, applied to as many versions as it takes.
pub(crate) struct Patch {
    patch_type: patch::PatchType,
    bytes: Bytes,
}

impl Patch {
    /// The patch of a request.
    pub(crate) fn parse(call: &Call, bytes: Bytes) -> Result<Self, Problem> {
        let unsupported = || Problem::unsupported_media_type(&ACCEPTED);
        let patch_type = match patch_type(&call.headers).map_err(|_| unsupported())? {
            PatchType::Json => patch::PatchType::Json,
            PatchType::Merge => patch::PatchType::Merge,
            PatchType::Strategic if call.kind.origin == Origin::BuiltIn => patch::PatchType::Strategic,
            PatchType::Strategic | PatchType::Apply => return Err(unsupported()),
        };
        Ok(Self { patch_type, bytes })
    }

    /// The patched form of `old`, of the type behind `target`, checked like a body.
    pub(crate) fn apply(
        &self,
        old: &Value,
        target: Target<'_>,
        validation: FieldValidation,
    ) -> Result<Decoded, Problem> {
        let patched = patch::apply(target, self.patch_type, old, &self.bytes, validation);
        patched.map_err(|error| error.status().into())
    }
}

/// Changes an object, or one part of it, as the patch says and answers with the new version.
pub(crate) async fn patch(call: &Call, bytes: Bytes, part: Part) -> Result<Response<Body>, Problem> {
    if patch_type(&call.headers) == Ok(PatchType::Apply) {
        return apply(call, bytes, part).await;
    }
    let form = accept(&call.headers, Shapes::All)?;
    let dry_run = call.query.dry_run()?;
    let validation = call.query.field_validation()?;
    let patch = Patch::parse(call, bytes)?;
    let warnings = parking_lot::Mutex::new(Vec::new());
    let done = commit(call, dry_run, |view, admitted| {
        update::plan(call, view, admitted, part, &|old| {
            let decoded = patch.apply(old, call.kind.target(), validation)?;
            check_identity(call, &decoded.object)?;
            *warnings.lock() = decoded.warnings;
            Ok(decoded.object)
        })
    })
    .await?;
    update::answer(call, form, StatusCode::OK, done, &warnings.into_inner())
}

/// Changes an object, or makes it, so that it has what the applied one says and its field manager owns that.
pub(crate) async fn apply(call: &Call, bytes: Bytes, part: Part) -> Result<Response<Body>, Problem> {
    let form = accept(&call.headers, Shapes::All)?;
    let dry_run = call.query.dry_run()?;
    let target = call.kind.target();
    let decoded = decode::value(target, body::yaml_document(&bytes)?, call.query.field_validation()?)?;
    let mut wanted = decoded.object;
    if place::text_or_empty(&wanted, &["metadata", "name"]).is_empty() {
        place::set(&mut wanted, &["metadata", "name"], call.name.as_str());
    }
    update::check_place(call, &wanted)?;
    let Some(manager) = call.query.get("fieldManager") else {
        return Err(Problem::bad_request("query parameter fieldManager is required for apply patches"));
    };
    let force = if call.query.flag("force")? { Force::Take } else { Force::Refuse };
    let subresource = if part == Part::Status { "status" } else { "" };
    let now = call.api.now();
    let writer = Writer { manager, subresource, now: &now };
    let applied = |current: Option<&Value>| {
        apply::apply(target, current, &wanted, writer, force).map_err(|error| Problem::from(error.status()))
    };
    let created = std::sync::atomic::AtomicBool::new(false);
    let done = commit(call, dry_run, |view, admitted| {
        let exists = view.get(&call.key(&call.name)?)?.is_some();
        created.store(!exists, std::sync::atomic::Ordering::Relaxed);
        if exists || part == Part::Status {
            return update::plan(call, view, admitted, part, &|old| applied(Some(old)));
        }
        if !place::text_or_empty(&wanted, &["metadata", "uid"]).is_empty() {
            return Err(Problem::conflict(call.kind, &call.name, "uid mismatch: the object does not exist"));
        }
        let mut object = applied(None)?;
        if call.kind.is_namespaced() {
            place::set(&mut object, &["metadata", "namespace"], call.namespace.as_str());
        }
        create::plan(call, view, admitted, &object, 1)
    })
    .await?;
    let code = if created.into_inner() { StatusCode::CREATED } else { StatusCode::OK };
    update::answer(call, form, code, done, &decoded.warnings)
}

/// A patch cannot rename or move an object.
fn check_identity(call: &Call, object: &Value) -> Result<(), Problem> {
    let name = place::text_or_empty(object, &["metadata", "name"]);
    if name != call.name {
        return Err(Problem::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.name
        )));
    }
    Ok(())
}
