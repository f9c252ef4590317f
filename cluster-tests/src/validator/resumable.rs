//! Resumable: a watch from r begins with the first event after r, on any replica.

use super::Told;
use crate::oracle::{Findings, Promise};

pub(super) fn check(told: &Told<'_>, findings: &mut Findings) {
    let Some(from) = told.from else { return };
    for delivered in told.changes.iter().filter(|delivered| delivered.seen.revision <= from) {
        let explanation = format!("begins behind {from} and shows revision {}", delivered.seen.revision);
        findings.add(told.violation(Promise::G5, "Resumable", &explanation).at(delivered.seen.revision));
    }
    let Some(first) = told.changes.iter().map(|delivered| delivered.seen.revision).filter(|shown| *shown > from).min()
    else {
        return;
    };
    for (revision, expected) in told.expected.range(..first) {
        let explanation = format!(
            "begins with revision {first} and lacks revision {revision} ({:?} of {})",
            expected.kind, expected.name
        );
        findings.add(told.violation(Promise::G5, "Resumable", &explanation).at(*revision));
    }
}
