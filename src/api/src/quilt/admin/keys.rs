//! `/api/admin/tenants/{t}/keys`: a tenant's API keys.

use quilt_proto::{Compare, Op};
use serde_json::json;

use super::tenants::{all, find};
use crate::authn::credential::{api_key_record, tenant_range};
use crate::authn::secret::{Secret, SecretKind, fresh_id};
use crate::commit::Plan;
use crate::problem::Problem;
use crate::quilt::call::Call;
use crate::quilt::refuse;
use crate::quilt::reply::Reply;
use crate::store::put_record;

pub(crate) async fn create(call: &Call<'_>, tenant: &str) -> Result<Reply, Problem> {
    let (key_id, secret) = (fresh_id(), Secret::draw(SecretKind::ApiKey));
    let created_at = call.replica().wall_ms() / 1000;
    let written = call
        .write(|view| {
            let mut compares = call.operator(view)?;
            let (_, tenant_key, _) = find(view, tenant)?;
            let key = tenant_range("credentials", "", secret.digest().as_str())
                .ok_or_else(|| refuse::internal("credential key"))?;
            compares.extend([Compare::exists(&tenant_key), Compare::absent(&key)]);
            let ops = vec![put_record(&key, &api_key_record(tenant, &key_id, created_at))];
            let answer = json!({"key_id": key_id, "api_key": secret.plain()});
            call.keeping(Plan::commit(compares, ops, answer), |answer| Reply::created(answer.clone()))
        })
        .await?;
    Ok(Reply::created(written.answer))
}

pub(crate) async fn revoke(call: &Call<'_>, tenant: &str, key_id: &str) -> Result<Reply, Problem> {
    call.write(|view| {
        let mut compares = call.operator(view)?;
        find(view, tenant)?;
        let found = all(view, "credentials")?
            .into_iter()
            .find(|(_, credential, _)| credential["tenant_id"] == tenant && credential["key_id"] == key_id);
        let (key, _, revision) = found.ok_or_else(|| refuse::not_found("key"))?;
        compares.push(Compare::at(&key, revision));
        Ok(Plan::commit(compares, vec![Op::delete(&key)], ()))
    })
    .await?;
    Ok(Reply::success())
}
