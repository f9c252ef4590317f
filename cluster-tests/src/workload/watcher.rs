//! [`Watcher`]: the client of one watch. It lists or asks for the initial events, follows, and goes on where it was whenever a connection
//! ends, at the same replica or another; every line it is sent is recorded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use super::session::{As, Call, Session};
use super::shape::{Shape, revision};
use crate::cluster::{items, text};
use crate::history::{
    End, EventKind, Freshness, Line, Outcome, Page, Reader, Recorder, Recording, Request, Revision, Selector, Start,
};
use crate::random::Random;

/// Before a replica that does not answer is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// Earlier places a watch may go back to.
const EARLIER: usize = 64;

/// How long past its time a connection is waited for.
const GRACE: Duration = Duration::from_secs(10);

/// What a watch is to be like.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) path: String,
    pub(super) collection: u16,
    pub(super) shape: Shape,
    pub(super) who: As,
    pub(super) selector: Option<Selector>,
    pub(super) reader: Reader,
    /// The replica's place, for one that stays.
    pub(super) place: usize,
    /// Whether each connection begins with the state.
    pub(super) initial: bool,
    /// Longest time of one connection, in seconds.
    pub(super) seconds: Option<u64>,
}

impl Plan {
    /// The query that selects.
    pub(super) fn query(selector: Option<&Selector>) -> String {
        match selector {
            Some(Selector::Group(group)) => format!("labelSelector=group%3D{group}"),
            Some(Selector::Name(name)) => format!("fieldSelector=metadata.name%3D{name}"),
            None => String::new(),
        }
    }
}

/// A running watch.
#[derive(Debug)]
pub(super) struct Watcher {
    session: Session,
    recorder: Recorder,
    recording: Recording,
    plan: Plan,
    random: Random,
    position: Arc<AtomicU64>,
    /// True once the run is about to end: nobody is slow any more.
    hurry: watch::Receiver<bool>,
    earlier: VecDeque<Revision>,
}

/// Where a connection has come to, and whether its place is gone.
enum Left {
    At(Revision),
    Expired,
}

#[derive(Deserialize)]
struct Told<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl Watcher {
    pub(super) fn new(
        session: Session,
        recorder: &Recorder,
        plan: Plan,
        random: Random,
        hurry: watch::Receiver<bool>,
    ) -> Self {
        let recording = recorder.stream(plan.collection, plan.selector.clone(), plan.reader);
        let (recorder, position) = (recorder.clone(), Arc::default());
        Self { session, recorder, recording, plan, random, position, hurry, earlier: VecDeque::new() }
    }

