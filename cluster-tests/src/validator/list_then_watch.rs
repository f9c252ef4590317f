//! `ListThenWatch`: a list at r and a watch from r together have neither gap nor overlap: a cache filled by the one and kept by the
//! other is the state at every place the watch has come to.

use std::collections::BTreeMap;

use super::Told;
use crate::history::{EventKind, Outcome, Revision, Start};
use crate::oracle::{Findings, Promise};

pub(super) fn check(told: &Told<'_>, findings: &mut Findings) {
    let Start::BehindList(list, from) = told.connection.start else { return };
    if !told.knows(from, told.upto) {
        return;
    }
    let Some(Outcome::Items { revision, items, .. }) = told.history.operation(list).map(|one| &one.outcome) else {
        return;
    };
    if *revision != from {
        let explanation = format!("begins behind {from}, and its list is of {revision}");
        findings.add(told.violation(Promise::G4, "ListThenWatch", &explanation).of(list).at(from));
    }
    let mut cache: BTreeMap<&str, Revision> = items.iter().map(|seen| (seen.name.as_str(), seen.revision)).collect();
    for delivered in &told.changes {
        match delivered.kind {
            EventKind::Deleted => drop(cache.remove(delivered.seen.name.as_str())),
            EventKind::Added | EventKind::Modified => {
                cache.insert(&delivered.seen.name, delivered.seen.revision);
            }
        }
    }
    let state = told.course.state(told.upto);
    let state: BTreeMap<&str, Revision> = state
        .into_iter()
        .filter(|(name, version)| told.chooses(name, version))
        .map(|(name, version)| (name, version.revision))
        .collect();
    if cache != state {
        let differs = |(name, revision): (&&str, &Revision)| state.get(*name) != Some(revision);
        let more: Vec<_> = cache.iter().filter(|(name, revision)| differs((name, revision))).take(3).collect();
        let lacking: Vec<_> =
            state.iter().filter(|(name, revision)| cache.get(*name) != Some(revision)).take(3).collect();
        let explanation =
            format!("leaves a cache at revision {} that has {more:?}, where the state has {lacking:?}", told.upto);
        findings.add(told.violation(Promise::G4, "ListThenWatch", &explanation).of(list).at(told.upto));
    }
}
