//! Ways to falsify a history, one for each defect that a judge must not let pass. Each says whether it found a place to do so.

use crate::history::{
    Connection, End, EventKind, Freshness, History, Line, Operation, Outcome, Request, Revision, Seen, Selector, Start,
};
use crate::oracle::model::{Run, version};
use crate::random::Random;

/// What is made wrong, and the check that must say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Falsehood {
    DropEvent,
    DropBehindList,
    DropEverywhere,
    DropFirstEvent,
    DropBeforeBookmark,
    SwapEvents,
    RepeatEvent,
    RepeatOnResume,
    SplitTransaction,
    FlipKind,
    FlipTransition,
    LeaveUnsaid,
    ForeignEvent,
    OtherPrevious,
    OtherBytes,
    EarlyExpiry,
    NoInitialMark,
    StaleInitial,
    EarlyExpiryOfPages,
    InitialLacksOne,
    SilentReader,
    StaleRead,
    FutureRead,
    StaleList,
    ListLacksOne,
    PageOfAnotherSnapshot,
    FalseNotFound,
    TwoWinners,
    TwoEffects,
    RefusedHasEffect,
    LostAcknowledged,
    LateWrite,
    Phantom,
    ListWithinTransaction,
}

pub(crate) const ALL: [(Falsehood, &str); 34] = [
    (Falsehood::DropEvent, "Reliable"),
    (Falsehood::DropBehindList, "ListThenWatch"),
    (Falsehood::DropEverywhere, "Reliable"),
    (Falsehood::DropFirstEvent, "Resumable"),
    (Falsehood::DropBeforeBookmark, "Bookmarkable"),
    (Falsehood::SwapEvents, "Ordered"),
    (Falsehood::RepeatEvent, "Unique"),
    (Falsehood::RepeatOnResume, "Resumable"),
    (Falsehood::SplitTransaction, "Atomic"),
    (Falsehood::FlipKind, "IsCreate"),
    (Falsehood::FlipTransition, "Transition"),
    (Falsehood::LeaveUnsaid, "Bookmarkable"),
    (Falsehood::ForeignEvent, "Filter"),
    (Falsehood::OtherPrevious, "PrevKV"),
    (Falsehood::OtherBytes, "SameEverywhere"),
    (Falsehood::EarlyExpiry, "WindowHonest"),
    (Falsehood::NoInitialMark, "InitialEvents"),
    (Falsehood::StaleInitial, "StaleRead"),
    (Falsehood::EarlyExpiryOfPages, "WindowHonest"),
    (Falsehood::InitialLacksOne, "InitialEvents"),
    (Falsehood::SilentReader, "SlowReader"),
    (Falsehood::StaleRead, "StaleRead"),
    (Falsehood::FutureRead, "Order"),
    (Falsehood::StaleList, "StaleRead"),
    (Falsehood::ListLacksOne, "Snapshot"),
    (Falsehood::PageOfAnotherSnapshot, "Snapshot"),
    (Falsehood::FalseNotFound, "Refusal"),
    (Falsehood::TwoWinners, "OneWinner"),
    (Falsehood::TwoEffects, "OneEffect"),
    (Falsehood::RefusedHasEffect, "RefusedHasEffect"),
    (Falsehood::LostAcknowledged, "Acknowledged"),
    (Falsehood::LateWrite, "Order"),
    (Falsehood::Phantom, "Phantom"),
    (Falsehood::ListWithinTransaction, "Snapshot"),
];

/// Places in a history: stream, connection, frame.
type Place = (usize, usize, usize);

/// Frames with the connection and the stream's selector they belong to, that are as wanted.
fn frames(history: &History, wanted: impl Fn(&Connection, Option<&Selector>, usize, &Line) -> bool) -> Vec<Place> {
    let mut found = Vec::new();
    for (s, stream) in history.streams.iter().enumerate() {
        for (c, connection) in stream.connections.iter().enumerate() {
            for (f, frame) in connection.frames.iter().enumerate() {
                if wanted(connection, stream.selector.as_ref(), f, &frame.line) {
                    found.push((s, c, f));
                }
            }
        }
    }
    found
}

