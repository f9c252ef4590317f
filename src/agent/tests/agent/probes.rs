//! Probes over the network: by TCP and by HTTP, by number and by name, with the thresholds their owner set.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::support::{Agent, Plane};

/// A server of the host that answers every request with the status it is told to.
struct Web {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
    /// What the last request said.
    heard: Arc<std::sync::Mutex<String>>,
    serving: JoinHandle<()>,
}

impl Web {
    async fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let (status, asked) = (Arc::new(AtomicU16::new(status)), Arc::new(AtomicUsize::new(0)));
        let heard: Arc<std::sync::Mutex<String>> = Arc::default();
        let (now, count, last) = (status.clone(), asked.clone(), heard.clone());
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                count.fetch_add(1, Ordering::SeqCst);
                *last.lock().expect("lock") = String::from_utf8_lossy(&request[..read]).into_owned();
                let answer = format!("HTTP/1.1 {} X\r\ncontent-length: 0\r\n\r\n", now.load(Ordering::SeqCst));
                let _gone = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { address, status, asked, heard, serving }
    }

    fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
        self.asked.store(0, Ordering::SeqCst);
    }
}

fn container(report: &Value) -> &Value {
    &report["pod_status"]["containerStatuses"][0]
}

/// A pod that sleeps, with these probes beside its name, and with `port` named "web".
fn spec(port: u16, probes: &Value) -> Value {
    let mut container = json!({
        "name": "main", "command": ["/bin/sleep", "1000"], "ports": [{"name": "web", "containerPort": port}],
    });
    for (name, probe) in probes.as_object().expect("probes by name") {
        container[name] = probe.clone();
    }
    json!({"terminationGracePeriodSeconds": 1, "containers": [container]})
}

/// Readiness by HTTP: so many successes in a row make it ready, so many failures unready; each request goes to the named port with path and
/// headers as said.
#[tokio::test]
async fn readiness_follows_http_with_its_thresholds() {
    let plane = Plane::start(1).await;
    let agent = Agent::start(plane.options("data"));
    let web = Web::start(503).await;
    let probe = json!({
        "httpGet": {"path": "/ready?deep=1", "port": "web", "httpHeaders": [{"name": "X-Asks", "value": "probe"}]},
        "periodSeconds": 1, "successThreshold": 2, "failureThreshold": 3,
    });
    plane.place_spec("p", spec(web.address.port(), &json!({"readinessProbe": probe})), json!({}));
    let report = plane.report("p", "running", |report| report["state"] == "running").await;
    assert_eq!(container(&report)["ready"], false, "not ready before anything was asked");
    web.answer(399);
    plane.report("p", "ready", |report| container(report)["ready"] == true).await;
    assert!(web.asked.load(Ordering::SeqCst) >= 2, "one success is not enough");
    let heard = web.heard.lock().expect("lock").clone();
    assert!(heard.starts_with("GET /ready?deep=1 HTTP/1.1"), "{heard}");
    assert!(heard.to_lowercase().contains("x-asks: probe"), "{heard}");
    plane.change(|known| known.reports.clear());
    web.answer(400);
    let report = plane.report("p", "unready again", |report| container(report)["ready"] == false).await;
    assert!(web.asked.load(Ordering::SeqCst) >= 3, "two failures are not enough");
    assert_eq!(container(&report)["restartCount"], 0, "readiness restarts nothing");
    web.serving.abort();
    plane.terminate("p");
    plane.report("p", "ended", |report| report["state"] == "failed").await;
    agent.stop().await.expect("an orderly stop");
}

