//! An agent and several replicas, some of which are dead, leaderless, frozen or lose their answers.

use crate::support::{Agent, Manners, Plane};
use quilt_agent::AgentError;

fn set(plane: &Plane, server: usize, manners: Manners) {
    *plane.servers[server].manners.lock().expect("lock") = manners;
}

/// With the first replica dead and the second without a leader the agent joins through the third, and stays there.
#[tokio::test]
async fn joins_through_whichever_replica_answers() {
    let plane = Plane::start(3).await;
    plane.servers[0].kill();
    set(&plane, 1, Manners::Status(503));
    let agent = Agent::start(plane.options("data"));
    let beat = plane.until("a heartbeat", |known| known.heartbeats.first().cloned()).await;
    assert_eq!(beat["state"], "ready");
    assert_eq!(beat["capacity"]["pods"], "110");
    assert!(beat["kubelet_port"].as_u64().is_some_and(|port| port > 0));
    let asked: Vec<usize> = plane.known(|known| {
        let third = known.requests.iter().position(|(server, ..)| *server == 2).expect("asked");
        known.requests[third..].iter().map(|(server, ..)| *server).collect()
    });
    assert!(asked.iter().all(|server| *server == 2), "the good replica is remembered: {asked:?}");
    agent.stop().await.expect("an orderly stop");
}

/// A replica that takes connections and says nothing costs a moment, not the join.
#[tokio::test]
async fn a_frozen_replica_is_passed_over() {
    let plane = Plane::start(2).await;
    set(&plane, 0, Manners::Silent);
    let agent = Agent::start(plane.options("data"));
    plane.until("a heartbeat", |known| known.heartbeats.first().cloned()).await;
    agent.stop().await.expect("an orderly stop");
}

/// A replica dies under a running agent: its waiting poll goes on elsewhere and a pod placed afterwards is run and reported.
#[tokio::test]
async fn goes_on_when_its_replica_dies() {
    let plane = Plane::start(2).await;
    let agent = Agent::start(plane.options("data"));
    plane
        .until("a poll", |known| {
            let polled = |request: &(usize, http::Method, String)| request.2.ends_with("/placements");
            known.requests.iter().any(polled).then_some(())
        })
        .await;
    plane.servers[0].kill();
    plane.place("p", "Always", &["/bin/sleep", "1000"]);
    plane.report("p", "running", |report| report["state"] == "running").await;
    plane.terminate("p");
    plane.report("p", "ended", |report| report["state"] == "failed").await;
    agent.stop().await.expect("an orderly stop");
}

/// The answer to a registration is lost: the repeat carries the same key and body and gets the first answer, on another replica.
#[tokio::test]
async fn a_lost_registration_is_repeated_not_doubled() {
    let plane = Plane::start(2).await;
    set(&plane, 0, Manners::LoseAnswers);
    let agent = Agent::start(plane.options("data"));
    plane.until("a heartbeat", |known| known.heartbeats.first().cloned()).await;
    assert_eq!(plane.known(|known| known.names.clone()), ["node-a"]);
    agent.stop().await.expect("an orderly stop");
}

/// The agent dies between the lost answer and its repeat: the next one finds the attempt on disk and completes it.
#[tokio::test]
async fn a_restarted_agent_completes_its_registration() {
    let plane = Plane::start(1).await;
    set(&plane, 0, Manners::LoseAnswers);
    let agent = Agent::start(plane.options("data"));
    plane.until("a registration", |known| (!known.names.is_empty()).then_some(())).await;
    agent.stop().await.expect("an orderly stop");
    set(&plane, 0, Manners::Good);
    let agent = Agent::start(plane.options("data"));
    plane.until("a heartbeat", |known| known.heartbeats.first().cloned()).await;
    assert_eq!(plane.known(|known| known.names.clone()), ["node-a"]);
    agent.stop().await.expect("an orderly stop");
}

/// A refused token and a taken name end the agent with a reason; nothing is retried for ever.
#[tokio::test]
async fn refusals_are_final_and_say_why() {
    let plane = Plane::start(1).await;
    plane.change(|known| known.names.push("node-a".to_owned()));
    let error = Agent::start(plane.options("data")).stop_result().await.expect_err("taken");
    assert!(matches!(error, AgentError::NameTaken { answer_was_lost: false, .. }), "{error}");
    std::fs::write(plane.directory.path().join("token"), "qj_wrong").expect("writes");
    let error = Agent::start(plane.options("data")).stop_result().await.expect_err("refused");
    assert!(matches!(error, AgentError::JoinTokenRefused { .. }), "{error}");
    assert_eq!(error.exit_code(), 5);
}

/// A server whose certificate another authority signed is not spoken to.
#[tokio::test]
async fn only_the_given_authority_is_trusted() {
    let plane = Plane::start(1).await;
    let other = Plane::start(1).await;
    let mut options = plane.options("data");
    options.ca_file = other.directory.path().join("ca.crt");
    options.servers.push(format!("https://{}", other.servers[0].address));
    let agent = Agent::start(options);
    other.until("a heartbeat", |known| known.heartbeats.first().cloned()).await;
    assert!(plane.known(|known| known.requests.is_empty()), "nothing was sent to it");
    agent.stop().await.expect("an orderly stop");
}

/// A removed node ends its pods and says so; started again with a good token it joins as a new node.
#[tokio::test]
async fn a_removed_node_stops_and_may_join_again() {
    let plane = Plane::start(1).await;
    let agent = Agent::start(plane.options("data"));
    let marker = plane.directory.path().join("marker");
    let script = format!("trap 'echo ended > {}; exit 0' TERM; while :; do sleep 0.1; done", marker.display());
    plane.place("p", "Always", &["/bin/sh", "-c", &script]);
    plane.report("p", "running", |report| report["state"] == "running").await;
    plane.change(|known| {
        known.removed = true;
        known.names = vec!["other".to_owned()];
        known.assignments.clear();
    });
    let error = agent.stop_result().await.expect_err("removed");
    assert!(matches!(error, AgentError::NodeRemoved { .. }), "{error}");
    assert!(marker.exists(), "the pod was ended");

    let before = plane.known(|known| known.heartbeats.len());
    let agent = Agent::start(plane.options("data"));
    plane.until("a new heartbeat", |known| (known.heartbeats.len() > before).then_some(())).await;
    assert_eq!(plane.known(|known| known.names.clone()), ["other", "node-a"]);
    agent.stop().await.expect("an orderly stop");
}
