//! Transition: for a watch with a selector, leaving what it chooses is DELETED and entering it is ADDED, whatever happened to the
//! object itself.

use super::Told;
use crate::oracle::{Findings, Promise};

pub(super) fn check(told: &Told<'_>, findings: &mut Findings) {
    if told.selector().is_none() {
        return;
    }
    for delivered in &told.changes {
        let revision = delivered.seen.revision;
        if let Some(expected) = told.expected.get(&revision)
            && expected.kind != delivered.kind
        {
            let group = |version: Option<&crate::oracle::replay::Version>| {
                version.map_or_else(|| "nothing".to_owned(), |version| format!("group \"{}\"", version.group))
            };
            let explanation = format!(
                "shows {} at revision {revision} as {:?}, where it went from {} to {} ({:?})",
                delivered.seen.name,
                delivered.kind,
                group(expected.before),
                group(Some(expected.change)),
                expected.change.life
            );
            findings.add(told.violation(Promise::G4, "Transition", &explanation).at(revision));
        }
    }
}
