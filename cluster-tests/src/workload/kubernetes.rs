//! The load of Kubernetes clients: `ConfigMaps` created, changed by compare-and-set and by patch, deleted, read, listed whole and in pages,
//! all over a few names, so that clients meet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::session::{Answer, As, Call, Session};
use super::shape::{Shape, revision};
use super::stage::{Manner, Stage};
use super::watcher::{Plan, listed};
use crate::cluster::text;
use crate::history::{Freshness, Object, Outcome, Page, Reader, Request, Selector, Writers};
use crate::random::Random;

/// Objects the clients share.
const NAMES: u64 = 24;
/// Values of the label that selectors choose by.
const GROUPS: [&str; 3] = ["a", "b", "c"];
/// The object one watch chooses by its name.
const NAMED: &str = "o-7";
/// What a stage knows the revision of some earlier list by.
const LISTED: &str = "listed";
/// Attempts of a compare-and-set, as client-go makes them.
const ATTEMPTS: u32 = 4;
/// How long a cluster may take to let a part end.
const FINISH: Duration = Duration::from_secs(30);
/// Objects of one page.
const PAGE: u64 = 5;
/// Bytes that make an object as large as common ones.
const PADDING: usize = 400;

/// The place of the stage's `ConfigMaps` in its history.
pub(super) const CONFIG_MAPS: u16 = 0;

pub(super) fn namespace(stage: &Stage) -> String {
    format!("oracle-{}", stage.tag)
}

fn path(stage: &Stage) -> String {
    format!("/api/v1/namespaces/{}/configmaps", namespace(stage))
}

/// Names the collection and opens all its watches. It must be the stage's first.
pub(super) fn watch(stage: &Stage, sessions: &[Session], random: &mut Random) {
    let id = stage.collection(sessions, &path(stage), Shape::ConfigMap, Writers::Ours, &As::Admin, random);
    debug_assert_eq!(id, CONFIG_MAPS);
    let Some(watched) = stage.watched().into_iter().find(|watched| watched.id == id) else { return };
    let group = |group: &str| Some(Selector::Group(group.to_owned()));
    for manner in [
        Manner { selector: group("a"), ..Manner::ROAMING },
        Manner { selector: group("b"), initial: true, ..Manner::ROAMING },
        Manner { selector: Some(Selector::Name(NAMED.to_owned())), ..Manner::ROAMING },
        Manner { initial: true, ..Manner::ROAMING },
        Manner { reader: Reader::Slow, ..Manner::PINNED },
        Manner::ROAMING,
    ] {
        stage.watch(random.one(sessions), &watched, manner, random);
    }
}

/// What a client does at a time.
struct Doing<'a> {
    stage: &'a Stage,
    session: &'a Session,
    random: Random,
}

/// One step of one client.
pub(super) async fn step(stage: &Arc<Stage>, session: &Session, random: Random) {
    let mut doing = Doing { stage, session, random };
    match doing.random.below(100) {
        0..18 => doing.create().await,
        18..44 => doing.change().await,
        44..52 => doing.change_blindly().await,
        52..65 => doing.patch().await,
        65..75 => doing.delete().await,
        75..89 => doing.get().await,
        89..94 => doing.list().await,
        _ => doing.pages().await,
    }
}

