//! [`Replay`]: the history of every watched collection, change by change, put together from all that clients were shown.
//!
//! A change counts when any watch without a selector showed it, on any replica. So one watch that loses an event does not hide
//! it, and is convicted by the others; what a write was acknowledged with, or a read showed, and no watch did, is a violation of its own.

use std::collections::BTreeMap;

use super::{Findings, Promise, Violation};
use crate::history::{
    Connection, EventKind, Facts, Freshness, History, Line, Micros, OperationId, Outcome, Page, Request, Revision,
    Seen, Start, Transaction, Writers,
};

/// One version of one object, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Where it begins.
    pub revision: Revision,
    /// Whether the object is there from here on.
    pub life: Life,
    /// The uid; of a deletion that of what was deleted.
    pub uid: String,
    /// The value; of a deletion the last one, as events show it.
    pub value: String,
    /// The label `group`; of a deletion the last one.
    pub group: String,
    /// Hash of the content as shown; of a deletion it contains the revision of the deletion.
    pub print: u64,
    /// What product invariants need; of a deletion the last ones.
    pub facts: Option<Facts>,
    /// Whether it is known from a watch.
    pub watched: bool,
}

/// Whether an object is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It is.
    There,
    /// It is not.
    Gone,
}

impl Version {
    fn of(seen: &Seen, life: Life, watched: bool) -> Self {
        Self {
            revision: seen.revision,
            life,
            uid: seen.uid.clone(),
            value: seen.value.clone(),
            group: seen.group.clone(),
            print: seen.print,
            facts: seen.facts.clone(),
            watched,
        }
    }
}

/// The history of one collection.
#[derive(Debug, Clone, Default)]
pub struct Course {
    /// Up to here what there was is known from one list only.
    pub base: Revision,
    /// When the list that says so had been read.
    pub base_read: Micros,
    /// Up to here every change is known.
    pub covered: Revision,
    /// Every change behind the base: which object.
    pub changes: BTreeMap<Revision, String>,
    /// Every object's versions, in order.
    pub tracks: BTreeMap<String, Vec<Version>>,
}

/// Sorts names as the product lists them: by namespace, then by name.
#[must_use]
pub fn place(name: &str) -> (&str, &str) {
    name.split_once('/').unwrap_or(("", name))
}

impl Course {
    /// All versions of an object.
    #[must_use]
    pub fn track(&self, name: &str) -> &[Version] {
        self.tracks.get(name).map_or(&[], Vec::as_slice)
    }

    /// The version of an object at a revision; `None` before its first.
    #[must_use]
    pub fn at(&self, name: &str, revision: Revision) -> Option<&Version> {
        let track = self.track(name);
        let next = track.partition_point(|version| version.revision <= revision);
        track.get(next.checked_sub(1)?)
    }

    /// The version of an object that stood when `revision` changed it.
    #[must_use]
    pub fn before(&self, name: &str, revision: Revision) -> Option<&Version> {
        self.at(name, revision.checked_sub(1)?)
    }

    /// The change at a revision.
    #[must_use]
    pub fn change(&self, revision: Revision) -> Option<(&str, &Version)> {
        let name = self.changes.get(&revision)?;
        let version = self.at(name, revision)?;
        (version.revision == revision).then_some((name.as_str(), version))
    }

    /// What is there at a revision, in the order of lists.
    #[must_use]
    pub fn state(&self, revision: Revision) -> Vec<(&str, &Version)> {
        let mut state: Vec<_> = self
            .tracks
            .keys()
            .filter_map(|name| Some((name.as_str(), self.at(name, revision)?)))
            .filter(|(_, version)| version.life == Life::There)
            .collect();
        state.sort_by_key(|(name, _)| place(name));
        state
    }

    /// While which revisions a version stood: the first, and the last.
    #[must_use]
    pub fn span(&self, name: &str, revision: Revision) -> Option<(Revision, Revision)> {
        let track = self.track(name);
        let place = track.binary_search_by_key(&revision, |version| version.revision).ok()?;
        let next = track.get(place + 1).map_or(Revision::MAX, |next| next.revision - 1);
        Some((revision, next))
    }

    /// Where a change of this object made this value: several places when it was made more than once.
    #[must_use]
    pub fn effects(&self, name: &str, value: &str) -> Vec<Revision> {
        let track = self.track(name);
        let made = track.iter().enumerate().filter(|(place, version)| {
            let before = place.checked_sub(1).and_then(|before| track.get(before));
            version.life == Life::There
                && version.value == value
                && before.is_none_or(|before| before.life == Life::Gone || before.value != value)
        });
        made.map(|(_, version)| version.revision).collect()
    }

