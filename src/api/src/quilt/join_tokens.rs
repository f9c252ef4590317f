//! `/api/clusters/{c}/join-tokens`: tokens by which agents join.

use quilt_proto::Compare;
use serde_json::{Map, Value, json};

use super::call::Call;
use super::fields::{Fields, in_range};
use super::refuse;
use super::reply::Reply;
use crate::authn::secret::{Secret, SecretKind, fresh_id};
use crate::authn::token::internal;
use crate::commit::Plan;
use crate::problem::Problem;
use crate::store::put_record_for;

const TTL_SECS: i64 = 600;

pub(crate) async fn create(call: &Call<'_>, cluster: &str, body: &Map<String, Value>) -> Result<Reply, Problem> {
    call.judge(|view| call.tenant(view)).await?;
    let mut fields = Fields::of(body);
    let ttl_secs = fields.integer("ttl_secs").unwrap_or(TTL_SECS);
    let max_uses = fields.integer("max_uses").unwrap_or(1);
    fields.finish()?;
    let (secret, token_id) = (Secret::draw(SecretKind::JoinToken), fresh_id());
    let written = call
        .write(|view| {
            let (tenant, entry) = call.tenant_cluster(view, cluster)?;
            let ttl_ms = in_range("ttl_secs", ttl_secs, 60, 86_400)?.unsigned_abs() * 1000;
            in_range("max_uses", max_uses, 1, 1000)?;
            let key = internal(&entry.cluster.id, "jointokens", secret.digest().as_str())
                .ok_or_else(|| refuse::internal("token key"))?;
            let mut compares = tenant.compares;
            compares.push(Compare::absent(&key));
            let wall_ms = call.replica().wall_ms();
            let record = json!({
                "token_id": token_id, "max_uses": max_uses, "uses_left": max_uses,
                "expires_at_ms": call.replica().cluster_time_ms() + ttl_ms, "created_at": wall_ms / 1000,
            });
            let answer = json!({
                "token_id": token_id, "cluster_id": entry.cluster.id, "join_token": secret.plain(),
                "expires_at": (wall_ms + ttl_ms) / 1000, "max_uses": max_uses,
            });
            // The record also ends by itself, exactly when apply's own clock says so.
            let plan = Plan::commit(compares, vec![put_record_for(&key, &record, ttl_ms)], answer);
            call.keeping(plan, |answer| Reply::created(answer.clone()))
        })
        .await?;
    Ok(Reply::created(written.answer))
}
