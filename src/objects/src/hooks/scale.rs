//! The `scale` subresource: any scalable object seen as an `autoscaling/v1` Scale, and a Scale written back.

use serde_json::{Value, json};

use crate::kind::Kind;
use crate::place;
use crate::select::LabelSelector;
use crate::validate::{FieldError, Path};

/// The Scale of `object`.
#[must_use]
pub fn read(kind: &Kind, object: &Value) -> Value {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = place::get(object, &["metadata", field]) {
            place::set(&mut metadata, &[field], value.clone());
        }
    }
    let replicas = place::int(object, &["spec", "replicas"]).unwrap_or(0);
    let mut status = json!({"replicas": place::int(object, &["status", "replicas"]).unwrap_or(0)});
    let ready = ["readyReplicas", "running"].iter().find_map(|field| place::int(object, &["status", field]));
    place::set(&mut status, &["readyReplicas"], ready.unwrap_or(0));
    let selector = selector(kind, object);
    if !selector.is_empty() {
        place::set(&mut status, &["selector"], selector);
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": {"replicas": replicas}, "status": status})
}

/// The text form of the selector of the object's pods; empty where it has none.
fn selector(kind: &Kind, object: &Value) -> String {
    match place::get(object, &["spec", "selector"]) {
        Some(selector) if kind.kind == "ReplicationController" => {
            LabelSelector::from_map(selector.as_object()).to_string()
        }
        Some(selector) => {
            LabelSelector::from_object(Some(selector)).map(|selector| selector.to_string()).unwrap_or_default()
        }
        None => place::text_or_empty(object, &["status", "selector"]).to_owned(),
    }
}

/// Writes the wanted replicas of `scale` into `object`. Absent replicas mean none, as the wire formats have it.
///
/// # Errors
/// A negative number or one that is no 32-bit integer; `object` is then unchanged.
pub fn write(object: &mut Value, scale: &Value) -> Result<(), FieldError> {
    let path = Path::new("spec").child("replicas");
    let wanted = place::get(scale, &["spec", "replicas"]).cloned().unwrap_or_else(|| json!(0));
    let replicas = wanted.as_i64().filter(|number| i32::try_from(*number).is_ok());
    let Some(replicas) = replicas else {
        return Err(FieldError::invalid(&path, &wanted, "must be a 32-bit integer"));
    };
    if replicas < 0 {
        return Err(FieldError::invalid(&path, &wanted, "must be greater than or equal to 0"));
    }
    place::set(object, &["spec", "replicas"], replicas);
    Ok(())
}
