//! Linearizability: whether one order of all requests exists that agrees with the clock and with what each was answered.
//!
//! Revisions order all changes, so each answer leaves its request a set of *places* in that order: a write its own revision, a read
//! every revision at which what it was shown stood, a refusal every revision at which it would be right. Requests are taken in
//! the order in which they began; each gets the first of its places that is not before the place of anything answered before it
//! began. The first fitting place is always the best one to take: it leaves the most to those behind. A request that finds none
//! contradicts the clock. Only answers to clients move the floor: what a watch has shown, and when, does not (etcd #19998).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::replay::{Course, Life, Replay, claim};
use super::{Bias, Findings, Promise, Violation};
use crate::history::{
    Freshness, History, Line as Shown, Micros, Operation, OperationId, Outcome, Page, Request, Revision, Start,
};

/// Where in the order of changes a request can stand.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Places {
    /// It made this change.
    Made(Revision),
    /// Within one of these spans, in order.
    Within(Vec<(Revision, Revision)>),
    /// Its answer says nothing of the order.
    Anywhere,
    /// No place at all: the answer is never right.
    Nowhere(String),
}

/// How far the order is known to have come, and by which answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Floor {
    revision: Revision,
    by: OperationId,
}

/// Checks the order of all requests.
pub(super) fn check(history: &History, replay: &Replay, bias: Bias, findings: &mut Findings) {
    let mut order: Vec<&Operation> = history.operations.iter().collect();
    order.sort_by_key(|operation| (operation.invoked, operation.id));
    let deletions = Deletions::assign(history, replay, findings);
    let mut all = Line::default();
    let mut replicas: BTreeMap<u16, Line> = BTreeMap::new();
    // Attempts under one key are one request, which began with the first of them.
    let mut keyed: BTreeMap<&str, Floor> = BTreeMap::new();
    let ceilings = Ceilings::of(history);
    let mut answers: Vec<(Micros, Floor)> = Vec::new();
    for operation in order {
        let floor = all.floor_at(operation.invoked);
        let own = replicas.entry(operation.replica).or_default();
        let own_floor = own.floor_at(operation.invoked);
        let mut least = match least(&operation.request, floor, own_floor) {
            Some(least) => least,
            None => continue,
        };
        if let Request::Create { key: Some(key), .. } = &operation.request {
            least = *keyed.entry(key).or_insert(least);
        }
        let places = places(replay, operation, &deletions, findings);
        let taken = match &places {
            Places::Anywhere => continue,
            Places::Nowhere(why) => {
                findings.add(violation(operation, Promise::G2, "Refusal", why.clone(), None));
                continue;
            }
            Places::Made(revision) if *revision > least.revision => *revision,
            Places::Made(revision) => {
                let explanation = format!(
                    "operation {} ({}) took effect at revision {revision}, though operation {} had been answered at \
                     revision {} before it began",
                    operation.id,
                    named(operation),
                    least.by,
                    least.revision
                );
                findings.add(violation(operation, Promise::G1, "Order", explanation, Some(least)).at(*revision));
                *revision
            }
            Places::Within(spans) => {
                let fits = spans.iter().find(|(_, last)| *last >= least.revision);
                match fits {
                    Some((first, _)) => {
                        let taken = least.revision.max(*first);
                        if let Some(later) = ceilings.contradicted(operation.returned, taken) {
                            ahead(operation, taken, later, findings);
                            continue;
                        }
                        taken
                    }
                    None => {
                        let last = spans.last().map_or(0, |(_, last)| *last);
                        stale(operation, least, last, findings);
                        continue;
                    }
                }
            }
        };
        if bias == Bias::WatchEndsRequests
            && matches!(operation.outcome, Outcome::Unknown { .. })
            && let Some(shown) = next_shown(history, operation)
        {
            all.arriving.push(Reverse((shown, Floor { revision: taken, by: operation.id })));
        }
        // An answer that was never given tells nobody anything.
        if !matches!(operation.outcome, Outcome::Unknown { .. }) {
            all.answered(operation, taken);
            answers.push((operation.returned, Floor { revision: taken, by: operation.id }));
            // A write may be answered before the replica that took it has applied it.
            if !operation.request.writes() {
                own.answered(operation, taken);
            }
        }
    }
    initial_events(history, answers, findings);
}

