//! A Deployment that never rests: it is scaled up and down and given new templates, while agents run its Pods and every change of Pods,
//! Nodes, `ReplicaSets` and the Deployment itself is watched.

use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use super::kubernetes::namespace;
use super::session::{Answer, As, Call, Session};
use super::shape::{ANNOTATION, Shape};
use super::stage::Stage;
use crate::history::{Object, Outcome, Request, Writers};
use crate::random::Random;

/// The Deployment's name.
const NAME: &str = "roll";
/// Most replicas it is scaled to.
const REPLICAS: u64 = 6;
/// What a stage knows the place of its Deployment by.
const COLLECTION: &str = "deployments";

fn path(stage: &Stage) -> String {
    format!("/apis/apps/v1/namespaces/{}/deployments", namespace(stage))
}

/// Names and watches what a rollout moves.
pub(super) fn watch(stage: &Stage, sessions: &[Session], random: &mut Random) {
    let (deployments, sets) = (path(stage), format!("/apis/apps/v1/namespaces/{}/replicasets", namespace(stage)));
    let mut add = |path: &str, shape| stage.collection(sessions, path, shape, Writers::Shared, &As::Admin, random);
    let deployments = add(&deployments, Shape::Deployment);
    add(&sets, Shape::ReplicaSet);
    // Nodes are everybody's, and so is what is bound to them.
    add("/api/v1/pods", Shape::Pod);
    add("/api/v1/nodes", Shape::Node);
    stage.learn(COLLECTION, deployments.to_string());
}

/// Makes the Deployment, and again until it is there.
pub(super) async fn begin(stage: &Arc<Stage>, session: &Session, random: &mut Random) {
    for _ in 0..100 {
        let value = stage.value();
        let labels = json!({"app": format!("roll-{}", stage.tag)});
        let container = json!({"name": "main", "image": "none", "command": ["sleep", "100000"],
            "resources": {"requests": {"cpu": "50m", "memory": "16Mi"}}});
        let body = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": NAME, "annotations": {ANNOTATION: value}},
            "spec": {"replicas": 3, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels},
                    "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}}}});
        let Some(object) = object(stage) else { return };
        let all = path(stage);
        let call = Call::new(As::Admin, Method::POST, &all).body(&body);
        let place = session.any(random);
        let answer = ask(stage, session, place, call, Request::Create { object, value, key: None }).await;
        if matches!(answer.outcome, Outcome::Object(_)) || answer.refused() == Some(409) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

fn object(stage: &Stage) -> Option<Object> {
    let collection = stage.recall(COLLECTION)?.parse().ok()?;
    Some(Object { collection, name: format!("{}/{NAME}", namespace(stage)) })
}

async fn ask(stage: &Stage, session: &Session, place: usize, call: Call<'_>, request: Request) -> Answer {
    let read = |body: &Value| Outcome::Object(Shape::Deployment.seen(body));
    session.ask(&stage.recorder, place, call, request, read).await
}

/// One step: another number of replicas, or another template.
pub(super) async fn step(stage: &Arc<Stage>, session: &Session, mut random: Random) {
    let value = stage.value();
    let mut body = json!({"metadata": {"annotations": {ANNOTATION: value}}});
    if random.percent(50) {
        body["spec"] = json!({"replicas": 1 + random.below(REPLICAS)});
    } else {
        body["spec"] = json!({"template": {"metadata": {"annotations": {"rolled": value}}}});
    }
    let Some(object) = object(stage) else { return };
    let own = format!("{}/{NAME}", path(stage));
    let call = Call::new(As::Admin, Method::PATCH, &own).body(&body);
    let place = session.any(&mut random);
    ask(stage, session, place, call, Request::Patch { object, value }).await;
}
