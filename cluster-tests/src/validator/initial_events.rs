//! `InitialEvents`: with `sendInitialEvents` the present state comes first, whole, of one snapshot, and the annotated bookmark ends
//! it: never before the last item, and never not at all.

use super::Told;
use crate::history::{End, EventKind, Line, Micros, Revision, Start};
use crate::oracle::{Findings, Promise};

/// A client that leaves earlier has not waited for the bookmark.
const PATIENCE: Micros = 30_000_000;

pub(super) fn check(told: &Told<'_>, findings: &mut Findings) {
    let asked = matches!(told.connection.start, Start::InitialEvents);
    let marks = told.frames().iter().filter(|frame| matches!(frame.line, Line::Bookmark { initial_end: true, .. }));
    let marks = marks.count();
    let mut add = |explanation: &str, revision: Revision| {
        findings.add(told.violation(Promise::G4, "InitialEvents", explanation).at(revision));
    };
    if marks > usize::from(asked) {
        add(&format!("has {marks} bookmarks that end initial events"), told.upto);
    }
    if !asked {
        return;
    }
    let Some(mark) = told.from else {
        let waited = told.connection.ended.saturating_sub(told.connection.opened);
        let in_order = told.connection.end == End::Closed
            && !told.frames().iter().any(|frame| matches!(frame.line, Line::Error { .. }));
        if in_order || (told.connection.end == End::Left && waited > PATIENCE && waited < Micros::MAX / 2) {
            add("never had the bookmark that ends its initial events", 0);
        }
        return;
    };
    for delivered in told.initial.iter().filter(|delivered| delivered.kind != EventKind::Added) {
        add(&format!("shows {} as {:?} initially", delivered.seen.name, delivered.kind), delivered.seen.revision);
    }
    if mark < told.course.base || mark > told.course.covered {
        return;
    }
    let shown: Vec<(&str, Revision)> =
        told.initial.iter().map(|delivered| (delivered.seen.name.as_str(), delivered.seen.revision)).collect();
    let state = told.course.state(mark);
    let state: Vec<(&str, Revision)> = state
        .into_iter()
        .filter(|(name, version)| told.chooses(name, version))
        .map(|(name, version)| (name, version.revision))
        .collect();
    if shown != state {
        let place = shown.iter().zip(&state).take_while(|(shown, state)| shown == state).count();
        let explanation = format!(
            "shows {} objects up to its mark at {mark}, of {}; the first difference is {:?} where there is {:?}",
            shown.len(),
            state.len(),
            shown.get(place),
            state.get(place)
        );
        add(&explanation, mark);
    }
}