/// When a watch first shows a change of the object a request is about, behind the beginning of the request.
fn next_shown(history: &History, operation: &Operation) -> Option<Micros> {
    let object = operation.request.object()?;
    let streams = history.streams.iter().filter(|stream| stream.collection == object.collection);
    let frames = streams.flat_map(|stream| &stream.connections).flat_map(|connection| &connection.frames);
    let changes = frames.filter(|frame| match &frame.line {
        Shown::Event { seen, .. } => seen.name == object.name && frame.at > operation.invoked,
        Shown::Bookmark { .. } | Shown::Error { .. } => false,
    });
    changes.map(|frame| frame.at).min()
}

/// Initial events are a read, and stand where the bookmark behind them says.
fn initial_events(history: &History, mut answers: Vec<(Micros, Floor)>, findings: &mut Findings) {
    answers.sort_unstable();
    let mut floor = Floor::default();
    for (_, answered) in &mut answers {
        floor = floor.max(*answered);
        *answered = floor;
    }
    for stream in &history.streams {
        for connection in stream.connections.iter().filter(|one| one.start == Start::InitialEvents) {
            let Some((shown, _)) = claim(connection) else { continue };
            let known = answers.partition_point(|(returned, _)| *returned < connection.opened);
            let Some((_, floor)) = known.checked_sub(1).and_then(|last| answers.get(last)) else { continue };
            if shown < floor.revision {
                let explanation = format!(
                    "watch {} through replica {} shows initial events of revision {shown}, though operation {} had been \
                     answered at revision {} before it began",
                    stream.id, connection.replica, floor.by, floor.revision
                );
                let violation = Violation::new(Promise::G2, "StaleRead", explanation).of(floor.by).on(stream.id);
                findings.add(violation.through(connection.replica).at(shown));
            }
        }
    }
}

/// What a request was answered stood only from a revision on that nobody had asked for when it was answered.
fn ahead(operation: &Operation, taken: Revision, later: Floor, findings: &mut Findings) {
    let check = match operation.outcome {
        Outcome::Refused { .. } => "Refusal",
        _ => "Order",
    };
    let explanation = format!(
        "operation {} ({}) was answered what is right from revision {taken} on, though operation {}, which made revision {}, \
         began after that",
        operation.id,
        named(operation),
        later.by,
        later.revision
    );
    findings.add(violation(operation, Promise::G1, check, explanation, Some(later)).at(taken));
}

/// Above what a request cannot stand: the first revision that was made by a write which began after its answer.
#[derive(Debug)]
struct Ceilings {
    /// By the beginning of writes: the lowest revision of it and all that began later.
    lowest: Vec<(Micros, Floor)>,
}

impl Ceilings {
    fn of(history: &History) -> Self {
        let writes = history.operations.iter().filter(|operation| operation.request.writes());
        // Attempts under one key may show what an earlier one has made.
        let writes = writes.filter(|operation| !matches!(operation.request, Request::Create { key: Some(_), .. }));
        let made = writes.filter_map(|operation| match &operation.outcome {
            Outcome::Object(seen) if seen.revision > 0 => {
                Some((operation.invoked, Floor { revision: seen.revision, by: operation.id }))
            }
            _ => None,
        });
        let mut lowest: Vec<_> = made.collect();
        lowest.sort_unstable();
        let mut least: Option<Floor> = None;
        for (_, made) in lowest.iter_mut().rev() {
            let lower = least.map_or(*made, |least| least.min(*made));
            (*made, least) = (lower, Some(lower));
        }
        Self { lowest }
    }

