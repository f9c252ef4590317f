//! Nodes with fewer placements in all are preferred.

use crate::filter::Candidate;

pub(super) fn cost(candidate: &Candidate<'_>, _home: Option<&str>) -> u64 {
    u64::from(candidate.ledger.placements)
}
