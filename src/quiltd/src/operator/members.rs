//! `/api/admin/replicas` and `/api/admin/leader`: who belongs to the control plane, and who leads it.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use quilt_api::roster::{Roster, Standing};
use quilt_proto::ReplicaId;
use quilt_raft::{AdminError, Consistency};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::Body;
use super::refusal::Refusal;
use super::{LINEARIZABLE_READ, Operator};
use crate::cli::peer_address;

/// How long a promotion waits for a learner to catch up, when the request does not say.
const PATIENCE_SECS: u64 = 60;
/// The longest it may be asked to.
const PATIENCE_SECS_MAX: u64 = 3600;

/// A replica to be added by hand.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewReplica {
    id: u64,
    address: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Promotion {
    timeout_secs: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Transfer {
    to: Option<u64>,
}

impl Operator {
    async fn operates(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        self.admin(headers, Consistency::Linearizable, LINEARIZABLE_READ).await.map(drop)
    }
}

/// Adds a learner.
pub(super) async fn add(
    State(operator): State<Operator>,
    headers: HeaderMap,
    Body(NewReplica { id, address }): Body<NewReplica>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    operator.operates(&headers).await?;
    if id == 0 {
        return Err(Refusal::invalid("id is 0", "replicas are numbered from 1"));
    }
    peer_address(&address)
        .map_err(|why| Refusal::invalid(format!("address {address:?}: {why}"), "as 10.0.0.4:7443"))?;
    let id = ReplicaId(id);
    operator.roster.enlist(id, &address).await?;
    operator.api.replica.admin().add_learner(id, address.clone()).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id, "address": address, "voter": false }))))
}

/// Makes a learner a voter.
pub(super) async fn promote(
    State(operator): State<Operator>,
    Path(id): Path<u64>,
    headers: HeaderMap,
    Body(Promotion { timeout_secs }): Body<Promotion>,
) -> Result<Json<Value>, Refusal> {
    operator.operates(&headers).await?;
    let patience = timeout_secs.unwrap_or(PATIENCE_SECS);
    if !(1..=PATIENCE_SECS_MAX).contains(&patience) {
        let expected = format!("1 to {PATIENCE_SECS_MAX} are expected");
        return Err(Refusal::invalid(format!("timeout_secs is {patience}"), expected));
    }
    operator.api.replica.admin().promote(ReplicaId(id), Duration::from_secs(patience)).await?;
    Ok(Json(json!({ "id": id, "voter": true })))
}

/// Makes a voter a learner.
pub(super) async fn demote(
    State(operator): State<Operator>,
    Path(id): Path<u64>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    operator.operates(&headers).await?;
    operator.api.replica.admin().demote(ReplicaId(id)).await?;
    Ok(Json(json!({ "id": id, "voter": false })))
}

/// Removes a replica for good.
pub(super) async fn remove(
    State(operator): State<Operator>,
    Path(id): Path<u64>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    let view = operator.admin(&headers, Consistency::Linearizable, LINEARIZABLE_READ).await?;
    let replica = &operator.api.replica;
    let members: Vec<ReplicaId> = replica.status().members.iter().map(|member| member.id).collect();
    let standing = Roster::entries(&view)?.into_iter().find(|entry| entry.id == id).map(|entry| entry.standing);
    let id = ReplicaId(id);
    if standing.is_none() && !members.contains(&id) {
        return Err(AdminError::UnknownMember { id, members }.into());
    }
    if standing == Some(Standing::Joining) {
        // First out of the queue: or it would be let in again right behind.
        operator.roster.settle(id, Standing::Removed).await?;
    }
    replica.admin().remove(id).await?;
    // Noted last: a refused removal leaves no trace, and until now raft itself knew the number.
    operator.roster.settle(id, Standing::Removed).await?;
    Ok(Json(json!({ "success": true })))
}

/// Hands leadership over.
pub(super) async fn transfer_leadership(
    State(operator): State<Operator>,
    headers: HeaderMap,
    Body(Transfer { to }): Body<Transfer>,
) -> Result<Json<Value>, Refusal> {
    operator.operates(&headers).await?;
    let leader = operator.api.replica.admin().transfer_leadership(to.map(ReplicaId)).await?;
    Ok(Json(json!({ "leader": leader })))
}
