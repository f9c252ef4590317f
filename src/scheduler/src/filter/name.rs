//! A Pod that names its node goes nowhere else.

use super::Candidate;

pub(super) fn refuse(candidate: &Candidate<'_>) -> Option<String> {
    let wanted = &candidate.pod.node;
    let other = !wanted.is_empty() && *wanted != candidate.node.name;
    other.then(|| "node(s) didn't match the requested node name".to_owned())
}
