//! Reliable: between two delivered events none is missing.

use std::collections::BTreeSet;

use super::Told;
use crate::history::Revision;
use crate::oracle::{Findings, Promise};

pub(super) fn check(told: &Told<'_>, findings: &mut Findings) {
    let delivered: BTreeSet<Revision> = told.changes.iter().map(|delivered| delivered.seen.revision).collect();
    let (Some(first), Some(last)) = (delivered.first(), delivered.last()) else { return };
    for (revision, expected) in told.expected.range(*first..*last) {
        if !delivered.contains(revision) {
            let explanation = format!(
                "lacks revision {revision} ({:?} of {}), though it shows {first} and {last}",
                expected.kind, expected.name
            );
            findings.add(told.violation(Promise::G4, "Reliable", &explanation).at(*revision));
        }
    }
}
