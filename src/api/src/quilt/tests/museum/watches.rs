//! Bugs planted into watches of the Kubernetes surface, each convicted by a client that keeps a list by what it is told.

use std::cell::Cell;
use std::collections::BTreeSet;

use axum::body::Body;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::super::Plane;
use super::tell;
use crate::server::Server;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exhibit {
    /// The end of the initial state is marked before its last object.
    InitialEndEarly,
    /// It is not marked at all.
    InitialEndMissing,
    /// An object that leaves the selector is not told of.
    LeavingUntold,
    /// The watch begins before the revision that it was asked to begin behind.
    BelowTheList,
}

thread_local! {
    static SHOWN: Cell<Option<Exhibit>> = const { Cell::new(None) };
}

impl Exhibit {
    /// Whether it is on show.
    pub(crate) fn is_shown(self) -> bool {
        SHOWN.get() == Some(self)
    }
}

/// The Kubernetes surface of one cluster: its namespaces, which need nobody else.
struct Client {
    server: Server,
    key: String,
    path: String,
}

impl Client {
    async fn ask(&self, method: Method, rest: &str, body: Value) -> (u16, Body) {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{rest}", self.path))
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/json")
            .body(Body::from(if body.is_null() { String::new() } else { body.to_string() }))
            .expect("request");
        let answer = self.server.handle(request).await.expect("an answer");
        (answer.status().as_u16(), answer.into_body())
    }

    async fn expect(&self, method: Method, rest: &str, body: Value) -> Value {
        let (status, body) = self.ask(method, rest, body).await;
        let bytes = body.collect().await.expect("body").to_bytes();
        let value: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert!(status < 300, "{status}: {value}");
        value
    }

    async fn make(&self, name: &str, team: &str) {
        let made = json!({"metadata": {"name": name, "labels": {"team": team}}});
        self.expect(Method::POST, "", made).await;
    }

    async fn move_to(&self, name: &str, team: &str) {
        let mut object = self.expect(Method::GET, &format!("/{name}"), Value::Null).await;
        object["metadata"]["labels"]["team"] = json!(team);
        self.expect(Method::PUT, &format!("/{name}"), object).await;
    }

    /// The names of a team, and the revision of the list.
    async fn list(&self, team: &str) -> (BTreeSet<String>, u64) {
        let list = self.expect(Method::GET, &format!("?labelSelector=team%3D{team}"), Value::Null).await;
        let names = list["items"].as_array().expect("items").iter().map(name_of);
        (names.collect(), revision_of(&list))
    }

    /// Opens a watch that ends by itself.
    async fn watch(&self, query: &str) -> Body {
        let (status, body) = self.ask(Method::GET, &format!("?watch=1&timeoutSeconds=1&{query}"), Value::Null).await;
        assert_eq!(status, 200);
        body
    }
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().expect("a name").to_owned()
}

fn revision_of(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a revision")
}

async fn events(body: Body) -> Vec<(String, Value)> {
    let bytes = body.collect().await.expect("body").to_bytes();
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let read = |line: &[u8]| {
        let mut event: Value = serde_json::from_slice(line).expect("JSON");
        (event["type"].as_str().expect("a type").to_owned(), event["object"].take())
    };
    lines.map(read).collect()
}

/// Keeps a list by what a watch tells; says what is wrong with it.
fn follow(events: &[(String, Value)], at_first: &BTreeSet<String>) -> Result<BTreeSet<String>, String> {
    let (mut held, mut begun) = (BTreeSet::new(), false);
    for (kind, object) in events {
        match kind.as_str() {
            "BOOKMARK" if object["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true" => {
                if held != *at_first {
                    return Err(format!("InitialEvents: marked as whole with {held:?} of {at_first:?}"));
                }
                begun = true;
            }
            "BOOKMARK" => {}
            "DELETED" => drop(held.remove(&name_of(object))),
            _ => drop(held.insert(name_of(object))),
        }
    }
    if begun { Ok(held) } else { Err("InitialEvents: never marked as whole".into()) }
}

/// Watches while objects come, enter and leave; the first thing that is wrong.
async fn wrong() -> Option<String> {
    let plane = Plane::start().await;
    let cluster = plane.cluster("c", "10.42.0.0/16", 24).await;
    let path = format!("/clusters/{cluster}/api/v1/namespaces");
    let client = Client { server: plane.kubernetes(), key: plane.key.clone(), path };
    for number in 0..4 {
        client.make(&format!("red-{number}"), "red").await;
        client.make(&format!("blue-{number}"), "blue").await;
    }
    let (at_first, listed) = client.list("red").await;
    let from_state = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let state = client.watch(&format!("{from_state}&labelSelector=team%3Dred")).await;
    let behind = client.watch(&format!("resourceVersion={listed}")).await;
    let (state, behind, ()) = tokio::join!(events(state), events(behind), async {
        client.move_to("red-1", "blue").await;
        client.move_to("blue-2", "red").await;
        client.make("red-4", "red").await;
        client.move_to("red-2", "blue").await;
        client.move_to("red-2", "red").await;
    });
    if let Some((kind, object)) = behind.iter().find(|(_, object)| revision_of(object) <= listed) {
        let (name, at) = (name_of(object), revision_of(object));
        return Some(format!("ListThenWatch: {kind} {name} at {at}, which the list at {listed} had"));
    }
    let held = match follow(&state, &at_first) {
        Ok(held) => held,
        Err(what) => return Some(what),
    };
    let (at_last, _) = client.list("red").await;
    (held != at_last).then(|| format!("Transition: the watch has told of {held:?}, and there are {at_last:?}"))
}

async fn convicts(exhibit: Exhibit, name: &str, by: &str) {
    SHOWN.set(Some(exhibit));
    let found = wrong().await;
    SHOWN.set(None);
    let found = found.filter(|found| found.starts_with(by)).map(|found| format!("one client: {found}"));
    tell("watch", name, found.as_deref());
}

/// Without a bug a client that keeps a list by a watch has what a list has.
#[tokio::test]
async fn a_watch_tells_what_a_list_has() {
    assert_eq!(wrong().await, None);
}

/// A client that takes the state for whole before it is would delete what it was not told of yet.
#[tokio::test]
async fn an_early_end_of_the_initial_state_is_convicted() {
    convicts(Exhibit::InitialEndEarly, "initial-events bookmark too early", "InitialEvents").await;
}

/// A client that waits for the end of the state would wait for ever.
#[tokio::test]
async fn a_missing_end_of_the_initial_state_is_convicted() {
    convicts(Exhibit::InitialEndMissing, "initial-events bookmark missing", "InitialEvents").await;
}

/// What has left a selector must go from the client's list.
#[tokio::test]
async fn an_untold_leaving_is_convicted() {
    convicts(Exhibit::LeavingUntold, "object leaving a selector not sent as DELETED", "Transition").await;
}

/// What a list had is not told again.
#[tokio::test]
async fn a_delivery_below_the_list_is_convicted() {
    convicts(Exhibit::BelowTheList, "delivery below the list revision", "ListThenWatch").await;
}
