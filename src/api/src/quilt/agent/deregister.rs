//! `POST .../deregister`: the node leaves, as by a tenant's DELETE.

use crate::quilt::call::{Call, Step};
use crate::quilt::envelope::Failure;
use crate::quilt::nodes::removal;
use crate::quilt::reply::Reply;

pub(crate) async fn deregister(call: &Call<'_>, cluster: &str, node: &str) -> Result<Reply, Failure> {
    call.write(|view| {
        let agent = call.agent(view, cluster, node)?;
        let mut txn = removal(view, cluster, &agent.node)?;
        txn.compares.push(agent.token.compare);
        Ok(Step::Commit(txn, ()))
    })
    .await?;
    Ok(Reply::success())
}
