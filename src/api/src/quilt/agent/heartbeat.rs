//! `POST .../heartbeat`: a node is alive.
//!
//! An unchanged heartbeat is no write: the leader's memory learns of it and that is all. One that changes the Node, or
//! is its first, is replicated before it is answered. The cost depends on this node alone.

use quilt_proto::Txn;
use quilt_raft::AskError;
use serde_json::{Map, Value};

use crate::quilt::Quilt;
use crate::quilt::call::{Call, Step};
use crate::quilt::envelope::{Failure, Problem};
use crate::quilt::fields::Fields;
use crate::quilt::node_report::{NodeReport, ReportedState};
use crate::quilt::reply::Reply;
use crate::store::rfc3339;

pub(crate) async fn heartbeat(
    quilt: &Quilt,
    call: &Call<'_>,
    cluster: &str,
    node: &str,
    body: &Map<String, Value>,
) -> Result<Reply, Failure> {
    call.judge(|view| call.agent(view, cluster, node).map(|_| ())).await?;
    let mut fields = Fields::of(body);
    let state = fields.required_string("state");
    let report = NodeReport::read(&mut fields)?;
    fields.finish()?;
    let state = ReportedState::parse(&state)?;
    report.check()?;

    let now = rfc3339(call.replica.wall_ms());
    let plan = |view: &quilt_raft::View| {
        let agent = call.agent(view, cluster, node)?;
        let mut changed = agent.node.clone();
        report.apply(&mut changed.value);
        state.apply(&mut changed.value, &now);
        if changed.value == agent.node.value {
            return Ok(Step::Done(agent.node.name().to_owned()));
        }
        let compares = vec![agent.token.compare, agent.entry.exists(), agent.node.unchanged()];
        Ok(Step::Commit(Txn::new(compares, vec![changed.put()]), agent.node.name().to_owned()))
    };
    // Nothing to write is a claim about the state like a refusal: it is judged on a linearizable view, so that a token
    // revoked on one replica is refused on every other at once. Such looks are batched.
    let name = call.write(plan).await?.value;
    match quilt.beats.beat(call.replica, cluster, &name, call.remaining()).await {
        Ok(()) => Ok(Reply::success()),
        Err(AskError::NoLeader | AskError::Stopped) => Err(Problem::no_leader().into()),
        Err(other) => Err(Problem::internal(other).into()),
    }
}
