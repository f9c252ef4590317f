//! Namespaces: deleted by marking them Terminating; they go when a controller has emptied and finalized them.

use quilt_objects::place;
use serde_json::{Value, json};

use super::Deletion;
use crate::problem::Problem;
use quilt_objects::status::{Resource, Status};

/// Namespaces the control plane cannot be without.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

const RESOURCE: Resource<'_> = Resource { group: "", plural: "namespaces", kind: "Namespace" };

/// The phase changes at once; the finalizer keeps the object until it is empty.
pub(super) fn deletion(namespace: &Value, _asked: Option<u64>) -> Result<Deletion, Problem> {
    let name = place::text_or_empty(namespace, &["metadata", "name"]);
    if IMMORTAL.contains(&name) {
        return Err(Status::forbidden(RESOURCE, name, "this namespace may not be deleted").into());
    }
    if may_go(namespace) {
        return Ok(Deletion::Now);
    }
    Ok(Deletion::Marked(json!({"status": {"phase": "Terminating"}})))
}

/// Only when nothing is left that `spec.finalizers` stands for.
pub(super) fn may_go(namespace: &Value) -> bool {
    place::items(namespace, &["spec", "finalizers"]).is_empty()
}