    /// The write that makes this place impossible for what was answered by then.
    fn contradicted(&self, returned: Micros, taken: Revision) -> Option<Floor> {
        let place = self.lowest.partition_point(|(invoked, _)| *invoked <= returned);
        self.lowest.get(place).map(|(_, lowest)| *lowest).filter(|lowest| lowest.revision <= taken)
    }
}

fn stale(operation: &Operation, least: Floor, last: Revision, findings: &mut Findings) {
    let what = match &operation.outcome {
        Outcome::Refused { code, reason } => format!("was refused with {code} {reason}, which was right"),
        _ => "was shown what stood".to_owned(),
    };
    let explanation = format!(
        "operation {} ({}) {what} up to revision {last} at most, though operation {} had been answered at revision {} before it began",
        operation.id,
        named(operation),
        least.by,
        least.revision
    );
    let check = match operation.outcome {
        Outcome::Refused { .. } => "Refusal",
        _ => "StaleRead",
    };
    findings.add(violation(operation, Promise::G2, check, explanation, Some(least)).at(last));
}

fn violation(
    operation: &Operation,
    promise: Promise,
    check: &str,
    explanation: String,
    least: Option<Floor>,
) -> Violation {
    let violation = Violation::new(promise, check, explanation).of(operation.id).through(operation.replica);
    match least {
        Some(least) => violation.of(least.by),
        None => violation,
    }
}

/// A request in a word or two.
pub(super) fn named(operation: &Operation) -> String {
    let what = match &operation.request {
        Request::Create { object, .. } => format!("create {}", object.name),
        Request::Update { object, expected: Some(expected), .. } => format!("update {} at {expected}", object.name),
        Request::Update { object, expected: None, .. } => format!("update {}", object.name),
        Request::Patch { object, .. } => format!("patch {}", object.name),
        Request::Delete { object, .. } => format!("delete {}", object.name),
        Request::Get { object, .. } => format!("get {}", object.name),
        Request::List { page, .. } => format!("list, {page:?}"),
        Request::IssueToken { token, .. } => format!("issue token {token}"),
        Request::Join { node, .. } => format!("join {node}"),
    };
    format!("{what} through replica {}", operation.replica)
}

/// Below what a request must not stand; `None` when nothing is promised about it.
fn least(request: &Request, floor: Floor, own: Floor) -> Option<Floor> {
    let freshness = match request {
        // A later page is of the first one's snapshot.
        Request::List { page: Page::Behind(_), .. } => return None,
        Request::Get { freshness, .. } | Request::List { freshness, .. } => *freshness,
        Request::IssueToken { .. } | Request::Join { .. } => return None,
        _ => Freshness::Latest,
    };
    match freshness {
        Freshness::Latest => Some(floor),
        Freshness::Any => Some(own),
        Freshness::AtLeast(revision) => Some(own.max(Floor { revision, by: own.by })),
        // A snapshot somebody chose is judged by its content.
        Freshness::Exactly(_) => None,
    }
}

/// Answers in the order of their arrival, and how far the order has come.
#[derive(Debug, Default)]
struct Line {
    arriving: BinaryHeap<Reverse<(Micros, Floor)>>,
    floor: Floor,
}

impl Line {
    fn answered(&mut self, operation: &Operation, revision: Revision) {
        self.arriving.push(Reverse((operation.returned, Floor { revision, by: operation.id })));
    }

    /// What everybody who begins at this time can know.
    fn floor_at(&mut self, now: Micros) -> Floor {
        while let Some(Reverse((returned, floor))) = self.arriving.peek() {
            if *returned >= now {
                break;
            }
            self.floor = self.floor.max(*floor);
            self.arriving.pop();
        }
        self.floor
    }
}

/// Which deletion each acknowledged DELETE has made.
#[derive(Debug, Default)]
struct Deletions {
    by_operation: BTreeMap<OperationId, Revision>,
}

