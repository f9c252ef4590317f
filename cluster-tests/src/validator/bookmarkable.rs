//! Bookmarkable: a bookmark at r says that everything up to r was delivered, and r is the end of a transaction.

use std::collections::BTreeSet;

use super::Told;
use crate::history::{Line, Revision};
use crate::oracle::{Findings, Promise};

pub(super) fn check(told: &Told<'_>, findings: &mut Findings) {
    let mut delivered: BTreeSet<Revision> = BTreeSet::new();
    let mut marked: Option<Revision> = None;
    let mut looked_at = 0;
    for frame in told.frames() {
        match &frame.line {
            Line::Event { seen, .. } => {
                if let Some(mark) = marked.filter(|mark| seen.revision <= *mark) {
                    let explanation = format!("shows revision {} after a bookmark at {mark}", seen.revision);
                    findings.add(told.violation(Promise::G4, "Bookmarkable", &explanation).at(seen.revision));
                }
                delivered.insert(seen.revision);
            }
            Line::Bookmark { revision: mark, .. } => {
                for (revision, expected) in told.expected.range(looked_at..=(*mark).max(looked_at)) {
                    if revision <= mark && !delivered.contains(revision) {
                        let explanation = format!(
                            "has a bookmark at {mark} before it has shown revision {revision} ({:?} of {})",
                            expected.kind, expected.name
                        );
                        findings.add(told.violation(Promise::G4, "Bookmarkable", &explanation).at(*revision));
                    }
                }
                looked_at = looked_at.max(mark.saturating_add(1));
                within(told, *mark, findings);
                marked = Some(marked.map_or(*mark, |before| before.max(*mark)));
            }
            Line::Error { .. } => {}
        }
    }
}

fn within(told: &Told<'_>, mark: Revision, findings: &mut Findings) {
    for transaction in told.replay.transactions() {
        if let (Some(first), Some(last)) = (transaction.revisions.first(), transaction.revisions.last())
            && *first <= mark
            && mark < *last
        {
            let explanation = format!("has a bookmark at {mark}, within the transaction {first}..={last}");
            findings
                .add(told.violation(Promise::G4, "Bookmarkable", &explanation).of_all(transaction.operation).at(mark));
        }
    }
}
