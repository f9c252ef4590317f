//! Nodes that are not ready get nothing, even before a taint says so.

use super::Candidate;

pub(super) fn refuse(candidate: &Candidate<'_>) -> Option<String> {
    (!candidate.node.ready).then(|| "node(s) were not ready".to_owned())
}
