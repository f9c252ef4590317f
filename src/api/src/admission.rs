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
    let part = match part {
        Part::Main => hooks::Part::Main,
        Part::Status => hooks::Part::Status,
        Part::Subresource => {
            place::keep(new, old, &["metadata", "resourceVersion"]);
            return Ok(());
        }
    };
    fill(kind, new);
    hooks::prepare_for_update(kind, new, old, part);
    place::keep(new, old, &["metadata", "resourceVersion"]);
    if part == hooks::Part::Status {
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
