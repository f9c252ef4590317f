//! `/api/admin/tenants` and `/api/admin/tenants/{t}`.

use std::ops::ControlFlow;

use quilt_proto::{Compare, Key, KeyPrefix, Op, Revision};
use quilt_raft::View;
use serde_json::{Map, Value, json};

use crate::authn::credential::{api_key_record, tenant_range};
use crate::authn::secret::{Secret, SecretKind, fresh_id};
use crate::commit::Plan;
use crate::directory::Cluster;
use crate::problem::Problem;
use crate::quilt::Quilt;
use crate::quilt::call::Call;
use crate::quilt::clusters::leave_directory;
use crate::quilt::envelope::Code;
use crate::quilt::fields::{Fields, clip, of_length};
use crate::quilt::refuse;
use crate::quilt::reply::Reply;
use crate::store::{put_record, record, text, visit};

/// The built-in tenant.
pub(crate) const BUILT_IN: &str = "default";

fn render(tenant: &Value) -> Value {
    json!({
        "tenant_id": tenant["id"], "name": tenant["name"],
        "disabled": tenant["disabled"].as_bool().unwrap_or(false), "created_at": tenant["created_at"],
    })
}

/// A tenant's record, where it is, and its version.
pub(crate) fn find(view: &View, tenant: &str) -> Result<(Value, Key, Revision), Problem> {
    let missing = || refuse::not_found("tenant");
    let key = tenant_range("tenants", "", tenant).ok_or_else(missing)?;
    let (record, revision) = record(view, &key)?.ok_or_else(missing)?;
    Ok((record, key, revision))
}

/// Everything of `resource` in the tenant range.
pub(crate) fn all(view: &View, resource: &str) -> Result<Vec<(Key, Value, Revision)>, Problem> {
    let mut found = Vec::new();
    let prefix = KeyPrefix::resource("", "quilt.sh", resource).map_err(refuse::internal)?;
    visit(view, &prefix, |key, record| {
        let value = serde_json::from_slice(&record.value)
            .map_err(|error| quilt_raft::ReadError::Storage(format!("{key:?} is not a record: {error}")))?;
        found.push((key.clone(), value, Revision::new(record.mod_revision)));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

pub(crate) async fn list(call: &Call<'_>) -> Result<Reply, Problem> {
    call.read(|view| {
        call.operator(view)?;
        let mut tenants: Vec<Value> = all(view, "tenants")?.iter().map(|(_, tenant, _)| render(tenant)).collect();
        tenants.sort_by_key(|tenant| (tenant["created_at"].as_u64(), text(tenant, "/tenant_id").to_owned()));
        Ok(Reply::ok(json!({"tenants": tenants})))
    })
    .await
}

pub(crate) async fn create(call: &Call<'_>, body: &Map<String, Value>) -> Result<Reply, Problem> {
    call.judge(|view| call.operator(view)).await?;
    let mut fields = Fields::of(body);
    let name = fields.required_string("name");
    fields.finish()?;
    of_length("name", &name, 128)?;
    let (id, key_id, secret) = (fresh_id(), fresh_id(), Secret::draw(SecretKind::ApiKey));
    let created_at = call.replica().wall_ms() / 1000;
    let written = call
        .write(|view| {
            let mut compares = call.operator(view)?;
            let key = |resource: &str, name: &str| {
                tenant_range(resource, "", name).ok_or_else(|| {
                    refuse::invalid("name", "name is too long", &["1 to 128 characters"], json!(clip(name)))
                })
            };
            let name_key = key("tenantnames", &name)?;
            if view.get(&name_key)?.is_some() {
                return Err(refuse::name_taken("tenant", &name, "choose another name"));
            }
            let (tenant_key, credential_key) = (key("tenants", &id)?, key("credentials", secret.digest().as_str())?);
            compares.extend([&name_key, &tenant_key, &credential_key].map(Compare::absent));
            let tenant = json!({"id": id, "name": name, "disabled": false, "token_epoch": 0, "created_at": created_at});
            let ops = vec![
                put_record(&tenant_key, &tenant),
                put_record(&name_key, &json!({"tenant_id": id})),
                put_record(&credential_key, &api_key_record(&id, &key_id, created_at)),
            ];
            let answer = json!({"tenant_id": id, "name": name, "api_key": secret.plain(), "key_id": key_id});
            call.keeping(Plan::commit(compares, ops, answer), |answer| Reply::created(answer.clone()))
        })
        .await?;
    Ok(Reply::created(written.answer))
}

pub(crate) async fn set(call: &Call<'_>, tenant: &str, body: &Map<String, Value>) -> Result<Reply, Problem> {
    call.judge(|view| call.operator(view)).await?;
    let mut fields = Fields::of(body);
    let disabled = fields.required_boolean("disabled");
    fields.finish()?;
    let written = call
        .write(|view| {
            let mut compares = call.operator(view)?;
            let (mut record, key, revision) = find(view, tenant)?;
            if record["disabled"].as_bool().unwrap_or(false) == disabled {
                return Ok(Plan::Unchanged(render(&record)));
            }
            record["disabled"] = json!(disabled);
            compares.push(Compare::at(&key, revision));
            let answer = render(&record);
            Ok(Plan::commit(compares, vec![put_record(&key, &record)], answer))
        })
        .await?;
    Ok(Reply::ok(written.answer))
}

pub(crate) async fn delete(quilt: &Quilt, call: &Call<'_>, tenant: &str) -> Result<Reply, Problem> {
    let written = call
        .write(|view| {
            let mut compares = call.operator(view)?;
            let (record, key, revision) = find(view, tenant)?;
            if tenant == BUILT_IN {
                return Err(refuse::with(Code::BuiltIn, "the built-in tenant cannot be deleted"));
            }
            compares.push(Compare::at(&key, revision));
            let mut ops = vec![Op::delete(&key)];
            ops.extend(tenant_range("tenantnames", "", text(&record, "/name")).iter().map(Op::delete));
            for (key, credential, revision) in all(view, "credentials")? {
                if credential["tenant_id"] == tenant {
                    compares.push(Compare::at(&key, revision));
                    ops.push(Op::delete(&key));
                }
            }
            let mut doomed = Vec::new();
            for (key, cluster, revision) in all(view, "clusters")? {
                let cluster: Cluster = serde_json::from_value(cluster).map_err(refuse::internal)?;
                if cluster.tenant_id == tenant {
                    let (unchanged, leave) = leave_directory(&cluster, Compare::at(&key, revision))?;
                    compares.extend(unchanged);
                    ops.extend(leave);
                    doomed.push(cluster.id);
                }
            }
            Ok(Plan::commit(compares, ops, doomed))
        })
        .await?;
    for cluster in written.answer {
        quilt.drop_range(&cluster, call.remaining()).await;
    }
    Ok(Reply::success())
}
