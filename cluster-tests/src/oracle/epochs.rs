//! Epochs: what clients saw before an operator began a new one, and what they saw behind it, are judged each by itself, since no watch
//! shows what was between; and what was acknowledged before must not be missing behind.
//!
//! An operator may have to give up writes that only lost replicas had. Whoever judges by this has seen to it that a survivor had them all.

use std::collections::BTreeMap;

use super::order::named;
use super::{Findings, Promise, Violation};
use crate::history::{
    Connection, Epoch, Freshness, History, Micros, Object, Operation, Outcome, Page, Request, Seen, Stream,
};

/// The parts of a history between its epochs, in order.
pub(super) fn split(history: &History) -> Vec<History> {
    let mut epochs = history.epochs.clone();
    epochs.sort_by_key(|epoch| epoch.begun);
    let mut parts = Vec::new();
    let mut rest = History { epochs: Vec::new(), ..history.clone() };
    for epoch in epochs {
        let (before, behind) = halves(rest, epoch);
        parts.push(before);
        rest = behind;
    }
    parts.push(rest);
    parts
}

fn halves(history: History, epoch: Epoch) -> (History, History) {
    let mut before = History { streams: Vec::new(), ..history.clone() };
    before.operations = history.operations.iter().filter_map(|operation| until(operation, epoch.begun)).collect();
    before.transactions.retain(|one| one.revisions.iter().all(|revision| *revision < epoch.revision));
    let mut behind = History { streams: Vec::new(), ..history };
    behind.operations.retain(|operation| operation.returned >= epoch.begun);
    behind.transactions.retain(|one| one.revisions.iter().all(|revision| *revision >= epoch.revision));
    behind.notes.clear();
    behind.epochs.push(epoch);
    for stream in history.streams {
        let (first, second) = stream.connections.into_iter().partition(|one| answered(one) < epoch.begun);
        before.streams.push(Stream { connections: first, selector: stream.selector.clone(), awaited: None, ..stream });
        behind.streams.push(Stream { connections: second, selector: stream.selector, ..stream });
    }
    (before, behind)
}

/// A request as it is known up to a moment: one that was under way then may have happened, or not.
fn until(operation: &Operation, moment: Micros) -> Option<Operation> {
    if operation.returned < moment {
        return Some(operation.clone());
    }
    let open = operation.invoked < moment && operation.request.writes();
    open.then(|| Operation {
        returned: moment,
        outcome: Outcome::Unknown { why: "an operator began a new epoch before an answer".into() },
        ..operation.clone()
    })
}

/// When a replica first said something, or the end without that.
fn answered(connection: &Connection) -> Micros {
    connection.frames.first().map_or(connection.ended, |frame| frame.at)
}

/// What one part knows to have been there at last, and who was told.
struct Known<'a> {
    seen: &'a Seen,
    by: &'a Operation,
}

/// Nothing that was acknowledged, or shown, in one part is missing from the first list of the next.
pub(super) fn check(before: &History, behind: &History, findings: &mut Findings) {
    for collection in (0_u16..).take(behind.collections.len()) {
        let lists = behind.operations.iter().filter_map(|operation| Some((operation, whole(operation, collection)?)));
        let Some((list, items)) = lists.min_by_key(|(operation, _)| operation.invoked) else {
            findings.unjudged("an epoch behind which nothing was listed");
            continue;
        };
        let shown: BTreeMap<&str, &Seen> = items.iter().map(|seen| (seen.name.as_str(), seen)).collect();
        for (name, known) in latest(before, collection) {
            let object = Object { collection, name: name.to_owned() };
            let missing = match shown.get(name) {
                Some(seen) => (seen.revision < known.seen.revision).then(|| format!("at revision {}", seen.revision)),
                None => {
                    let deleting = before.operations.iter().chain(&behind.operations).any(|operation| {
                        may_delete(operation, &object)
                            && operation.returned >= known.by.invoked
                            && operation.invoked <= list.returned
                    });
                    (!deleting).then(|| "not at all".to_owned())
                }
            };
            if let Some(how) = missing {
                let explanation = format!(
                    "operation {} ({}) showed {name} at revision {}; behind the new epoch operation {} shows it {how}",
                    known.by.id,
                    named(known.by),
                    known.seen.revision,
                    list.id
                );
                findings.add(told(known.by, list, explanation));
            }
        }
        for operation in &before.operations {
            let (Request::Delete { object, .. }, Outcome::Done { uid }) = (&operation.request, &operation.outcome)
            else {
                continue;
            };
            let back = shown.get(object.name.as_str()).filter(|seen| !uid.is_empty() && seen.uid == *uid);
            if object.collection == collection && back.is_some() {
                let explanation = format!(
                    "operation {} ({}) was acknowledged; behind the new epoch operation {} shows {} again",
                    operation.id,
                    named(operation),
                    list.id,
                    object.name
                );
                findings.add(told(operation, list, explanation));
            }
        }
    }
}

fn told(operation: &Operation, list: &Operation, explanation: String) -> Violation {
    Violation::new(Promise::G3, "AcrossEpochs", explanation).of(operation.id).of(list.id).through(list.replica)
}