    /// How far it has come.
    pub(super) fn position(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.position)
    }

    pub(super) fn recording(&self) -> Recording {
        self.recording.clone()
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Watches until it is aborted.
    pub(super) async fn run(mut self) {
        let mut start = None;
        loop {
            let place = match self.plan.reader {
                Reader::Pinned => self.plan.place,
                Reader::Roaming | Reader::Slow => self.session.any(&mut self.random),
            };
            let from = match start {
                Some(revision) => Start::Behind(revision),
                None if self.plan.initial => Start::InitialEvents,
                None => match self.list(place).await {
                    Some(start) => start,
                    None => {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
            };
            start = match self.connect(place, from).await {
                Left::Expired => None,
                // A client that wants the state first wants it each time.
                Left::At(_) if self.plan.initial => None,
                Left::At(position) => Some(self.go_back(position)),
            };
        }
    }

    /// Now and then a client comes with an older place, as one does that had not noted how far it was.
    fn go_back(&mut self, position: Revision) -> Revision {
        let roams = self.plan.reader == Reader::Roaming;
        if roams && !self.earlier.is_empty() && self.random.percent(20) && !*self.hurry.borrow() {
            let place = self.random.below(self.earlier.len() as u64);
            return self.earlier[usize::try_from(place).unwrap_or(0)].min(position);
        }
        position
    }

    async fn list(&self, place: usize) -> Option<Start> {
        let query = Plan::query(self.plan.selector.as_ref());
        let path = format!("{}?{query}", self.plan.path);
        let request = Request::List {
            collection: self.plan.collection,
            selector: self.plan.selector.clone(),
            freshness: Freshness::Latest,
            page: Page::Whole,
        };
        let shape = self.plan.shape;
        let call = Call::new(self.plan.who.clone(), Method::GET, &path);
        let answer = self.session.ask(&self.recorder, place, call, request, |body| listed(shape, body)).await;
        match answer.outcome {
            Outcome::Items { revision, .. } => Some(Start::BehindList(answer.id, revision)),
            _ => None,
        }
    }

    async fn connect(&mut self, place: usize, start: Start) -> Left {
        let mut query = Plan::query(self.plan.selector.as_ref());
        query.push_str("&watch=true&allowWatchBookmarks=true");
        let mut position = match start {
            Start::Behind(revision) | Start::BehindList(_, revision) => {
                query.push_str(&format!("&resourceVersion={revision}"));
                revision
            }
            Start::InitialEvents => {
                query.push_str("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
                0
            }
        };
        // What a list has shown need not come again: nothing may change behind it.
        self.position.fetch_max(position, Ordering::Relaxed);
        let mut limit = Duration::from_secs(24 * 3600);
        if let Some(longest) = self.plan.seconds {
            let seconds = 3 + self.random.below(longest.saturating_sub(2));
            query.push_str(&format!("&timeoutSeconds={seconds}"));
            limit = Duration::from_secs(seconds) + GRACE;
        } else {
            query.push_str("&timeoutSeconds=7200");
        }
        let path = format!("{}?{query}", self.plan.path);
        let request = self.session.request(place, &Call::new(self.plan.who.clone(), Method::GET, &path));
        self.recording.connect(self.session.replica(place), start);
        let end = match tokio::time::timeout(limit, self.follow(request, &mut position)).await {
            Ok(end) => end,
            Err(_elapsed) => End::Broken("silent past its time".into()),
        };
        let expired = matches!(end, End::Refused { code: 410, .. }) || position == Revision::MAX;
        let broken = !matches!(end, End::Closed);
        self.recording.end(end);
        if broken {
            tokio::time::sleep(PAUSE).await;
        }
        match start {
            _ if expired => Left::Expired,
            // Initial events that were cut off are asked for again.
            Start::InitialEvents if position == 0 => Left::Expired,
            _ => Left::At(position),
        }
    }

    async fn follow(&mut self, request: reqwest::RequestBuilder, position: &mut Revision) -> End {
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return End::Broken(format!("{error:?}")),
        };
        if !response.status().is_success() {
            let code = response.status().as_u16();
            let message = response.text().await.unwrap_or_default();
            return End::Refused { code, message: message.chars().take(300).collect() };
        }
        let mut rest = Vec::new();
        let mut initial = self.plan.initial;
        loop {
            match response.chunk().await {
                Ok(Some(bytes)) => rest.extend_from_slice(&bytes),
                // A line that was cut off was not delivered.
                Ok(None) => return End::Closed,
                Err(error) => return End::Broken(format!("{error:?}")),
            }
            let mut begin = 0;
            while let Some(length) = rest[begin..].iter().position(|byte| *byte == b'\n') {
                let line = &rest[begin..begin + length];
                begin += length + 1;
                match self.line(line) {
                    Ok(line) => {
                        match &line {
                            Line::Event { seen, .. } if !initial => {
                                *position = (*position).max(seen.revision);
                                if self.earlier.len() == EARLIER {
                                    self.earlier.pop_front();
                                }
                                self.earlier.push_back(seen.revision);
                            }
                            Line::Bookmark { revision, initial_end } => {
                                *position = (*position).max(*revision);
                                initial &= !initial_end;
                            }
                            // Marks the place as gone.
                            Line::Error { code: 410, .. } => *position = Revision::MAX,
                            Line::Event { .. } | Line::Error { .. } => {}
                        }
                        self.recording.line(line);
                        if *position != Revision::MAX {
                            self.position.fetch_max(*position, Ordering::Relaxed);
                        }
                    }
                    Err(error) => return End::Broken(format!("a line is no event: {error}")),
                }
            }
            rest.drain(..begin);
            if self.plan.reader == Reader::Slow && !*self.hurry.borrow() {
                let pause = Duration::from_millis(500 + self.random.below(2500));
                let _hurried = tokio::time::timeout(pause, self.hurry.wait_for(|hurry| *hurry)).await;
            }
        }
    }

    fn line(&self, line: &[u8]) -> Result<Line, serde_json::Error> {
        let told: Told<'_> = serde_json::from_slice(line)?;
        let object: Value = serde_json::from_str(told.object.get())?;
        let kind = match told.kind {
            "ADDED" => EventKind::Added,
            "MODIFIED" => EventKind::Modified,
            "DELETED" => EventKind::Deleted,
            "BOOKMARK" => {
                let metadata = &object["metadata"];
                return Ok(Line::Bookmark {
                    revision: revision(&metadata["resourceVersion"]),
                    initial_end: metadata["annotations"]["k8s.io/initial-events-end"] == "true",
                });
            }
            _ => {
                let code = object["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(0);
                return Ok(Line::Error { code, message: text(&object["message"]) });
            }
        };
        Ok(Line::Event { kind, seen: self.plan.shape.seen(&object), bytes: xxh3_64(told.object.get().as_bytes()) })
    }
}

/// A list as it is recorded.
pub(super) fn listed(shape: Shape, body: &Value) -> Outcome {
    let metadata = &body["metadata"];
    Outcome::Items {
        revision: revision(&metadata["resourceVersion"]),
        items: items(body).map(|item| shape.seen(item)).collect(),
        more: metadata["continue"].as_str().is_some_and(|token| !token.is_empty()),
    }
}
