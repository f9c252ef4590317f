//! The judge: reads a [`History`] and says which promises were broken, by which requests, through which replica, at which revision.
//!
//! All changes that any watch showed are put together into one [`Replay`]; every request, list and watch is then held
//! against it. Revisions give all writes one order, so that the question whether the history is linearizable is answered in n log n.
//! It knows promises, and nothing of how a replica keeps them.

mod effects;
mod epochs;
#[cfg(test)]
mod falsify;
mod lists;
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

/// A mistake planted into the judge itself, for the [museum](crate::museum).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bias {
    /// None: this is the judge.
    None,
    /// A write whose client got no answer is taken for one that never happens.
    UnknownIsAbsent,
    /// A write whose client got no answer is taken for answered when a watch next shows a change of its object, whoever made it.
    WatchEndsRequests,
}

/// Judges a history.
#[must_use]
pub fn check(history: &History) -> Verdict {
    judged_by(Bias::None, history)
}

/// Judges a history as a judge with this mistake does.
pub(crate) fn judged_by(bias: Bias, history: &History) -> Verdict {
    if history.epochs.is_empty() {
        return part(bias, history, Findings::default());
    }
    let mut verdict = Verdict::default();
    let mut before: Option<History> = None;
    for behind in epochs::split(history) {
        let mut findings = Findings::default();
        if let Some(before) = &before {
            epochs::check(before, &behind, &mut findings);
        }
        verdict.merge(part(bias, &behind, findings));
        before = Some(behind);
    }
    verdict
}

/// Judges what was seen in one epoch.
fn part(bias: Bias, history: &History, mut findings: Findings) -> Verdict {
    let replay = Replay::build(history, &mut findings);
    effects::check(history, &replay, bias, &mut findings);
    order::check(history, &replay, bias, &mut findings);
    lists::check(history, &replay, &mut findings);
    tokens::check(history, &replay, &mut findings);
    product::check(history, &replay, &mut findings);
    validator::check(history, &replay, &mut findings);
    findings.verdict(history, &replay)
}
