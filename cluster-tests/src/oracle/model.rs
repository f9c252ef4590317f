//! Histories that are right by construction: a store in one thread and virtual time, with clients that overlap, are refused and are left
//! without an answer, and watches that break and resume. What it records must pass; what is then falsified must not.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::history::{
    Collection, Connection, End, EventKind, Frame, Freshness, History, Line, Micros, Object, Operation, Outcome, Page,
    Reader, Request, Revision, Seen, Selector, Start, Stream, Transaction, Writers,
};
use crate::random::Random;

const NAMES: u64 = 6;
const REPLICAS: u64 = 3;
/// Objects of one page.
const PAGE: usize = 2;

/// One change of the modelled store.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) revision: Revision,
    pub(crate) at: Micros,
    pub(crate) txn_end: Revision,
    pub(crate) name: String,
    pub(crate) before: Option<Seen>,
    pub(crate) after: Option<Seen>,
}

/// What a run of the model leaves.
#[derive(Debug)]
#[cfg_attr(not(test), expect(dead_code, reason = "the judge's own tests falsify histories by its log"))]
pub(crate) struct Run {
    pub(crate) history: History,
    pub(crate) log: Vec<Change>,
}

/// A version as the model shows it: its print follows from what it is.
pub(crate) fn version(name: &str, uid: &str, revision: Revision, value: &str, group: &str) -> Seen {
    let print = format!("{name}{uid}{revision}{value}{group}")
        .bytes()
        .fold(7_u64, |print, byte| print.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
    Seen { name: name.into(), uid: uid.into(), revision, value: value.into(), group: group.into(), print, facts: None }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Invoke,
    Effect,
}

#[derive(Debug)]
struct Asked {
    operation: Operation,
    answered: bool,
    /// The answer is 503, and it has no effect.
    shed: bool,
}

struct Store {
    random: Random,
    state: BTreeMap<String, Seen>,
    revision: Revision,
    uids: u64,
    log: Vec<Change>,
    /// How far each replica has come, at least.
    applied: Vec<Revision>,
    transactions: Vec<Transaction>,
    queue: BinaryHeap<Reverse<(Micros, Moment, usize)>>,
    asked: Vec<Asked>,
}

/// Runs the model with so many requests.
pub(crate) fn run(seed: u64, requests: u64) -> Run {
    let mut store = Store {
        random: Random::new(seed),
        state: BTreeMap::new(),
        revision: 10,
        uids: 0,
        log: Vec::new(),
        applied: vec![10; usize::try_from(REPLICAS).expect("small")],
        transactions: Vec::new(),
        queue: BinaryHeap::new(),
        asked: Vec::new(),
    };
    let list = Request::List { collection: 0, selector: None, freshness: Freshness::Latest, page: Page::Whole };
    for _ in 0..6 {
        store.ask(0, list.clone(), Some(true));
    }
    for number in 0..requests {
        let request = store.some_request(number);
        let at = 2000 + number * 100 + store.random.below(90);
        store.ask(at, request, None);
    }
    let end = 2000 + requests * 100 + 20_000;
    for _ in 0..REPLICAS {
        store.ask(end, list.clone(), Some(true));
    }
    store.play();
    let streams = store.streams(end + 10_000);
    let collection = Collection { path: "/api/v1/namespaces/m/configmaps".into(), writers: Writers::Shared };
    let operations = store.asked.into_iter().map(|asked| asked.operation).collect();
    let history = History {
        seed,
        collections: vec![collection],
        operations,
        streams,
        transactions: store.transactions,
        epochs: Vec::new(),
        notes: BTreeMap::new(),
    };
    Run { history, log: store.log }
}

fn object(name: &str) -> Object {
    Object { collection: 0, name: name.to_owned() }
}

impl Store {
    fn name(&mut self) -> String {
        format!("o-{}", self.random.below(NAMES))
    }

    fn some_request(&mut self, number: u64) -> Request {
        let (name, value) = (self.name(), format!("v{number}"));
        let object = object(&name);
        match self.random.below(12) {
            0..2 => Request::Create { object, value, key: None },
            // What is expected is filled in when it is sent.
            2..4 => Request::Update { object, value, expected: Some(0) },
            4..6 => Request::Patch { object, value },
            6 => Request::Delete { object, expected: if self.random.percent(50) { Some(0) } else { None } },
            7..9 => Request::Get { object, freshness: Freshness::Latest },
            9 => Request::Get { object, freshness: Freshness::Any },
            10 => {
                let selector = self.random.percent(50).then(|| Selector::Group("a".into()));
                Request::List { collection: 0, selector, freshness: Freshness::Latest, page: Page::Whole }
            }
            _ => Request::List { collection: 0, selector: None, freshness: Freshness::Latest, page: Page::First },
        }
    }

    /// Plans a request; `answered` when its fate is not left to chance.
    fn ask(&mut self, invoked: Micros, request: Request, answered: Option<bool>) {
        let took = 20 + self.random.below(600);
        let returned = invoked + took;
        let writes = request.writes();
        let answered = answered.unwrap_or_else(|| !self.random.percent(12));
        let shed = writes && answered && self.random.percent(6);
        let effect = match answered {
            true => Some(invoked + 1 + self.random.below(took - 2)),
            // What nobody waits for any more may still happen, much later.
            false => (writes && self.random.percent(60)).then(|| invoked + 1 + self.random.below(4000)),
        };
        let id = self.asked.len();
        let operation = Operation {
            id: id as u64,
            client: u16::try_from(self.random.below(4)).expect("small"),
            replica: u16::try_from(1 + self.random.below(REPLICAS)).expect("small"),
            invoked,
            returned,
            request,
            outcome: Outcome::Unknown { why: "no answer".into() },
        };
        self.queue.push(Reverse((invoked, Moment::Invoke, id)));
        if let Some(effect) = effect {
            self.queue.push(Reverse((effect, Moment::Effect, id)));
        }
        self.asked.push(Asked { operation, answered, shed });
    }

    fn play(&mut self) {
        while let Some(Reverse((at, moment, id))) = self.queue.pop() {
            match moment {
                Moment::Invoke => self.send(id),
                Moment::Effect => self.serve(at, id),
            }
        }
    }

    /// A client decides what it expects by what it knows now, which may be old.
    fn send(&mut self, id: usize) {
        let (Request::Update { object, expected, .. } | Request::Delete { object, expected }) =
            &mut self.asked[id].operation.request
        else {
            return;
        };
        if expected.is_some() {
            let known = self.state.get(&object.name).map_or(9, |seen| seen.revision);
            *expected = Some(known);
        }
    }

    fn serve(&mut self, at: Micros, id: usize) {
        let request = self.asked[id].operation.request.clone();
        if self.asked[id].shed {
            self.asked[id].operation.outcome = Outcome::Refused { code: 503, reason: "ServiceUnavailable".into() };
            return;
        }
        let replica = usize::from(self.asked[id].operation.replica - 1);
        let outcome = self.answer(at, id, replica, &request);
        if self.asked[id].answered {
            let returned = self.asked[id].operation.returned;
            if let (
                Request::List { selector, page: Page::First | Page::Behind(_), .. },
                Outcome::Items { more: true, .. },
            ) = (&request, &outcome)
            {
                let page = Page::Behind(id as u64);
                let next =
                    Request::List { collection: 0, selector: selector.clone(), freshness: Freshness::Latest, page };
                let pause = 1 + self.random.below(500);
                self.ask(returned + pause, next, Some(true));
            }
            self.asked[id].operation.outcome = outcome;
        }
    }

    fn answer(&mut self, at: Micros, id: usize, replica: usize, request: &Request) -> Outcome {
        let refused = |code: u16, reason: &str| Outcome::Refused { code, reason: reason.into() };
        match request {
            Request::Create { object, value, .. } => match self.state.contains_key(&object.name) {
                true => refused(409, "AlreadyExists"),
                false => Outcome::Object(self.put(at, id, &object.name, value)),
            },
            Request::Update { object, value, expected } => match self.state.get(&object.name) {
                None => refused(404, "NotFound"),
                Some(seen) if Some(seen.revision) != *expected => refused(409, "Conflict"),
                Some(_) => Outcome::Object(self.put(at, id, &object.name, value)),
            },
            Request::Patch { object, value } => match self.state.contains_key(&object.name) {
                true => Outcome::Object(self.put(at, id, &object.name, value)),
                false => refused(404, "NotFound"),
            },
            Request::Delete { object, expected } => match self.state.get(&object.name).cloned() {
                None => refused(404, "NotFound"),
                Some(seen) if expected.is_some_and(|expected| expected != seen.revision) => refused(409, "Conflict"),
                Some(seen) => {
                    self.state.remove(&object.name);
                    self.revision += 1 + self.random.below(2);
                    self.note(at, self.revision, &object.name, Some(seen.clone()), None);
                    Outcome::Done { uid: seen.uid }
                }
            },
            Request::Get { object, freshness } => {
                let view = match freshness {
                    Freshness::Any => {
                        let lag = self.random.below(self.revision - self.applied[replica] + 1);
                        self.boundary(self.applied[replica] + lag)
                    }
                    _ => self.revision,
                };
                self.applied[replica] = self.applied[replica].max(view);
                match self.state_at(view).remove(&object.name) {
                    Some(seen) => Outcome::Object(seen),
                    None => refused(404, "NotFound"),
                }
            }
            Request::List { selector, page, .. } => {
                let (view, behind) = match page {
                    Page::Behind(before) => self.cursor(*before),
                    Page::Whole | Page::First => (self.revision, None),
                };
                self.applied[replica] = self.applied[replica].max(view);
                let items: Vec<Seen> = self
                    .state_at(view)
                    .into_values()
                    .filter(|seen| behind.as_ref().is_none_or(|behind| seen.name > *behind))
                    .filter(|seen| selector.as_ref().is_none_or(|one| one.chooses(&seen.name, &seen.group)))
                    .collect();
                let kept = if *page == Page::Whole { items.len() } else { PAGE.min(items.len()) };
                let more = items.len() > kept;
                Outcome::Items { revision: view, items: items.into_iter().take(kept).collect(), more }
            }
            Request::IssueToken { .. } | Request::Join { .. } => refused(404, "NotFound"),
        }
    }

    fn cursor(&self, before: u64) -> (Revision, Option<String>) {
        let place = usize::try_from(before).expect("small");
        match &self.asked[place].operation.outcome {
            Outcome::Items { revision, items, .. } => (*revision, items.last().map(|seen| seen.name.clone())),
            _ => (self.revision, None),
        }
    }

    fn put(&mut self, at: Micros, id: usize, name: &str, value: &str) -> Seen {
        self.revision += 1 + self.random.below(3);
        let revision = self.revision;
        let before = self.state.get(name).cloned();
        let uid = before.as_ref().map_or_else(
            || {
                self.uids += 1;
                format!("u{}", self.uids)
            },
            |before| before.uid.clone(),
        );
        let group = ["a", "b"][usize::try_from(self.random.below(2)).expect("small")];
        let after = version(name, &uid, revision, value, group);
        self.state.insert(name.to_owned(), after.clone());
        self.note(at, revision, name, before, Some(after.clone()));
        // Some changes take another one along, of an object no client writes.
        if self.random.percent(15) {
            let before = self.state.get("sys").cloned();
            let second = version("sys", "u0", revision + 1, "", group);
            self.revision += 1;
            self.state.insert("sys".into(), second.clone());
            self.note(at, revision + 1, "sys", before, Some(second));
            for change in self.log.iter_mut().rev().take(2) {
                change.txn_end = revision + 1;
            }
            self.transactions.push(Transaction { operation: Some(id as u64), revisions: vec![revision, revision + 1] });
        }
        after
    }

    fn note(&mut self, at: Micros, revision: Revision, name: &str, before: Option<Seen>, after: Option<Seen>) {
        self.log.push(Change { revision, at, txn_end: revision, name: name.to_owned(), before, after });
    }

    /// The latest end of a transaction up to here.
    fn boundary(&self, revision: Revision) -> Revision {
        let within = self.log.iter().find(|change| change.revision <= revision && revision < change.txn_end);
        within.map_or(revision, |change| change.revision - 1)
    }

    fn state_at(&self, revision: Revision) -> BTreeMap<String, Seen> {
        let mut state = BTreeMap::new();
        for change in self.log.iter().filter(|change| change.revision <= revision) {
            match &change.after {
                Some(seen) => drop(state.insert(change.name.clone(), seen.clone())),
                None => drop(state.remove(&change.name)),
            }
        }
        state
    }

    fn streams(&mut self, end: Micros) -> Vec<Stream> {
        let group = || Some(Selector::Group("a".into()));
        let plans = [
            (None, Reader::Pinned, false),
            (None, Reader::Roaming, false),
            (group(), Reader::Roaming, false),
            (Some(Selector::Name("o-1".into())), Reader::Roaming, false),
            (None, Reader::Roaming, true),
            (group(), Reader::Slow, true),
        ];
        let plans = (0_u32..).zip(plans);
        plans.map(|(id, (selector, reader, initial))| self.stream(id, selector, reader, initial, end)).collect()
    }

    fn stream(&mut self, id: u32, selector: Option<Selector>, reader: Reader, initial: bool, end: Micros) -> Stream {
        let last = self.revision;
        let mut connections: Vec<Connection> = Vec::new();
        let list = id as usize;
        let listed = match &self.asked[list].operation.outcome {
            Outcome::Items { revision, .. } => *revision,
            _ => 10,
        };
        let mut start = if initial { Start::InitialEvents } else { Start::BehindList(list as u64, listed) };
        if !initial && selector.is_some() {
            // Its list has no selector: it begins behind a revision somebody told it.
            start = Start::Behind(listed);
        }
        let mut now = 1500;
        loop {
            let connection = self.connection(selector.as_ref(), start, now, reader == Reader::Pinned);
            let upto = super::replay::claim(&connection).map_or(0, |(_, upto)| upto);
            now = connection.ended;
            connections.push(connection);
            if upto >= last || now > end * 3 {
                break;
            }
            start = match start {
                Start::InitialEvents => Start::InitialEvents,
                Start::Behind(from) | Start::BehindList(_, from) => Start::Behind(upto.max(from)),
            };
        }
        Stream { id, collection: 0, selector, reader, connections, awaited: None }
    }

    fn connection(&mut self, selector: Option<&Selector>, start: Start, opened: Micros, whole: bool) -> Connection {
        let chosen = |seen: &Option<Seen>| {
            seen.as_ref().is_some_and(|seen| selector.is_none_or(|one| one.chooses(&seen.name, &seen.group)))
        };
        let mut frames: Vec<Frame> = Vec::new();
        let mut at = opened;
        let from = match start {
            Start::Behind(revision) | Start::BehindList(_, revision) => revision,
            Start::InitialEvents => {
                let happened = self.log.iter().filter(|change| change.at < opened).map(|change| change.txn_end).max();
                let view = happened.unwrap_or(10);
                for seen in self.state_at(view).into_values() {
                    if chosen(&Some(seen.clone())) {
                        frames.push(Frame { at, line: event(EventKind::Added, seen) });
                    }
                }
                frames.push(Frame { at, line: Line::Bookmark { revision: view, initial_end: true } });
                view
            }
        };
        let limit = if whole { usize::MAX } else { 1 + usize::try_from(self.random.below(12)).expect("small") };
        let mut shown = 0;
        let mut end = End::Left;
        let changes: Vec<Change> = self.log.iter().filter(|change| change.revision > from).cloned().collect();
        for (place, change) in changes.iter().enumerate() {
            at = at.max(change.at) + self.random.below(50);
            let kind = match (chosen(&change.before), chosen(&change.after)) {
                (false, true) => Some((EventKind::Added, change.after.clone())),
                (true, true) => Some((EventKind::Modified, change.after.clone())),
                (true, false) => {
                    let gone = change
                        .before
                        .as_ref()
                        .map(|seen| version(&seen.name, &seen.uid, change.revision, &seen.value, &seen.group));
                    Some((EventKind::Deleted, gone))
                }
                (false, false) => None,
            };
            if let Some((kind, Some(seen))) = kind {
                frames.push(Frame { at, line: event(kind, seen) });
                shown += 1;
            }
            let within = change.revision < change.txn_end;
            let last = place + 1 == changes.len();
            if !within && (last || self.random.percent(20)) {
                frames.push(Frame { at, line: Line::Bookmark { revision: change.revision, initial_end: false } });
            }
            if shown >= limit {
                // Only what breaks ends within a transaction.
                end = if within || self.random.percent(50) { End::Broken("reset".into()) } else { End::Closed };
                break;
            }
        }
        let replica = u16::try_from(1 + self.random.below(REPLICAS)).expect("small");
        Connection { replica, opened, start, frames, end, ended: at + 10 }
    }
}

fn event(kind: EventKind, seen: Seen) -> Line {
    let bytes = seen.print;
    Line::Event { kind, seen, bytes }
}