/// Makes the last change of each selector's view, so that each watch has something to come to.
pub(super) async fn finish(stage: &Arc<Stage>, session: &Session, seed: u64) {
    let ends = (0..).zip(GROUPS).map(async |(number, group)| {
        let mut doing = Doing { stage, session, random: Random::part(seed, number) };
        let (name, started) = (format!("end-{group}"), Instant::now());
        while started.elapsed() < FINISH {
            let answer = doing.create_as(&name, group).await;
            // A cluster that is down is not waited for without end; that it was, the final lists will say.
            if answer.refused().map_or_else(|| !answer.is_unknown(), |code| code == 409) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    join_all(ends).await;
}

impl Doing<'_> {
    fn name(&mut self) -> String {
        format!("o-{}", self.random.below(NAMES))
    }

    fn object(name: &str) -> Object {
        Object { collection: CONFIG_MAPS, name: name.to_owned() }
    }

    fn group(&mut self) -> &'static str {
        GROUPS[usize::try_from(self.random.below(3)).unwrap_or(0)]
    }

    fn body(&self, name: &str, group: &str, value: &str) -> Value {
        let labels = json!({"group": group, "run": self.stage.tag});
        let data = json!({"value": value, "padding": "x".repeat(PADDING)});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}, "data": data})
    }

    async fn ask(&mut self, call: Call<'_>, request: Request) -> Answer {
        let place = self.session.any(&mut self.random);
        self.ask_at(place, call, request).await
    }

    async fn ask_at(&mut self, place: usize, call: Call<'_>, request: Request) -> Answer {
        let object = request.object().cloned();
        let deletes = matches!(request, Request::Delete { .. });
        let answer = self
            .session
            .ask(&self.stage.recorder, place, call, request, |body| match body["kind"].as_str() {
                Some("ConfigMap") if !deletes => Outcome::Object(Shape::ConfigMap.seen(body)),
                Some("ConfigMapList") => listed(Shape::ConfigMap, body),
                _ => Outcome::Done { uid: text(&body["details"]["uid"]) },
            })
            .await;
        if let (Some(object), Outcome::Object(seen)) = (object, &answer.outcome) {
            self.stage.learn(&object.name, seen.revision.to_string());
        }
        answer
    }

    async fn create(&mut self) {
        let (name, group) = (self.name(), self.group());
        let answer = self.create_as(&name, group).await;
        // Whoever does not know tries again, with what is another write.
        if answer.is_unknown() {
            self.create_as(&name, group).await;
        }
    }

    async fn create_as(&mut self, name: &str, group: &str) -> Answer {
        let value = self.stage.value();
        let (path, body) = (path(self.stage), self.body(name, group, &value));
        let request = Request::Create { object: Self::object(name), value, key: None };
        self.ask(Call::new(As::Admin, Method::POST, &path).body(&body), request).await
    }

    async fn put(&mut self, name: &str, expected: u64) -> Answer {
        let (value, group) = (self.stage.value(), self.group());
        let path = format!("{}/{name}", path(self.stage));
        let mut body = self.body(name, group, &value);
        body["metadata"]["resourceVersion"] = expected.to_string().into();
        let request = Request::Update { object: Self::object(name), value, expected: Some(expected) };
        self.ask(Call::new(As::Admin, Method::PUT, &path).body(&body), request).await
    }

    /// Reads and writes back, and again when somebody else was faster.
    async fn change(&mut self) {
        let name = self.name();
        for _ in 0..ATTEMPTS {
            let read = self.read(&name, Freshness::Latest).await;
            let Outcome::Object(seen) = read.outcome else { return };
            if self.put(&name, seen.revision).await.refused() != Some(409) {
                return;
            }
        }
    }

    /// Writes over what it believes is there, as a controller with a cache does.
    async fn change_blindly(&mut self) {
        let name = self.name();
        let believed = self.stage.recall(&name).and_then(|known| known.parse().ok());
        match believed {
            Some(revision) => drop(self.put(&name, revision).await),
            None => self.create().await,
        }
    }

    async fn patch(&mut self) {
        let (name, value) = (self.name(), self.stage.value());
        let path = format!("{}/{name}", path(self.stage));
        let mut body = json!({"data": {"value": value}});
        if self.random.percent(50) {
            body["metadata"] = json!({"labels": {"group": self.group()}});
        }
        let request = Request::Patch { object: Self::object(&name), value };
        self.ask(Call::new(As::Admin, Method::PATCH, &path).body(&body), request).await;
    }

    async fn delete(&mut self) {
        let name = self.name();
        let path = format!("{}/{name}", path(self.stage));
        let believed = self.stage.recall(&name).and_then(|known| known.parse().ok());
        let expected = believed.filter(|_| self.random.percent(40));
        let body = expected.map(|revision: u64| json!({"preconditions": {"resourceVersion": revision.to_string()}}));
        let mut call = Call::new(As::Admin, Method::DELETE, &path);
        call.body = body.as_ref();
        self.ask(call, Request::Delete { object: Self::object(&name), expected }).await;
    }

    async fn read(&mut self, name: &str, freshness: Freshness) -> Answer {
        let mut path = format!("{}/{name}", path(self.stage));
        match freshness {
            Freshness::Latest => {}
            Freshness::Any => path.push_str("?resourceVersion=0"),
            Freshness::AtLeast(revision) | Freshness::Exactly(revision) => {
                path.push_str(&format!("?resourceVersion={revision}"));
            }
        }
        let request = Request::Get { object: Self::object(name), freshness };
        self.ask(Call::new(As::Admin, Method::GET, &path), request).await
    }

    async fn get(&mut self) {
        let name = self.name();
        let known = self.stage.recall(&name).and_then(|known| known.parse().ok());
        let freshness = match (self.random.below(10), known) {
            (0..2, _) => Freshness::Any,
            (2, Some(revision)) => Freshness::AtLeast(revision),
            _ => Freshness::Latest,
        };
        self.read(&name, freshness).await;
    }

    async fn list(&mut self) {
        let selector = match self.random.below(5) {
            0 => Some(Selector::Group(self.group().to_owned())),
            1 => Some(Selector::Name(NAMED.to_owned())),
            _ => None,
        };
        let known = self.name();
        let known = self.stage.recall(&known).and_then(|known| known.parse::<u64>().ok());
        let (freshness, version) = match (self.random.below(10), known) {
            (0, _) => (Freshness::Any, "&resourceVersion=0".to_owned()),
            (1, Some(revision)) => (Freshness::AtLeast(revision), format!("&resourceVersion={revision}")),
            (2..4, _) => match self.stage.recall(LISTED).and_then(|listed| listed.parse().ok()) {
                Some(revision) => {
                    (Freshness::Exactly(revision), format!("&resourceVersion={revision}&resourceVersionMatch=Exact"))
                }
                None => (Freshness::Latest, String::new()),
            },
            _ => (Freshness::Latest, String::new()),
        };
        let path = format!("{}?{}{version}", path(self.stage), Plan::query(selector.as_ref()));
        let request = Request::List { collection: CONFIG_MAPS, selector, freshness, page: Page::Whole };
        let answer = self.ask(Call::new(As::Admin, Method::GET, &path), request).await;
        // An older snapshot is asked for again much later, through another replica.
        if let (Outcome::Items { revision, .. }, Freshness::Latest, true) =
            (answer.outcome, freshness, self.random.percent(20))
        {
            self.stage.learn(LISTED, revision.to_string());
        }
    }

    /// Lists in pages, each through whichever replica.
    async fn pages(&mut self) {
        let selector = self.random.percent(30).then(|| Selector::Group(self.group().to_owned()));
        let first = format!("{}?limit={PAGE}&{}", path(self.stage), Plan::query(selector.as_ref()));
        let (mut path, mut page) = (first.clone(), Page::First);
        loop {
            let request = Request::List {
                collection: CONFIG_MAPS,
                selector: selector.clone(),
                freshness: Freshness::Latest,
                page,
            };
            let answer = self.ask(Call::new(As::Admin, Method::GET, &path), request).await;
            let token = text(&answer.body["metadata"]["continue"]);
            if token.is_empty() || !matches!(answer.outcome, Outcome::Items { .. }) {
                return;
            }
            debug_assert!(revision(&answer.body["metadata"]["resourceVersion"]) > 0);
            path = format!("{first}&continue={token}");
            page = Page::Behind(answer.id);
        }
    }
}
