//! Operator routes of this binary: one truthful picture of the control plane, and a backup of it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use quilt_api::Api;
use quilt_api::authn::{Presented, Principal};
use quilt_raft::{Consistency, Role, Status, View};
use quilt_storage::{Snapshot, Snapshots};
use serde_json::{Value, json};

/// A local read waits for nothing but the first catching up after a start.
const LOCAL_READ: Duration = Duration::from_millis(100);

/// How long a leader may take to confirm that a backup is of now.
const LINEARIZABLE_READ: Duration = Duration::from_secs(10);

/// Pieces of a backup that wait for a slow reader.
const PIECES_WAITING: usize = 4;

/// What the routes answer from.
#[derive(Clone)]
struct Operator {
    api: Arc<Api>,
    snapshots: Snapshots,
}

/// Routes below `/api/admin` that are not about tenants.
pub(crate) fn router(api: &Arc<Api>, snapshots: &Snapshots) -> Router {
    let state = Operator { api: Arc::clone(api), snapshots: snapshots.clone() };
    Router::new().route("/api/admin/status", get(status)).route("/api/admin/snapshot", get(snapshot)).with_state(state)
}

/// Answered from local state, the credential included: it is needed most when there is no leader.
async fn status(State(Operator { api, .. }): State<Operator>, headers: HeaderMap) -> Response {
    let known = match api.replica.read(Consistency::Stale, LOCAL_READ).await {
        Ok(view) => is_admin(&headers, &view),
        Err(_) => false,
    };
    if known { Json(document(&api.replica.status())).into_response() } else { unauthorized() }
}

/// A backup of everything acknowledged before the request began.
async fn snapshot(State(Operator { api, snapshots }): State<Operator>, headers: HeaderMap) -> Response {
    match api.replica.read(Consistency::Linearizable, LINEARIZABLE_READ).await {
        Ok(view) if is_admin(&headers, &view) => {}
        Ok(_) => return unauthorized(),
        Err(error) => return unavailable(&error),
    }
    if let Err(error) = api.replica.admin().snapshot().await {
        return unavailable(&error);
    }
    match snapshots.newest() {
        Some(newest) => backup(newest),
        None => unavailable(&"nothing has been applied yet"),
    }
}

fn backup(snapshot: Arc<Snapshot>) -> Response {
    let revision = snapshot.manifest().revision;
    let (length, pieces) = quilt_storage::backup(snapshot);
    let (sender, receiver) = tokio::sync::mpsc::channel(PIECES_WAITING);
    tokio::task::spawn_blocking(move || {
        for piece in pieces {
            // Nobody reads any more.
            if sender.blocking_send(piece).is_err() {
                return;
            }
        }
    });
    let mut response = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver)).into_response();
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    fields.insert("x-quilt-revision", HeaderValue::from(revision));
    response
}

fn is_admin(headers: &HeaderMap, view: &View) -> bool {
    let admin = Presented::for_admin(headers).prove(view, |principal| matches!(principal, Principal::Admin));
    admin.is_ok_and(|proof| proof.is_some())
}

fn unauthorized() -> Response {
    let hint = "send it as X-Quilt-Admin-Key or as Bearer token";
    refusal(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "a valid admin key is needed", hint)
}

fn unavailable(error: &dyn std::fmt::Display) -> Response {
    let hint = "ask again, or another replica; quiltd status tells how they are";
    refusal(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", &error.to_string(), hint)
}

fn refusal(status: StatusCode, code: &str, error: &str, hint: &str) -> Response {
    let body = json!({
        "error": error, "error_code": code, "request_id": uuid::Uuid::new_v4().to_string(),
        "details": null, "retry_after": null, "hint": hint,
    });
    (status, Json(body)).into_response()
}

/// The status document: raft's own picture, and one sentence about it.
fn document(status: &Status) -> Value {
    let mut document = serde_json::to_value(status).unwrap_or_default();
    if let Value::Object(fields) = &mut document {
        fields.insert("summary".into(), json!(summary(status)));
    }
    document
}

fn summary(status: &Status) -> String {
    let voters = status.members.iter().filter(|member| member.voter).count();
    match (status.leader, status.role) {
        (None, _) => format!("no leader: replica {} knows of {voters} voters (term {})", status.id, status.term),
        (Some(leader), Role::Leader) => format!(
            "{}: replica {leader} leads {voters} voters (term {}), {} {} tolerated",
            if status.failures_tolerated > 0 || voters < 3 { "healthy" } else { "degraded" },
            status.term,
            status.failures_tolerated,
            if status.failures_tolerated == 1 { "failure" } else { "failures" }
        ),
        (Some(leader), _) => {
            format!("replica {leader} leads {voters} voters (term {}), as replica {} sees it", status.term, status.id)
        }
    }
}
