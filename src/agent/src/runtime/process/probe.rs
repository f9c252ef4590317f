//! Asks running containers how they are: startup, readiness and liveness probes by command, TCP or HTTP.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rustix::process::Signal;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::pod::{Action, Container, Probe};
use crate::runtime::process::child::{Exit, Process};
use crate::runtime::process::launch::Launch;

/// What probes have found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    Started,
    Ready,
    NotReady,
    /// A probe has failed; how often it may do so, its owner has said.
    Failed(String),
    /// The container is to be ended, for this reason.
    Unhealthy(String),
}

/// What a probe needs to know of its container.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    pub(super) address: IpAddr,
    pub(super) ports: BTreeMap<String, u16>,
    /// Nothing when the container was taken up again and its command line is not at hand.
    pub(super) launch: Option<Launch>,
}

impl Surroundings {
    pub(super) fn new(address: IpAddr, container: &Container, launch: Option<Launch>) -> Self {
        let ports = container
            .ports
            .iter()
            .filter(|port| !port.name.is_empty())
            .map(|port| (port.name.clone(), port.container_port))
            .collect();
        Self { address, ports, launch }
    }

    fn port(&self, port: &Value) -> Result<u16, String> {
        let number = match port {
            Value::String(name) => self.ports.get(name).copied().or_else(|| name.parse().ok()),
            number => number.as_u64().and_then(|number| u16::try_from(number).ok()),
        };
        number.ok_or_else(|| format!("port {port} is not known"))
    }
}

/// Runs the probes of one run of a container until nobody listens. The startup probe holds back the other two.
pub(super) async fn run(container: Container, around: Surroundings, started_already: bool, to: mpsc::Sender<Finding>) {
    if !started_already {
        if let Some(probe) = &container.startup_probe
            && !startup(probe, &around, &to).await
        {
            return;
        }
        if to.send(Finding::Started).await.is_err() {
            return;
        }
    }
    tokio::join!(
        async {
            if let Some(probe) = &container.readiness_probe {
                readiness(probe, &around, &to).await;
            }
        },
        async {
            if let Some(probe) = &container.liveness_probe {
                liveness(probe, &around, &to).await;
            }
        },
    );
}

async fn startup(probe: &Probe, around: &Surroundings, to: &mpsc::Sender<Finding>) -> bool {
    let mut row = Row::new(probe);
    loop {
        let outcome = row.next(around).await;
        if !is_heard(to, "Startup", &outcome).await {
            return false;
        }
        match row.count(&outcome) {
            Some(true) => return true,
            Some(false) => {
                let why = format!("startup probe failed: {}", outcome.err().unwrap_or_default());
                let _gone = to.send(Finding::Unhealthy(why)).await;
                return false;
            }
            None => {}
        }
    }
}

async fn readiness(probe: &Probe, around: &Surroundings, to: &mpsc::Sender<Finding>) {
    let mut row = Row::new(probe);
    loop {
        let outcome = row.next(around).await;
        if !is_heard(to, "Readiness", &outcome).await {
            return;
        }
        let finding = match row.count(&outcome) {
            Some(true) => Finding::Ready,
            Some(false) => Finding::NotReady,
            None => continue,
        };
        if to.send(finding).await.is_err() {
            return;
        }
    }
}

async fn liveness(probe: &Probe, around: &Surroundings, to: &mpsc::Sender<Finding>) {
    let mut row = Row::new(probe);
    loop {
        let outcome = row.next(around).await;
        if !is_heard(to, "Liveness", &outcome).await {
            return;
        }
        if row.count(&outcome) == Some(false) {
            let why = format!("liveness probe failed: {}", outcome.err().unwrap_or_default());
            let _gone = to.send(Finding::Unhealthy(why)).await;
            return;
        }
    }
}

/// Tells of a failure; says whether anybody still listens.
async fn is_heard(to: &mpsc::Sender<Finding>, probe: &str, outcome: &Result<(), String>) -> bool {
    match outcome {
        Ok(()) => !to.is_closed(),
        Err(why) => to.send(Finding::Failed(format!("{probe} probe failed: {why}"))).await.is_ok(),
    }
}

/// A probe's row of outcomes.
struct Row<'a> {
    probe: &'a Probe,
    due: Instant,
    successes: u32,
    failures: u32,
}

