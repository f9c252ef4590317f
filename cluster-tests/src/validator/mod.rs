//! The promises of watches, one validator a file, held over recorded streams against the replayed history.
//!
//! Every connection of a watch is reduced to a [`Told`]: where it began, what it delivered in order, how far it claims to have come.
//! Next to it stand the [`Expected`] events: what its selector makes of the replayed changes. A validator compares the two under
//! one aspect and says nothing of the others, so that a finding names what is wrong.

mod atomic;
mod bookmarkable;
mod filter;
mod initial_events;
mod is_create;
mod list_then_watch;
mod ordered;
mod previous;
mod reliable;
mod resumable;
mod same_everywhere;
mod slow_reader;
mod transition;
mod unique;
mod window_honest;

use std::collections::BTreeMap;

use crate::history::{Connection, EventKind, Frame, History, Line, Revision, Seen, Selector, Start, Stream};
use crate::oracle::replay::{Course, Life, Replay, Version};
use crate::oracle::{Findings, Promise, Violation};

/// Runs all validators.
pub(crate) fn check(history: &History, replay: &Replay, findings: &mut Findings) {
    for stream in &history.streams {
        let tales: Vec<Told<'_>> = stream
            .connections
            .iter()
            .enumerate()
            .map(|(number, connection)| Told::new(history, replay, stream, number, connection))
            .collect();
        for told in &tales {
            ordered::check(told, findings);
            atomic::check(told, findings);
            reliable::check(told, findings);
            resumable::check(told, findings);
            bookmarkable::check(told, findings);
            filter::check(told, findings);
            previous::check(told, findings);
            is_create::check(told, findings);
            list_then_watch::check(told, findings);
            initial_events::check(told, findings);
            transition::check(told, findings);
            window_honest::check(told, findings);
        }
        unique::check(stream, &tales, findings);
        slow_reader::check(stream, &tales, findings);
    }
    same_everywhere::check(history, findings);
    window_honest::check_lists(history, findings);
}

/// What a selector makes of one change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    /// Which object.
    pub(crate) name: &'a str,
    /// As which kind of event it is to be seen.
    pub(crate) kind: EventKind,
    /// What was there before, when something was.
    pub(crate) before: Option<&'a Version>,
    /// The change.
    pub(crate) change: &'a Version,
}

/// One event as it was delivered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivered<'a> {
    /// Its kind.
    pub(crate) kind: EventKind,
    /// What it shows.
    pub(crate) seen: &'a Seen,
    /// Its frame's place in the connection.
    pub(crate) place: usize,
}

/// One connection of a watch, beside what it should have told.
#[derive(Debug)]
pub(crate) struct Told<'a> {
    pub(crate) history: &'a History,
    pub(crate) replay: &'a Replay,
    pub(crate) stream: &'a Stream,
    /// Its place among the stream's connections.
    pub(crate) number: usize,
    pub(crate) connection: &'a Connection,
    pub(crate) course: &'a Course,
    /// Behind what it tells changes: its start, or the end of its initial events. `None` when those never ended.
    pub(crate) from: Option<Revision>,
    /// How far it claims to have come.
    pub(crate) upto: Revision,
    /// The initial events.
    pub(crate) initial: Vec<Delivered<'a>>,
    /// The changes, in the order of delivery.
    pub(crate) changes: Vec<Delivered<'a>>,
    /// What it should have told between `from` and `upto`, by revision; nothing where the history is not known.
    pub(crate) expected: BTreeMap<Revision, Expected<'a>>,
}

impl<'a> Told<'a> {
    fn new(
        history: &'a History,
        replay: &'a Replay,
        stream: &'a Stream,
        number: usize,
        connection: &'a Connection,
    ) -> Self {
        let course = replay.course(stream.collection);
        let mut from = match connection.start {
            Start::Behind(revision) | Start::BehindList(_, revision) => Some(revision),
            Start::InitialEvents => None,
        };
        let mut upto = from.unwrap_or(0);
        let (mut initial, mut changes) = (Vec::new(), Vec::new());
        for (place, frame) in connection.frames.iter().enumerate() {
            match &frame.line {
                Line::Event { kind, seen, .. } => {
                    let delivered = Delivered { kind: *kind, seen, place };
                    if from.is_none() {
                        initial.push(delivered);
                    } else {
                        changes.push(delivered);
                        upto = upto.max(seen.revision);
                    }
                }
                Line::Bookmark { revision, initial_end } => {
                    if *initial_end && from.is_none() {
                        from = Some(*revision);
                    }
                    upto = upto.max(*revision);
                }
                Line::Error { .. } => {}
            }
        }
        let mut told = Self {
            history,
            replay,
            stream,
            number,
            connection,
            course,
            from,
            upto,
            initial,
            changes,
            expected: BTreeMap::new(),
        };
        if let Some(from) = from.filter(|from| *from >= course.base && upto > *from) {
            let changes = course.changes.range(from + 1..=upto);
            told.expected =
                changes.filter_map(|(revision, name)| Some((*revision, told.expected_at(*revision, name)?))).collect();
        }
        told
    }

    fn expected_at(&self, revision: Revision, name: &'a str) -> Option<Expected<'a>> {
        let course = self.course;
        let (_, change) = course.change(revision)?;
        let before = course.before(name, revision).filter(|before| before.life == Life::There);
        let was = before.is_some_and(|before| self.chooses(name, before));
        let is = change.life == Life::There && self.chooses(name, change);
        let kind = match (was, is) {
            (false, true) => EventKind::Added,
            (true, true) => EventKind::Modified,
            (true, false) => EventKind::Deleted,
            (false, false) => return None,
        };
        Some(Expected { name, kind, before, change })
    }

    /// Whether the selector chooses a version.
    pub(crate) fn chooses(&self, name: &str, version: &Version) -> bool {
        self.selector().is_none_or(|selector| selector.chooses(name, &version.group))
    }

    pub(crate) fn selector(&self) -> Option<&'a Selector> {
        self.stream.selector.as_ref()
    }

    /// Whether the replay knows every change between these.
    pub(crate) fn knows(&self, from: Revision, upto: Revision) -> bool {
        from >= self.course.base && upto <= self.course.covered
    }

    pub(crate) fn frames(&self) -> &'a [Frame] {
        &self.connection.frames
    }

    /// The connection in a few words.
    pub(crate) fn named(&self) -> String {
        let selector = match self.selector() {
            Some(selector) => format!(" with {selector:?}"),
            None => String::new(),
        };
        format!(
            "watch {} (connection {} through replica {}, {:?}{selector})",
            self.stream.id, self.number, self.connection.replica, self.connection.start
        )
    }

    /// A violation by this connection.
    pub(crate) fn violation(&self, promise: Promise, check: &str, explanation: &str) -> Violation {
        Violation::new(promise, check, format!("{} {explanation}", self.named()))
            .on(self.stream.id)
            .through(self.connection.replica)
    }
}
