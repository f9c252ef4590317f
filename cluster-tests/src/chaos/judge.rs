//! From what a run has shown to its result.

use serde::Serialize;

use super::run::{FaultReport, Limits};
use super::scenario::{Scenario, Work};
use crate::oracle::{Counts, Promise, Violation};

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

impl Outcome {
    /// What the command ends with.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Fail => 1,
            Self::Void => 3,
        }
    }
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

/// The kinds of faults that took effect; `none` when none did.
pub(super) fn kinds(faults: &[FaultReport]) -> Vec<&'static str> {
    let took = faults.iter().filter(|fault| fault.missing.is_empty());
    let mut kinds: Vec<&str> = took.map(|fault| fault.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    if kinds.is_empty() { vec!["none"] } else { kinds }
}

/// Why a run shows nothing of a promise that is said to be judged in it: what could have broken it did not happen.
pub(super) fn unshown(promise: Promise, counts: &Counts, kinds: &[&str]) -> Option<String> {
    let under = |wanted: &[&str]| {
        let any = wanted.iter().any(|kind| kinds.contains(kind));
        (!any).then(|| format!("no fault of {} took effect, and {promise} is judged under one", wanted.join(", ")))
    };
    let of =
        |count: u64, what: &str| (count == 0).then(|| format!("no {what} was judged, and {promise} is about them"));
    match promise {
        Promise::G6 => of(counts.joins, "registration with a token"),
        Promise::G7 => of(counts.bindings, "binding of a Pod"),
        Promise::G10 => under(&["upgrade"]),
        Promise::G11 => under(&["membership"]),
        Promise::G13 => under(&["rot", "peer links", "client links"]),
        Promise::G15 => under(&["clock"]).or_else(|| of(counts.lent, "registration with a token that ends")),
        Promise::G16 => under(&["disk"]),
        Promise::G17 => under(&["cut", "pause"]),
        _ => None,
    }
}

/// Why watches of a run show nothing of transactions, though its clients make some: the Pod that takes another's place is bound as that one
/// ends.
pub(super) fn undivided(work: Work, counts: &Counts) -> Option<String> {
    let makes = matches!(work, Work::Quilt | Work::Both | Work::All);
    let none = makes && counts.transactions == 0;
    none.then(|| format!("no transaction was seen, and {} says that watches show each whole", Promise::G4))
}

/// Why a run that lasts for longer than tokens do shows nothing of their end.
pub(super) fn unended(scenario: &Scenario, counts: &Counts) -> Option<String> {
    let none = scenario.outlives_tokens() && counts.outlived == 0;
    none.then(|| format!("no token was used behind its end, and {} says that none is good then", Promise::G15))
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
    use crate::chaos::scenario::named;

    fn fault(kind: &'static str, missing: &[&str]) -> FaultReport {
        let missing = missing.iter().map(|why| (*why).to_owned()).collect();
        FaultReport { fault: kind.into(), kind, began_ms: 0, ended_ms: 1, took: Vec::new(), missing }
    }

    /// What a soak stands for are the faults that took effect in it, each kind once; without any it stands for none.
    #[test]
    fn kinds_are_those_that_took_effect() {
        let faults = [fault("kill", &[]), fault("disk", &["no writes refused"]), fault("cut", &[]), fault("kill", &[])];
        assert_eq!(kinds(&faults), ["cut", "kill"]);
        assert_eq!(kinds(&faults[1..2]), ["none"]);
        assert_eq!(kinds(&[]), ["none"]);
    }

    /// A promise of which nothing happened that could have broken it is not shown: no token used, no Pod bound, no fault of its kind.
    #[test]
    fn a_promise_without_grounds_is_not_shown() {
        let (none, all) = (Counts::default(), Counts { joins: 3, bindings: 2, lent: 1, ..Counts::default() });
        for promise in [Promise::G6, Promise::G7] {
            assert!(unshown(promise, &none, &["kill"]).is_some_and(|why| why.contains(&promise.to_string())));
            assert_eq!(unshown(promise, &all, &["kill"]), None);
        }
        for (promise, kind) in [
            (Promise::G10, "upgrade"),
            (Promise::G11, "membership"),
            (Promise::G13, "rot"),
            (Promise::G15, "clock"),
            (Promise::G16, "disk"),
            (Promise::G17, "cut"),
        ] {
            assert!(unshown(promise, &all, &["kill", "none"]).is_some(), "{promise}");
            assert_eq!(unshown(promise, &all, &["kill", kind]), None, "{promise}");
        }
        assert_eq!(unshown(Promise::G1, &none, &["none"]), None);
        assert!(undivided(Work::Quilt, &none).is_some() && undivided(Work::All, &none).is_some());
        let expires = named("clock-expiry").expect("there is such a scenario");
        assert!(
            unended(expires, &none).is_some() && unended(expires, &Counts { outlived: 1, ..none.clone() }).is_none()
        );
        assert_eq!(unended(named("clock-jumps").expect("there is one"), &none), None);
        assert_eq!(undivided(Work::Objects, &none), None);
        assert_eq!(undivided(Work::Quilt, &Counts { transactions: 1, ..none }), None);
    }

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
        assert_eq!([Outcome::Pass, Outcome::Fail, Outcome::Void].map(Outcome::code), [0, 1, 3]);
    }
}
