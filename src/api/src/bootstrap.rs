//! First objects: what a new cluster's API is born with, and what a new control plane is.
//!
//! Everything here may run again at any time and on any replica: what exists is left alone. Must not know routes.

use std::time::Duration;

use quilt_objects::first;
use quilt_proto::{ClusterId, Compare, Key, Op};
use quilt_raft::{Consistency, ProposeError, ReadError, Replica, View};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::authn::Digest;
use crate::authn::credential::{admin_key_record, api_key_record, tenant_range};
use crate::authn::secret::fresh_id;
use crate::authn::token::internal;
use crate::commit::{Plan, Refusal, settle};
use crate::directory::{
    Cluster, LOAD_BALANCER_CIDR, NODE_CIDR_PREFIX, NODE_TIMEOUT_SECS, PLACEMENT_GRACE_SECS, SERVICE_CIDR,
};
use crate::query::DryRun;
use crate::store::{CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS, SERVICES, put, put_record, rfc3339};

/// Namespaces every cluster has.
pub const NAMESPACE_NAMES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// Id and name of the built-in tenant.
const DEFAULT_TENANT: &str = "default";

/// Why first objects could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// State could not be read.
    #[error("reading what exists already")]
    Read(#[from] ReadError),
    /// The objects could not be written.
    #[error("writing the first objects: {0:?}")]
    Propose(ProposeError),
    /// Somebody else kept writing the same objects.
    #[error("the first objects were not made before the deadline")]
    Deadline,
    /// The options do not make a cluster.
    #[error("pod CIDR '{0}' is not an IPv4 network with a prefix of 8 to 24")]
    PodCidr(String),
}

impl From<ProposeError> for BootstrapError {
    fn from(error: ProposeError) -> Self {
        Self::Propose(error)
    }
}

impl Refusal for BootstrapError {}

impl From<BootstrapError> for crate::problem::Problem {
    fn from(error: BootstrapError) -> Self {
        match error {
            BootstrapError::Read(error) => error.into(),
            BootstrapError::Propose(error) => error.into(),
            BootstrapError::Deadline => {
                Self::unavailable("the first objects were not made in time; send the request again")
            }
            BootstrapError::PodCidr(_) => Self::internal(&error.to_string()),
        }
    }
}

/// What the first start of a control plane is told. Only digests: the plain keys stay with whoever drew them.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// The first admin key.
    pub admin_key: Digest,
    /// An API key of tenant `default`, if one is wanted.
    pub tenant_key: Option<Digest>,
    /// Pod CIDR of the built-in cluster.
    pub pod_cidr: String,
    /// PEM of the CA of the serving certificates.
    pub serving_ca_pem: String,
}

/// Makes tenant `default`, cluster `default` with its objects, and the first keys.
///
/// # Errors
/// [`BootstrapError`]; calling again goes on where it stopped.
pub async fn control_plane(replica: &Replica, first: &ControlPlane, deadline: Duration) -> Result<(), BootstrapError> {
    let block = crate::quilt::Ipv4Block::parse(&first.pod_cidr);
    let fits = block.as_ref().is_ok_and(|block| (8..=NODE_CIDR_PREFIX).contains(&block.prefix()));
    if !fits {
        return Err(BootstrapError::PodCidr(first.pod_cidr.clone()));
    }
    let created_at = replica.wall_ms() / 1000;
    let id = ClusterId::built_in().0;
    let cluster = Cluster {
        id: id.clone(),
        tenant_id: DEFAULT_TENANT.into(),
        name: id.clone(),
        pod_cidr: first.pod_cidr.clone(),
        node_cidr_prefix: NODE_CIDR_PREFIX,
        node_timeout_secs: NODE_TIMEOUT_SECS,
        placement_grace_secs: PLACEMENT_GRACE_SECS,
        service_cidr: SERVICE_CIDR.into(),
        load_balancer_cidr: LOAD_BALANCER_CIDR.into(),
        created_at,
    };
    let until = Instant::now() + deadline;
    cluster_objects(replica, &cluster, &first.serving_ca_pem, deadline).await?;
    let tenant = json!({"id": DEFAULT_TENANT, "name": DEFAULT_TENANT, "disabled": false, "token_epoch": 0, "created_at": created_at});
    let tenant_key = first.tenant_key.as_ref().map(|digest| {
        (tenant_range("credentials", "", digest.as_str()), api_key_record(DEFAULT_TENANT, &fresh_id(), created_at))
    });
    let records = [
        (tenant_range("tenants", "", DEFAULT_TENANT), tenant),
        (tenant_range("tenantnames", "", DEFAULT_TENANT), json!({"tenant_id": DEFAULT_TENANT})),
        (tenant_range("clusters", "", &id), json!(cluster)),
        (tenant_range("clusternames", DEFAULT_TENANT, &id), json!({"cluster_id": id})),
        (tenant_range("credentials", "", first.admin_key.as_str()), admin_key_record(&fresh_id(), created_at)),
    ];
    let wanted: Vec<Wanted> = records
        .into_iter()
        .chain(tenant_key)
        .filter_map(|(key, record)| key.map(|key| Wanted { op: put_record(&key, &record), key, with: Vec::new() }))
        .collect();
    ensure(replica, &wanted, until).await
}