    fn put(&mut self, name: &str, version: Version) {
        let track = self.tracks.entry(name.to_owned()).or_default();
        if version.revision > self.base {
            self.changes.insert(version.revision, name.to_owned());
        }
        let place = track.partition_point(|other| other.revision < version.revision);
        track.insert(place, version);
    }
}

/// The history of all collections.
#[derive(Debug, Clone, Default)]
pub struct Replay {
    courses: Vec<Course>,
    transactions: Vec<Transaction>,
}

impl Replay {
    /// Puts the history together; contradictions are found on the way.
    #[must_use]
    pub fn build(history: &History, findings: &mut Findings) -> Self {
        let mut courses = Vec::new();
        let mut transactions = history.transactions.clone();
        for (id, collection) in (0_u16..).zip(&history.collections) {
            let mut course = Course::default();
            begin(history, id, &mut course);
            watched(history, id, &mut course, findings);
            course.covered = covered(history, id, course.base);
            acknowledged(history, id, &mut course, findings);
            read(history, id, collection.writers, &mut course, findings);
            transactions.extend(bound_together(&course));
            courses.push(course);
        }
        Self { courses, transactions }
    }

    /// Until when every request answered is known to stand within what watches of a collection have shown: the latest list
    /// that does began behind all of them.
    #[must_use]
    pub fn known_until(&self, history: &History, collection: u16) -> Micros {
        let covered = self.course(collection).covered;
        let lists = history.operations.iter().filter(|operation| match (&operation.request, &operation.outcome) {
            (Request::List { freshness: Freshness::Latest, page, .. }, Outcome::Items { revision, .. }) => {
                !matches!(page, Page::Behind(_)) && *revision <= covered
            }
            _ => false,
        });
        lists.map(|operation| operation.invoked).max().unwrap_or(0)
    }

    /// The history of one collection.
    ///
    /// # Panics
    /// When the history names a collection that it does not have: it was not written by a recorder.
    #[must_use]
    pub fn course(&self, collection: u16) -> &Course {
        &self.courses[usize::from(collection)]
    }

    /// Changes known to have been made at once.
    #[must_use]
    pub fn transactions(&self) -> &[Transaction] {
        &self.transactions
    }

    /// All courses.
    #[must_use]
    pub fn courses(&self) -> &[Course] {
        &self.courses
    }

    /// Changes in all.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.courses.iter().map(|course| course.changes.len() as u64).sum()
    }
}

/// The binding of a Pod that takes another's place ends that one in the same transaction, unless it was ending already.
fn bound_together(course: &Course) -> Vec<Transaction> {
    let mut places: BTreeMap<&str, Revision> = BTreeMap::new();
    for track in course.tracks.values() {
        let mut replaced = None;
        for version in track {
            let Some(Facts::Pod { node, replaces, .. }) = &version.facts else { continue };
            replaced = replaced.or(replaces.as_deref());
            if let (Some(_), Some(replaced)) = (node, replaced) {
                // Its first version with a node is the binding.
                places.entry(replaced).or_insert(version.revision);
            }
        }
    }
    let ends = course.tracks.values().flatten().filter_map(|version| {
        let terminating = matches!(version.facts, Some(Facts::Pod { terminating: true, .. }));
        terminating.then_some((version.uid.as_str(), version.revision))
    });
    let mut first_end: BTreeMap<&str, Revision> = BTreeMap::new();
    for (uid, revision) in ends {
        let first = first_end.entry(uid).or_insert(revision);
        *first = revision.min(*first);
    }
    let both = places.into_iter().filter_map(|(uid, bound)| Some((bound, *first_end.get(uid)?)));
    let both = both.filter(|(bound, ended)| ended > bound);
    both.map(|(bound, ended)| Transaction { operation: None, revisions: vec![bound, ended] }).collect()
}

/// Connections of watches without a selector: what they show is what happened.
pub(crate) fn whole(history: &History, collection: u16) -> impl Iterator<Item = (u32, &Connection)> {
    let streams =
        history.streams.iter().filter(move |stream| stream.collection == collection && stream.selector.is_none());
    streams.flat_map(|stream| stream.connections.iter().map(|connection| (stream.id, connection)))
}

