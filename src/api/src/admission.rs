//! What a decoded object goes through before it may be stored: defaults, what a kind derives, validation.

use quilt_objects::hooks;
use quilt_objects::kind::Kind;
use quilt_objects::validate::FieldError;
use quilt_objects::{place, validate};
use serde_json::Value;

use crate::problem::Problem;

/// Which part of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything but the status.
    Main,
    /// The status alone.
    Status,
    /// Metadata, spec and status at once: the control plane, writing what an agent reports of itself.
    Whole,
    /// What the subresource changed and nothing else: it checked its own change.
    Subresource,
}

/// Makes a new object complete and checks it.
pub(crate) fn create(kind: &Kind, object: &mut Value) -> Result<(), Problem> {
    hooks::complete(kind, object);
    hooks::prepare_for_create(kind, object);
    refuse(kind, object, &validate::create(kind, object))
}

/// Makes `new` a legal successor of `old` and checks it.
pub(crate) fn update(kind: &Kind, part: Part, old: &Value, new: &mut Value) -> Result<(), Problem> {
    if part == Part::Subresource {
        place::keep(new, old, &["metadata", "resourceVersion"]);
        return Ok(());
    }
    hooks::complete(kind, new);
    // An object may be older than a default. It gets it as if it had been read with it, or the default would count as a
    // change, and many fields must not change.
    let mut old = old.clone();
    hooks::complete(kind, &mut old);
    let status = (part == Part::Whole).then(|| place::get(new, &["status"]).cloned()).flatten();
    let prepared = if part == Part::Status { hooks::Part::Status } else { hooks::Part::Main };
    hooks::prepare_for_update(kind, new, &old, prepared);
    if let Some(status) = status {
        place::set(new, &["status"], status);
    }
    place::keep(new, &old, &["metadata", "resourceVersion"]);
    if part == Part::Status {
        return Ok(());
    }
    refuse(kind, new, &validate::update(kind, new, &old))
}

fn refuse(kind: &Kind, object: &Value, errors: &[FieldError]) -> Result<(), Problem> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Problem::invalid(kind, place::text_or_empty(object, &["metadata", "name"]), errors))
}

#[cfg(test)]
mod tests {
    use quilt_objects::registry::registry;
    use serde_json::json;

    use super::*;

    /// A Pod from before a default existed can still be labelled, and has the default from then on.
    #[test]
    fn a_new_default_is_no_change() {
        let kind = registry().kind("", "v1", "Pod").expect("in the table");
        let metadata = json!({"name": "a", "namespace": "default", "uid": "u", "resourceVersion": "7"});
        let old = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"}, "status": {"phase": "Running"},
        });
        let mut new = old.clone();
        place::set(&mut new, &["metadata", "labels"], json!({"tier": "x"}));
        update(kind, Part::Main, &old, &mut new).expect("only a label changes");
        assert_eq!(new["metadata"]["labels"], json!({"tier": "x"}));
        assert_eq!(new["spec"]["enableServiceLinks"], json!(true));
        place::set(&mut new, &["spec", "nodeName"], json!("other"));
        assert!(update(kind, Part::Main, &old, &mut new).is_err(), "what must not change still must not");
    }
}
