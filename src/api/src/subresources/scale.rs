//! `scale`: any scalable object seen and changed as an `autoscaling/v1` Scale.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use quilt_objects::hooks::scale;
use quilt_objects::kind::Target;
use quilt_objects::place;
use quilt_objects::registry::registry;
use serde_json::Value;

use crate::admission::Part;
use crate::body;
use crate::commit::commit;
use crate::negotiate::{Shapes, accept};
use crate::problem::Problem;
use crate::query::ReadAt;
use crate::records;
use crate::render::{respond_value, warn};
use crate::request::Call;
use crate::verbs::patch::Patch;
use crate::verbs::update::{self, check_place, with_revision};

fn target() -> Target<'static> {
    registry().target("autoscaling", "v1", "Scale").expect("the kinds table has Scale: a test asks for it")
}

/// GET.
pub(crate) async fn get(call: &Call) -> Result<Response<Body>, Problem> {
    let form = accept(&call.headers, Shapes::ObjectOnly)?;
    let view = call.view(ReadAt::Latest).await?;
    let record = view.get(&call.key(&call.name)?)?.ok_or_else(|| Problem::not_found(call.kind, &call.name))?;
    let object = records::parse(&call.api.options.root_key, call.kind, &record)?;
    respond_value(StatusCode::OK, form.encoding, &scale::read(call.kind, &object))
}

/// PUT.
pub(crate) async fn update(call: &Call, bytes: Bytes) -> Result<Response<Body>, Problem> {
    let decoded = body::decode(call, &bytes, target())?;
    check_place(call, &decoded.object)?;
    change(call, &decoded.warnings, &|_| Ok(decoded.object.clone())).await
}

/// PATCH.
pub(crate) async fn patch(call: &Call, bytes: Bytes) -> Result<Response<Body>, Problem> {
    let validation = call.query.field_validation()?;
    let patch = Patch::parse(call, bytes)?;
    change(call, &[], &|old| Ok(patch.apply(&scale::read(call.kind, old), target(), validation)?.object)).await
}

async fn change(
    call: &Call,
    warnings: &[String],
    make: &(dyn Fn(&Value) -> Result<Value, Problem> + Sync),
) -> Result<Response<Body>, Problem> {
    let form = accept(&call.headers, Shapes::ObjectOnly)?;
    let dry_run = call.query.dry_run()?;
    let done = commit(call, dry_run, |view, admitted| {
        update::plan(call, view, admitted, Part::Main, &|old| {
            let wanted = make(old)?;
            let mut new = old.clone();
            // Preconditions the client put on the Scale are those of the object.
            for field in ["uid", "resourceVersion"] {
                place::keep(&mut new, &wanted, &["metadata", field]);
            }
            scale::write(&mut new, &wanted).map_err(|error| Problem::invalid(call.kind, &call.name, &[error]))?;
            Ok(new)
        })
    })
    .await?;
    let object = with_revision(done);
    let mut response = respond_value(StatusCode::OK, form.encoding, &scale::read(call.kind, &object))?;
    warn(&mut response, warnings);
    Ok(response)
}