/// The list behind which the first watch begins is where the replay begins.
fn begin(history: &History, collection: u16, course: &mut Course) {
    let lists = whole(history, collection).filter_map(|(_, connection)| match connection.start {
        Start::BehindList(list, revision) => Some((revision, list)),
        Start::Behind(_) | Start::InitialEvents => None,
    });
    let Some((base, list)) = lists.min() else { return };
    course.base = base;
    let list = history.operation(list);
    course.base_read = list.map_or(0, |list| list.returned);
    if let Some(Outcome::Items { items, .. }) = list.map(|list| &list.outcome) {
        for seen in items {
            course.put(&seen.name, Version::of(seen, Life::There, true));
        }
    }
}

/// Takes in every event of watches without a selector.
fn watched(history: &History, collection: u16, course: &mut Course, findings: &mut Findings) {
    for (stream, connection) in whole(history, collection) {
        let mut initial = matches!(connection.start, Start::InitialEvents);
        for frame in &connection.frames {
            match &frame.line {
                Line::Bookmark { initial_end: true, .. } => initial = false,
                Line::Event { kind, seen, .. } => {
                    // What stood before the base is known from the base alone.
                    if seen.revision <= course.base || (initial && *kind != EventKind::Added) {
                        continue;
                    }
                    let life = if *kind == EventKind::Deleted { Life::Gone } else { Life::There };
                    let version = Version::of(seen, life, true);
                    match course.changes.get(&seen.revision) {
                        None => course.put(&seen.name, version),
                        Some(name) => {
                            let known = course.at(name, seen.revision);
                            if *name != seen.name || known != Some(&version) {
                                let known = known.map(|known| (known.life, &known.value));
                                let explanation = format!(
                                    "watch {stream} through replica {} shows revision {} as {:?} of {} with value \"{}\", \
                                     another watch as {known:?} of {name}",
                                    connection.replica, seen.revision, kind, seen.name, seen.value
                                );
                                findings.add(
                                    Violation::new(Promise::G4, "SameEverywhere", explanation)
                                        .on(stream)
                                        .through(connection.replica)
                                        .at(seen.revision),
                                );
                            }
                        }
                    }
                }
                Line::Bookmark { .. } | Line::Error { .. } => {}
            }
        }
    }
}

/// Up to where watches without a selector claim to have shown every change, one going on where another ended.
fn covered(history: &History, collection: u16, base: Revision) -> Revision {
    let mut claims: Vec<(Revision, Revision)> = whole(history, collection).filter_map(|(_, one)| claim(one)).collect();
    claims.sort_unstable();
    claims.into_iter().fold(base, |covered, (from, to)| if from <= covered { covered.max(to) } else { covered })
}

/// Behind what and up to what a connection claims to have shown everything.
pub(crate) fn claim(connection: &Connection) -> Option<(Revision, Revision)> {
    let mut from = match connection.start {
        Start::Behind(revision) | Start::BehindList(_, revision) => Some(revision),
        Start::InitialEvents => None,
    };
    let mut to = from;
    for frame in &connection.frames {
        match &frame.line {
            Line::Bookmark { revision, initial_end: true } if from.is_none() => {
                from = Some(*revision);
                to = from;
            }
            Line::Bookmark { revision, .. } => to = to.map(|to| to.max(*revision)),
            Line::Event { seen, .. } => to = to.map(|to| to.max(seen.revision)),
            Line::Error { .. } => {}
        }
    }
    from.zip(to)
}

/// What writes were acknowledged with is part of the history; where no watch showed it, that is told.
fn acknowledged(history: &History, collection: u16, course: &mut Course, findings: &mut Findings) {
    for operation in &history.operations {
        let (true, Some(object), Outcome::Object(seen)) =
            (operation.request.writes(), operation.request.object(), &operation.outcome)
        else {
            continue;
        };
        if object.collection != collection || seen.revision <= course.base {
            continue;
        }
        match course.changes.get(&seen.revision) {
            Some(name) => {
                let known = course.at(name, seen.revision);
                let same = known.is_some_and(|known| known.life == Life::There && known.value == seen.value);
                if *name != object.name || !same {
                    let explanation = format!(
                        "operation {} was acknowledged through replica {} with {} = \"{}\" at revision {}, where watches \
                         show {name} = {:?}",
                        operation.id,
                        operation.replica,
                        object.name,
                        seen.value,
                        seen.revision,
                        known.map(|known| (known.life, &known.value))
                    );
                    findings.add(told(Promise::G3, "Acknowledged", explanation, operation.id, operation.replica, seen));
                }
            }
            None => {
                if seen.revision <= course.covered {
                    // Whether it is lost or only kept from watches is seen by whether anybody read it.
                    let was_read = shown_to(history, collection, &seen.name, seen.revision, operation.id);
                    let (promise, check, what) = match was_read {
                        Some(reader) => (Promise::G4, "Reliable", format!("operation {reader} read it")),
                        None => (Promise::G3, "Acknowledged", "nobody ever read it".into()),
                    };
                    let explanation = format!(
                        "operation {} was acknowledged through replica {} with {} = \"{}\" at revision {}; no watch shows \
                         that revision, and {what}",
                        operation.id, operation.replica, object.name, seen.value, seen.revision
                    );
                    findings.add(told(promise, check, explanation, operation.id, operation.replica, seen));
                }
                course.put(&object.name.clone(), Version::of(seen, Life::There, false));
            }
        }
    }
}

