//! `/api/clusters/{c}/placements`: every placement of a cluster.

use serde_json::json;

use super::call::Call;
use super::projection::Projection;
use super::reply::Reply;
use crate::problem::Problem;

pub(crate) async fn list(call: &Call<'_>, cluster: &str) -> Result<Reply, Problem> {
    call.read(|view| {
        let (_, entry) = call.tenant_cluster(view, cluster)?;
        let placements = Projection::of(view, &entry.cluster.id)?.placements(cluster);
        Ok(Reply::ok(json!({"placements": placements})))
    })
    .await
}
