//! Nodes: an agent's node gives its token, its name and its subnet back in the transaction that removes the Node, so
//! that a Kubernetes DELETE of it equals the Quilt one.

use serde_json::Value;

use super::{Allocation, Claims};
use crate::problem::Problem;
use crate::quilt::release;

/// Nothing is taken here: what a node holds, its registration took.
pub(super) fn allocate(at: &Allocation<'_>, old: Option<&Value>, new: Option<&mut Value>) -> Result<Claims, Problem> {
    match (old, new) {
        (Some(old), None) => {
            let (compares, ops) = release(at.view, &at.cluster.id, old)?;
            Ok(Claims { compares, ops })
        }
        _ => Ok(Claims::default()),
    }
}
