//! `/api/clusters/{c}/nodes`: a tenant's view of nodes, their deletion and draining.

use std::collections::BTreeMap;

use quilt_proto::{Op, Txn};
use quilt_raft::View;
use serde_json::{Value, json};

use super::beats::last_heartbeats;
use super::call::{Call, Step};
use super::envelope::{Failure, Problem};
use super::node_report::drain as mark_draining;
use super::release::release;
use super::reply::Reply;
use super::view::node as view_of;
use crate::store::{NODES, Stored, rfc3339, unix_seconds};

/// The node `id` of `cluster`.
fn find(view: &View, cluster: &str, id: &str) -> Result<Stored, Problem> {
    NODES.by_uid(view, cluster, id)?.filter(is_live).ok_or_else(|| Problem::not_found("node"))
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
        if let Ok(heard) = last_heartbeats(call.replica, cluster, &names, call.remaining()).await {
            for (node, at) in heard {
                let best = last.entry(node).or_default();
                *best = (*best).max(at);
            }
        }
    }
    last
}

pub(crate) async fn list(call: &Call<'_>, cluster: &str) -> Result<Reply, Failure> {
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

pub(crate) async fn get(call: &Call<'_>, cluster: &str, id: &str) -> Result<Reply, Failure> {
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

/// The transaction that removes `node` with its token, name and subnet.
pub(crate) fn removal(view: &View, cluster: &str, node: &Stored) -> Result<Txn, Problem> {
    let (mut compares, mut ops) = release(view, cluster, &node.value)?;
    compares.push(node.unchanged());
    ops.push(Op::delete(&node.key));
    Ok(Txn::new(compares, ops))
}

pub(crate) async fn delete(call: &Call<'_>, cluster: &str, id: &str) -> Result<Reply, Failure> {
    call.write(|view| {
        let (tenant, entry) = call.tenant_cluster(view, cluster)?;
        let node = find(view, &entry.cluster.id, id)?;
        let mut txn = removal(view, &entry.cluster.id, &node)?;
        txn.compares.extend(tenant.compares);
        Ok(Step::Commit(txn, ()))
    })
    .await?;
    Ok(Reply::success())
}

pub(crate) async fn drain(call: &Call<'_>, cluster: &str, id: &str) -> Result<Reply, Failure> {
    let now = rfc3339(call.replica.wall_ms());
    call.write(|view| {
        let (tenant, entry) = call.tenant_cluster(view, cluster)?;
        let mut node = find(view, &entry.cluster.id, id)?;
        if view_of::is_draining(&node.value) {
            return Ok(Step::Done(()));
        }
        mark_draining(&mut node.value, &now);
        let mut compares = tenant.compares;
        compares.push(node.unchanged());
        Ok(Step::Commit(Txn::new(compares, vec![node.put()]), ()))
    })
    .await?;
    Ok(Reply::success())
}
