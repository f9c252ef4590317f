//! [`Quilt`]: the Quilt surface. One function serves every route, so the order of checks stands in one place: route,
//! credential, body size, JSON, types, path objects, ranges, state.
//!
//! The nouns are the modules beside this one. Must not know listeners, TLS or the Kubernetes verbs.

mod admin;
mod agent;
mod asking;
mod beats;
mod call;
mod capabilities;
mod cidr;
mod clusters;
mod envelope;
mod fields;
mod join_tokens;
mod marks;
mod naming;
mod node_report;
mod nodes;
mod objects;
mod once;
mod path;
mod placements;
mod projection;
mod reconcile;
mod refuse;
mod release;
mod reply;
#[cfg(test)]
pub(crate) mod tests;
mod view;
mod workload_spec;
mod workloads;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures::FutureExt;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::BodyExt;
use quilt_proto::{ClusterId, Op, Txn};
use quilt_raft::{Replica, View};
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use self::beats::Beats;
use self::call::Call;
use self::envelope::Code;
use self::fields::{clip, type_name};
use self::once::{Once, Scope};
use self::path::{AgentVerb, Route};
use self::reply::Reply;
use crate::authn::Presented;
use crate::authn::credential::tenant_range;
use crate::authn::token::{self, JOIN_TOKEN_HEADER, NODE_TOKEN_HEADER};
use crate::context::Api;
use crate::problem::{Abandon, Problem};
use crate::request::read_body;

pub(crate) use self::cidr::Ipv4Block;
pub(crate) use self::envelope::Envelope;
pub(crate) use self::marks::{DRAINING, UPDATED_AT};
pub use self::path::is_quilt;
pub use self::release::release;

/// Largest body of a Quilt route (architecture D18).
const BODY_BYTES_MAX: usize = 4 << 20;
/// Longest request id that is taken over from a client.
const REQUEST_ID_BYTES_MAX: usize = 256;
/// Stripes of turns: registrations of one cluster wait for each other, those of two clusters rarely do.
const TURNS: usize = 64;
/// How long a body that nobody needs may take to arrive.
const DISCARD_WITHIN: Duration = Duration::from_secs(2);
/// The leader's service that ends a cluster's range.
const DROP_SERVICE: &str = "drop-cluster";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const STALE: HeaderName = HeaderName::from_static("x-quilt-stale");

/// The Quilt surface of one replica.
pub struct Quilt {
    api: Arc<Api>,
    beats: Beats,
    turns: [Mutex<()>; TURNS],
}

/// The surface over `api` as a router that answers every path.
pub fn router(api: Arc<Api>) -> Router {
    let quilt = Arc::new(Quilt::new(api));
    Router::new().fallback(move |request: Request<Body>| {
        let quilt = Arc::clone(&quilt);
        async move { quilt.serve(request).await }
    })
}

impl Quilt {
    /// The surface over `api`. Also offers the leader's half of deleting a cluster, once per replica.
    #[must_use]
    pub fn new(api: Arc<Api>) -> Self {
        serve_drops(&api.replica);
        Self { api, beats: Beats::default(), turns: std::array::from_fn(|_| Mutex::new(())) }
    }

