//! Ending a node: everything that must go in the one transaction that removes its Node object.
//!
//! Token, exact name and subnet live as the control plane's own records beside the Node. Whoever deletes a Node, by
//! Quilt or by Kubernetes, adds these operations, so that all of it is free at the same moment.

use quilt_proto::{Compare, Op};
use quilt_raft::{ReadError, View};
use serde_json::{Value, json};

use super::marks;
use crate::authn::token::internal;
use crate::store::{record, text};

/// What a node holds besides its Node object.
pub(crate) fn holdings(token: &str, node: &str, node_id: &str, subnet: &str) -> Value {
    json!({"node": node, "node_id": node_id, "token": token, "subnet": subnet})
}

/// Name of the record of the subnet at `index`: padded, so that the lowest free one is the first gap.
pub(crate) fn subnet_name(index: u64) -> String {
    format!("{index:08}")
}

/// Preconditions and operations that free the token, the name and the subnet of the Node `node` of `cluster`.
/// Nothing for a node that no agent registered.
///
/// # Errors
/// Whatever keeps the view from answering.
pub fn release(view: &View, cluster: &str, node: &Value) -> Result<(Vec<Compare>, Vec<Op>), ReadError> {
    let nothing = Ok((Vec::new(), Vec::new()));
    let annotations = &node["metadata"]["annotations"];
    let Some(name) = annotations[marks::NAME].as_str() else { return nothing };
    let Some(key) = internal(cluster, "nodenames", name) else { return nothing };
    let Some((held, revision)) = record(view, &key)? else { return nothing };
    if held["node_id"] != node["metadata"]["uid"] {
        return nothing;
    }
    let also = [("nodetokens", text(&held, "/token")), ("subnets", text(&held, "/subnet"))]
        .into_iter()
        .filter(|(_, name)| !name.is_empty())
        .filter_map(|(resource, name)| internal(cluster, resource, name));
    let ops = std::iter::once(Op::delete(&key)).chain(also.map(|key| Op::delete(&key))).collect();
    Ok((vec![Compare::at(&key, revision)], ops))
}
