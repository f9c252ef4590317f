//! `GET /api/admin/status`: one truthful picture of the control plane, read from raft itself.

use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use bytes::Bytes;
use quilt_raft::{Consistency, Handler, Replica, Role, Status};
use serde::Deserialize;
use serde_json::{Value, json};

use super::refusal::Refusal;
use super::{LOCAL_READ, Operator};

/// Name under which the leader gives its picture to other replicas.
pub(crate) const SERVICE: &str = "operator/status";
/// How long the leader's picture is waited for before this replica shows its own.
const LEADER_ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Whose picture is wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    #[serde(default)]
    from: From,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum From {
    /// The replica that is asked.
    #[default]
    Local,
    /// The leader, which alone knows how far the others have come.
    Leader,
}

/// Answered from local state, the credential included: it is needed most when there is no leader.
pub(super) async fn status(
    State(operator): State<Operator>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    operator.admin(&headers, Consistency::Stale, LOCAL_READ).await?;
    let replica = &operator.api.replica;
    let document = match wanted.from {
        From::Local => None,
        From::Leader => leaders(replica).await,
    };
    Ok(Json(document.unwrap_or_else(|| self::document(&replica.status()))))
}

/// The leader's own picture, if there is a leader and it answers.
async fn leaders(replica: &Replica) -> Option<Value> {
    replica.status().leader?;
    let answer = replica.ask_leader(SERVICE, Bytes::new(), LEADER_ANSWERS_WITHIN).await.ok()?;
    serde_json::from_slice(&answer).ok()
}

/// Gives this replica's picture to others, while it leads.
pub(crate) fn service(replica: &Replica) -> Handler {
    let replica = replica.clone();
    std::sync::Arc::new(move |_| {
        let document = document(&replica.status()).to_string();
        Box::pin(async move { Ok(document.into()) })
    })
}

/// The status document: raft's own picture, and one sentence about it.
fn document(status: &Status) -> Value {
    let mut document = serde_json::to_value(status).unwrap_or_default();
    for member in document["members"].as_array_mut().into_iter().flatten() {
        let about = member["about"].as_str().and_then(|text| serde_json::from_str(text).ok());
        member["about"] = about.unwrap_or(Value::Null);
    }
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

#[cfg(test)]
mod tests {
    use quilt_proto::ReplicaId;
    use quilt_raft::Floor;

    use super::*;

    /// The document names the floor in force, of all clusters and of single ones, and has the alarms as they stand.
    #[tokio::test]
    async fn the_document_tells_floors_and_alarms() {
        let replica = Replica::memory(ReplicaId(1)).await;
        let mut status = replica.status();
        status.history.floor = 12;
        status.history.floors = vec![Floor { cluster: "shop".into(), revision: 12 }];
        status.alarms = vec!["the clock of replica 1 is 12 s behind cluster time".into()];
        let document = document(&status);
        let history = json!({"floor": 12, "floors": [{"cluster": "shop", "revision": 12}], "floors_left_out": 0});
        assert_eq!((&document["history"], &document["alarms"][0]), (&history, &json!(status.alarms[0])));
        replica.shutdown().await;
    }
}
