//! The load of Quilt clients: workloads made under Idempotency-Keys and sent again until an answer comes, changed and deleted; join
//! tokens with more joiners at once than uses.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::session::{Answer, As, Call, Session};
use super::shape::Shape;
use super::stage::Stage;
use crate::cluster::text;
use crate::history::{Freshness, Object, Outcome, Request, Writers};
use crate::random::Random;

/// Times a request is sent under its key.
const SENT: u32 = 5;
/// Most uses of a token.
const USES: u64 = 3;
/// How long a token is good for that outlasts any run, in seconds.
const LONG: u64 = 86_400;
/// How long one is good for that ends within a long one.
const SHORT: u64 = 60;
/// Uses of one of those.
const SHORT_USES: u64 = 200;
/// How many of those there are at a time.
const LENT: usize = 3;
/// Beginning of what a stage knows of its short-lived tokens.
const TOKENS: &str = "token ";
/// Nodes that are there from the beginning, with room for a part of the Pods.
const FIRST_NODES: u64 = 3;
/// How long a heartbeat is waited for.
const BEAT: Duration = Duration::from_secs(10);
/// Beginning of what a stage knows of its workloads.
const WORKLOADS: &str = "workload ";
/// What a stage knows its cluster by.
const CLUSTER: &str = "cluster";
/// What a stage knows the place of its workloads by.
const COLLECTION: &str = "collection";

/// The cluster of a stage: room for many nodes, whose silence does not matter.
pub(super) fn cluster(stage: &Stage) -> Value {
    json!({"name": format!("oracle-{}", stage.tag), "pod_cidr": "10.0.0.0/12", "node_cidr_prefix": 26,
        "node_timeout_secs": 3600})
}

/// Names the collections of the cluster and watches them as Kubernetes clients do.
pub(super) fn watch(stage: &Stage, sessions: &[Session], made: &Value, random: &mut Random) {
    let cluster = text(&made["id"]);
    stage.learn(CLUSTER, cluster.clone());
    let virtual_api = format!("/clusters/{cluster}");
    let mut add = |path: &str, shape| {
        stage.collection(sessions, &format!("{virtual_api}{path}"), shape, Writers::Shared, &As::Tenant, random)
    };
    let workloads = add("/apis/quilt.sh/v1/workloads", Shape::Workload);
    add("/api/v1/nodes", Shape::Node);
    add("/api/v1/pods", Shape::Pod);
    stage.learn(COLLECTION, workloads.to_string());
}

/// Nodes join before anything else happens, and get ready. Without them it would be a matter of luck whether a Pod is bound, and one takes
/// another's place: what watches show of such transactions is judged.
pub(super) async fn begin(stage: &Stage, session: &Session, random: &mut Random) {
    let (Some(cluster), Some(collection)) = (stage.recall(CLUSTER), stage.recall(COLLECTION)) else { return };
    let Ok(collection) = collection.parse() else { return };
    let random = Random::new(random.draw());
    Doing { stage, session, cluster, collection, random }.furnish().await;
}

/// Where the cluster of a stage is, when it has one.
pub(super) fn path(stage: &Stage) -> Option<String> {
    stage.recall(CLUSTER).map(|cluster| format!("/api/clusters/{cluster}"))
}

struct Doing<'a> {
    stage: &'a Stage,
    session: &'a Session,
    cluster: String,
    collection: u16,
    random: Random,
}

/// One step of one client.
pub(super) async fn step(stage: &Arc<Stage>, session: &Session, random: Random) {
    let (Some(cluster), Some(collection)) = (stage.recall(CLUSTER), stage.recall(COLLECTION)) else { return };
    let Ok(collection) = collection.parse() else { return };
    let mut doing = Doing { stage, session, cluster, collection, random };
    match doing.random.below(100) {
        0..35 => doing.create().await,
        35..60 => doing.get().await,
        60..75 => doing.put().await,
        75..93 => doing.delete().await,
        _ => doing.join().await,
    }
}

