//! `pods/{name}/binding`: an external scheduler puts a Pod on a node.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use quilt_objects::kind::Target;
use quilt_objects::place;
use quilt_objects::registry::registry;
use quilt_objects::status::Status;
use quilt_objects::validate::{FieldError, Path};
use serde_json::{Value, json};

use crate::admission::Part;
use crate::body;
use crate::commit::commit;
use crate::metadata;
use crate::problem::Problem;
use crate::render::respond_value;
use crate::request::Call;
use crate::verbs::update;

fn target() -> Target<'static> {
    registry().target("", "v1", "Binding").expect("the kinds table has Binding: a test asks for it")
}

/// POST of a Binding as an object of its own: the older path, on which the body names the Pod.
pub(crate) async fn create_in_collection(call: &Call, bytes: Bytes) -> Result<Response<Body>, Problem> {
    let pods = registry().resource("", "v1", "pods").expect("the kinds table has pods: a test asks for them");
    create(&Call { kind: pods, ..call.clone() }, bytes).await
}

/// POST. An empty name in the path means that the body names the Pod.
pub(crate) async fn create(call: &Call, bytes: Bytes) -> Result<Response<Body>, Problem> {
    let dry_run = call.query.dry_run()?;
    let binding = body::decode(call, &bytes, target())?.object;
    let mut call = call.clone();
    let named = place::text_or_empty(&binding, &["metadata", "name"]);
    if call.name.is_empty() {
        named.clone_into(&mut call.name);
    } else if !named.is_empty() && named != call.name {
        return Err(Problem::bad_request(format!(
            "the name of the object ({named}) does not match the name on the URL ({})",
            call.name
        )));
    }
    let node = place::text_or_empty(&binding, &["target", "name"]).to_owned();
    if node.is_empty() {
        let errors = [FieldError::required(&Path::new("target.name"), "")];
        return Err(Problem::invalid(call.kind, &call.name, &errors));
    }
    let now = call.api.now();
    commit(&call, dry_run, |view, admitted| {
        update::plan(&call, view, admitted, Part::Subresource, &|pod| bind(&call, pod, &binding, &node, &now))
    })
    .await?;
    let mut status = Status::success().to_value();
    place::set(&mut status, &["code"], 201);
    respond_value(StatusCode::CREATED, crate::negotiate::Encoding::Json, &status)
}

fn bind(call: &Call, pod: &Value, binding: &Value, node: &str, now: &str) -> Result<Value, Problem> {
    let uid = place::text_or_empty(binding, &["metadata", "uid"]);
    let own = place::text_or_empty(pod, &["metadata", "uid"]);
    if !uid.is_empty() && uid != own {
        return Err(Status::uid_precondition(call.kind.into(), &call.name, uid, own).into());
    }
    if metadata::is_deleting(pod) {
        let why = format!("pod {} is being deleted, cannot be assigned to a host", call.name);
        return Err(Problem::conflict(call.kind, &call.name, &why));
    }
    let bound = place::text_or_empty(pod, &["spec", "nodeName"]);
    if !bound.is_empty() {
        let why = format!("pod {} is already assigned to node {bound:?}", call.name);
        return Err(Problem::conflict(call.kind, &call.name, &why));
    }
    let mut new = pod.clone();
    place::set(&mut new, &["spec", "nodeName"], node);
    for part in ["labels", "annotations"] {
        for (key, value) in place::map(binding, &["metadata", part]).into_iter().flatten() {
            place::set(&mut new, &["metadata", part, key], value.clone());
        }
    }
    let mut conditions: Vec<Value> = place::items(pod, &["status", "conditions"])
        .iter()
        .filter(|condition| place::text_or_empty(condition, &["type"]) != "PodScheduled")
        .cloned()
        .collect();
    conditions
        .push(json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now}));
    place::set(&mut new, &["status", "conditions"], conditions);
    Ok(new)
}