/// Makes the objects a new cluster is born with, in the cluster's own range.
///
/// # Errors
/// [`BootstrapError`]; calling again goes on where it stopped.
pub async fn cluster_objects(
    replica: &Replica,
    cluster: &Cluster,
    serving_ca_pem: &str,
    deadline: Duration,
) -> Result<(), BootstrapError> {
    let now = rfc3339(replica.wall_ms());
    let mut wanted = Vec::new();
    let mut want = |key: Option<Key>, value: &Value, with: Vec<(Key, Value)>| {
        if let Some(key) = key {
            let op = put(&key, value);
            wanted.push(Wanted { key, op, with });
        }
    };
    let metadata = |name: &str, namespace: Option<&str>| {
        let mut metadata = json!({"name": name, "uid": fresh_id(), "creationTimestamp": now});
        if let Some(namespace) = namespace {
            metadata["namespace"] = json!(namespace);
        }
        metadata
    };
    for namespace in NAMESPACE_NAMES {
        let mut own = metadata(namespace, None);
        own["labels"] = json!({"kubernetes.io/metadata.name": namespace});
        let object = json!({"metadata": own, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        want(NAMESPACES.key(&cluster.id, "", namespace), &object, Vec::new());
        let account = first::service_account(&metadata(first::SERVICE_ACCOUNT, Some(namespace)));
        want(SERVICE_ACCOUNTS.key(&cluster.id, namespace, first::SERVICE_ACCOUNT), &account, Vec::new());
        if !serving_ca_pem.is_empty() {
            let map = first::root_ca(&metadata(first::ROOT_CA, Some(namespace)), &json!({"ca.crt": serving_ca_pem}));
            want(CONFIG_MAPS.key(&cluster.id, namespace, first::ROOT_CA), &map, Vec::new());
        }
    }
    if let Some(address) = first::api_address(&cluster.service_cidr) {
        let (namespace, name) = first::API_SERVICE;
        let service = first::api_service(metadata(name, Some(namespace)), address);
        let taken = internal(&cluster.id, "serviceips", &address.to_string())
            .map(|key| (key, json!({"namespace": namespace, "name": name})));
        want(SERVICES.key(&cluster.id, namespace, name), &service, taken.into_iter().collect());
    }
    let view = replica.read(Consistency::Linearizable, deadline).await?;
    for (shelf, name, mut object) in crate::endpoints::documents(&view)? {
        let labels = object["metadata"]["labels"].take();
        object["metadata"] = metadata(&name, Some("default"));
        object["metadata"]["labels"] = labels;
        want(shelf.key(&cluster.id, "default", &name), &object, Vec::new());
    }
    ensure(replica, &wanted, Instant::now() + deadline).await
}

/// An object that has to exist, and the records that are made together with it.
struct Wanted {
    key: Key,
    op: Op,
    with: Vec<(Key, Value)>,
}

/// Makes whatever of `wanted` does not exist yet, in one transaction.
async fn ensure(replica: &Replica, wanted: &[Wanted], until: Instant) -> Result<(), BootstrapError> {
    let plan = |view: &View| missing(view, wanted);
    settle(replica, until, DryRun::Off, plan, || BootstrapError::Deadline).await.map(drop)
}

fn missing(view: &View, wanted: &[Wanted]) -> Result<Plan<()>, BootstrapError> {
    let (mut compares, mut ops) = (Vec::new(), Vec::new());
    for Wanted { key, op, with } in wanted {
        if view.get(key)?.is_some() {
            continue;
        }
        compares.push(Compare::absent(key));
        ops.push(op.clone());
        for (key, record) in with {
            if view.get(key)?.is_none() {
                compares.push(Compare::absent(key));
                ops.push(put_record(key, record));
            }
        }
    }
    Ok(if ops.is_empty() { Plan::Unchanged(()) } else { Plan::commit(compares, ops, ()) })
}
