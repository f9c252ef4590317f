//! Filter: a watch shows exactly the events that its selector chooses. That none of them is missing is said by others; here it is
//! that none is too many, and that what is shown is what the event is about.

use super::Told;
use crate::history::EventKind;
use crate::oracle::{Findings, Promise};

pub(super) fn check(told: &Told<'_>, findings: &mut Findings) {
    let Some(from) = told.from else { return };
    for delivered in &told.changes {
        let revision = delivered.seen.revision;
        if revision <= from || !told.knows(from, revision) {
            continue;
        }
        let Some(expected) = told.expected.get(&revision) else {
            let what = told.course.change(revision).map_or_else(
                || "where nothing of this collection was changed".to_owned(),
                |(name, change)| {
                    format!("where {name} of group \"{}\" was changed, which it does not choose", change.group)
                },
            );
            let explanation = format!("shows {} at revision {revision}, {what}", delivered.seen.name);
            findings.add(told.violation(Promise::G4, "Filter", &explanation).at(revision));
            continue;
        };
        let same = delivered.seen.name == expected.name
            && (delivered.kind == EventKind::Deleted
                || (delivered.seen.value == expected.change.value && delivered.seen.uid == expected.change.uid));
        if !same {
            let explanation = format!(
                "shows {} = \"{}\" at revision {revision}, where {} became \"{}\"",
                delivered.seen.name, delivered.seen.value, expected.name, expected.change.value
            );
            findings.add(told.violation(Promise::G4, "Filter", &explanation).at(revision));
        }
    }
}
