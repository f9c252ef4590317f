//! `WindowHonest`: 410 is answered only for what is older than the promised window, or of an epoch before, and nothing else is refused.
//! That what is older is refused, and not begun somewhere later, shows as a missing event.

use super::Told;
use crate::history::{End, History, Line, Micros, Operation, Outcome, Page, Request, Revision, Start};
use crate::oracle::{Findings, Promise, Violation};

/// History is never shorter than this, whatever its budget.
const WINDOW: Micros = 75_000_000;

pub(super) fn check(told: &Told<'_>, findings: &mut Findings) {
    let refused = match &told.connection.end {
        End::Refused { code, message } => Some((*code, message)),
        End::Closed | End::Broken(_) | End::Left => None,
    };
    let inside = told.frames().iter().find_map(|frame| match &frame.line {
        Line::Error { code, message } => Some((*code, message)),
        Line::Event { .. } | Line::Bookmark { .. } => None,
    });
    let Some((code, message)) = refused.or(inside) else { return };
    // Without a leader, while it starts or under load, a replica may ask to come again.
    if matches!(code, 408 | 429 | 500 | 503 | 504) {
        return;
    }
    let start = match told.connection.start {
        Start::Behind(revision) | Start::BehindList(_, revision) => revision,
        Start::InitialEvents => told.upto,
    };
    let from = start.max(told.upto);
    if code == 410 {
        if told.history.is_of_an_epoch_before(from, told.connection.ended) {
            return;
        }
        let age = age_of_what_follows(told, from);
        if age.is_some_and(|age| age < WINDOW) {
            let seconds = age.unwrap_or_default() / 1_000_000;
            let explanation =
                format!("was told 410 at revision {from}, which was the newest {seconds} s before: {message}");
            findings.add(told.violation(Promise::G5, "WindowHonest", &explanation).at(from));
        }
    } else {
        let explanation = format!("was refused with {code}: {message}");
        findings.add(told.violation(Promise::G5, "WindowHonest", &explanation).at(from));
    }
}

/// The same of lists: a page of a snapshot that was the latest within the window is never refused.
pub(super) fn check_lists(history: &History, findings: &mut Findings) {
    for operation in &history.operations {
        let (Request::List { page: Page::Behind(before), .. }, Outcome::Refused { code: 410, reason }) =
            (&operation.request, &operation.outcome)
        else {
            continue;
        };
        let first = first_page(history, *before);
        let snapshot = first.and_then(|first| match first.outcome {
            Outcome::Items { revision, .. } => Some(revision),
            _ => None,
        });
        let expired = match snapshot {
            Some(revision) => history.is_of_an_epoch_before(revision, operation.returned),
            // The first page was shown in the epoch before.
            None => !history.epochs.is_empty(),
        };
        if expired {
            continue;
        }
        let age = first.map_or(0, |first| operation.returned.saturating_sub(first.invoked));
        if age < WINDOW {
            let explanation = format!(
                "operation {} was told 410 {reason} through replica {} for a list begun {} s before",
                operation.id,
                operation.replica,
                age / 1_000_000
            );
            let violation = Violation::new(Promise::G5, "WindowHonest", explanation);
            findings.add(violation.of(operation.id).of_all(first.map(|first| first.id)).through(operation.replica));
        }
    }
}

/// The first page of a list in pages.
fn first_page(history: &History, mut page: u64) -> Option<&Operation> {
    loop {
        let operation = history.operation(page)?;
        match operation.request {
            // A page stands behind an earlier request.
            Request::List { page: Page::Behind(before), .. } if before < page => page = before,
            _ => return Some(operation),
        }
    }
}

/// How long the change behind a revision had been made at most, when the end came: a lower revision than its is in the window at
/// least since then. `None` when nobody knows.
fn age_of_what_follows(told: &Told<'_>, from: Revision) -> Option<Micros> {
    let ended = told.connection.ended;
    let (revision, name) = told.course.changes.range(from.checked_add(1)?..).next()?;
    let value = &told.course.at(name, *revision)?.value;
    let mut writers = told.history.operations.iter().filter(|operation| operation.request.value() == Some(value));
    writers.next().map(|operation| ended.saturating_sub(operation.invoked))
}