fn some<T: Clone>(random: &mut Random, all: &[T]) -> Option<T> {
    (!all.is_empty()).then(|| random.one(all).clone())
}

/// Whether a frame is a change: an event behind the initial ones.
fn is_change(connection: &Connection, place: usize) -> bool {
    let initial = matches!(connection.start, Start::InitialEvents);
    let begun = !initial
        || connection.frames[..place]
            .iter()
            .any(|frame| matches!(frame.line, Line::Bookmark { initial_end: true, .. }));
    begun && matches!(connection.frames[place].line, Line::Event { .. })
}

fn changes(connection: &Connection) -> Vec<usize> {
    (0..connection.frames.len()).filter(|place| is_change(connection, *place)).collect()
}

fn line(history: &mut History, (s, c, f): Place) -> &mut Line {
    &mut history.streams[s].connections[c].frames[f].line
}

fn revision_of(line: &Line) -> Revision {
    match line {
        Line::Event { seen, .. } => seen.revision,
        Line::Bookmark { revision, .. } => *revision,
        Line::Error { .. } => 0,
    }
}

fn operations(history: &History, wanted: impl Fn(&Operation) -> bool) -> Vec<usize> {
    (0..history.operations.len()).filter(|place| wanted(&history.operations[*place])).collect()
}

/// Every version of the history with this revision, wherever it is shown.
fn each_seen(history: &mut History, mut change: impl FnMut(&mut Seen)) {
    for operation in &mut history.operations {
        match &mut operation.outcome {
            Outcome::Object(seen) => change(seen),
            Outcome::Items { items, .. } => items.iter_mut().for_each(&mut change),
            Outcome::Done { .. } | Outcome::Refused { .. } | Outcome::Unknown { .. } => {}
        }
    }
    for connection in history.streams.iter_mut().flat_map(|stream| &mut stream.connections) {
        for frame in &mut connection.frames {
            if let Line::Event { seen, .. } = &mut frame.line {
                change(seen);
            }
        }
    }
}

/// Falsifies a run in this way; `None` when it offers no place for it.
pub(crate) fn falsify(run: &mut Run, what: Falsehood, random: &mut Random) -> Option<()> {
    use Falsehood as F;
    match what {
        F::DropEvent
        | F::DropBehindList
        | F::DropEverywhere
        | F::DropFirstEvent
        | F::DropBeforeBookmark
        | F::SwapEvents
        | F::RepeatEvent
        | F::RepeatOnResume
        | F::SplitTransaction
        | F::FlipKind
        | F::FlipTransition
        | F::LeaveUnsaid
        | F::ForeignEvent
        | F::OtherPrevious
        | F::OtherBytes
        | F::EarlyExpiry
        | F::NoInitialMark
        | F::StaleInitial
        | F::InitialLacksOne
        | F::SilentReader => watches(run, what, random),
        _ => requests(run, what, random),
    }
}