impl<'a> Row<'a> {
    fn new(probe: &'a Probe) -> Self {
        let delay = Duration::from_secs(probe.initial_delay_seconds.unwrap_or(0));
        Self { probe, due: Instant::now() + delay, successes: 0, failures: 0 }
    }

    async fn next(&mut self, around: &Surroundings) -> Result<(), String> {
        tokio::time::sleep_until(self.due).await;
        self.due = Instant::now() + Duration::from_secs(self.probe.period_seconds.unwrap_or(10).max(1));
        let limit = Duration::from_secs(self.probe.timeout_seconds.unwrap_or(1).max(1));
        act(&self.probe.action, around, limit).await
    }

    /// The verdict once enough outcomes in a row agree.
    fn count(&mut self, outcome: &Result<(), String>) -> Option<bool> {
        if outcome.is_ok() {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            (self.successes >= self.probe.success_threshold.unwrap_or(1)).then_some(true)
        } else {
            self.successes = 0;
            self.failures = self.failures.saturating_add(1);
            (self.failures >= self.probe.failure_threshold.unwrap_or(3)).then_some(false)
        }
    }
}

/// Does what a probe or hook says, within a time.
pub(super) async fn act(action: &Action, around: &Surroundings, limit: Duration) -> Result<(), String> {
    let doing = async {
        if let Some(exec) = &action.exec {
            return execute(&exec.command, around).await;
        }
        if let Some(http) = &action.http_get {
            let port = around.port(&http.port)?;
            let host = if http.host.is_empty() { around.address.to_string() } else { http.host.clone() };
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            let scheme = if http.scheme.eq_ignore_ascii_case("https") { "https" } else { "http" };
            let path = if http.path.is_empty() { "/" } else { &http.path };
            let slash = if path.starts_with('/') { "" } else { "/" };
            let mut headers = HeaderMap::new();
            for header in &http.http_headers {
                if let (Ok(name), Ok(value)) =
                    (HeaderName::from_bytes(header.name.as_bytes()), HeaderValue::from_str(&header.value))
                {
                    headers.append(name, value);
                }
            }
            return ask(&format!("{scheme}://{host}:{port}{slash}{path}"), headers).await;
        }
        if let Some(tcp) = &action.tcp_socket {
            let port = around.port(&tcp.port)?;
            let host = if tcp.host.is_empty() { around.address.to_string() } else { tcp.host.clone() };
            return TcpStream::connect((host.as_str(), port))
                .await
                .map(drop)
                .map_err(|error| format!("port {port}: {error}"));
        }
        if let Some(pause) = &action.sleep {
            sleep(Duration::from_secs(pause.seconds)).await;
            return Ok(());
        }
        Err("this kind of probe is not supported by the process runtime".to_owned())
    };
    match timeout(limit, doing).await {
        Ok(outcome) => outcome,
        Err(_elapsed) => Err(format!("no answer within {} s", limit.as_secs())),
    }
}

async fn execute(words: &[String], around: &Surroundings) -> Result<(), String> {
    let Some(launch) = &around.launch else {
        return Err("the container's surroundings are not known yet".to_owned());
    };
    let Some(mut command) = launch.beside(words) else {
        let word = words.first().map_or("", String::as_str);
        return Err(format!("\"{word}\" is not an executable of this host"));
    };
    command.stdin(Stdio::null());
    let mut group = Group(Process::spawn(&mut command).map_err(|error| error.to_string())?);
    match group.0.wait().await {
        Exit::Code(0) => Ok(()),
        Exit::Code(code) => Err(format!("command ended with exit code {code}")),
        Exit::Signal(signal) => Err(format!("command was ended by signal {signal}")),
        Exit::Unknown => Err("the command's end is unknown".to_owned()),
    }
}

/// Nothing of a probe's command outlives the probe.
struct Group(Process);

impl Drop for Group {
    fn drop(&mut self) {
        self.0.signal(Signal::KILL);
    }
}

async fn ask(url: &str, headers: HeaderMap) -> Result<(), String> {
    // A probe asks whether something answers, not who it is: kubelets do not verify certificates here either.
    let client = reqwest::Client::builder()
        .no_proxy()
        .danger_accept_invalid_certs(true)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| error.to_string())?;
    let response = client.get(url).headers(headers).send().await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    if (200..400).contains(&status) {
        return Ok(());
    }
    Err(format!("HTTP status {status}"))
}