impl Deletions {
    /// By the uid in the answer, or by the name where it shows none.
    fn assign(history: &History, replay: &Replay, findings: &mut Findings) -> Self {
        let mut assigned = Self::default();
        let mut made: BTreeMap<(u16, Revision), OperationId> = BTreeMap::new();
        let mut known_until: BTreeMap<u16, Micros> = BTreeMap::new();
        for operation in &history.operations {
            let (Request::Delete { object, .. }, Outcome::Done { uid }) = (&operation.request, &operation.outcome)
            else {
                continue;
            };
            let course = replay.course(object.collection);
            let mut gone = course.track(&object.name).iter().filter(|version| version.life == Life::Gone);
            let own = gone.find(|version| uid.is_empty() || version.uid == *uid);
            let Some(own) = own else {
                let there = course.at(&object.name, course.base).filter(|version| version.life == Life::There);
                if operation.invoked < course.base_read && there.is_none_or(|version| version.uid != *uid) {
                    findings.unjudged("a deletion from before everything watched");
                    continue;
                }
                // Behind what watches have shown it is not known; before that, it is missing.
                if operation.returned
                    < *known_until
                        .entry(object.collection)
                        .or_insert_with(|| replay.known_until(history, object.collection))
                {
                    let explanation = format!(
                        "operation {} ({}) was acknowledged, and {} is never seen to go",
                        operation.id,
                        named(operation),
                        object.name
                    );
                    findings.add(violation(operation, Promise::G3, "Acknowledged", explanation, None));
                } else {
                    findings.unjudged("a deletion behind everything watched");
                }
                continue;
            };
            if let Some(other) = made.insert((object.collection, own.revision), operation.id) {
                let explanation = format!(
                    "operations {other} and {} were both told that they deleted {}, which was deleted once, at revision {}",
                    operation.id, object.name, own.revision
                );
                findings
                    .add(violation(operation, Promise::G1, "OneWinner", explanation, None).of(other).at(own.revision));
            }
            assigned.by_operation.insert(operation.id, own.revision);
        }
        assigned
    }
}

/// Where a request can stand by what it was answered.
fn places(replay: &Replay, operation: &Operation, deletions: &Deletions, findings: &mut Findings) -> Places {
    match (&operation.request, &operation.outcome) {
        (Request::List { collection, .. }, Outcome::Items { revision, .. }) => {
            if *revision < replay.course(*collection).base {
                return Places::Anywhere;
            }
            Places::Within(vec![(*revision, *revision)])
        }
        (Request::Get { object, .. }, Outcome::Object(seen)) => {
            let course = replay.course(object.collection);
            if seen.revision > 0 {
                let span = course.span(&object.name, seen.revision);
                // What is older than the replay is judged by what replaced it.
                return span.map_or(Places::Anywhere, |span| Places::Within(vec![span]));
            }
            Places::Within(spans(course, &object.name, |life, value, _| life == Life::There && value == seen.value))
        }
        (Request::Delete { object, expected }, Outcome::Done { .. }) => {
            match deletions.by_operation.get(&operation.id) {
                Some(revision) => {
                    let course = replay.course(object.collection);
                    expectation(course, operation, &object.name, *revision, *expected, findings);
                    Places::Made(*revision)
                }
                None => Places::Anywhere,
            }
        }
        (
            Request::Create { object, value, .. }
            | Request::Update { object, value, .. }
            | Request::Patch { object, value },
            outcome @ (Outcome::Object(_) | Outcome::Unknown { .. }),
        ) => {
            let course = replay.course(object.collection);
            let effects = course.effects(&object.name, value);
            let shown = match outcome {
                Outcome::Object(seen) if seen.revision > 0 => Some(seen.revision),
                _ => effects.first().copied(),
            };
            // A write without effect is judged elsewhere: lost, or never happened.
            let Some(revision) = shown.filter(|revision| course.changes.contains_key(revision)) else {
                return Places::Anywhere;
            };
            if let Request::Update { expected: Some(expected), .. } = &operation.request {
                expectation(course, operation, &object.name, revision, Some(*expected), findings);
            }
            presence(course, operation, &object.name, revision, findings);
            // Attempts under one key share one effect, and only the first can have made it after it began.
            Places::Made(revision)
        }
        (request, Outcome::Refused { code, reason }) => refused(replay, request, *code, reason),
        _ => Places::Anywhere,
    }
}

