//! `/api/clusters/{c}/nodes`: a tenant's view of nodes, their deletion and draining.

use std::collections::BTreeMap;

use quilt_raft::View;
use serde_json::{Value, json};

use super::beats::last_heartbeats;
use super::call::Call;
use super::node_report::drain as mark_draining;
use super::objects::Target;
use super::refuse;
use super::reply::Reply;
use super::view::node as view_of;
use crate::access::Admitted;
use crate::admission::Part;
use crate::commit::Plan;
use crate::problem::Problem;
use crate::store::{NODES, Stored, rfc3339, unix_seconds};
use crate::verbs::delete::DeleteOptions;

/// The node `id` of `cluster`.
fn find(view: &View, cluster: &str, id: &str) -> Result<Stored, Problem> {
    NODES.by_uid(view, cluster, id)?.filter(is_live).ok_or_else(|| refuse::not_found("node"))
}

/// A kubelet's node that is being deleted is not read any more.
fn is_live(node: &Stored) -> bool {
    !node.is_terminating()
}

/// The last heartbeats of `nodes`, from the leader's memory; without a leader, as last replicated.
async fn heartbeats(call: &Call<'_>, cluster: &str, nodes: &[Stored]) -> BTreeMap<String, u64> {
    let replicated = nodes.iter().filter_map(|node| {
        let ready = view_of::ready_condition(&node.value)?;
        Some((node.name().to_owned(), unix_seconds(ready["lastHeartbeatTime"].as_str()?)))
    });
    let mut last: BTreeMap<String, u64> = replicated.collect();
    if !call.stale {
        let names: Vec<String> = nodes.iter().map(|node| node.name().to_owned()).collect();
        if let Ok(heard) = last_heartbeats(call.replica(), cluster, &names, call.remaining()).await {
            for (node, at) in heard {
                let best = last.entry(node).or_default();
                *best = (*best).max(at);
            }
        }
    }
    last
}

pub(crate) async fn list(call: &Call<'_>, cluster: &str) -> Result<Reply, Problem> {
    let mut nodes = call
        .read(|view| {
            let (_, entry) = call.tenant_cluster(view, cluster)?;
            Ok(NODES.list(view, &entry.cluster.id, |_| true)?)
        })
        .await?;
    nodes.retain(is_live);
    nodes.sort_by(|one, two| one.created_at().cmp(&two.created_at()).then_with(|| one.uid().cmp(two.uid())));
    let last = heartbeats(call, cluster, &nodes).await;
    let shown: Vec<Value> =
        nodes.iter().map(|node| view_of::render(cluster, node, last.get(node.name()).copied())).collect();
    Ok(Reply::ok(json!({"nodes": shown})))
}

pub(crate) async fn get(call: &Call<'_>, cluster: &str, id: &str) -> Result<Reply, Problem> {
    let (entry, node) = call
        .read(|view| {
            let (_, entry) = call.tenant_cluster(view, cluster)?;
            let node = find(view, &entry.cluster.id, id)?;
            Ok((entry, node))
        })
        .await?;
    let last = heartbeats(call, cluster, std::slice::from_ref(&node)).await;
    Ok(Reply::ok(json!({
        "node": view_of::render(cluster, &node, last.get(node.name()).copied()),
        "allocation": view_of::allocation(&entry.cluster, &node),
    })))
}

pub(crate) async fn delete(call: &Call<'_>, cluster: &str, id: &str) -> Result<Reply, Problem> {
    call.write(|view| {
        let (tenant, entry) = call.tenant_cluster(view, cluster)?;
        let node = find(view, &entry.cluster.id, id)?;
        removal(call, view, tenant.admitted(entry), &node)
    })
    .await?;
    Ok(Reply::success())
}

/// The removal of `node` with its token, name and subnet, by whoever was admitted.
pub(crate) fn removal(call: &Call<'_>, view: &View, admitted: Admitted, node: &Stored) -> Result<Plan<()>, Problem> {
    Target::new(call, admitted, NODES.kind(), "", node.name()).delete(view, &DeleteOptions::background(node.uid()))
}

pub(crate) async fn drain(call: &Call<'_>, cluster: &str, id: &str) -> Result<Reply, Problem> {
    let now = rfc3339(call.replica().wall_ms());
    call.write(|view| {
        let (tenant, entry) = call.tenant_cluster(view, cluster)?;
        let node = find(view, &entry.cluster.id, id)?;
        let target = Target::new(call, tenant.admitted(entry), NODES.kind(), "", node.name());
        let drained = |node: &mut Value| {
            mark_draining(node, &now);
            Ok(())
        };
        call.keeping(target.update(view, Part::Main, drained)?.map(drop), |()| Reply::success())
    })
    .await?;
    Ok(Reply::success())
}
