//! `PrevKV`: the object that a DELETED event carries is the one that stood before that revision. More of previous objects
//! is not shown over HTTP.

use super::Told;
use crate::history::EventKind;
use crate::oracle::{Findings, Promise};

pub(super) fn check(told: &Told<'_>, findings: &mut Findings) {
    for delivered in told.changes.iter().filter(|delivered| delivered.kind == EventKind::Deleted) {
        let revision = delivered.seen.revision;
        let Some(before) = told.expected.get(&revision).and_then(|expected| expected.before) else { continue };
        let seen = delivered.seen;
        if seen.value != before.value || seen.group != before.group || seen.uid != before.uid {
            let explanation = format!(
                "shows {} deleted at revision {revision} with \"{}\" of group \"{}\", and \"{}\" of group \"{}\" stood there",
                seen.name, seen.value, seen.group, before.value, before.group
            );
            findings.add(told.violation(Promise::G4, "PrevKV", &explanation).at(revision));
        }
    }
}
