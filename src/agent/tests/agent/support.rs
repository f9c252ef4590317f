//! A control plane in the test's own process: real TLS, real HTTP, several listeners, one state. It answers the agent's routes as the
//! contract says and can be told to misbehave.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use quilt_agent::{AgentError, AgentOptions, RestartBackoff};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// No condition of these tests takes longer on the slowest host.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// How one listener behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manners {
    Good,
    /// Every answer is this status.
    Status(u16),
    /// Takes effect, then closes the connection instead of answering.
    LoseAnswers,
    /// Takes connections and says nothing at all, not even in TLS.
    Silent,
}

/// All that the control plane knows.
#[derive(Default, Debug)]
pub(crate) struct Known {
    pub(crate) requests: Vec<(usize, Method, String)>,
    pub(crate) registrations: BTreeMap<String, Value>,
    pub(crate) names: Vec<String>,
    pub(crate) removed: bool,
    pub(crate) heartbeats: Vec<Value>,
    pub(crate) events: Vec<Value>,
    /// Placement id to entry.
    pub(crate) assignments: BTreeMap<String, Value>,
    /// Placement id to reports.
    pub(crate) reports: BTreeMap<String, Vec<Value>>,
}

pub(crate) struct Plane {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) authority: CertifiedIssuer<'static, KeyPair>,
    pub(crate) servers: Vec<Server>,
    known: Arc<Mutex<Known>>,
    version: watch::Sender<u64>,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) manners: Arc<Mutex<Manners>>,
    task: JoinHandle<()>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Server {
    /// As `kill -9`: the listener and every connection are gone.
    pub(crate) fn kill(&self) {
        self.task.abort();
        for connection in self.connections.lock().expect("lock").drain(..) {
            connection.abort();
        }
    }
}

fn tls_of(certificate: &rcgen::Certificate, key: &KeyPair) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .expect("a certificate");
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    tls
}

