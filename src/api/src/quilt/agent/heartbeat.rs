//! `POST .../heartbeat`: a node is alive.
//!
//! An unchanged heartbeat is no write: the leader's memory learns of it and that is all. One that changes the Node, or
//! is its first, is replicated before it is answered. The cost depends on this node alone.

use quilt_raft::View;
use serde_json::{Map, Value};

use crate::admission::Part;
use crate::commit::Plan;
use crate::problem::Problem;
use crate::quilt::Quilt;
use crate::quilt::call::Call;
use crate::quilt::fields::Fields;
use crate::quilt::node_report::{NodeReport, ReportedState};
use crate::quilt::objects::Target;
use crate::quilt::refuse;
use crate::quilt::reply::Reply;
use crate::store::{NODES, rfc3339};

pub(crate) async fn heartbeat(
    quilt: &Quilt,
    call: &Call<'_>,
    cluster: &str,
    node: &str,
    body: &Map<String, Value>,
) -> Result<Reply, Problem> {
    call.judge(|view| call.agent(view, cluster, node).map(|_| ())).await?;
    let mut fields = Fields::of(body);
    let state = fields.required_string("state");
    let report = NodeReport::read(&mut fields)?;
    fields.finish()?;
    let state = ReportedState::parse(&state)?;
    report.check()?;

    let now = rfc3339(call.replica().wall_ms());
    let change = |node: &mut Value| {
        report.apply(node);
        state.apply(node, &now);
        Ok(())
    };
    let plan = |view: &View| {
        let agent = call.agent(view, cluster, node)?;
        let name = agent.node.name().to_owned();
        let mut changed = agent.node.value.clone();
        change(&mut changed)?;
        if changed == agent.node.value {
            return Ok(Plan::Unchanged(name));
        }
        let target = Target::new(call, agent.admitted(), NODES.kind(), "", &name);
        call.keeping(target.update(view, Part::Whole, change)?.map(|_| name), |_| Reply::success())
    };
    // Nothing to write is a claim about the state like a refusal: it is judged on a linearizable view, so that a token
    // revoked on one replica is refused on every other at once. Such looks are batched.
    let written = call.write(plan).await?;
    match quilt.beats.beat(call.replica(), cluster, &written.answer, call.remaining()).await {
        Ok(()) => Ok(Reply::success()),
        // What was reported is stored; a leader that was not told counts the node's silence from its own election.
        Err(_) if written.first.is_some() => Ok(Reply::success()),
        Err(error) => Err(refuse::not_done(error)),
    }
}
