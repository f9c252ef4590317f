//! `/api/clusters/{c}/capabilities`: what this server can do.

use serde_json::{Map, Value, json};

use super::call::Call;
use super::reply::Reply;
use crate::problem::Problem;

/// Each capability and whether it is compiled in.
const CAPABILITIES: [(&str, bool); 15] = [
    ("workloads", true),
    ("placements", true),
    ("drain", true),
    ("reconcile", true),
    ("join_tokens", true),
    ("peers", true),
    ("k8s_validate", false),
    ("k8s_diff", false),
    ("k8s_apply", false),
    ("k8s_export", false),
    ("k8s_prune", false),
    ("kubernetes_api", true),
    ("gpu_scheduling", true),
    ("idempotency_keys", true),
    ("stale_reads", true),
];

/// The Kubernetes version the other surface claims.
const KUBERNETES_VERSION: &str = "1.36";

pub(crate) async fn get(call: &Call<'_>, version: &str, cluster: &str) -> Result<Reply, Problem> {
    call.read(|view| {
        let (_, entry) = call.tenant_cluster(view, cluster)?;
        let capabilities: Map<String, Value> =
            CAPABILITIES.iter().map(|(name, present)| ((*name).to_owned(), json!(present))).collect();
        Ok(Reply::ok(json!({
            "cluster_id": entry.cluster.id,
            "capabilities": capabilities,
            "metadata": {"version": version, "kubernetes_version": KUBERNETES_VERSION, "kubernetes_path": format!("/clusters/{}", entry.cluster.id)},
        })))
    })
    .await
}
