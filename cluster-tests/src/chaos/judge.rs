//! From what a run has shown to its result.

use serde::Serialize;

use super::run::Limits;
use crate::oracle::{Counts, Violation};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Faults took effect, there was load, and nothing was broken.
    Pass,
    /// It proves nothing.
    Void,
    /// A promise was broken.
    Fail,
}

/// What is wrong with a run's own validity: too little load, or too little seen.
pub(super) fn doubts(limits: Limits, before: u64, after: u64, counts: &Counts) -> Vec<String> {
    let mut doubts = Vec::new();
    let mut least = |what: &str, was: u64, wanted: u64| {
        if was < wanted {
            doubts.push(format!("{was} {what}, {wanted} are needed for a verdict"));
        }
    };
    least("requests acknowledged before the first fault", before, limits.requests);
    least("requests acknowledged after the last fault", after, limits.requests);
    least("requests judged", counts.operations, limits.requests * 2);
    least("events of watches judged", counts.events, limits.requests);
    doubts
}

/// The result: a broken promise counts whatever else is wrong with the run.
pub(super) fn outcome(violations: &[Violation], void: &[String]) -> Outcome {
    match (violations.is_empty(), void.is_empty()) {
        (false, _) => Outcome::Fail,
        (true, false) => Outcome::Void,
        (true, true) => Outcome::Pass,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Promise;

    /// Too little load makes a run void, a broken promise makes it fail, also a void one.
    #[test]
    fn void_is_not_passed() {
        let limits = Limits::default();
        let counts = Counts { operations: 1_000, events: 1_000, ..Counts::default() };
        assert!(doubts(limits, 1_000, 1_000, &counts).is_empty());
        assert_eq!(doubts(limits, 0, 1_000, &counts).len(), 1);
        assert_eq!(doubts(limits, 1_000, 0, &Counts::default()).len(), 3);
        let violation = vec![Violation::new(Promise::G1, "x", "y")];
        assert_eq!(outcome(&[], &[]), Outcome::Pass);
        assert_eq!(outcome(&[], &["no load".into()]), Outcome::Void);
        assert_eq!(outcome(&violation, &["no load".into()]), Outcome::Fail);
    }
}