    /// Answers one request for a path that [`is_quilt`].
    pub async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let request_id = request_id(&parts.headers);
        let stale = parts.uri.query().is_some_and(|query| query_value(query, "consistency") == Some("stale"));
        let mut body = Some(body);
        let answer = self.answer(&parts, &mut body).await;
        if let Some(unread) = body.filter(|_| !parts.headers.contains_key(http::header::EXPECT)) {
            discard(unread).await;
        }
        let mut response = match answer {
            Ok(reply) => reply.into_response(),
            Err(problem) => {
                let mut response = problem.envelope().into_response(&request_id);
                if !problem.is_answerable() {
                    response.extensions_mut().insert(Abandon);
                }
                response
            }
        };
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&request_id) {
            headers.insert(REQUEST_ID, value);
        }
        if stale && parts.method == Method::GET {
            headers.insert(STALE, HeaderValue::from_static("true"));
        }
        response
    }

    async fn answer(&self, parts: &Parts, body: &mut Option<Body>) -> Result<Reply, Problem> {
        let Some(route) = Route::of(parts.uri.path()) else { return Err(refuse::not_found("route")) };
        // HEAD is GET whose body the transport leaves out.
        let method = if parts.method == Method::HEAD { &Method::GET } else { &parts.method };
        if !route.allows(method) {
            return Err(refuse::method_not_allowed(clip(method.as_str()).as_str(), route.allow()));
        }
        if route == Route::Health {
            return Ok(Reply::ok(json!({"status": "ok"})));
        }
        let mut call = Call {
            api: &self.api,
            headers: &parts.headers,
            deadline: Instant::now() + self.api.options.deadline,
            stale: false,
            once: None,
        };
        call.must_present(presents(&route, &parts.headers))?;
        let query = parts.uri.query().unwrap_or_default();
        call.stale = match query_value(query, "consistency") {
            None => false,
            Some("stale") if *method == Method::GET => true,
            Some(other) => {
                judge_credential(&call, &route).await?;
                let expected = ["stale, on reads"];
                let message = "consistency must be 'stale', and only on reads";
                return Err(refuse::invalid("consistency", message, &expected, json!(clip(other))));
            }
        };
        if *method == Method::GET {
            return self.read(&call, route, query).await;
        }
        if *method == Method::DELETE {
            return self.delete(&call, route).await;
        }
        let body = match read_object(body.take().unwrap_or_default()).await {
            Ok(body) => body,
            Err(problem) => {
                // A bad body is told only to those who may send one.
                judge_credential(&call, &route).await?;
                return Err(problem);
            }
        };
        match once::key_of(method, &parts.headers) {
            Ok(Some(key)) => call.once = Some(same_request(&call, &route, parts.uri.path(), key, &body).await?),
            Ok(None) => {}
            Err(problem) => {
                judge_credential(&call, &route).await?;
                return Err(problem);
            }
        }
        self.execute(&call, route, &body).await
    }

    async fn read(&self, call: &Call<'_>, route: Route<'_>, query: &str) -> Result<Reply, Problem> {
        match route {
            Route::Clusters => clusters::list(call).await,
            Route::Cluster { cluster } => clusters::get(call, cluster).await,
            Route::Capabilities { cluster } => capabilities::get(call, &self.api.options.version, cluster).await,
            Route::Nodes { cluster } => nodes::list(call, cluster).await,
            Route::Node { cluster, node } => nodes::get(call, cluster, node).await,
            Route::Workloads { cluster } => workloads::list(call, cluster).await,
            Route::Workload { cluster, workload } => workloads::get(call, cluster, workload).await,
            Route::Placements { cluster } => placements::list(call, cluster).await,
            Route::Tenants => admin::tenants::list(call).await,
            Route::Agent { cluster, node, verb: AgentVerb::Allocation } => {
                agent::allocation::get(call, cluster, node).await
            }
            Route::Agent { cluster, node, verb: AgentVerb::Peers } => agent::peers::list(call, cluster, node).await,
            Route::Agent { cluster, node, verb: AgentVerb::Placements } => {
                let wait_secs = match wait_secs(query) {
                    Ok(wait_secs) => wait_secs,
                    Err(problem) => {
                        judge_credential(call, &route).await?;
                        return Err(problem);
                    }
                };
                agent::placements::list(call, &self.api.options.root_key, cluster, node, wait_secs).await
            }
            _ => Err(refuse::not_found("route")),
        }
    }

    async fn delete(&self, call: &Call<'_>, route: Route<'_>) -> Result<Reply, Problem> {
        match route {
            Route::Cluster { cluster } => clusters::delete(self, call, cluster).await,
            Route::Node { cluster, node } => nodes::delete(call, cluster, node).await,
            Route::Workload { cluster, workload } => workloads::delete(call, cluster, workload).await,
            Route::Tenant { tenant } => admin::tenants::delete(self, call, tenant).await,
            Route::TenantKey { tenant, key } => admin::keys::revoke(call, tenant, key).await,
            _ => Err(refuse::not_found("route")),
        }
    }

    /// Carries out POST, PUT and PATCH, or answers a repetition as the first time.
    async fn execute(&self, call: &Call<'_>, route: Route<'_>, body: &Map<String, Value>) -> Result<Reply, Problem> {
        let Some(once) = &call.once else { return self.carry_out(call, route, body).await };
        if let Some(first) = once.first_answer(call).await? {
            return first;
        }
        let problem = match self.carry_out(call, route, body).await {
            Ok(reply) => {
                once.settle(call, &reply).await;
                return Ok(reply);
            }
            Err(problem) => problem,
        };
        if !problem.is_answerable() || !matches!(problem.code(), 401 | 404 | 409) {
            return Err(problem);
        }
        // What refused it may be the effect of the same request, carried out elsewhere meanwhile.
        if let Some(first) = once.first_answer(call).await? {
            return first;
        }
        let envelope = problem.envelope();
        if envelope.code.is_recorded() {
            let admits = |view: &View| admits(call, &route, view).is_ok();
            if let Err(beaten) = once.keep_refusal(call, &envelope, admits).await {
                return once.first_answer(call).await?.unwrap_or(Err(beaten));
            }
        }
        Err(problem)
    }

    async fn carry_out(&self, call: &Call<'_>, route: Route<'_>, body: &Map<String, Value>) -> Result<Reply, Problem> {
        match route {
            Route::Clusters => clusters::create(self, call, body).await,
            Route::Reconcile { cluster } => reconcile::run(call, cluster).await,
            Route::JoinTokens { cluster } => join_tokens::create(call, cluster, body).await,
            Route::Drain { cluster, node } => nodes::drain(call, cluster, node).await,
            Route::Workloads { cluster } => workloads::create(call, cluster, body).await,
            Route::Workload { cluster, workload } => workloads::replace(call, cluster, workload, body).await,
            Route::Register { cluster } => agent::register::register(self, call, cluster, body).await,
            Route::Agent { cluster, node, verb: AgentVerb::Heartbeat } => {
                agent::heartbeat::heartbeat(self, call, cluster, node, body).await
            }
            Route::Agent { cluster, node, verb: AgentVerb::Report { placement } } => {
                agent::report::report(call, cluster, node, placement, body).await
            }
            Route::Agent { cluster, node, verb: AgentVerb::Events } => {
                agent::events::tell(call, cluster, node, body).await
            }
            Route::Agent { cluster, node, verb: AgentVerb::Deregister } => {
                agent::deregister::deregister(call, cluster, node).await
            }
            Route::Tenants => admin::tenants::create(call, body).await,
            Route::Tenant { tenant } => admin::tenants::set(call, tenant, body).await,
            Route::TenantKeys { tenant } => admin::keys::create(call, tenant).await,
            Route::AdminCluster { cluster } => clusters::set(call, cluster, body).await,
            _ => Err(refuse::not_found("route")),
        }
    }

    /// Waits for this request's turn among those that want the same records of `cluster`.
    async fn turn(&self, cluster: &str) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        cluster.hash(&mut hasher);
        let stripe = usize::try_from(hasher.finish() % TURNS as u64).unwrap_or_default();
        self.turns[stripe].lock().await
    }

    /// Ends the range of a cluster that the directory no longer names. What cannot be done now is done by
    /// [`finish_drops`] later; nobody can see the range meanwhile.
    async fn drop_range(&self, cluster: &str, deadline: Duration) {
        drop_one(&self.api.replica, cluster, deadline).await;
    }
}

