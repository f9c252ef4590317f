//! Operator routes of this binary: one truthful picture of the control plane, for the CLI and for monitoring.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use quilt_api::Api;
use quilt_api::authn::{Presented, Principal};
use quilt_raft::{Consistency, Role, Status};
use serde_json::{Value, json};

/// A local read waits for nothing but the first catching up after a start.
const LOCAL_READ: Duration = Duration::from_millis(100);

/// Routes below `/api/admin` that are not about tenants.
pub(crate) fn router(api: &Arc<Api>) -> Router {
    Router::new().route("/api/admin/status", get(status)).with_state(Arc::clone(api))
}

/// Answered from local state, the credential included: it is needed most when there is no leader.
async fn status(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let presented = Presented::for_admin(&headers);
    let known = match api.replica.read(Consistency::Stale, LOCAL_READ).await {
        Ok(view) => {
            presented.prove(&view, |principal| matches!(principal, Principal::Admin)).is_ok_and(|proof| proof.is_some())
        }
        Err(_) => false,
    };
    if known {
        Json(document(&api.replica.status())).into_response()
    } else {
        let refusal = json!({
            "error": "a valid admin key is needed", "error_code": "UNAUTHORIZED", "request_id": uuid::Uuid::new_v4().to_string(),
            "details": null, "retry_after": null, "hint": "send it as X-Quilt-Admin-Key or as Bearer token",
        });
        (StatusCode::UNAUTHORIZED, Json(refusal)).into_response()
    }
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
            "{}: replica {leader} leads {voters} voters (term {}), {} failures tolerated",
            if status.failures_tolerated > 0 || voters < 3 { "healthy" } else { "degraded" },
            status.term,
            status.failures_tolerated
        ),
        (Some(leader), _) => {
            format!("replica {leader} leads {voters} voters (term {}), as replica {} sees it", status.term, status.id)
        }
    }
}
