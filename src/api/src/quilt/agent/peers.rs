//! `GET .../peers`: the cluster's other nodes and how to reach them.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::problem::Problem;
use crate::quilt::call::Call;
use crate::quilt::reply::{Reply, etag, is_known};
use crate::quilt::view::node as view_of;
use crate::store::{NODES, Stored};

pub(crate) async fn list(call: &Call<'_>, cluster: &str, node: &str) -> Result<Reply, Problem> {
    let peers = call
        .read(|view| {
            let agent = call.agent(view, cluster, node)?;
            let mut others = NODES.list(view, cluster, |_| true)?;
            others.retain(|other| other.uid() != node && !other.is_terminating());
            others.sort_by(|one, two| one.created_at().cmp(&two.created_at()).then_with(|| one.uid().cmp(two.uid())));
            let peers: Vec<Value> = others
                .iter()
                .filter_map(|other| {
                    let allocation = view_of::allocation(&agent.entry.cluster, other);
                    Some(json!({"node_id": other.uid(), "reachable_ip": reachable(other)?, "allocation": allocation}))
                })
                .collect();
            Ok(json!({"peers": peers}))
        })
        .await?;
    let tag = etag(&peers);
    Ok(if is_known(call.headers, &tag) { Reply::not_modified(tag) } else { Reply::ok(peers).tagged(tag) })
}

/// The private address if it is IPv4, else the public one.
fn reachable(node: &Stored) -> Option<&str> {
    ["InternalIP", "ExternalIP"]
        .into_iter()
        .filter_map(|kind| view_of::address(&node.value, kind))
        .find(|address| address.parse::<Ipv4Addr>().is_ok())
}
