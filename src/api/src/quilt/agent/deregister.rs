//! `POST .../deregister`: the node leaves, as by a tenant's DELETE.

use crate::problem::Problem;
use crate::quilt::call::Call;
use crate::quilt::nodes::removal;
use crate::quilt::reply::Reply;

pub(crate) async fn deregister(call: &Call<'_>, cluster: &str, node: &str) -> Result<Reply, Problem> {
    call.write(|view| {
        let agent = call.agent(view, cluster, node)?;
        call.keeping(removal(call, view, agent.admitted(), &agent.node)?, |()| Reply::success())
    })
    .await?;
    Ok(Reply::success())
}
