//! Scores: among the nodes that pass, the one with the lowest costs wins, compared in the order of the table
//! (quilt-api, section 5). On an empty cluster of equal nodes slot `i` goes to node `i mod n`.

mod load;
mod same_owner;
mod soft_taints;
mod staying;

use crate::filter::Candidate;

/// One score.
#[derive(Clone, Copy)]
pub struct Score {
    /// Its name.
    pub name: &'static str,
    /// What going there costs; less is better.
    pub cost: fn(&Candidate<'_>, Option<&str>) -> u64,
}

/// All scores, the weightiest first. What they leave equal goes to the node created first.
pub const SCORES: [Score; 4] = [
    Score { name: "Staying", cost: staying::cost },
    Score { name: "SoftTaints", cost: soft_taints::cost },
    Score { name: "SameOwner", cost: same_owner::cost },
    Score { name: "Load", cost: load::cost },
];
