//! `/api/clusters` and `/api/clusters/{c}`: the tenant's clusters.

use quilt_proto::{ClusterId, Compare, Op};
use quilt_raft::View;
use serde_json::{Map, Value, json};

use super::Quilt;
use super::call::Call;
use super::cidr::Ipv4Block;
use super::envelope::Code;
use super::fields::{Fields, clip, in_range, of_length};
use super::refuse;
use super::reply::Reply;
use crate::authn::credential::tenant_range;
use crate::authn::secret::fresh_id;
use crate::bootstrap;
use crate::commit::Plan;
use crate::directory::{
    self, Cluster, LOAD_BALANCER_CIDR, NODE_CIDR_PREFIX, NODE_TIMEOUT_SECS, PLACEMENT_GRACE_SECS, SERVICE_CIDR,
};
use crate::problem::Problem;
use crate::store::{put_record, record, visit};

/// A cluster as Quilt shows it.
pub(crate) fn render(cluster: &Cluster) -> Value {
    json!({
        "id": cluster.id, "tenant_id": cluster.tenant_id, "name": cluster.name, "pod_cidr": cluster.pod_cidr,
        "node_cidr_prefix": cluster.node_cidr_prefix, "node_timeout_secs": cluster.node_timeout_secs,
        "placement_grace_secs": cluster.placement_grace_secs, "created_at": cluster.created_at,
    })
}

