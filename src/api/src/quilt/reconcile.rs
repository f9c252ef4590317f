//! `/api/clusters/{c}/reconcile`: a forced run of the cluster's controllers and scheduler, where they run.

use serde_json::json;

use super::asking::ask;
use super::call::Call;
use super::refuse;
use super::reply::Reply;
use crate::problem::Problem;

/// The leader's service.
const SERVICE: &str = "reconcile";

pub(crate) async fn run(call: &Call<'_>, cluster: &str) -> Result<Reply, Problem> {
    call.read(|view| call.tenant_cluster(view, cluster).map(|_| ())).await?;
    let request = json!({"cluster": cluster}).to_string();
    match ask(call.replica(), SERVICE, request.into(), call.remaining()).await {
        Ok(_) => Ok(Reply::success()),
        Err(error) => Err(refuse::not_done(error)),
    }
}