/// What a list of a whole collection shows.
fn whole(operation: &Operation, wanted: u16) -> Option<&[Seen]> {
    let Request::List { collection, selector: None, freshness: Freshness::Latest, page: Page::Whole } =
        &operation.request
    else {
        return None;
    };
    match &operation.outcome {
        Outcome::Items { items, more: false, .. } if *collection == wanted => Some(items),
        _ => None,
    }
}

/// The latest version of each object that any answer showed.
fn latest(history: &History, wanted: u16) -> BTreeMap<&str, Known<'_>> {
    let mut latest: BTreeMap<&str, Known<'_>> = BTreeMap::new();
    for by in &history.operations {
        let collection = match &by.request {
            Request::List { collection, .. } => Some(*collection),
            request => request.object().map(|object| object.collection),
        };
        let seen = match &by.outcome {
            Outcome::Object(seen) => std::slice::from_ref(seen),
            Outcome::Items { items, .. } => items,
            _ => &[],
        };
        for seen in seen.iter().filter(|_| collection == Some(wanted)) {
            let known = latest.entry(&seen.name).or_insert(Known { seen, by });
            if known.seen.revision < seen.revision {
                *known = Known { seen, by };
            }
        }
    }
    latest
}

fn may_delete(operation: &Operation, object: &Object) -> bool {
    let open = |code: u16| code == super::effects::OPEN;
    let refused = matches!(operation.outcome, Outcome::Refused { code, .. } if !open(code));
    matches!(&operation.request, Request::Delete { object: deleted, .. } if deleted == object) && !refused
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Collection, Writers};
    use crate::oracle;

    fn seen(name: &str, revision: u64) -> Seen {
        Seen {
            name: name.into(),
            uid: format!("uid-{name}"),
            revision,
            value: format!("value-{name}"),
            group: String::new(),
            print: 1,
            facts: None,
        }
    }

    fn operation(id: u64, times: (Micros, Micros), request: Request, outcome: Outcome) -> Operation {
        Operation { id, client: 0, replica: 1, invoked: times.0, returned: times.1, request, outcome }
    }

    fn object(name: &str) -> Object {
        Object { collection: 0, name: name.into() }
    }

    fn listed(items: Vec<Seen>) -> Operation {
        let request = Request::List { collection: 0, selector: None, freshness: Freshness::Latest, page: Page::Whole };
        operation(9, (210, 220), request, Outcome::Items { revision: 1_000, items, more: false })
    }

    /// One object is made, a new epoch begins at 200, and behind it a list shows these.
    fn history(more: Vec<Operation>, items: Vec<Seen>) -> History {
        let create = Request::Create { object: object("a"), value: "value-a".into(), key: None };
        let mut operations = vec![operation(0, (10, 20), create, Outcome::Object(seen("a", 5)))];
        operations.extend(more);
        operations.push(listed(items));
        let collections = vec![Collection { path: "/x".into(), writers: Writers::Ours }];
        let epochs = vec![Epoch { begun: 200, revision: 1_000 }];
        History { collections, operations, epochs, ..History::default() }
    }

    fn deletion(times: (Micros, Micros), outcome: Outcome) -> Vec<Operation> {
        vec![operation(1, times, Request::Delete { object: object("a"), expected: None }, outcome)]
    }

    fn found(history: &History) -> bool {
        oracle::check(history).found.contains_key("AcrossEpochs")
    }

    /// What was acknowledged has to be there in the next epoch, as new as it was, unless somebody may have deleted it.
    #[test]
    fn nothing_acknowledged_is_left_behind() {
        assert!(!found(&history(vec![], vec![seen("a", 5)])));
        assert!(!found(&history(vec![], vec![seen("a", 7)])), "an answer that was lost");
        assert!(found(&history(vec![], vec![])), "it is gone");
        assert!(found(&history(vec![], vec![seen("a", 4)])), "it is older");
        let unknown = || Outcome::Unknown { why: String::new() };
        assert!(!found(&history(deletion((30, 40), unknown()), vec![])));
        assert!(!found(&history(deletion((205, 208), unknown()), vec![])), "deleted in the new one");
        assert!(found(&history(deletion((1, 2), unknown()), vec![])), "deleted before it was there");
        let refused = Outcome::Refused { code: 409, reason: String::new() };
        assert!(found(&history(deletion((30, 40), refused), vec![])));
        let done = || Outcome::Done { uid: "uid-a".into() };
        assert!(!found(&history(deletion((30, 40), done()), vec![])));
        assert!(found(&history(deletion((30, 40), done()), vec![seen("a", 5)])), "a deletion is lost");
    }

    /// A request that was under way when the epoch began is in both parts: in the first without an answer.
    #[test]
    fn what_was_under_way_is_in_both_parts() {
        let history = history(deletion((190, 205), Outcome::Done { uid: "uid-a".into() }), vec![]);
        let parts = split(&history);
        let ids = |part: &History| part.operations.iter().map(|operation| operation.id).collect::<Vec<_>>();
        assert_eq!(parts.iter().map(ids).collect::<Vec<_>>(), [vec![0, 1], vec![1, 9]]);
        assert!(matches!(parts[0].operations[1].outcome, Outcome::Unknown { .. }));
        assert!(parts[0].epochs.is_empty() && parts[1].epochs.len() == 1);
    }
}
