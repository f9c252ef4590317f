//! Operator routes of this binary: one truthful picture of the control plane, a backup of it, and who belongs to it.

mod backup;
mod body;
mod join;
mod members;
mod metrics;
pub(crate) mod queue;
mod refusal;
pub(crate) mod status;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::{delete, get, post};
use quilt_api::Api;
use quilt_api::authn::{Presented, Principal};
use quilt_api::roster::Roster;
use quilt_raft::{Consistency, ReadError, View};
use quilt_storage::Snapshots;

use refusal::Refusal;

/// A local read waits for nothing but the first catching up after a start.
const LOCAL_READ: Duration = Duration::from_millis(100);

/// How long a leader may take to confirm that a read is of now.
const LINEARIZABLE_READ: Duration = Duration::from_secs(10);

/// What the routes answer from.
#[derive(Clone)]
struct Operator {
    api: Arc<Api>,
    snapshots: Snapshots,
    roster: Roster,
    /// Given to replicas that join.
    admin_key_sha256: String,
}

/// Routes below `/api/admin` that are not about tenants.
pub(crate) fn router(api: &Arc<Api>, snapshots: &Snapshots, admin_key_sha256: &str) -> Router {
    let roster = Roster::new(api.replica.clone(), LINEARIZABLE_READ);
    let state = Operator {
        api: Arc::clone(api),
        snapshots: snapshots.clone(),
        roster,
        admin_key_sha256: admin_key_sha256.to_owned(),
    };
    Router::new()
        .route("/api/admin/status", get(status::status))
        .route("/api/admin/metrics", get(metrics::metrics))
        .route("/api/admin/snapshot", get(backup::snapshot))
        .route("/api/admin/replicas", post(members::add))
        .route("/api/admin/replicas/{id}", delete(members::remove))
        .route("/api/admin/replicas/{id}/promote", post(members::promote))
        .route("/api/admin/replicas/{id}/demote", post(members::demote))
        .route("/api/admin/replicas/join", post(join::join))
        .route("/api/admin/replica-tokens", post(join::create_token).get(join::list_tokens))
        .route("/api/admin/replica-tokens/{id}", delete(join::revoke_token))
        .route("/api/admin/ca", get(join::ca))
        .route("/api/admin/leader", post(members::transfer_leadership))
        .with_state(state)
}

impl Operator {
    /// A view of the state, if the caller shows an admin key that is good there.
    async fn admin(&self, headers: &HeaderMap, consistency: Consistency, within: Duration) -> Result<View, Refusal> {
        let view = match (self.api.replica.read(consistency, within).await, consistency) {
            (Ok(view), _) => view,
            // A replica that has never caught up knows no key.
            (Err(ReadError::NoLeader), Consistency::Stale) => return Err(Refusal::unauthorized()),
            (Err(error), _) => return Err(error.into()),
        };
        let proof = Presented::for_admin(headers).prove(&view, |principal| matches!(principal, Principal::Admin));
        if proof?.is_some() { Ok(view) } else { Err(Refusal::unauthorized()) }
    }
}