fn watches(run: &mut Run, what: Falsehood, random: &mut Random) -> Option<()> {
    use Falsehood as F;
    let history = &mut run.history;
    let frames_after = |connection: &Connection, place: usize| changes(connection).iter().any(|other| *other > place);
    match what {
        F::DropEvent => {
            let places = frames(history, |connection, _, f, _| {
                let changes = changes(connection);
                is_change(connection, f) && changes.first() != Some(&f) && changes.last() != Some(&f)
            });
            let (s, c, f) = some(random, &places)?;
            history.streams[s].connections[c].frames.remove(f);
        }
        F::DropBehindList => {
            let places = frames(history, |connection, _, f, line| {
                // The last word on its object, so that no later event makes good for it.
                let Line::Event { seen, .. } = line else { return false };
                let later = connection.frames[f + 1..]
                    .iter()
                    .any(|frame| matches!(&frame.line, Line::Event { seen: other, .. } if other.name == seen.name));
                matches!(connection.start, Start::BehindList(..)) && frames_after(connection, f) && !later
            });
            let (s, c, f) = some(random, &places)?;
            history.streams[s].connections[c].frames.remove(f);
        }
        F::DropEverywhere => {
            // No watch shows it, on no replica; somebody was told of it, and somebody else has read it.
            let read = |revision: Revision| {
                history.operations.iter().any(|one| match (&one.request, &one.outcome) {
                    (Request::Get { .. }, Outcome::Object(seen)) => seen.revision == revision,
                    _ => false,
                })
            };
            let told = history.operations.iter().filter(|one| one.request.writes());
            let told = told.filter_map(|one| match &one.outcome {
                Outcome::Object(seen) if read(seen.revision) => Some(seen.revision),
                _ => None,
            });
            let last = run.log.last()?.revision;
            let gone = some(random, &told.filter(|revision| *revision < last).collect::<Vec<_>>())?;
            for connection in history.streams.iter_mut().flat_map(|stream| &mut stream.connections) {
                connection
                    .frames
                    .retain(|frame| !matches!(frame.line, Line::Event { .. }) || revision_of(&frame.line) != gone);
            }
        }
        F::DropFirstEvent => {
            let places = frames(history, |connection, _, f, _| {
                changes(connection).first() == Some(&f) && frames_after(connection, f)
            });
            let (s, c, f) = some(random, &places)?;
            history.streams[s].connections[c].frames.remove(f);
        }
        F::DropBeforeBookmark | F::LeaveUnsaid => {
            let places = frames(history, |connection, selector, f, line| {
                let leaves = matches!(line, Line::Event { kind: EventKind::Deleted, .. }) && selector.is_some();
                let marked = matches!(connection.frames.get(f + 1).map(|next| &next.line), Some(Line::Bookmark { .. }));
                is_change(connection, f) && marked && (what == F::DropBeforeBookmark || leaves)
            });
            let (s, c, f) = some(random, &places)?;
            history.streams[s].connections[c].frames.remove(f);
        }
        F::SwapEvents => {
            let places = frames(history, |connection, _, f, _| {
                is_change(connection, f) && f + 1 < connection.frames.len() && is_change(connection, f + 1)
            });
            let (s, c, f) = some(random, &places)?;
            history.streams[s].connections[c].frames.swap(f, f + 1);
        }
        F::RepeatEvent => {
            let places = frames(history, |connection, _, f, _| is_change(connection, f));
            let (s, c, f) = some(random, &places)?;
            let frames = &mut history.streams[s].connections[c].frames;
            let again = frames[f].clone();
            frames.insert(f + 1, again);
        }
        F::RepeatOnResume => {
            let resumes = |(s, c, f): &Place| {
                *c > 0 && *f == 0 && matches!(history.streams[*s].connections[*c].start, Start::Behind(_))
            };
            let places: Vec<Place> = frames(history, |_, _, _, _| true).into_iter().filter(resumes).collect();
            let (s, c, _) = some(random, &places)?;
            let before = &history.streams[s].connections[c - 1];
            let last = *changes(before).last()?;
            let again = before.frames[last].clone();
            history.streams[s].connections[c].frames.insert(0, again);
        }
        F::SplitTransaction => {
            let inside: Vec<Revision> =
                history.transactions.iter().filter_map(|transaction| transaction.revisions.first().copied()).collect();
            let places = frames(history, |connection, _, f, line| {
                is_change(connection, f)
                    && inside.contains(&revision_of(line))
                    && connection.frames.get(f + 1).is_some_and(|next| revision_of(&next.line) == revision_of(line) + 1)
                    && is_change(connection, f + 1)
            });
            let (s, c, f) = some(random, &places)?;
            let frames = &mut history.streams[s].connections[c].frames;
            let mut mark = frames[f].clone();
            mark.line = Line::Bookmark { revision: revision_of(&mark.line), initial_end: false };
            frames.insert(f + 1, mark);
        }
        F::FlipKind | F::FlipTransition => {
            let selects = what == F::FlipTransition;
            let places = frames(history, |connection, selector, f, line| {
                let put = matches!(line, Line::Event { kind: EventKind::Added | EventKind::Modified, .. });
                is_change(connection, f) && put && selector.is_some() == selects
            });
            if let Line::Event { kind, .. } = line(history, some(random, &places)?) {
                *kind = if *kind == EventKind::Added { EventKind::Modified } else { EventKind::Added };
            }
        }
        F::ForeignEvent => {
            // What the selector does not choose, shown by a watch that selects.
            let places = frames(history, |connection, selector, f, _| selector.is_some() && is_change(connection, f));
            let (s, c, f) = some(random, &places)?;
            let selector = history.streams[s].selector.clone()?;
            let shown = revision_of(&history.streams[s].connections[c].frames[f].line);
            let foreign = run.log.iter().rev().find(|change| {
                let outside =
                    |seen: &Option<Seen>| seen.as_ref().is_none_or(|seen| !selector.chooses(&seen.name, &seen.group));
                change.revision < shown && change.after.is_some() && outside(&change.before) && outside(&change.after)
            })?;
            let start = super::replay::claim(&history.streams[s].connections[c])?.0;
            if foreign.revision <= start {
                return None;
            }
            let seen = foreign.after.clone()?;
            let bytes = seen.print;
            let frames = &mut history.streams[s].connections[c].frames;
            let mut frame = frames[f].clone();
            frame.line = Line::Event { kind: EventKind::Added, seen, bytes };
            frames.insert(f, frame);
        }
        F::OtherPrevious => {
            // In every watch alike, as a server that reads the wrong version does.
            let places = frames(history, |connection, selector, f, line| {
                let deleted = matches!(line, Line::Event { kind: EventKind::Deleted, .. });
                is_change(connection, f) && deleted && selector.is_none()
            });
            let place = some(random, &places)?;
            let revision = revision_of(line(history, place));
            each_seen(history, |seen| {
                if seen.revision == revision {
                    *seen = version(&seen.name, &seen.uid, revision, "older", &seen.group);
                }
            });
        }
        F::OtherBytes => {
            let places = frames(history, |connection, _, f, _| is_change(connection, f));
            let place = some(random, &places)?;
            let shown = revision_of(line(history, place));
            let twice =
                frames(history, |_, _, _, line| revision_of(line) == shown && matches!(line, Line::Event { .. }));
            if twice.len() < 2 {
                return None;
            }
            if let Line::Event { bytes, .. } = line(history, place) {
                *bytes ^= 1;
            }
        }
        F::EarlyExpiry => {
            let last =
                run.log.iter().rev().find(|change| change.after.as_ref().is_some_and(|seen| !seen.value.is_empty()));
            let newest = last?.revision;
            let connection = history.streams[0].connections.last_mut()?;
            let claim = super::replay::claim(connection)?;
            if claim.1 < newest {
                return None;
            }
            // Refused where it had been before the newest change.
            let mut refused = connection.clone();
            refused.start = Start::Behind(newest - 1);
            refused.frames.clear();
            refused.end = End::Refused { code: 410, message: "too old".into() };
            history.streams[0].connections.push(refused);
        }
        F::NoInitialMark => {
            let places = frames(history, |_, _, _, line| matches!(line, Line::Bookmark { initial_end: true, .. }));
            let (s, c, f) = some(random, &places)?;
            let connection = &mut history.streams[s].connections[c];
            connection.frames.truncate(f);
            connection.end = End::Closed;
        }
        F::StaleInitial => {
            // A connection that was right when it was opened, opened when all was over.
            let end = history.operations.iter().map(|operation| operation.returned).max()?;
            let last = run.log.last()?.revision;
            let stream = history.streams.iter_mut().find(|stream| {
                let begun = stream.connections.first();
                begun.is_some_and(|first| {
                    super::replay::claim(first).is_some_and(|(from, _)| from < last)
                        && first.start == Start::InitialEvents
                })
            })?;
            stream.connections.first_mut()?.opened = end + 1;
        }
        F::InitialLacksOne => {
            let places = frames(history, |connection, _, f, line| {
                matches!(line, Line::Event { .. }) && !is_change(connection, f)
            });
            let (s, c, f) = some(random, &places)?;
            history.streams[s].connections[c].frames.remove(f);
        }
        F::SilentReader => {
            let slow = history.streams.iter_mut().find(|stream| stream.reader == crate::history::Reader::Slow)?;
            let last = run.log.last()?.revision;
            slow.awaited = Some(last + 1);
        }
        _ => return None,
    }
    Some(())
}