impl Plane {
    pub(crate) async fn start(servers: usize) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("ca");
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("ca.crt"), authority.pem()).expect("writes");
        std::fs::write(directory.path().join("token"), "qj_good\n").expect("writes");
        let mut plane =
            Self { directory, authority, servers: Vec::new(), known: Arc::default(), version: watch::Sender::new(1) };
        for index in 0..servers {
            let server = plane.listen(index).await;
            plane.servers.push(server);
        }
        plane
    }

    async fn listen(&self, index: usize) -> Server {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("params");
        params.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().expect("ip"))];
        let key = KeyPair::generate().expect("key");
        let certificate = params.signed_by(&key, &self.authority).expect("leaf");
        let acceptor = TlsAcceptor::from(Arc::new(tls_of(&certificate, &key)));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("address");
        let manners = Arc::new(Mutex::new(Manners::Good));
        let connections: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let (known, version) = (self.known.clone(), self.version.clone());
        let (connections_of_task, manners_of_task) = (connections.clone(), manners.clone());
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (acceptor, known, version, manners) =
                    (acceptor.clone(), known.clone(), version.clone(), manners_of_task.clone());
                let connection = tokio::spawn(async move {
                    if *manners.lock().expect("lock") == Manners::Silent {
                        std::future::pending::<()>().await;
                    }
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let (lost, losing) = oneshot::channel::<()>();
                    let lost = Arc::new(Mutex::new(Some(lost)));
                    let service = service_fn(move |request| {
                        let (known, version, manners, lost) =
                            (known.clone(), version.clone(), manners.clone(), lost.clone());
                        async move {
                            let answer = answer(index, request, &known, &version, &manners).await;
                            if answer.is_none() {
                                drop(lost.lock().expect("lock").take());
                                std::future::pending::<()>().await;
                            }
                            Ok::<_, Infallible>(answer.expect("pending otherwise"))
                        }
                    });
                    let server = auto::Builder::new(TokioExecutor::new());
                    tokio::select! {
                        _ = server.serve_connection(TokioIo::new(stream), service) => {}
                        _ = losing => {}
                    }
                });
                connections_of_task.lock().expect("lock").push(connection);
            }
        });
        Server { address, manners, task, connections }
    }

    pub(crate) fn options(&self, data: &str) -> AgentOptions {
        let servers = self.servers.iter().map(|server| format!("https://{}", server.address)).collect();
        let path = self.directory.path();
        let mut options = AgentOptions::new(servers, "c-1", path.join("ca.crt"), path.join(data));
        options.join_token_file = Some(path.join("token"));
        options.name = Some("node-a".to_owned());
        options.address = Some("127.0.0.1".parse().expect("ip"));
        options.keeper = Some(vec![env!("CARGO_BIN_EXE_quilt-container-keeper").into()]);
        options.restart_backoff = RestartBackoff {
            first: Duration::from_millis(50),
            longest: Duration::from_millis(200),
            forgotten_after: Duration::from_secs(600),
        };
        options
    }

    pub(crate) fn known<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        look(&mut self.known.lock().expect("lock"))
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Known)) {
        self.known(change);
        self.version.send_modify(|version| *version += 1);
    }

    /// Waits for a condition on what is known.
    pub(crate) async fn until<T>(&self, what: &str, mut look: impl FnMut(&mut Known) -> Option<T>) -> T {
        let mut version = self.version.subscribe();
        let waiting = async {
            loop {
                version.borrow_and_update();
                if let Some(found) = self.known(&mut look) {
                    return found;
                }
                version.changed().await.expect("the plane lives");
            }
        };
        match tokio::time::timeout(LIMIT, waiting).await {
            Ok(found) => found,
            Err(_) => panic!("not within {LIMIT:?}: {what}; known: {:#?}", self.known.lock().expect("lock")),
        }
    }

    /// Places a pod of one container.
    pub(crate) fn place(&self, id: &str, policy: &str, command: &[&str]) {
        self.place_spec(
            id,
            json!({
                "restartPolicy": policy,
                "terminationGracePeriodSeconds": 5,
                "containers": [{"name": "main", "image": "none", "command": command}],
            }),
            json!({}),
        );
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers pass what json! makes")]
    pub(crate) fn place_spec(&self, id: &str, spec: Value, materials: Value) {
        let entry = json!({
            "placement": {"id": id},
            "workload": {},
            "pod": {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": "default", "name": id, "uid": format!("uid-{id}")},
                "spec": spec, "status": {"phase": "Pending"},
            },
            "materials": materials,
            "terminating": false,
        });
        self.change(|known| {
            known.assignments.insert(id.to_owned(), entry);
        });
    }

    pub(crate) fn terminate(&self, id: &str) {
        self.change(|known| {
            known.assignments.get_mut(id).expect("placed")["terminating"] = json!(true);
        });
    }

    /// Waits for a report of this placement that satisfies.
    pub(crate) async fn report(&self, id: &str, what: &str, satisfies: impl Fn(&Value) -> bool) -> Value {
        self.until(&format!("{id}: {what}"), |known| {
            known.reports.get(id)?.iter().find(|report| satisfies(report)).cloned()
        })
        .await
    }

    /// A client of the log endpoint that shows a certificate signed by `issuer`.
    pub(crate) fn log_client(&self, issuer: Option<&CertifiedIssuer<'static, KeyPair>>) -> reqwest::Client {
        let mut builder = reqwest::Client::builder().no_proxy().danger_accept_invalid_certs(true);
        if let Some(issuer) = issuer {
            let mut params = CertificateParams::new(Vec::<String>::new()).expect("params");
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate().expect("key");
            let certificate = params.signed_by(&key, issuer).expect("leaf");
            let pem = format!("{}{}", certificate.pem(), key.serialize_pem());
            builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).expect("identity"));
        }
        builder.build().expect("a client")
    }

    pub(crate) fn log_url(&self, tail: &str) -> String {
        let port = self.known(|known| {
            let introduced = known.heartbeats.iter().rev().find_map(|beat| beat["kubelet_port"].as_u64());
            introduced.expect("introduced")
        });
        format!("https://127.0.0.1:{port}{tail}")
    }
}

/// An agent in the test's own process.
pub(crate) struct Agent {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), AgentError>>,
}

impl Agent {
    pub(crate) fn start(options: AgentOptions) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(quilt_agent::run(options, async move {
            let _dropped = stopped.await;
        }));
        Self { stop, task }
    }

    pub(crate) async fn stop(self) -> Result<(), AgentError> {
        let _gone = self.stop.send(());
        tokio::time::timeout(LIMIT, self.task).await.expect("ends").expect("no panic")
    }

    /// The reason why it ended by itself.
    pub(crate) async fn stop_result(self) -> Result<(), AgentError> {
        tokio::time::timeout(LIMIT, self.task).await.expect("ends").expect("no panic")
    }
}

fn json_answer(status: u16, body: &Value) -> Option<Response<Full<Bytes>>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    Some(response)
}

fn refuse(status: u16, code: &str) -> Option<Response<Full<Bytes>>> {
    json_answer(status, &json!({"error": code.to_lowercase(), "error_code": code, "request_id": "r"}))
}