/// A compare-and-set found what it expected.
fn expectation(
    course: &Course,
    operation: &Operation,
    name: &str,
    revision: Revision,
    expected: Option<Revision>,
    findings: &mut Findings,
) {
    let Some(expected) = expected else { return };
    let before = course.before(name, revision).map(|version| version.revision);
    if before != Some(expected) {
        let explanation = format!(
            "operation {} ({}) took effect at revision {revision}, where {name} stood at revision {}",
            operation.id,
            named(operation),
            before.map_or_else(|| "none".to_owned(), |before| before.to_string()),
        );
        findings.add(violation(operation, Promise::G1, "OneWinner", explanation, None).at(revision));
    }
}

/// A create found nothing, a change found something.
fn presence(course: &Course, operation: &Operation, name: &str, revision: Revision, findings: &mut Findings) {
    let was_there = course.before(name, revision).is_some_and(|version| version.life == Life::There);
    let creates = matches!(operation.request, Request::Create { .. });
    if was_there == creates {
        let found = if was_there { "something was there" } else { "nothing was there" };
        let explanation = format!(
            "operation {} ({}) took effect at revision {revision}, where {found} before",
            operation.id,
            named(operation)
        );
        findings.add(violation(operation, Promise::G1, "OneWinner", explanation, None).at(revision));
    }
}

/// Where a refusal is right.
fn refused(replay: &Replay, request: &Request, code: u16, reason: &str) -> Places {
    let Some(object) = request.object() else {
        return match code {
            401 | 403 | 404 | 422 => Places::Nowhere(format!("a well-formed list was refused with {code} {reason}")),
            _ => Places::Anywhere,
        };
    };
    let course = replay.course(object.collection);
    match (code, request) {
        (404, Request::Create { .. }) => Places::Nowhere(format!("a create was refused with 404 {reason}")),
        (404, _) => {
            let mut absent = spans(course, &object.name, |life, _, _| life == Life::Gone);
            before_all(course, &object.name, &mut absent);
            Places::Within(absent)
        }
        (409, Request::Create { key: Some(_), .. }) => Places::Anywhere,
        (409, Request::Create { .. }) => Places::Within(spans(course, &object.name, |life, _, _| life == Life::There)),
        // Also while nothing is there: whoever lost against a delete and has no time left to look again is told that somebody
        // came first.
        (409, Request::Update { expected: Some(expected), .. } | Request::Delete { expected: Some(expected), .. }) => {
            let mut other =
                spans(course, &object.name, |life, _, revision| life == Life::Gone || revision != *expected);
            before_all(course, &object.name, &mut other);
            Places::Within(other)
        }
        (400 | 401 | 403 | 422, _) => {
            Places::Nowhere(format!("a valid request for {} was refused with {code} {reason}", object.name))
        }
        _ => Places::Anywhere,
    }
}

/// Before its first version there was nothing, unless it is older than the replay.
fn before_all(course: &Course, name: &str, spans: &mut Vec<(Revision, Revision)>) {
    let first = course.track(name).first().map_or(Revision::MAX, |first| first.revision);
    if first > 0 {
        spans.insert(0, (0, first - 1));
    }
}

/// While which revisions an object's version is as wanted.
fn spans(course: &Course, name: &str, wanted: impl Fn(Life, &str, Revision) -> bool) -> Vec<(Revision, Revision)> {
    let track = course.track(name);
    let mut spans: Vec<(Revision, Revision)> = Vec::new();
    for (place, version) in track.iter().enumerate() {
        if wanted(version.life, &version.value, version.revision) {
            let last = track.get(place + 1).map_or(Revision::MAX, |next| next.revision - 1);
            match spans.last_mut() {
                Some((_, end)) if *end + 1 == version.revision => *end = last,
                _ => spans.push((version.revision, last)),
            }
        }
    }
    spans
}
