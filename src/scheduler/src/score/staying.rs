//! A replacement stays on the node of the Pod it replaces, if that may keep it.

use crate::filter::Candidate;

pub(super) fn cost(candidate: &Candidate<'_>, home: Option<&str>) -> u64 {
    u64::from(home.is_some_and(|home| home != candidate.node.name))
}
