//! The cluster directory: cluster id → its record in the tenant range, for both surfaces.
//!
//! A foreign cluster and one that does not exist are the same answer here already, so no caller can tell them apart.
//! Must not know routes, nodes or workloads.

use quilt_proto::{Compare, Key, Revision};
use quilt_raft::{ReadError, View};
use serde::{Deserialize, Serialize};

use crate::authn::credential::tenant_range;

/// One Quilt cluster, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its id: a UUID, or `default`.
    pub id: String,
    /// The tenant it belongs to.
    pub tenant_id: String,
    /// Unique within the tenant.
    pub name: String,
    /// Where node subnets are taken from.
    pub pod_cidr: String,
    /// Length of a node's subnet.
    pub node_cidr_prefix: u8,
    /// Silence that makes a node `not_ready`.
    pub node_timeout_secs: u32,
    /// Further time until placements leave it.
    pub placement_grace_secs: u32,
    /// Where Service addresses are taken from.
    pub service_cidr: String,
    /// Where load balancer addresses are taken from.
    pub load_balancer_cidr: String,
    /// Unix seconds.
    pub created_at: u64,
}

/// Service range of every cluster unless configured.
pub const SERVICE_CIDR: &str = "10.96.0.0/12";
/// Load balancer pool of every cluster unless configured.
pub const LOAD_BALANCER_CIDR: &str = "203.0.113.0/24";
/// Node subnet length unless asked for.
pub const NODE_CIDR_PREFIX: u8 = 24;
/// Node timeout unless asked for.
pub const NODE_TIMEOUT_SECS: u32 = 40;
/// Placement grace unless asked for.
pub const PLACEMENT_GRACE_SECS: u32 = 30;

/// A cluster with the version that was read.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The record.
    pub cluster: Cluster,
    /// Where it is stored.
    pub key: Key,
    /// Its version.
    pub revision: Revision,
}

impl Entry {
    /// The cluster still exists.
    #[must_use]
    pub fn exists(&self) -> Compare {
        Compare::exists(&self.key)
    }
}

/// The cluster `id`.
///
/// # Errors
/// Whatever keeps the view from answering.
pub fn find(view: &View, id: &str) -> Result<Option<Entry>, ReadError> {
    let Some(key) = tenant_range("clusters", "", id) else { return Ok(None) };
    let Some(record) = view.get(&key)? else { return Ok(None) };
    let cluster = serde_json::from_slice(&record.value)
        .map_err(|error| ReadError::Storage(format!("{key:?} is not a cluster: {error}")))?;
    Ok(Some(Entry { cluster, revision: Revision::new(record.mod_revision), key }))
}

/// The cluster `id` if it belongs to `tenant`.
///
/// # Errors
/// As [`find`].
pub fn find_owned(view: &View, id: &str, tenant: &str) -> Result<Option<Entry>, ReadError> {
    Ok(find(view, id)?.filter(|entry| entry.cluster.tenant_id == tenant))
}