/// All clusters that `wanted` lets through.
fn all(view: &View, wanted: impl Fn(&Cluster) -> bool) -> Result<Vec<Cluster>, Problem> {
    let mut found = Vec::new();
    let Ok(prefix) = quilt_proto::KeyPrefix::resource("", "quilt.sh", "clusters") else { return Ok(found) };
    visit(view, &prefix, |key, record| {
        let cluster: Cluster = serde_json::from_slice(&record.value)
            .map_err(|error| quilt_raft::ReadError::Storage(format!("{key:?} is not a cluster: {error}")))?;
        if wanted(&cluster) {
            found.push(cluster);
        }
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    Ok(found)
}

pub(crate) async fn list(call: &Call<'_>) -> Result<Reply, Problem> {
    call.read(|view| {
        let tenant = call.tenant(view)?;
        let mut clusters = all(view, |cluster| cluster.tenant_id == tenant.id)?;
        clusters.sort_by(|one, two| two.created_at.cmp(&one.created_at).then_with(|| one.id.cmp(&two.id)));
        Ok(Reply::ok(json!({"clusters": clusters.iter().map(render).collect::<Vec<_>>()})))
    })
    .await
}

pub(crate) async fn get(call: &Call<'_>, id: &str) -> Result<Reply, Problem> {
    call.read(|view| Ok(Reply::ok(render(&call.tenant_cluster(view, id)?.1.cluster)))).await
}

/// `node_timeout_secs` and `placement_grace_secs`, wherever they may be given.
pub(crate) struct Patience {
    timeout: Option<i64>,
    grace: Option<i64>,
}

impl Patience {
    pub(crate) fn read(fields: &mut Fields<'_>) -> Self {
        Self { timeout: fields.integer("node_timeout_secs"), grace: fields.integer("placement_grace_secs") }
    }

    /// Checks the ranges and puts what was given into `cluster`.
    pub(crate) fn apply(&self, cluster: &mut Cluster) -> Result<(), Problem> {
        if let Some(timeout) = self.timeout {
            let timeout = in_range("node_timeout_secs", timeout, 5, 3600)?;
            cluster.node_timeout_secs = u32::try_from(timeout).unwrap_or(NODE_TIMEOUT_SECS);
        }
        if let Some(grace) = self.grace {
            let grace = in_range("placement_grace_secs", grace, 0, 3600)?;
            cluster.placement_grace_secs = u32::try_from(grace).unwrap_or(PLACEMENT_GRACE_SECS);
        }
        Ok(())
    }
}

fn pod_cidr(text: &str) -> Result<Ipv4Block, Problem> {
    let invalid = |message: String| {
        refuse::invalid("pod_cidr", message, &["an IPv4 network with a prefix of 8 to 30"], json!(clip(text)))
    };
    let block = Ipv4Block::parse(text).map_err(|error| invalid(format!("pod_cidr {error}")))?;
    if (8..=30).contains(&block.prefix()) {
        Ok(block)
    } else {
        Err(invalid(format!("pod_cidr must have a prefix of 8 to 30, not {}", block.prefix())))
    }
}

pub(crate) async fn create(quilt: &Quilt, call: &Call<'_>, body: &Map<String, Value>) -> Result<Reply, Problem> {
    // The credential is judged before the body, and once more by the commit.
    call.judge(|view| call.tenant(view)).await?;
    let mut fields = Fields::of(body);
    let name = fields.required_string("name");
    let cidr = fields.required_string("pod_cidr");
    let prefix = fields.integer("node_cidr_prefix");
    let patience = Patience::read(&mut fields);
    fields.finish()?;
    of_length("name", &name, 128)?;
    let block = pod_cidr(&cidr)?;
    let prefix = in_range("node_cidr_prefix", prefix.unwrap_or_else(|| i64::from(NODE_CIDR_PREFIX)), 16, 30)?;
    let node_cidr_prefix = u8::try_from(prefix).unwrap_or(NODE_CIDR_PREFIX);
    if block.parts(node_cidr_prefix) == 0 {
        let expected = format!("an integer from {} to 30", block.prefix());
        let message = format!("node_cidr_prefix {prefix} is shorter than the prefix of pod_cidr {cidr}");
        return Err(refuse::invalid("node_cidr_prefix", message, &[&expected], json!(prefix)));
    }
    let mut cluster = Cluster {
        id: fresh_id(),
        tenant_id: String::new(),
        name,
        pod_cidr: block.to_string(),
        node_cidr_prefix,
        node_timeout_secs: NODE_TIMEOUT_SECS,
        placement_grace_secs: PLACEMENT_GRACE_SECS,
        service_cidr: SERVICE_CIDR.into(),
        load_balancer_cidr: LOAD_BALANCER_CIDR.into(),
        created_at: call.replica().wall_ms() / 1000,
    };
    patience.apply(&mut cluster)?;
    // A taken name is refused before anything is made.
    call.judge(|view| {
        let tenant = call.tenant(view)?;
        name_is_free(view, &tenant.id, &cluster.name)
    })
    .await?;
    // The range first: until the directory names the cluster, nothing in it can be seen.
    bootstrap::cluster_objects(call.replica(), &cluster, &quilt.api.options.serving_ca_pem, call.remaining()).await?;
    let entered = call
        .write(|view| {
            let tenant = call.tenant(view)?;
            let name_key = name_is_free(view, &tenant.id, &cluster.name)?;
            let mut cluster = cluster.clone();
            cluster.tenant_id = tenant.id;
            let key = tenant_range("clusters", "", &cluster.id).ok_or_else(|| refuse::internal("cluster key"))?;
            let mut compares = tenant.compares;
            compares.extend([Compare::absent(&name_key), Compare::absent(&key)]);
            let stored = serde_json::to_value(&cluster).map_err(refuse::internal)?;
            let ops = vec![put_record(&key, &stored), put_record(&name_key, &json!({"cluster_id": cluster.id}))];
            call.keeping(Plan::commit(compares, ops, cluster), |cluster| Reply::created(render(cluster)))
        })
        .await;
    match entered {
        Ok(written) => Ok(Reply::created(render(&written.answer))),
        Err(refusal) => {
            // Someone else took the name meanwhile: what was made for it is unreachable and goes.
            if refusal.is_answerable() {
                quilt.drop_range(&cluster.id, call.remaining()).await;
            }
            Err(refusal)
        }
    }
}

fn name_is_free(view: &View, tenant: &str, name: &str) -> Result<quilt_proto::Key, Problem> {
    let key = tenant_range("clusternames", tenant, name)
        .ok_or_else(|| refuse::invalid("name", "name is too long", &["1 to 128 characters"], json!(clip(name))))?;
    match record(view, &key)? {
        None => Ok(key),
        Some(_) => Err(refuse::name_taken("cluster", name, "choose another name or delete the old cluster")),
    }
}

/// The transaction that takes `cluster` out of the directory.
pub(crate) fn leave_directory(cluster: &Cluster, entry: Compare) -> Result<(Vec<Compare>, Vec<Op>), Problem> {
    let keys =
        [tenant_range("clusters", "", &cluster.id), tenant_range("clusternames", &cluster.tenant_id, &cluster.name)];
    let doomed = tenant_range("doomedclusters", "", &cluster.id).ok_or_else(|| refuse::internal("cluster key"))?;
    let ops = keys.iter().flatten().map(Op::delete).chain([put_record(&doomed, &json!({"id": cluster.id}))]).collect();
    Ok((vec![entry], ops))
}

pub(crate) async fn delete(quilt: &Quilt, call: &Call<'_>, id: &str) -> Result<Reply, Problem> {
    call.write(|view| {
        let (tenant, entry) = call.tenant_cluster(view, id)?;
        if entry.cluster.id == ClusterId::built_in().as_str() {
            return Err(refuse::with(Code::BuiltIn, "the built-in cluster cannot be deleted"));
        }
        let unchanged = Compare::at(&entry.key, entry.revision);
        let (mut compares, ops) = leave_directory(&entry.cluster, unchanged)?;
        compares.extend(tenant.compares);
        Ok(Plan::commit(compares, ops, ()))
    })
    .await?;
    // Unreadable from here on, whatever happens: the directory decides. What follows frees the range and ends watches.
    quilt.drop_range(id, call.remaining()).await;
    Ok(Reply::success())
}

/// `PATCH /api/admin/clusters/{c}`.
pub(crate) async fn set(call: &Call<'_>, id: &str, body: &Map<String, Value>) -> Result<Reply, Problem> {
    call.judge(|view| call.operator(view)).await?;
    let mut fields = Fields::of(body);
    let patience = Patience::read(&mut fields);
    fields.finish()?;
    let written = call
        .write(|view| {
            let mut compares = call.operator(view)?;
            let entry = directory::find(view, id)?.ok_or_else(|| refuse::not_found("cluster"))?;
            let mut cluster = entry.cluster.clone();
            patience.apply(&mut cluster)?;
            if cluster == entry.cluster {
                return Ok(Plan::Unchanged(cluster));
            }
            compares.push(Compare::at(&entry.key, entry.revision));
            let stored = serde_json::to_value(&cluster).map_err(refuse::internal)?;
            Ok(Plan::commit(compares, vec![put_record(&entry.key, &stored)], cluster))
        })
        .await?;
    Ok(Reply::ok(render(&written.answer)))
}
