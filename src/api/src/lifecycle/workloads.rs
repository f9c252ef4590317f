//! Quilt workloads: the time of the last change of the spec, whoever made it, is kept with them.

use quilt_objects::place;
use serde_json::Value;

use super::{Allocation, Claims};
use crate::problem::Problem;
use crate::quilt::UPDATED_AT;

const MARK: [&str; 3] = ["metadata", "annotations", UPDATED_AT];

/// Takes nothing; see the module.
pub(super) fn allocate(at: &Allocation<'_>, old: Option<&Value>, new: Option<&mut Value>) -> Result<Claims, Problem> {
    if let Some(new) = new {
        match old.filter(|old| place::get(old, &["spec"]) == place::get(new, &["spec"])) {
            Some(old) => keep(new, old),
            None => place::set(new, &MARK, (at.now_ms / 1000).to_string()),
        }
    }
    Ok(Claims::default())
}

/// What a client says of the time does not count.
fn keep(new: &mut Value, old: &Value) {
    if place::get(old, &MARK).is_some() || place::get(new, &MARK).is_some() {
        place::keep(new, old, &MARK);
    }
}
