//! Pods of one owner spread over the nodes.

use crate::filter::Candidate;

pub(super) fn cost(candidate: &Candidate<'_>, _home: Option<&str>) -> u64 {
    let owner = candidate.pod.owner.as_ref();
    u64::from(owner.and_then(|owner| candidate.ledger.by_owner.get(&owner.uid)).copied().unwrap_or_default())
}