async fn answer(
    index: usize,
    request: Request<Incoming>,
    known: &Mutex<Known>,
    version: &watch::Sender<u64>,
    manners: &Mutex<Manners>,
) -> Option<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let bytes = body.collect().await.ok()?.to_bytes();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let path = parts.uri.path().to_owned();
    known.lock().expect("lock").requests.push((index, parts.method.clone(), path.clone()));
    version.send_modify(|version| *version += 1);
    let manners = *manners.lock().expect("lock");
    match manners {
        Manners::Status(status) => return refuse(status, "NO_LEADER"),
        Manners::Good | Manners::LoseAnswers | Manners::Silent => {}
    }
    let header =
        |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let answer = route(&path, parts.uri.query(), &header, body, known, version).await;
    version.send_modify(|version| *version += 1);
    if manners == Manners::LoseAnswers { None } else { answer }
}

async fn route(
    path: &str,
    query: Option<&str>,
    header: &(dyn Fn(&str) -> String + Send + Sync),
    body: Value,
    known: &Mutex<Known>,
    version: &watch::Sender<u64>,
) -> Option<Response<Full<Bytes>>> {
    let Some(tail) = path.strip_prefix("/api/agent/clusters/c-1/nodes/") else {
        return refuse(404, "NOT_FOUND");
    };
    if tail == "register" {
        let key = header("idempotency-key");
        let mut known = known.lock().expect("lock");
        if let Some(recorded) = known.registrations.get(&key) {
            return json_answer(201, recorded);
        }
        if header("x-quilt-join-token") != "qj_good" {
            return refuse(401, "UNAUTHORIZED");
        }
        let name = body["name"].as_str().expect("a name").to_owned();
        if known.names.contains(&name) {
            return refuse(409, "NAME_TAKEN");
        }
        known.names.push(name.clone());
        known.removed = false;
        let answer = json!({
            "node": {"id": "n-1", "name": name, "state": "registered"},
            "allocation": {"node_id": "n-1", "pod_cidr": "10.0.0.0/24"},
            "node_token": format!("qn_{}", known.names.len()),
        });
        known.registrations.insert(key, answer.clone());
        return json_answer(201, &answer);
    }
    let token = header("x-quilt-node-token");
    let admitted = {
        let known = known.lock().expect("lock");
        !known.removed && token == format!("qn_{}", known.names.len())
    };
    if !admitted {
        return refuse(401, "UNAUTHORIZED");
    }
    match tail.strip_prefix("n-1/")? {
        "allocation" => json_answer(200, &json!({"node_id": "n-1"})),
        "heartbeat" => {
            known.lock().expect("lock").heartbeats.push(body);
            json_answer(200, &json!({"success": true}))
        }
        "events" => {
            let told = body["events"].as_array().cloned().unwrap_or_default();
            known.lock().expect("lock").events.extend(told);
            json_answer(200, &json!({"success": true}))
        }
        "placements" => placements(query, &header("if-none-match"), known, version).await,
        other => {
            let id = other.strip_prefix("placements/")?.strip_suffix("/report")?.to_owned();
            let mut known = known.lock().expect("lock");
            let Some(entry) = known.assignments.get(&id) else {
                return refuse(404, "NOT_FOUND");
            };
            let over = matches!(body["state"].as_str(), Some("stopped" | "failed"));
            if entry["terminating"] == json!(true) && over {
                known.assignments.remove(&id);
            }
            known.reports.entry(id).or_default().push(body);
            json_answer(200, &json!({"success": true}))
        }
    }
}

async fn placements(
    query: Option<&str>,
    etag: &str,
    known: &Mutex<Known>,
    version: &watch::Sender<u64>,
) -> Option<Response<Full<Bytes>>> {
    let waits = query.is_some_and(|query| query.contains("wait_secs=30"));
    let mut changes = version.subscribe();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        changes.borrow_and_update();
        let (body, now) = {
            let known = known.lock().expect("lock");
            if known.removed {
                return refuse(401, "UNAUTHORIZED");
            }
            let body = json!({"assignments": known.assignments.values().collect::<Vec<_>>()});
            let now = format!("\"{:x}\"", ring_hash(&body.to_string()));
            (body, now)
        };
        if now != etag {
            let mut answer = json_answer(200, &body)?;
            answer.headers_mut().insert("etag", now.parse().expect("a header"));
            return Some(answer);
        }
        if !waits || tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
            return json_answer(304, &Value::Null);
        }
    }
}

fn ring_hash(text: &str) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    u64::from_be_bytes(digest.as_ref()[..8].try_into().expect("eight bytes"))
}
