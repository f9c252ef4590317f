//! What a decoded object goes through before it may be stored: defaults, what a kind derives, validation.

use quilt_objects::hooks;
use quilt_objects::kind::Kind;
use quilt_objects::validate::FieldError;
use quilt_objects::{default, place, validate};
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
    fill(kind, object);
    hooks::prepare_for_create(kind, object);
    refuse(kind, object, &validate::create(kind, object))
}

/// Makes `new` a legal successor of `old` and checks it.
pub(crate) fn update(kind: &Kind, part: Part, old: &Value, new: &mut Value) -> Result<(), Problem> {
    if part == Part::Subresource {
        place::keep(new, old, &["metadata", "resourceVersion"]);
        return Ok(());
    }
    fill(kind, new);
    let status = (part == Part::Whole).then(|| place::get(new, &["status"]).cloned()).flatten();
    let prepared = if part == Part::Status { hooks::Part::Status } else { hooks::Part::Main };
    hooks::prepare_for_update(kind, new, old, prepared);
    if let Some(status) = status {
        place::set(new, &["status"], status);
    }
    place::keep(new, old, &["metadata", "resourceVersion"]);
    if part == Part::Status {
        return Ok(());
    }
    refuse(kind, new, &validate::update(kind, new, old))
}

fn fill(kind: &Kind, object: &mut Value) {
    default::fill(kind.node(), object);
    (hooks::of(kind).defaults)(object);
}

fn refuse(kind: &Kind, object: &Value, errors: &[FieldError]) -> Result<(), Problem> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Problem::invalid(kind, place::text_or_empty(object, &["metadata", "name"]), errors))
}
