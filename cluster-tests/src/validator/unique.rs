//! Unique: no event is delivered twice, neither by one connection nor by one that goes on where another ended.

use std::collections::BTreeSet;

use super::Told;
use crate::history::{Revision, Stream};
use crate::oracle::{Findings, Promise};

pub(super) fn check(_stream: &Stream, tales: &[Told<'_>], findings: &mut Findings) {
    let mut before: BTreeSet<Revision> = BTreeSet::new();
    for told in tales {
        let mut own: BTreeSet<Revision> = BTreeSet::new();
        let from = told.from.unwrap_or(0);
        for delivered in &told.changes {
            let revision = delivered.seen.revision;
            // A client that chooses an older start is shown again what it had seen; that is what it asked for.
            let again = revision <= from && before.contains(&revision);
            if !own.insert(revision) || again {
                let explanation = format!("shows {} at revision {revision} a second time", delivered.seen.name);
                findings.add(told.violation(Promise::G4, "Unique", &explanation).at(revision));
            }
        }
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for delivered in &told.initial {
            if !names.insert(&delivered.seen.name) {
                let explanation = format!("shows {} twice among its initial events", delivered.seen.name);
                findings.add(told.violation(Promise::G4, "Unique", &explanation).at(delivered.seen.revision));
            }
        }
        before.extend(own);
    }
}
