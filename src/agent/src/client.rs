//! One call to the control plane, answered by whichever replica is alive. Knows HTTP and failover; knows nothing of nodes or pods.
//!
//! A call that meets a dead, slow or leaderless replica (refused or broken connection, timeout, 5xx, 429) is sent to the next one.
//! So every call made through here must be safe to repeat: reads, heartbeats and reports are; a registration is by its
//! `Idempotency-Key`. The replica that answered last is asked first next time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Certificate, Client, Method, StatusCode, Url, header};
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use thiserror::Error;
use tracing::debug;

use crate::error::AgentError;

/// A replica holds a write up to 10 s while there is no leader; a little more, so that its own answer is heard.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// A replica that does not accept a connection by then is as good as dead.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A frozen replica is noticed by unanswered pings rather than by the timeout of a waiting poll.
const PING_EVERY: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Enough for the largest list of one node; a wrong server cannot make the agent eat more.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One request, before it is known who will answer it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Value>,
    timeout: Duration,
}

impl Call {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: Vec::new(), body: None, timeout: CALL_TIMEOUT }
    }

    pub(crate) fn post(path: impl Into<String>, body: Value) -> Self {
        Self { method: Method::POST, body: Some(body), ..Self::get(path) }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

/// An answer that means something: 2xx, 304 or a 4xx.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) etag: Option<String>,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The error code of Quilt's envelope.
    pub(crate) fn code(&self) -> &str {
        self.body["error_code"].as_str().unwrap_or_default()
    }

    /// What the envelope says, hint included.
    pub(crate) fn problem(&self) -> String {
        let error = self.body["error"].as_str().unwrap_or("no explanation given");
        match self.body["hint"].as_str() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_owned(),
        }
    }
}

/// No replica gave an answer that means something.
#[derive(Debug, Error)]
#[error("no server answered: {}", .attempts.join("; "))]
pub(crate) struct Unavailable {
    attempts: Vec<String>,
    /// Whether a request may have taken effect although its answer did not arrive.
    pub(crate) fate_unknown: bool,
}

/// The control plane, whichever of its replicas is alive.
#[derive(Debug, Clone)]
pub(crate) struct ControlPlane {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    http: Client,
    servers: Vec<Url>,
    preferred: AtomicUsize,
}

impl ControlPlane {
    /// Trusts `authority` and no other certificate, not even the system's.
    pub(crate) fn new(servers: &[String], authority: &[CertificateDer<'static>]) -> Result<Self, AgentError> {
        let servers = servers.iter().map(|server| parse_server(server)).collect::<Result<Vec<_>, _>>()?;
        let mut http = Client::builder()
            .use_rustls_tls()
            .tls_built_in_root_certs(false)
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none());
        for certificate in authority {
            let certificate = Certificate::from_der(certificate).map_err(|error| AgentError::Tls(error.to_string()))?;
            http = http.add_root_certificate(certificate);
        }
        let http = http.build().map_err(|error| AgentError::Tls(error.to_string()))?;
        Ok(Self { inner: Arc::new(Inner { http, servers, preferred: AtomicUsize::new(0) }) })
    }

    pub(crate) fn servers(&self) -> &[Url] {
        &self.inner.servers
    }

    /// Asks the servers in turn, the last good one first, until one gives an answer that means something.
    pub(crate) async fn send(&self, call: &Call) -> Result<Answer, Unavailable> {
        let servers = &self.inner.servers;
        let first = self.inner.preferred.load(Ordering::Relaxed);
        let mut unavailable = Unavailable { attempts: Vec::new(), fate_unknown: false };
        for step in 0..servers.len() {
            let index = (first + step) % servers.len();
            match self.try_one(&servers[index], call).await {
                Ok(answer) => {
                    self.inner.preferred.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(failure) => {
                    debug!(server = %servers[index], reason = %failure.reason, "trying the next server");
                    unavailable.fate_unknown |= failure.sent;
                    unavailable.attempts.push(format!("{}: {}", servers[index], failure.reason));
                }
            }
        }
        Err(unavailable)
    }

    async fn try_one(&self, server: &Url, call: &Call) -> Result<Answer, Failure> {
        let url = format!("{}{}", server.as_str().trim_end_matches('/'), call.path);
        let mut request = self.inner.http.request(call.method.clone(), url).timeout(call.timeout);
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        let mut response = request
            .send()
            .await
            .map_err(|error| Failure { sent: !error.is_connect() && !error.is_builder(), reason: explain(&error) })?;
        let status = response.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            // 503 says that nothing was or will be applied; other 5xx say nothing.
            return Err(Failure {
                sent: status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE,
                reason: format!("answered {status}"),
            });
        }
        let etag = response.headers().get(header::ETAG).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut bytes = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| Failure { sent: true, reason: explain(&error) })?
        {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Failure { sent: true, reason: format!("answer exceeds {ANSWER_BYTES_MAX} bytes") });
            }
            bytes.extend_from_slice(&chunk);
        }
        let body = if bytes.is_empty() {
            Value::Null
        } else {
            match serde_json::from_slice(&bytes) {
                Ok(body) => body,
                Err(_) if status.is_client_error() => Value::Null,
                Err(error) => {
                    return Err(Failure { sent: true, reason: format!("answered {status} without JSON: {error}") });
                }
            }
        };
        Ok(Answer { status: status.as_u16(), etag, body })
    }
}

struct Failure {
    sent: bool,
    reason: String,
}

/// Reads the base address of a replica.
pub(crate) fn parse_server(server: &str) -> Result<Url, AgentError> {
    let refuse = |reason: String| AgentError::Option { option: "--server", reason };
    let url = Url::parse(server).map_err(|error| refuse(format!("\"{server}\" is not an address: {error}")))?;
    if url.scheme() != "https" {
        return Err(refuse(format!("\"{server}\" must start with https://")));
    }
    if url.host_str().is_none() {
        return Err(refuse(format!("\"{server}\" names no host")));
    }
    let more = url.path() != "/" || url.query().is_some() || url.fragment().is_some();
    if more || !url.username().is_empty() || url.password().is_some() {
        return Err(refuse(format!("\"{server}\" must be a host and a port, such as https://10.0.0.1:6443")));
    }
    Ok(url)
}

/// reqwest's own text stops at "error sending request"; the cause is what a person needs.
fn explain(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "no answer in time".to_owned() } else { error.to_string() };
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}

/// Pauses between rounds that reached no server: 200 ms doubled up to 5 s, spread by a quarter so that agents do not march in step.
#[derive(Debug)]
pub(crate) struct Pause {
    next: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Self { next: Duration::from_millis(200) }
    }
}

impl Pause {
    /// Waits, and makes the next wait longer.
    pub(crate) async fn wait(&mut self) {
        let mut byte = [0_u8; 1];
        let spread = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut byte)
            .map_or(0, |()| u32::from(byte[0]));
        let wait = self.next + self.next * spread / 1024;
        self.next = (self.next * 2).min(Duration::from_secs(5));
        tokio::time::sleep(wait).await;
    }

    /// The next wait is short again.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }
}
