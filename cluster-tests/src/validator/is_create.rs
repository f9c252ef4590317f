//! `IsCreate`: what was not there is ADDED, what was is MODIFIED, and only what ends is DELETED. Where a selector decides that,
//! it is the transition's business.

use super::Told;
use crate::oracle::{Findings, Promise};

pub(super) fn check(told: &Told<'_>, findings: &mut Findings) {
    if told.selector().is_some() {
        return;
    }
    for delivered in &told.changes {
        let revision = delivered.seen.revision;
        if let Some(expected) = told.expected.get(&revision)
            && expected.kind != delivered.kind
        {
            let explanation = format!(
                "shows {} at revision {revision} as {:?}, and it was {:?}",
                delivered.seen.name, delivered.kind, expected.kind
            );
            findings.add(told.violation(Promise::G4, "IsCreate", &explanation).at(revision));
        }
    }
}
