//! The judge: reads a [`History`] and says which promises were broken, by which requests, through which replica, at which revision.
//!
//! All changes that any watch showed are put together into one [`Replay`]; every request, list and watch is then held
//! against it. Revisions give all writes one order, so that the question whether the history is linearizable is answered in n log n.
//! It knows promises, and nothing of how a replica keeps them.

mod effects;
#[cfg(test)]
mod falsify;
mod lists;
#[cfg(test)]
pub(crate) mod model;
mod order;
mod product;
pub mod replay;
#[cfg(test)]
mod tests;
mod tokens;
mod verdict;

pub use verdict::{Counts, Findings, Promise, Verdict, Violation};

use crate::history::History;
use crate::validator;
use replay::Replay;

/// Judges a history.
#[must_use]
pub fn check(history: &History) -> Verdict {
    let mut findings = Findings::default();
    let replay = Replay::build(history, &mut findings);
    effects::check(history, &replay, &mut findings);
    order::check(history, &replay, &mut findings);
    lists::check(history, &replay, &mut findings);
    tokens::check(history, &replay, &mut findings);
    product::check(history, &replay, &mut findings);
    validator::check(history, &replay, &mut findings);
    findings.verdict(history, &replay)
}
