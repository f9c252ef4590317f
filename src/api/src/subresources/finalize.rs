//! `namespaces/{name}/finalize`: whoever emptied a namespace takes its finalizer away.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use quilt_objects::place;

use crate::admission::Part;
use crate::body;
use crate::commit::commit;
use crate::negotiate::{Shapes, accept};
use crate::problem::Problem;
use crate::request::Call;
use crate::verbs::update::{self, check_place};

/// PUT.
pub(crate) async fn update(call: &Call, bytes: Bytes) -> Result<Response<Body>, Problem> {
    let form = accept(&call.headers, Shapes::All)?;
    let dry_run = call.query.dry_run()?;
    let decoded = body::decode(call, &bytes, call.kind.target())?;
    check_place(call, &decoded.object)?;
    let done = commit(call, dry_run, |view, admitted| {
        update::plan(call, view, admitted, Part::Subresource, &|old| {
            let mut new = old.clone();
            for field in ["uid", "resourceVersion"] {
                if place::get(&decoded.object, &["metadata", field]).is_some() {
                    place::keep(&mut new, &decoded.object, &["metadata", field]);
                }
            }
            place::keep(&mut new, &decoded.object, &["spec", "finalizers"]);
            Ok(new)
        })
    })
    .await?;
    update::answer(call, form, StatusCode::OK, done, &decoded.warnings)
}
