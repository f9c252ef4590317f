//! The process runtime on real processes of the host, seen as the control plane sees it: by reports and by the log endpoint.
//!
//! In a Pod's command `$$` stands for one `$`, so a shell's own pid is written `$$$$`.

use std::time::Duration;

use crate::support::{Agent, Known, LIMIT, Plane};
use quilt_agent::OnShutdown;
use serde_json::{Value, json};

fn container(report: &Value) -> &Value {
    &report["pod_status"]["containerStatuses"][0]
}

fn pid_is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// The process that started this one.
fn parent_of(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, rest) = stat.rsplit_once(") ").expect("a name in parentheses");
    rest.split_whitespace().nth(1).and_then(|parent| parent.parse().ok()).expect("a pid")
}

async fn output(plane: &Plane, tail: &str) -> (u16, String) {
    let client = plane.log_client(Some(&plane.authority));
    let answer = client.get(plane.log_url(tail)).send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

/// Waits until the file says something; the process writes it, so there is nothing else to wait on.
async fn content(path: &std::path::Path) -> String {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        if let Ok(text) = std::fs::read_to_string(path)
            && text.ends_with('\n')
        {
            return text;
        }
        assert!(tokio::time::Instant::now() < deadline, "{} stays empty", path.display());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A container runs as a process; its report has phase, addresses, times, readiness and a container id.
#[tokio::test]
async fn a_container_is_a_process() {
    let plane = Plane::start(1).await;
    let agent = Agent::start(plane.options("data"));
    plane.place("p", "Always", &["/bin/sleep", "1000"]);
    let report = plane.report("p", "running", |report| report["state"] == "running").await;
    let status = &report["pod_status"];
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "127.0.0.1");
    assert_eq!(container(&report)["ready"], true);
    assert!(container(&report)["state"]["running"]["startedAt"].is_string());
    assert!(report["container_id"].as_str().is_some_and(|id| id.starts_with("process://")));
    let ready = status["conditions"].as_array().expect("a list").iter().find(|condition| condition["type"] == "Ready");
    assert_eq!(ready.expect("there")["status"], "True");
    plane.terminate("p");
    let report = plane.report("p", "ended", |report| report["state"] == "failed").await;
    assert_eq!(container(&report)["state"]["terminated"]["exitCode"], 143);
    assert_eq!(report["pod_status"]["phase"], "Failed");
    agent.stop().await.expect("an orderly stop");
}

/// A pod of several containers is only said to have ended when its last one has, though others ended before.
#[tokio::test]
async fn a_pod_ends_with_its_last_container() {
    let plane = Plane::start(1).await;
    let agent = Agent::start(plane.options("data"));
    let gate = plane.directory.path().join("gate");
    let slow = format!("trap ':' TERM; until [ -e {} ]; do sleep 0.05; done", gate.display());
    plane.place_spec(
        "p",
        json!({"containers": [
            {"name": "main", "command": ["/bin/sleep", "1000"]},
            {"name": "slow", "command": ["/bin/sh", "-c", slow]},
        ]}),
        json!({}),
    );
    plane.report("p", "running", |report| report["state"] == "running").await;
    plane.terminate("p");
    // The slow one still has its grace, so the placement is still said to run.
    let ending = |report: &Value| report["state"] == "running" && container(report)["ready"] == false;
    plane.report("p", "ending", ending).await;
    std::fs::write(&gate, "").expect("writes");
    let report = plane.report("p", "ended", |report| report["state"] == "failed").await;
    let ended = report["pod_status"]["containerStatuses"].as_array().expect("a list");
    assert!(ended.iter().all(|container| container["state"]["terminated"].is_object()), "{report}");
    agent.stop().await.expect("an orderly stop");
}

/// What is no executable of the host is never reported as running, with a reason that says what is missing.
#[tokio::test]
async fn what_cannot_run_is_not_said_to_run() {
    let plane = Plane::start(1).await;
    let agent = Agent::start(plane.options("data"));
    plane.place("missing", "Always", &["/no/such/program"]);
    plane.place("unnamed", "Always", &[]);
    for id in ["missing", "unnamed"] {
        let report = plane
            .report(id, "waits", |report| container(report)["state"]["waiting"]["reason"] == "ImageNotRunnable")
            .await;
        assert_eq!(report["state"], "pending");
        assert_eq!(report["pod_status"]["phase"], "Pending");
        assert!(report["message"].as_str().is_some_and(|message| message.contains("does not pull image")), "{report}");
    }
    let (status, text) = output(&plane, "/containerLogs/default/missing/main").await;
    assert_eq!(status, 400);
    assert!(text.contains("waiting to start: ImageNotRunnable"), "{text}");
    plane.known(|known| {
        let all = known.reports.values().flatten();
        assert!(all.clone().all(|report| report["state"] != "running"));
    });
    plane.terminate("missing");
    plane.report("missing", "ended", |report| report["state"] == "failed").await;
    agent.stop().await.expect("an orderly stop");
}

/// Each restart policy: what runs again, with back-off and a count, and what stays ended.
#[tokio::test]
async fn restart_policies_are_kept() {
    let plane = Plane::start(1).await;
    let agent = Agent::start(plane.options("data"));
    plane.place("never", "Never", &["/bin/sh", "-c", "exit 3"]);
    plane.place("done", "OnFailure", &["/bin/true"]);
    plane.place("crash", "OnFailure", &["/bin/sh", "-c", "echo run; exit 1"]);
    plane.place("always", "Always", &["/bin/true"]);
    plane.place("killed", "Never", &["/bin/sh", "-c", "kill -9 $$$$"]);

    let report = plane.report("never", "failed", |report| report["state"] == "failed").await;
    assert_eq!(report["pod_status"]["phase"], "Failed");
    assert_eq!(container(&report)["state"]["terminated"]["exitCode"], 3);
    let report = plane.report("done", "stopped", |report| report["state"] == "stopped").await;
    assert_eq!(report["pod_status"]["phase"], "Succeeded");
    let report = plane.report("killed", "failed", |report| report["state"] == "failed").await;
    assert_eq!(container(&report)["state"]["terminated"]["exitCode"], 137);
    assert_eq!(container(&report)["state"]["terminated"]["signal"], 9);
    let backing_off = |report: &Value| {
        container(report)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
            && container(report)["restartCount"].as_u64() >= Some(2)
    };
    let report = plane.report("crash", "backs off", backing_off).await;
    assert_eq!(report["state"], "failed");
    assert_eq!(report["pod_status"]["phase"], "Running");
    assert_eq!(container(&report)["lastState"]["terminated"]["exitCode"], 1);
    let report = plane.report("always", "backs off", backing_off).await;
    assert_eq!(report["state"], "stopped");
    let (status, text) = output(&plane, "/containerLogs/default/crash/main?previous=true").await;
    assert_eq!((status, text.as_str()), (200, "run\n"));
    agent.stop().await.expect("an orderly stop");
}

/// SIGTERM first, SIGKILL after the grace period, for the whole group: a child that ignores SIGTERM does not outlive its container.
#[tokio::test]
async fn grace_is_given_and_ends() {
    let plane = Plane::start(1).await;
    let agent = Agent::start(plane.options("data"));
    let stubborn = plane.directory.path().join("stubborn");
    let script = format!("trap '' TERM; sh -c 'echo $$$$ > {}; sleep 1000' & wait; sleep 1000", stubborn.display());
    plane.place_spec(
        "stubborn",
        json!({
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "command": ["/bin/sh", "-c", script]}],
        }),
        json!({}),
    );
    plane.place(
        "polite",
        "Always",
        &["/bin/sh", "-c", "trap 'echo bye; exit 0' TERM; echo hello; while :; do sleep 0.05; done"],
    );
    let pid: i32 = content(&stubborn).await.trim().parse().expect("a pid");
    let client = plane.log_client(Some(&plane.authority));
    plane.report("polite", "running", |report| report["state"] == "running").await;
    let mut following = client
        .get(plane.log_url("/containerLogs/default/polite/main?follow=true&stream=Stdout"))
        .send()
        .await
        .expect("an answer");
    let first = tokio::time::timeout(LIMIT, following.chunk()).await.expect("in time").expect("readable");
    assert_eq!(first.as_deref(), Some(&b"hello\n"[..]));

    plane.terminate("polite");
    plane.terminate("stubborn");
    let report = plane.report("polite", "stopped", |report| report["state"] == "stopped").await;
    assert_eq!(container(&report)["state"]["terminated"]["exitCode"], 0);
    let report = plane.report("stubborn", "failed", |report| report["state"] == "failed").await;
    assert_eq!(container(&report)["state"]["terminated"]["signal"], 9);
    assert!(!pid_is_alive(pid), "the whole group is gone");
    let mut rest = Vec::new();
    while let Some(part) = tokio::time::timeout(LIMIT, following.chunk()).await.expect("in time").expect("readable") {
        rest.extend_from_slice(&part);
    }
    assert_eq!(String::from_utf8_lossy(&rest), "bye\n", "the follower got the last line, then the end");
    agent.stop().await.expect("an orderly stop");
}

