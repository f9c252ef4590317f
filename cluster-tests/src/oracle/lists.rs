//! Lists: each is the replayed state at its revision, whole, in order, and its pages follow each other within one snapshot.

use std::collections::{BTreeMap, BTreeSet};

use super::order::named;
use super::replay::{Life, Replay, Version};
use super::{Findings, Promise, Violation};
use crate::history::{Freshness, History, Object, Operation, OperationId, Outcome, Page, Request, Revision, Selector};

/// Where a page goes on: the snapshot and the last name before it.
#[derive(Clone, Debug)]
struct Cursor {
    revision: Revision,
    last: Option<String>,
}

/// Checks all lists.
pub(super) fn check(history: &History, replay: &Replay, findings: &mut Findings) {
    let mut cursors: BTreeMap<OperationId, Cursor> = BTreeMap::new();
    let mut ends: BTreeSet<OperationId> = BTreeSet::new();
    for operation in &history.operations {
        let Request::List { collection, selector, freshness, page } = &operation.request else { continue };
        let Outcome::Items { revision, items, more } = &operation.outcome else { continue };
        let from = match page {
            Page::Whole | Page::First => None,
            Page::Behind(before) => {
                let Some(cursor) = cursors.get(before) else {
                    findings.unjudged("a page behind one that is not known");
                    continue;
                };
                if cursor.revision != *revision {
                    let explanation = format!(
                        "operation {} ({}) shows revision {revision}, the page before it revision {}",
                        operation.id,
                        named(operation),
                        cursor.revision
                    );
                    findings.add(told(Promise::G2, operation, explanation, *revision).of(*before));
                }
                cursor.last.clone()
            }
        };
        let last = items.last().map(|seen| seen.name.clone()).or_else(|| from.clone());
        cursors.insert(operation.id, Cursor { revision: *revision, last });
        if !more {
            ends.insert(operation.id);
        }
        if let Freshness::Exactly(wanted) = freshness
            && wanted != revision
        {
            let explanation =
                format!("operation {} asked for revision {wanted} exactly and got {revision}", operation.id);
            findings.add(told(Promise::G2, operation, explanation, *revision));
        }
        inside(replay, operation, *revision, findings);
        let course = replay.course(*collection);
        if *revision < course.base || *revision > course.covered {
            findings.unjudged("a list outside of what was watched");
            continue;
        }
        findings.counts().lists += 1;
        findings.counts().items += items.len() as u64;
        let state = course.state(*revision);
        let behind =
            |name: &str| from.as_deref().is_none_or(|from| super::replay::place(name) > super::replay::place(from));
        let chosen = |name: &str, version: &Version| {
            selector.as_ref().is_none_or(|selector: &Selector| selector.chooses(name, &version.group))
        };
        let wanted: Vec<_> =
            state.into_iter().filter(|(name, version)| behind(name) && chosen(name, version)).collect();
        let shown: Vec<(&str, Revision)> = items.iter().map(|seen| (seen.name.as_str(), seen.revision)).collect();
        let expected: Vec<(&str, Revision)> =
            wanted.iter().take(items.len()).map(|(name, version)| (*name, version.revision)).collect();
        if shown != expected {
            differs(history, replay, operation, *revision, &shown, &wanted, findings);
        } else if (!*more && wanted.len() > items.len()) || (*more && selector.is_none() && wanted.len() == items.len())
        {
            // A page that selects may be the last one without knowing it.
            missing(history, operation, *collection, *revision, &wanted[items.len()..], findings);
        }
    }
}

fn told(promise: Promise, operation: &Operation, explanation: String, revision: Revision) -> Violation {
    Violation::new(promise, "Snapshot", explanation).of(operation.id).through(operation.replica).at(revision)
}

/// A list never stands within a transaction.
fn inside(replay: &Replay, operation: &Operation, revision: Revision, findings: &mut Findings) {
    for transaction in replay.transactions() {
        if let (Some(first), Some(last)) = (transaction.revisions.first(), transaction.revisions.last())
            && *first <= revision
            && revision < *last
        {
            let explanation = format!(
                "operation {} ({}) shows revision {revision}, which is within the transaction {first}..={last}",
                operation.id,
                named(operation)
            );
            findings.add(told(Promise::G2, operation, explanation, revision).of_all(transaction.operation));
        }
    }
}

/// Names the first difference.
fn differs(
    history: &History,
    replay: &Replay,
    operation: &Operation,
    revision: Revision,
    shown: &[(&str, Revision)],
    wanted: &[(&str, &Version)],
    findings: &mut Findings,
) {
    let Request::List { collection, .. } = &operation.request else { return };
    let place =
        shown.iter().zip(wanted).take_while(|(shown, wanted)| shown.0 == wanted.0 && shown.1 == wanted.1.revision);
    let place = place.count();
    let (is, should) = (shown.get(place), wanted.get(place));
    if let Some((name, version)) = should
        && !shown.iter().any(|(other, _)| other == name)
    {
        return missing(history, operation, *collection, revision, &[(*name, version)], findings);
    }
    let course = replay.course(*collection);
    let known = is.and_then(|(name, _)| course.at(name, revision));
    let known = known.map(|known| (known.life == Life::There, known.revision));
    let explanation = format!(
        "operation {} ({}) at revision {revision} shows {is:?}, where the state has {:?}; of what is shown it knows \
         (there, revision) {known:?}",
        operation.id,
        named(operation),
        should.map(|(name, version)| (*name, version.revision)),
    );
    findings.add(told(Promise::G2, operation, explanation, revision));
}

/// What is missing in a list was lost when somebody was told that it is there.
fn missing(
    history: &History,
    operation: &Operation,
    collection: u16,
    revision: Revision,
    wanted: &[(&str, &Version)],
    findings: &mut Findings,
) {
    let Some((name, version)) = wanted.first() else {
        let explanation =
            format!("operation {} ({}) says that there is more, and there is not", operation.id, named(operation));
        return findings.add(told(Promise::G2, operation, explanation, revision));
    };
    let object = Object { collection, name: (*name).to_owned() };
    let acknowledged = history.operations.iter().find(|one| {
        one.request.object() == Some(&object) && one.request.value() == Some(&version.value) && one.outcome.succeeded()
    });
    let (promise, by) = match acknowledged {
        Some(one) => (Promise::G3, format!("acknowledged by operation {}", one.id)),
        None => (Promise::G2, "shown by watches".to_owned()),
    };
    let explanation = format!(
        "operation {} ({}) at revision {revision} lacks {name} = \"{}\" of revision {}, {by}",
        operation.id,
        named(operation),
        version.value,
        version.revision
    );
    findings.add(told(promise, operation, explanation, revision));
}
