//! Join tokens and node tokens: the credentials of agents, looked up by digest in their cluster's own range.
//!
//! A token is only ever looked for in the cluster its path names, so one of another cluster is simply unknown. Must
//! not know routes; "no" is `None`.

use http::HeaderMap;
use quilt_proto::{Compare, Key, Revision};
use quilt_raft::{ReadError, View};
use serde_json::Value;

use super::secret::Digest;

/// Group of the control plane's own records within a cluster; never served by Kubernetes verbs.
pub const INTERNAL_GROUP: &str = "internal.quilt.sh";

/// Header of a join token.
pub const JOIN_TOKEN_HEADER: &str = "x-quilt-join-token";
/// Header of a node token.
pub const NODE_TOKEN_HEADER: &str = "x-quilt-node-token";

/// A join token as stored, still good at the time of the look.
#[derive(Clone, Debug)]
pub struct JoinToken {
    /// Where it is stored.
    pub key: Key,
    /// The version that was read; spending it compares with this.
    pub revision: Revision,
    /// Its record.
    pub record: Value,
    /// Uses left, at least 1.
    pub uses_left: u64,
    /// Cluster time at which it ends.
    pub expires_at_ms: u64,
}

/// A node token as stored.
#[derive(Clone, Debug)]
pub struct NodeToken {
    /// Id of its node.
    pub node_id: String,
    /// Kubernetes name of its node.
    pub node_name: String,
    /// The token is as it was when it was judged.
    pub compare: Compare,
}

/// Key of one of the control plane's own records in `cluster`.
#[must_use]
pub fn internal(cluster: &str, resource: &str, name: &str) -> Option<Key> {
    Key::new(cluster, INTERNAL_GROUP, resource, "", name).ok()
}

/// Whether a record may have been spent since a backup that holds it was made: it must not come back with the backup.
#[must_use]
pub fn spent_by_restore(key: &Key) -> bool {
    let parts = key.parts();
    matches!(
        (parts.group, parts.resource),
        (INTERNAL_GROUP, "jointokens") | (super::credential::TENANT_RANGE_GROUP, crate::roster::REPLICA_TOKENS)
    )
}

/// Digest of the token in `header`, if one was sent.
#[must_use]
pub fn presented(headers: &HeaderMap, header: &str) -> Option<Digest> {
    let text = headers.get(header)?.to_str().ok()?.trim();
    (!text.is_empty()).then(|| Digest::of(text))
}

/// The join token with `digest` in `cluster`, unless it is unknown, spent or, at cluster time `now_ms`, expired.
///
/// # Errors
/// Whatever keeps the view from answering.
pub fn join_token(view: &View, cluster: &str, digest: &Digest, now_ms: u64) -> Result<Option<JoinToken>, ReadError> {
    let Some(key) = internal(cluster, "jointokens", digest.as_str()) else { return Ok(None) };
    let Some(stored) = view.get(&key)? else { return Ok(None) };
    let record: Value = serde_json::from_slice(&stored.value).unwrap_or_default();
    let uses_left = record["uses_left"].as_u64().unwrap_or(0);
    let expires_at_ms = record["expires_at_ms"].as_u64().unwrap_or(0);
    if uses_left == 0 || expires_at_ms <= now_ms {
        return Ok(None);
    }
    Ok(Some(JoinToken { revision: Revision::new(stored.mod_revision), key, record, uses_left, expires_at_ms }))
}

/// The node token with `digest` in `cluster`.
///
/// # Errors
/// Whatever keeps the view from answering.
pub fn node_token(view: &View, cluster: &str, digest: &Digest) -> Result<Option<NodeToken>, ReadError> {
    let Some(key) = internal(cluster, "nodetokens", digest.as_str()) else { return Ok(None) };
    let Some(stored) = view.get(&key)? else { return Ok(None) };
    let record: Value = serde_json::from_slice(&stored.value).unwrap_or_default();
    let (Some(node_id), Some(node_name)) = (record["node_id"].as_str(), record["node_name"].as_str()) else {
        return Ok(None);
    };
    let compare = Compare::at(&key, Revision::new(stored.mod_revision));
    Ok(Some(NodeToken { node_id: node_id.into(), node_name: node_name.into(), compare }))
}