/// Ends the ranges of clusters whose deletion was committed and not finished, by whatever stopped it. To be called
/// now and then; does nothing when there are none.
pub async fn finish_drops(replica: &Replica, deadline: Duration) {
    let Ok(view) = replica.read(quilt_raft::Consistency::Stale, deadline).await else { return };
    let Ok(doomed) = admin::tenants::all(&view, "doomedclusters") else { return };
    for (key, _, _) in doomed {
        drop_one(replica, key.parts().name, deadline).await;
    }
}

async fn drop_one(replica: &Replica, cluster: &str, deadline: Duration) {
    let request = json!({"cluster": cluster}).to_string();
    match replica.ask_leader(DROP_SERVICE, request.into(), deadline).await {
        Ok(_) => {
            if let Some(key) = tenant_range("doomedclusters", "", cluster)
                && let Err(error) = replica.propose(Txn::new(vec![], vec![Op::delete(&key)]), deadline).await
            {
                tracing::debug!(?error, cluster, "the note of a finished deletion stays until the next look");
            }
        }
        Err(error) => tracing::warn!(%error, cluster, "the range of a deleted cluster is freed later"),
    }
}

fn serve_drops(replica: &Replica) {
    let own = replica.clone();
    replica.serve(
        DROP_SERVICE,
        Arc::new(move |request: Bytes| {
            let replica = own.clone();
            async move {
                let request: Value = serde_json::from_slice(&request).map_err(|error| error.to_string())?;
                let cluster = request["cluster"].as_str().ok_or("no cluster")?.to_owned();
                replica.admin().drop_cluster(ClusterId(cluster)).await.map_err(|error| error.to_string())?;
                Ok(Bytes::from_static(b"{}"))
            }
            .boxed()
        }),
    );
}

/// Whether anything is presented that could open `route`; if not, the refusal needs no state.
fn presents(route: &Route<'_>, headers: &HeaderMap) -> bool {
    match route {
        Route::Health => true,
        Route::Register { .. } => token::presented(headers, JOIN_TOKEN_HEADER).is_some(),
        Route::Agent { .. } => token::presented(headers, NODE_TOKEN_HEADER).is_some(),
        Route::Tenants
        | Route::Tenant { .. }
        | Route::TenantKeys { .. }
        | Route::TenantKey { .. }
        | Route::AdminCluster { .. } => !Presented::for_admin(headers).is_empty(),
        _ => !Presented::for_tenant(headers).is_empty(),
    }
}