fn told(
    promise: Promise,
    check: &str,
    explanation: String,
    operation: OperationId,
    replica: u16,
    seen: &Seen,
) -> Violation {
    Violation::new(promise, check, explanation).of(operation).through(replica).at(seen.revision)
}

/// Who else was shown this version by a read.
fn shown_to(
    history: &History,
    collection: u16,
    name: &str,
    revision: Revision,
    but: OperationId,
) -> Option<OperationId> {
    let reads = history.operations.iter().filter(|operation| operation.id != but && !operation.request.writes());
    let mut shown = reads.filter(|operation| match (&operation.request, &operation.outcome) {
        (Request::Get { object, .. }, Outcome::Object(seen)) => {
            object.collection == collection && seen.name == name && seen.revision == revision
        }
        (Request::List { collection: of, .. }, Outcome::Items { items, .. }) => {
            *of == collection && items.iter().any(|seen| seen.name == name && seen.revision == revision)
        }
        _ => false,
    });
    shown.next().map(|operation| operation.id)
}

/// What reads show must be part of the history, and as it is there.
fn read(history: &History, collection: u16, writers: Writers, course: &mut Course, findings: &mut Findings) {
    let mut strange: Vec<(Seen, OperationId, u16)> = Vec::new();
    for operation in &history.operations {
        let seen = match (&operation.request, &operation.outcome) {
            (Request::Get { object, .. }, Outcome::Object(seen)) if object.collection == collection => {
                std::slice::from_ref(seen)
            }
            (Request::List { collection: of, .. }, Outcome::Items { items, .. }) if *of == collection => items,
            _ => continue,
        };
        for seen in seen.iter().filter(|seen| seen.revision > course.base) {
            match course.at(&seen.name, seen.revision) {
                Some(known) if known.revision == seen.revision && known.life == Life::There => {
                    // What is known from an answer only may be known in another form.
                    if known.watched && known.print != seen.print {
                        let explanation = format!(
                            "operation {} through replica {} shows {} at revision {} with another content than watches do \
                             (value \"{}\" and \"{}\")",
                            operation.id, operation.replica, seen.name, seen.revision, seen.value, known.value
                        );
                        findings.add(told(
                            Promise::G4,
                            "SameEverywhere",
                            explanation,
                            operation.id,
                            operation.replica,
                            seen,
                        ));
                    }
                }
                _ => strange.push((seen.clone(), operation.id, operation.replica)),
            }
        }
    }
    strange.sort_by_key(|(seen, ..)| seen.revision);
    strange.dedup_by_key(|(seen, ..)| seen.revision);
    for (seen, operation, replica) in strange {
        if seen.revision <= course.covered {
            let written = history.operations.iter().find(|one| one.request.value() == Some(&seen.value));
            let (promise, check, what) = match written {
                Some(one) => (Promise::G4, "Reliable", format!("operation {} wrote it", one.id)),
                None if writers == Writers::Shared => (Promise::G4, "Reliable", "a controller wrote it".into()),
                None => (Promise::G1, "Phantom", "nobody wrote it".into()),
            };
            let explanation = format!(
                "operation {operation} through replica {replica} shows {} = \"{}\" at revision {}, which no watch shows; {what}",
                seen.name, seen.value, seen.revision
            );
            findings.add(told(promise, check, explanation, operation, replica, &seen));
        }
        if !course.changes.contains_key(&seen.revision) {
            course.put(&seen.name.clone(), Version::of(&seen, Life::There, false));
        }
    }
}