impl Doing<'_> {
    fn workloads(&self) -> String {
        format!("/api/clusters/{}/workloads", self.cluster)
    }

    fn spec(name: &str, value: &str, replicas: u64) -> Value {
        json!({"name": name, "replicas": replicas, "command": ["x"], "environment": {"value": value},
            "memory_limit_mb": 64, "cpu_limit_percent": 25})
    }

    fn object(&self, name: &str) -> Object {
        Object { collection: self.collection, name: name.to_owned() }
    }

    async fn ask(&self, place: usize, call: Call<'_>, request: Request) -> Answer {
        let read = |body: &Value| match body["spec"].is_object() {
            true => Outcome::Object(Shape::Workload.seen(body)),
            false => Outcome::Done { uid: String::new() },
        };
        self.session.ask(&self.stage.recorder, place, call, request, read).await
    }

    /// Sends one request under one key until it is answered; sometimes twice at once, through two replicas.
    async fn create(&mut self) {
        let value = self.stage.value();
        let name = format!("w-{value}");
        let (path, key) = (self.workloads(), format!("key-{value}"));
        let body = Self::spec(&name, &value, 1 + self.random.below(2));
        let first = self.session.any(&mut self.random);
        let twice = self.random.percent(25);
        for attempt in 0..SENT {
            let send = |place: usize| {
                let request =
                    Request::Create { object: self.object(&name), value: value.clone(), key: Some(key.clone()) };
                let call = Call::new(As::Tenant, Method::POST, &path).body(&body).header("idempotency-key", &key);
                self.ask(place, call, request)
            };
            let place = first + attempt as usize;
            let answers = if twice { join_all([send(place), send(place + 1)]).await } else { vec![send(place).await] };
            let made = answers.iter().find_map(|answer| match &answer.outcome {
                Outcome::Object(seen) => Some(seen.uid.clone()),
                _ => None,
            });
            if let Some(id) = made {
                self.stage.learn(&format!("{WORKLOADS}{name}"), id);
                return;
            }
            // Only who does not know what happened, or is told to come again, sends it again.
            let open = answers.iter().any(|answer| answer.is_unknown() || answer.refused() == Some(503));
            if !open {
                return;
            }
        }
    }

    /// One of the workloads: its name and its path.
    fn some(&mut self) -> Option<(String, String)> {
        let (known, id) = self.stage.some(WORKLOADS, &mut self.random)?;
        let name = known.trim_start_matches(WORKLOADS).to_owned();
        Some((name, format!("{}/{id}", self.workloads())))
    }

    async fn get(&mut self) {
        let Some((name, mut path)) = self.some() else { return self.create().await };
        let freshness = if self.random.percent(15) { Freshness::Any } else { Freshness::Latest };
        if freshness == Freshness::Any {
            path.push_str("?consistency=stale");
        }
        let place = self.session.any(&mut self.random);
        let request = Request::Get { object: self.object(&name), freshness };
        self.ask(place, Call::new(As::Tenant, Method::GET, &path), request).await;
    }

    async fn put(&mut self) {
        let Some((name, path)) = self.some() else { return self.create().await };
        let value = self.stage.value();
        let body = Self::spec(&name, &value, 1 + self.random.below(2));
        let place = self.session.any(&mut self.random);
        let request = Request::Update { object: self.object(&name), value, expected: None };
        self.ask(place, Call::new(As::Tenant, Method::PUT, &path).body(&body), request).await;
    }

    async fn delete(&mut self) {
        let Some((name, path)) = self.some() else { return self.create().await };
        let place = self.session.any(&mut self.random);
        let request = Request::Delete { object: self.object(&name), expected: None };
        let answer = self.ask(place, Call::new(As::Tenant, Method::DELETE, &path), request).await;
        // Afterwards others may still ask for it, and are to be told that it is not there; then it is forgotten.
        if answer.refused() == Some(404) {
            self.stage.forget(&format!("{WORKLOADS}{name}"));
        }
    }

    /// A node joins by a token that was issued a while ago and ends soon, or has ended.
    async fn join_late(&mut self) {
        if self.stage.count(TOKENS) < LENT {
            let token = self.stage.value();
            if let Some(secret) = self.issue(&token, SHORT_USES, SHORT).await {
                self.stage.learn(&format!("{TOKENS}{token}"), secret);
            }
            return;
        }
        let Some((known, secret)) = self.stage.some(TOKENS, &mut self.random) else { return };
        let token = known.trim_start_matches(TOKENS).to_owned();
        let (place, node) = (self.session.any(&mut self.random), format!("n-{}", self.stage.value()));
        let answer = self.register(place, token, secret, node).await;
        // It is tried for a while yet when it has ended.
        if answer.refused() == Some(401) && self.random.percent(5) {
            self.stage.forget(&known);
        }
    }

    /// Asks for a token until there is an answer: its text.
    async fn issue(&mut self, token: &str, uses: u64, ttl_secs: u64) -> Option<String> {
        let (path, key) = (format!("/api/clusters/{}/join-tokens", self.cluster), format!("key-{token}"));
        let body = json!({"ttl_secs": ttl_secs, "max_uses": uses});
        for _ in 0..SENT {
            let place = self.session.any(&mut self.random);
            let call = Call::new(As::Tenant, Method::POST, &path).body(&body).header("idempotency-key", &key);
            let ends = (ttl_secs < LONG).then_some(ttl_secs);
            let answer =
                self.ask(place, call, Request::IssueToken { token: token.to_owned(), uses, ttl_secs: ends }).await;
            let secret = text(&answer.body["join_token"]);
            if !secret.is_empty() {
                return Some(secret);
            }
        }
        None
    }

    async fn register(&self, place: usize, token: String, secret: String, node: String) -> Answer {
        let path = format!("/api/agent/clusters/{}/nodes/register", self.cluster);
        let body = json!({"name": node, "bridge_name": "q0", "dns_port": 53, "egress_limit_mbit": 0});
        let call = Call::new(As::Joiner(secret), Method::POST, &path).body(&body);
        self.ask(place, call, Request::Join { token, node }).await
    }

    /// One token, more joiners at once than it has uses, each through whichever replica.
    async fn join(&mut self) {
        if self.random.percent(60) {
            return self.join_late().await;
        }
        let uses = 1 + self.random.below(USES);
        let token = self.stage.value();
        let Some(secret) = self.issue(&token, uses, LONG).await else { return };
        let joiners: Vec<(usize, String)> = (0..uses * 2 + 1)
            .map(|number| (self.session.any(&mut self.random), format!("n-{token}-{number}")))
            .collect();
        let this = &*self;
        let joining =
            joiners.into_iter().map(|(place, node)| this.register(place, token.clone(), secret.clone(), node));
        for answer in join_all(joining).await {
            if self.random.percent(50) {
                // What becomes of it is no matter.
                self.make_ready(&answer.body, "1").await;
            }
        }
    }

    /// Joins the first nodes, and goes on until they are ready, but not for ever: a fault may be in force.
    async fn furnish(&mut self) {
        let tries = FIRST_NODES * u64::from(SENT);
        let token = self.stage.value();
        let Some(secret) = self.issue(&token, tries, LONG).await else { return };
        let mut ready = 0;
        for number in 0..tries {
            let place = self.session.any(&mut self.random);
            let joined = self.register(place, token.clone(), secret.clone(), format!("n-{token}-{number}")).await;
            ready += u64::from(self.make_ready(&joined.body, "2").await);
            if ready == FIRST_NODES {
                return;
            }
        }
    }

    /// A node that is ready is given Pods, as many as it has room for. Says whether it has been heard.
    async fn make_ready(&mut self, joined: &Value, cpu: &str) -> bool {
        let (id, token) = (text(&joined["node"]["id"]), text(&joined["node_token"]));
        if id.is_empty() {
            return false;
        }
        let path = format!("/api/agent/clusters/{}/nodes/{id}/heartbeat", self.cluster);
        let body = json!({"state": "ready", "capacity": {"cpu": cpu, "memory": "512Mi", "pods": "6"}});
        let place = self.session.any(&mut self.random);
        let call = Call::new(As::Node(token), Method::POST, &path).body(&body);
        self.session.request(place, &call).timeout(BEAT).send().await.is_ok_and(|answer| answer.status().is_success())
    }
}
