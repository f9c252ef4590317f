//! `GET .../allocation`: the node's own subnet.

use crate::problem::Problem;
use crate::quilt::call::Call;
use crate::quilt::reply::Reply;
use crate::quilt::view::node as view_of;

pub(crate) async fn get(call: &Call<'_>, cluster: &str, node: &str) -> Result<Reply, Problem> {
    call.read(|view| {
        let agent = call.agent(view, cluster, node)?;
        Ok(Reply::ok(view_of::allocation(&agent.entry.cluster, &agent.node)))
    })
    .await
}