/// Liveness by TCP: while the port takes connections the container lives; once it does not, it is restarted, and the end says why.
#[tokio::test]
async fn a_closed_port_ends_a_container() {
    let plane = Plane::start(1).await;
    let agent = Agent::start(plane.options("data"));
    let web = Web::start(200).await;
    let port = web.address.port();
    let probe = json!({"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 2});
    plane.place_spec("p", spec(port, &json!({"livenessProbe": probe})), json!({}));
    plane.report("p", "running", |report| report["state"] == "running").await;
    plane
        .until("three answered probes", |known| {
            (web.asked.load(Ordering::SeqCst) >= 3 && known.reports.contains_key("p")).then_some(())
        })
        .await;
    let alive = plane.known(|known| known.reports["p"].iter().all(|report| container(report)["restartCount"] == 0));
    assert!(alive, "it was left alone while it answered");
    web.serving.abort();
    let restarted = plane.report("p", "restarted", |report| container(report)["restartCount"] == 1).await;
    let last = &container(&restarted)["lastState"]["terminated"];
    let why = last["message"].as_str().unwrap_or_default();
    assert!(why.contains("liveness probe failed") && why.contains(&port.to_string()), "{restarted}");
    plane.terminate("p");
    plane.report("p", "ended", |report| report["state"] == "failed").await;
    agent.stop().await.expect("an orderly stop");
}

/// A startup probe holds the others back until it succeeds; one that never does ends the container after its threshold.
#[tokio::test]
async fn startup_comes_first() {
    let plane = Plane::start(1).await;
    let agent = Agent::start(plane.options("data"));
    let (gate, other) = (Web::start(500).await, Web::start(200).await);
    let by_http =
        |port: u16, failures: u16| json!({"httpGet": {"port": port}, "periodSeconds": 1, "failureThreshold": failures});
    let probes = json!({
        "startupProbe": by_http(gate.address.port(), 60),
        "readinessProbe": by_http(other.address.port(), 1), "livenessProbe": by_http(other.address.port(), 1),
    });
    plane.place_spec("slow", spec(gate.address.port(), &probes), json!({}));
    plane.report("slow", "running", |report| report["state"] == "running").await;
    plane.until("two refusals", |_| (gate.asked.load(Ordering::SeqCst) >= 2).then_some(())).await;
    assert_eq!(other.asked.load(Ordering::SeqCst), 0, "nothing else is asked before it has started");
    gate.answer(200);
    let report = plane.report("slow", "ready", |report| container(report)["ready"] == true).await;
    assert_eq!((&container(&report)["started"], &container(&report)["restartCount"]), (&json!(true), &json!(0)));
    let never = Web::start(500).await;
    plane.place_spec("never", spec(1, &json!({"startupProbe": by_http(never.address.port(), 2)})), json!({}));
    let report = plane.report("never", "restarted", |report| container(report)["restartCount"] == 1).await;
    let why = container(&report)["lastState"]["terminated"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("startup probe failed") && why.contains("500"), "{report}");
    assert!(never.asked.load(Ordering::SeqCst) >= 2);
    for id in ["slow", "never"] {
        plane.terminate(id);
        plane.report(id, "ended", |report| report["state"] == "failed").await;
    }
    agent.stop().await.expect("an orderly stop");
}

/// A pod behind a readiness gate is ready when somebody else has set the gate's condition, and no longer when it is taken
/// back; an agent that was restarted says nothing about it before it has heard how the gate stands.
#[tokio::test]
async fn readiness_waits_for_its_gate() {
    let plane = Plane::start(1).await;
    let agent = Agent::start(plane.options("data"));
    plane.place_spec(
        "p",
        json!({
            "readinessGates": [{"conditionType": "example.com/lb"}],
            "containers": [{"name": "main", "command": ["/bin/sleep", "1000"]}],
        }),
        json!({}),
    );
    let ready = |report: &Value| {
        let conditions = report["pod_status"]["conditions"].as_array().expect("conditions").iter();
        let ready = conditions.clone().find(|condition| condition["type"] == "Ready").expect("said");
        (ready["status"].as_str().expect("a word").to_owned(), ready["reason"].clone())
    };
    let gate = |status: &str| {
        plane.change(|known| {
            let entry = known.assignments.get_mut("p").expect("placed");
            entry["pod"]["status"]["conditions"] = json!([{"type": "example.com/lb", "status": status}]);
            known.reports.clear();
        });
    };
    let report = plane.report("p", "running", |report| report["state"] == "running").await;
    assert_eq!(ready(&report), ("False".into(), json!("ReadinessGatesNotReady")));
    assert_eq!(container(&report)["ready"], true);
    gate("True");
    plane.report("p", "ready", |report| ready(report).0 == "True").await;
    agent.stop().await.expect("an orderly stop");
    plane.change(|known| known.reports.clear());
    let agent = Agent::start(plane.options("data"));
    let first = plane.report("p", "reported again", |_| true).await;
    assert_eq!(ready(&first).0, "True", "not called unready for want of news");
    gate("False");
    plane.report("p", "unready", |report| ready(report).0 == "False").await;
    plane.terminate("p");
    plane.report("p", "ended", |report| report["state"] == "failed").await;
    agent.stop().await.expect("an orderly stop");
}