/// What makes this request the same as another one. Tokens stand for themselves: one that was spent by the first
/// request still names it.
async fn same_request(
    call: &Call<'_>,
    route: &Route<'_>,
    path: &str,
    key: &str,
    body: &Map<String, Value>,
) -> Result<Once, Problem> {
    let token = |kind: &str, header: &str| {
        let digest = token::presented(call.headers, header).ok_or_else(refuse::unauthorized)?;
        Ok::<_, Problem>(format!("{kind}:{}", digest.as_str()))
    };
    let principal = match route {
        Route::Register { .. } => token("join", JOIN_TOKEN_HEADER)?,
        Route::Agent { .. } => token("node", NODE_TOKEN_HEADER)?,
        Route::Tenants
        | Route::Tenant { .. }
        | Route::TenantKeys { .. }
        | Route::TenantKey { .. }
        | Route::AdminCluster { .. } => {
            judge_credential(call, route).await?;
            "operator".to_owned()
        }
        _ => format!("tenant:{}", call.judge(|view| call.tenant(view)).await?.id),
    };
    Once::new(&Scope { principal: &principal, path, key, cluster: route.cluster() }, body)
}

/// Whether the cluster that `route` names is this request's to write to.
fn admits(call: &Call<'_>, route: &Route<'_>, view: &View) -> Result<(), Problem> {
    match *route {
        Route::Register { cluster } => call.joining(view, cluster).map(|_| ()),
        Route::Agent { cluster, node, .. } => call.agent(view, cluster, node).map(|_| ()),
        _ => match route.cluster() {
            Some(cluster) => call.tenant_cluster(view, cluster).map(|_| ()),
            None => Ok(()),
        },
    }
}

/// Judges the credential alone, for answers that are given before the handler could.
async fn judge_credential(call: &Call<'_>, route: &Route<'_>) -> Result<(), Problem> {
    call.judge(|view| match *route {
        Route::Health => Ok(()),
        Route::Register { cluster } => call.joining(view, cluster).map(|_| ()),
        Route::Agent { cluster, node, .. } => call.agent(view, cluster, node).map(|_| ()),
        Route::Tenants
        | Route::Tenant { .. }
        | Route::TenantKeys { .. }
        | Route::TenantKey { .. }
        | Route::AdminCluster { .. } => call.operator(view).map(|_| ()),
        _ => call.tenant(view).map(|_| ()),
    })
    .await
}

/// Lets a body pass that the answer does not depend on, so that the connection can be used again.
async fn discard(mut body: Body) {
    let mut left = BODY_BYTES_MAX;
    let passing = async {
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    // Whoever sends too much or too slowly loses the connection with the answer.
    let _in_time = tokio::time::timeout(DISCARD_WITHIN, passing).await;
}

/// Reads the body as a JSON object; nothing at all equals `{}`.
async fn read_object(body: Body) -> Result<Map<String, Value>, Problem> {
    let bytes = read_body(body, BODY_BYTES_MAX).await.map_err(|problem| match problem.envelope().code {
        Code::PayloadTooLarge => refuse::too_large("the body", "body", BODY_BYTES_MAX, Value::Null),
        code => refuse::with(code, problem.to_string()).details(json!({"field": "body"})),
    })?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    let details = |received: &str| json!({"field": "body", "expected": ["a JSON object"], "received": received});
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(other) => {
            Err(refuse::with(Code::BadRequest, "the body is not a JSON object").details(details(type_name(&other))))
        }
        Err(error) => Err(refuse::with(Code::BadRequest, format!("the body is not JSON: {error}"))
            .details(details("text that is not JSON"))),
    }
}

/// The value of a query parameter as it stands; ours need no escapes.
fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| match pair.split_once('=') {
        Some((key, value)) => (key == name).then_some(value),
        None => (pair == name).then_some(""),
    })
}

fn wait_secs(query: &str) -> Result<u64, Problem> {
    let Some(text) = query_value(query, "wait_secs") else { return Ok(0) };
    let range = format!("an integer from 0 to {}", agent::placements::WAIT_SECS_MAX);
    match text.parse::<i64>() {
        Ok(secs) if (0..=agent::placements::WAIT_SECS_MAX as i64).contains(&secs) => Ok(secs.unsigned_abs()),
        Ok(secs) => Err(refuse::invalid("wait_secs", format!("wait_secs must be {range}"), &[&range], json!(secs))),
        Err(_) => Err(refuse::with(Code::UnprocessableEntity, format!("wait_secs must be {range}"))
            .details(json!({"field": "wait_secs", "expected": [range], "received": clip(text)}))),
    }
}

fn request_id(headers: &HeaderMap) -> String {
    let sent = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok()).map(str::trim);
    match sent {
        Some(id) if !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX => id.to_owned(),
        _ => crate::authn::secret::fresh_id(),
    }
}
