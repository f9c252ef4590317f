//! GET of one object.

use axum::body::Body;
use bytes::BytesMut;
use http::{Response, StatusCode};

use crate::negotiate::{Shapes, accept};
use crate::problem::Problem;
use crate::query::{ReadAt, resource_version};
use crate::render::{Renderer, include, respond};
use crate::request::Call;

/// Answers with the object as stored.
pub(crate) async fn get(call: &Call) -> Result<Response<Body>, Problem> {
    let form = accept(&call.headers, Shapes::All)?;
    let include_object = include(call.query.get("includeObject"))?;
    let at = match resource_version(&call.query)? {
        None => ReadAt::Latest,
        Some(0) => ReadAt::Any,
        Some(version) => ReadAt::NotOlderThan(version),
    };
    let key = call.key(&call.name)?;
    let view = call.view(at).await?;
    let record = match view.get(&key)? {
        Some(record) => record,
        // An object that an older local state does not have may be there.
        None if at == ReadAt::Any => {
            call.latest().await?.get(&key)?.ok_or_else(|| Problem::not_found(call.kind, &call.name))?
        }
        None => return Err(Problem::not_found(call.kind, &call.name)),
    };
    let renderer =
        Renderer::new(call.kind, form, include_object, &call.api.options.root_key, call.api.replica.wall_ms());
    let mut json = BytesMut::with_capacity(record.value.len() + 128);
    renderer.object(&record, &mut json)?;
    json.extend_from_slice(b"\n");
    respond(StatusCode::OK, form.encoding, json.freeze())
}