/// Environment, references, expansion, volumes and their links, the working directory: what the container finds is what the Pod says.
#[tokio::test]
async fn a_container_finds_what_its_pod_says() {
    let plane = Plane::start(1).await;
    let agent = Agent::start(plane.options("data"));
    let script = "echo $GREETING-$NAME-$KEY-$IP; cat $QUILT_ROOT/etc/config/a.txt $QUILT_VOLUME_CFG/a.txt; \
                  echo x > $QUILT_ROOT/scratch/x && cat $QUILT_VOLUME_TMP/x; pwd; echo arg:$0; env | grep -c CARGO; sleep 1000";
    plane.place_spec(
        "p",
        json!({
            "containers": [{
                "name": "main", "command": ["sh", "-c", script], "args": ["$(GREETING)!"], "workingDir": "/tmp",
                "env": [
                    {"name": "GREETING", "value": "hello"},
                    {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "cfg", "key": "k"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                ],
                "volumeMounts": [{"name": "cfg", "mountPath": "/etc/config"}, {"name": "tmp", "mountPath": "/scratch"}],
            }],
            "volumes": [{"name": "cfg", "configMap": {"name": "cfg"}}, {"name": "tmp", "emptyDir": {}}],
        }),
        json!({"env": {"main": {"KEY": "value"}}, "files": {"cfg": {"a.txt": "Y29udGVudAo="}}}),
    );
    plane.report("p", "running", |report| report["state"] == "running").await;
    let expected = "hello-p-value-127.0.0.1\ncontent\ncontent\nx\n/tmp\narg:hello!\n0\n";
    let client = plane.log_client(Some(&plane.authority));
    let mut answer =
        client.get(plane.log_url("/containerLogs/default/p/main?follow=true")).send().await.expect("an answer");
    let mut text = String::new();
    while text.len() < expected.len() {
        let part = tokio::time::timeout(LIMIT, answer.chunk()).await.expect("in time").expect("readable");
        text.push_str(&String::from_utf8_lossy(&part.expect("it still runs")));
    }
    assert_eq!(text, expected);
    let (_, tail) = output(&plane, "/containerLogs/default/p/main?tailLines=2").await;
    assert_eq!(tail, "arg:hello!\n0\n");
    plane.place_spec(
        "lacking",
        json!({
            "containers": [{"name": "main", "command": ["/bin/true"],
                "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}],
        }),
        json!({}),
    );
    plane
        .report("lacking", "waits", |report| {
            container(report)["state"]["waiting"]["reason"] == "CreateContainerConfigError"
        })
        .await;
    agent.stop().await.expect("an orderly stop");
}

/// Init containers run one after the other before the rest; one that fails for good fails the pod.
#[tokio::test]
async fn init_containers_come_first() {
    let plane = Plane::start(1).await;
    let agent = Agent::start(plane.options("data"));
    let file = plane.directory.path().join("order");
    let step =
        |word: &str| json!({"name": word, "command": ["/bin/sh", "-c", format!("echo {word} >> {}", file.display())]});
    plane.place_spec(
        "p",
        json!({
            "restartPolicy": "Never",
            "initContainers": [step("one"), step("two")],
            "containers": [step("three")],
        }),
        json!({}),
    );
    plane.report("p", "done", |report| report["state"] == "stopped").await;
    assert_eq!(std::fs::read_to_string(&file).expect("there"), "one\ntwo\nthree\n");
    plane.place_spec(
        "bad",
        json!({
            "restartPolicy": "Never",
            "initContainers": [{"name": "init", "command": ["/bin/false"]}],
            "containers": [step("never")],
        }),
        json!({}),
    );
    let report = plane.report("bad", "failed", |report| report["state"] == "failed").await;
    assert_eq!(report["pod_status"]["phase"], "Failed");
    assert_eq!(std::fs::read_to_string(&file).expect("there"), "one\ntwo\nthree\n");
    agent.stop().await.expect("an orderly stop");
}

/// Readiness holds back Ready; a failing liveness probe restarts the container.
#[tokio::test]
async fn probes_decide_readiness_and_life() {
    let plane = Plane::start(1).await;
    let agent = Agent::start(plane.options("data"));
    let gate = plane.directory.path().join("gate");
    let probe = |words: Value| json!({"exec": {"command": words}, "periodSeconds": 1, "failureThreshold": 1});
    plane.place_spec(
        "p",
        json!({
            "containers": [{
                "name": "main", "command": ["/bin/sleep", "1000"],
                "readinessProbe": probe(json!(["test", "-e", gate])),
            }],
        }),
        json!({}),
    );
    let report = plane.report("p", "running, not ready", |report| report["state"] == "running").await;
    assert_eq!(container(&report)["ready"], false);
    std::fs::write(&gate, "").expect("writes");
    plane.report("p", "ready", |report| container(report)["ready"] == true).await;
    plane.place_spec("sick", json!({
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "command": ["/bin/sleep", "1000"], "livenessProbe": probe(json!(["false"]))}],
    }), json!({}));
    let report =
        plane.report("sick", "restarted", |report| container(report)["restartCount"].as_u64() >= Some(1)).await;
    let last = &container(&report)["lastState"]["terminated"];
    assert!(last["message"].as_str().is_some_and(|message| message.contains("liveness probe failed")), "{report}");
    agent.stop().await.expect("an orderly stop");
}

/// A restarted agent takes the same process up again, output included, and starts none twice; of those that ended meanwhile it knows how,
/// unless their keeper went with them, and restarts what is to be restarted.
#[tokio::test]
async fn processes_outlive_the_agent() {
    let plane = Plane::start(1).await;
    let agent = Agent::start(plane.options("data"));
    let (pid_file, go) = (plane.directory.path().join("pid"), plane.directory.path().join("go"));
    let script = format!(
        "echo $$$$ > {}; echo before; until [ -e {} ]; do sleep 0.05; done; echo after; sleep 1000",
        pid_file.display(),
        go.display()
    );
    plane.place("kept", "Always", &["/bin/sh", "-c", &script]);
    let lost_pid = plane.directory.path().join("lost");
    plane.place("lost", "Always", &["/bin/sh", "-c", &format!("echo $$$$ > {}; sleep 1000", lost_pid.display())]);
    let ends_pid = plane.directory.path().join("ends");
    let script =
        format!("echo run >> {}; until [ -e {} ]; do sleep 0.05; done; exit 7", ends_pid.display(), go.display());
    plane.place("ends", "Never", &["/bin/sh", "-c", &script]);
    let killed_pid = plane.directory.path().join("killed");
    plane.place("killed", "Never", &["/bin/sh", "-c", &format!("echo $$$$ > {}; sleep 1000", killed_pid.display())]);
    let pid: i32 = content(&pid_file).await.trim().parse().expect("a pid");
    let lost: i32 = content(&lost_pid).await.trim().parse().expect("a pid");
    let killed: i32 = content(&killed_pid).await.trim().parse().expect("a pid");
    content(&ends_pid).await;
    for id in ["kept", "lost", "ends", "killed"] {
        plane.report(id, "running", |report| report["state"] == "running").await;
    }
    agent.stop().await.expect("an orderly stop");
    assert!(pid_is_alive(pid), "left running");
    let kill = |pid: i32| {
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    };
    kill(parent_of(lost));
    kill(lost);
    kill(killed);
    std::fs::write(&go, "").expect("writes");
    let written = plane.directory.path().join("data/pods/uid-ends/containers/main/0.exit");
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !written.exists() {
        assert!(tokio::time::Instant::now() < deadline, "the keeper writes no exit code");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    plane.change(|known| known.reports.clear());

    let agent = Agent::start(plane.options("data"));
    let report = plane.report("kept", "running", |report| report["state"] == "running").await;
    assert_eq!(container(&report)["restartCount"], 0, "not started anew");
    assert!(pid_is_alive(pid));
    let report = plane.report("lost", "runs again", |report| container(report)["restartCount"] == 1).await;
    assert_eq!(container(&report)["lastState"]["terminated"]["reason"], "ContainerStatusUnknown");
    let report = plane.report("ends", "is known to have ended", |report| report["state"] == "failed").await;
    let terminated = &container(&report)["state"]["terminated"];
    assert_eq!((&terminated["exitCode"], &terminated["reason"]), (&json!(7), &json!("Error")), "{report}");
    assert_eq!(std::fs::read_to_string(&ends_pid).expect("there"), "run\n", "it ran once");
    let report = plane.report("killed", "is known to have been killed", |report| report["state"] == "failed").await;
    let terminated = &container(&report)["state"]["terminated"];
    assert_eq!((&terminated["exitCode"], &terminated["signal"]), (&json!(137), &json!(9)), "{report}");
    let client = plane.log_client(Some(&plane.authority));
    let mut answer =
        client.get(plane.log_url("/containerLogs/default/kept/main?follow=true")).send().await.expect("an answer");
    let mut text = String::new();
    while text.len() < "before\nafter\n".len() {
        let part = tokio::time::timeout(LIMIT, answer.chunk()).await.expect("in time").expect("readable");
        text.push_str(&String::from_utf8_lossy(&part.expect("it still runs")));
    }
    assert_eq!(text, "before\nafter\n", "nothing written meanwhile is lost");
    plane.terminate("kept");
    plane.report("kept", "ended", |report| report["state"] == "failed").await;
    assert!(!pid_is_alive(pid), "a process taken up again can be ended");
    agent.stop().await.expect("an orderly stop");
}

/// An agent told to take its pods with it leaves nothing behind, and the next one runs them again.
#[tokio::test]
async fn pods_can_end_with_the_agent() {
    let plane = Plane::start(1).await;
    let mut options = plane.options("data");
    options.on_shutdown = OnShutdown::StopPods;
    let agent = Agent::start(options.clone());
    let pid_file = plane.directory.path().join("pid");
    plane.place("p", "Always", &["/bin/sh", "-c", &format!("echo $$$$ > {}; exec sleep 1000", pid_file.display())]);
    let pid: i32 = content(&pid_file).await.trim().parse().expect("a pid");
    plane.report("p", "running", |report| report["state"] == "running").await;
    agent.stop().await.expect("an orderly stop");
    assert!(!pid_is_alive(pid));
    assert!(plane.known(|known| known.heartbeats.iter().any(|beat| beat["state"] == "not_ready")));
    let agent = Agent::start(options);
    plane.report("p", "runs again", |report| container(report)["restartCount"] == 1).await;
    agent.stop().await.expect("an orderly stop");
}

/// A placement whose pod was replaced under the same id: the new pod starts when the old one is gone, and the old name's output is the new pod's.
#[tokio::test]
async fn a_replacement_waits_for_its_predecessor() {
    let plane = Plane::start(1).await;
    let agent = Agent::start(plane.options("data"));
    plane.place("p", "Always", &["/bin/sh", "-c", "echo old; sleep 1000"]);
    plane.report("p", "running", |report| report["state"] == "running").await;
    plane.change(|known| {
        let entry = known.assignments.get_mut("p").expect("placed");
        entry["pod"]["metadata"]["uid"] = json!("uid-new");
        entry["pod"]["spec"]["containers"][0]["command"] = json!(["/bin/sh", "-c", "echo new; sleep 1000"]);
        known.reports.clear();
    });
    plane
        .report("p", "runs anew", |report| {
            report["state"] == "running" && report["container_id"].as_str().is_some_and(|id| id.contains("uid-new"))
        })
        .await;
    agent.stop().await.expect("an orderly stop");
}

/// The log endpoint serves the control plane and nobody else; health is anybody's business.
#[tokio::test]
async fn output_is_for_the_control_plane_only() {
    let plane = Plane::start(1).await;
    let stranger = Plane::start(0).await;
    let agent = Agent::start(plane.options("data"));
    plane.place("p", "Always", &["/bin/sh", "-c", "echo secret; sleep 1000"]);
    plane.report("p", "running", |report| report["state"] == "running").await;
    let url = plane.log_url("/containerLogs/default/p/main");
    let anonymous = plane.log_client(None).get(&url).send().await.expect("an answer");
    assert_eq!(anonymous.status().as_u16(), 401);
    let foreign = plane.log_client(Some(&stranger.authority)).get(&url).send().await;
    assert!(foreign.is_err(), "a certificate of another authority is refused");
    let health = plane.log_client(None).get(plane.log_url("/healthz")).send().await.expect("an answer");
    assert_eq!(health.text().await.expect("text"), "ok");
    assert_eq!(output(&plane, "/containerLogs/default/nobody/main").await.0, 404);
    assert_eq!(output(&plane, "/containerLogs/default/p/main?tailLines=x").await.0, 400);
    plane.terminate("p");
    plane.report("p", "ended", |report| report["state"] == "failed").await;
    agent.stop().await.expect("an orderly stop");
}

/// The simulated runtime reports states and runs nothing.
#[tokio::test]
async fn the_simulated_runtime_reports_states_only() {
    let plane = Plane::start(1).await;
    let mut options = plane.options("data");
    options.runtime = quilt_agent::RuntimeKind::Simulated;
    let agent = Agent::start(options);
    plane.place("p", "Always", &["/no/such/program"]);
    plane.report("p", "running", |report| report["state"] == "running").await;
    plane.terminate("p");
    plane.report("p", "stopped", |report| report["state"] == "stopped").await;
    agent.stop().await.expect("an orderly stop");
}

/// People are told what happens to a pod's containers: made, started, sick, going round in back-off, ended.
#[tokio::test]
async fn what_happens_is_told() {
    let plane = Plane::start(1).await;
    let agent = Agent::start(plane.options("data"));
    plane.place_spec(
        "sick",
        json!({
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main", "command": ["/bin/sleep", "1000"],
                "livenessProbe": {"exec": {"command": ["/bin/false"]}, "periodSeconds": 1, "failureThreshold": 2},
            }],
        }),
        json!({}),
    );
    plane.place("none", "Always", &["/no/such/program"]);
    plane.place("gone", "Always", &["/bin/sh", "-c", "exit 3"]);
    let told = async |name: &str, reason: &str| {
        let look = |known: &mut Known| {
            let found = known.events.iter().find(|event| event["name"] == name && event["reason"] == reason);
            found.map(|event| (event["type"].as_str().expect("a word").to_owned(), event["message"].clone()))
        };
        plane.until(&format!("{name}: {reason}"), look).await
    };
    let normal = |message: &str| ("Normal".to_owned(), json!(message));
    assert_eq!(told("sick", "Created").await, normal("Created container: main"));
    assert_eq!(told("sick", "Started").await, normal("Started container main"));
    let (weight, message) = told("sick", "Unhealthy").await;
    assert!(weight == "Warning" && message.as_str().expect("text").starts_with("Liveness probe failed: "), "{message}");
    let (_, message) = told("sick", "Killing").await;
    assert!(message.as_str().expect("text").contains("liveness probe failed"), "{message}");
    let (weight, message) = told("none", "Failed").await;
    assert!(weight == "Warning" && message.as_str().expect("text").contains("ImageNotRunnable"), "{message}");
    let (weight, message) = told("gone", "BackOff").await;
    let words = "Back-off restarting failed container main in pod gone_default(uid-gone)";
    assert_eq!((weight.as_str(), message.as_str()), ("Warning", Some(words)));
    plane.place("ends", "Always", &["/bin/sleep", "1000"]);
    plane.report("ends", "running", |report| report["state"] == "running").await;
    for id in ["sick", "none", "gone", "ends"] {
        plane.terminate(id);
    }
    assert_eq!(told("ends", "Killing").await, normal("Stopping container main"));
    for id in ["sick", "none", "gone", "ends"] {
        plane.report(id, "ended", |report| matches!(report["state"].as_str(), Some("failed" | "stopped"))).await;
    }
    agent.stop().await.expect("an orderly stop");
}