fn requests(run: &mut Run, what: Falsehood, random: &mut Random) -> Option<()> {
    use Falsehood as F;
    let log = run.log.clone();
    let history = &mut run.history;
    let latest_get =
        |operation: &Operation| matches!(operation.request, Request::Get { freshness: Freshness::Latest, .. });
    match what {
        F::StaleRead => {
            // Shown what was there before a change that had been answered before the read began.
            let mut candidates: Vec<(usize, Seen)> = Vec::new();
            for place in operations(history, |operation| latest_get(operation) && operation.outcome.succeeded()) {
                let read = &history.operations[place];
                for write in history.operations.iter().filter(|write| {
                    write.returned < read.invoked
                        && write.request.writes()
                        && write.request.object() == read.request.object()
                }) {
                    if let Outcome::Object(seen) = &write.outcome {
                        let change = log.iter().find(|change| change.revision == seen.revision);
                        candidates
                            .extend(change.and_then(|change| change.before.clone()).map(|before| (place, before)));
                    }
                }
            }
            let (place, before) = some(random, &candidates)?;
            history.operations[place].outcome = Outcome::Object(before);
        }
        F::FutureRead => {
            let mut candidates: Vec<(usize, Seen)> = Vec::new();
            for place in operations(history, |operation| latest_get(operation) && operation.outcome.succeeded()) {
                let read = &history.operations[place];
                for write in history
                    .operations
                    .iter()
                    .filter(|write| write.invoked > read.returned && write.request.object() == read.request.object())
                {
                    if let (true, Outcome::Object(seen)) = (write.request.writes(), &write.outcome) {
                        candidates.push((place, seen.clone()));
                    }
                }
            }
            let (place, later) = some(random, &candidates)?;
            history.operations[place].outcome = Outcome::Object(later);
        }
        F::StaleList => {
            // The whole of an older list, answered to one who began later.
            let lists = operations(history, |operation| {
                matches!(
                    operation.request,
                    Request::List {
                        selector: None,
                        freshness: Freshness::Latest,
                        page: crate::history::Page::Whole,
                        ..
                    }
                )
            });
            let (first, last) = (*lists.first()?, *lists.last()?);
            history.operations[last].outcome = history.operations[first].outcome.clone();
        }
        F::ListLacksOne => {
            let lists = operations(history, |operation| match &operation.outcome {
                // The list where the replay begins is believed.
                Outcome::Items { items, .. } => !items.is_empty() && operation.id > 10,
                _ => false,
            });
            let place = some(random, &lists)?;
            if let Outcome::Items { items, more, .. } = &mut history.operations[place].outcome {
                let lacking = usize::try_from(random.below(items.len() as u64)).unwrap_or(0);
                items.remove(lacking);
                *more = false;
            }
        }
        F::PageOfAnotherSnapshot => {
            let pages = operations(history, |operation| {
                matches!(operation.request, Request::List { page: crate::history::Page::Behind(_), .. })
                    && operation.outcome.succeeded()
            });
            let place = some(random, &pages)?;
            if let Outcome::Items { revision, .. } = &mut history.operations[place].outcome {
                *revision += 1;
            }
        }
        F::EarlyExpiryOfPages => {
            let pages = operations(history, |operation| {
                matches!(operation.request, Request::List { page: crate::history::Page::Behind(_), .. })
            });
            let place = some(random, &pages)?;
            history.operations[place].outcome = Outcome::Refused { code: 410, reason: "Expired".into() };
        }
        F::FalseNotFound => {
            // Everybody knew that it was there, all the time that the request took.
            let places = operations(history, |read| {
                let Some(object) = read.request.object().filter(|_| latest_get(read)) else { return false };
                let Outcome::Object(seen) = &read.outcome else { return false };
                let gone = log.iter().any(|change| {
                    change.name == object.name && change.after.is_none() && change.revision >= seen.revision
                });
                let known = history.operations.iter().any(|write| {
                    write.returned < read.invoked
                        && write.request.object() == Some(object)
                        && matches!(&write.outcome, Outcome::Object(known) if known.uid == seen.uid)
                });
                known && !gone
            });
            let place = some(random, &places)?;
            history.operations[place].outcome = Outcome::Refused { code: 404, reason: "NotFound".into() };
        }
        F::TwoWinners => {
            let places = operations(history, |operation| {
                matches!(operation.request, Request::Update { .. }) && operation.outcome.succeeded()
            });
            let place = some(random, &places)?;
            if let Request::Update { expected: Some(expected), .. } = &mut history.operations[place].request {
                *expected -= 1;
            }
        }
        F::TwoEffects | F::Phantom => {
            let places = operations(history, |operation| {
                operation.request.value().is_some() && matches!(operation.outcome, Outcome::Object(_))
            });
            let (one, two) = (some(random, &places)?, some(random, &places)?);
            // Of one object, two versions with one value could be one.
            if history.operations[one].request.object() == history.operations[two].request.object() {
                return None;
            }
            let from = history.operations[one].request.value()?.to_owned();
            let to = match what {
                F::TwoEffects => history.operations[two].request.value()?.to_owned(),
                _ => "nobody's".to_owned(),
            };
            history.operations[one].outcome = Outcome::Unknown { why: "no answer".into() };
            each_seen(history, |seen| {
                if seen.value == from {
                    *seen = version(&seen.name, &seen.uid, seen.revision, &to, &seen.group);
                }
            });
            for connection in history.streams.iter_mut().flat_map(|stream| &mut stream.connections) {
                for frame in &mut connection.frames {
                    if let Line::Event { seen, bytes, .. } = &mut frame.line {
                        *bytes = seen.print;
                    }
                }
            }
        }
        F::RefusedHasEffect => {
            let places = operations(history, |operation| {
                operation.request.value().is_some() && matches!(operation.outcome, Outcome::Object(_))
            });
            let place = some(random, &places)?;
            history.operations[place].outcome = Outcome::Refused { code: 503, reason: "ServiceUnavailable".into() };
        }
        F::LostAcknowledged => {
            let places = operations(history, |operation| {
                let value = operation.request.value();
                value.is_some()
                    && matches!(operation.outcome, Outcome::Unknown { .. })
                    && !log.iter().any(|change| change.after.as_ref().map(|seen| seen.value.as_str()) == value)
            });
            let place = some(random, &places)?;
            let free = (11..log.last()?.revision).find(|free| log.iter().all(|change| change.revision != *free))?;
            let (name, value) = {
                let request = &history.operations[place].request;
                (request.object()?.name.clone(), request.value()?.to_owned())
            };
            history.operations[place].outcome = Outcome::Object(version(&name, "u99", free, &value, "a"));
        }
        F::LateWrite => {
            // It was answered before something began that came earlier in the order.
            let places = operations(history, |operation| matches!(operation.outcome, Outcome::Object(_)));
            let writes: Vec<usize> =
                places.into_iter().filter(|place| history.operations[*place].request.writes()).collect();
            let (first, last) = (*writes.first()?, *writes.last()?);
            let begins = history.operations[last].returned + 10;
            history.operations[first].invoked = begins;
            history.operations[first].returned = begins + 5;
        }
        F::ListWithinTransaction => {
            let inside: Vec<Revision> =
                history.transactions.iter().filter_map(|transaction| transaction.revisions.first().copied()).collect();
            let within = some(random, &inside)?;
            let list =
                history.operations.iter_mut().rev().find(|operation| {
                    matches!(operation.request, Request::List { .. }) && operation.outcome.succeeded()
                })?;
            if let Outcome::Items { revision, .. } = &mut list.outcome {
                *revision = within;
            }
        }
        _ => return None,
    }
    Some(())
}
