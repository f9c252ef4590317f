//! `POST .../placements/{p}/report`: what became of a placement on its node.

use quilt_proto::{Op, Txn};
use serde_json::{Map, Value, json};

use super::placements::{Entry, entries};
use crate::quilt::call::{Call, Step};
use crate::quilt::envelope::{Failure, Problem};
use crate::quilt::fields::{Fields, clip};
use crate::quilt::reply::Reply;
use crate::quilt::view::placement::{PlacementState, Report};
use crate::store::rfc3339;

/// Longest message or container id that is kept.
const TEXT_BYTES_MAX: usize = 32 << 10;

pub(crate) async fn report(
    call: &Call<'_>,
    cluster: &str,
    node: &str,
    placement: &str,
    body: &Map<String, Value>,
) -> Result<Reply, Failure> {
    call.judge(|view| call.agent(view, cluster, node).map(|_| ())).await?;
    let mut fields = Fields::of(body);
    let word = fields.required_string("state");
    let container_id = fields.string("container_id");
    let message = fields.string("message");
    let pod_status = fields.object("pod_status");
    fields.string_map("usage");
    fields.finish()?;

    let now = rfc3339(call.replica.wall_ms());
    call.write(|view| {
        let agent = call.agent(view, cluster, node)?;
        let mine = entries(view, cluster, &agent.node)?;
        let entry = mine.into_iter().find(|entry| entry.id() == placement);
        let Some(Entry { mut pod, terminating, .. }) = entry else { return Err(Problem::not_found("placement")) };
        let report = Report {
            state: PlacementState::parse(&word)?,
            container_id: container_id.as_deref(),
            message: message.as_deref(),
            pod_status,
        };
        report.check()?;
        for (field, text) in [("container_id", &container_id), ("message", &message)] {
            if let Some(text) = text.as_ref().filter(|text| text.len() > TEXT_BYTES_MAX) {
                let range = format!("at most {TEXT_BYTES_MAX} bytes");
                return Err(Problem::invalid(
                    field,
                    format!("{field} must have {range}"),
                    &[&range],
                    json!(clip(text)),
                ));
            }
        }
        let compares = vec![agent.token.compare, agent.entry.exists(), pod.unchanged()];
        if terminating && report.state.is_end() && !pod.has_finalizers() {
            // The end of the Pod, and of nothing else: its slot has another one already, or none.
            return Ok(Step::Commit(Txn::new(compares, vec![Op::delete(&pod.key)]), ()));
        }
        let before = pod.value.clone();
        report.apply(&mut pod.value, &now);
        if pod.value == before {
            return Ok(Step::Done(()));
        }
        Ok(Step::Commit(Txn::new(compares, vec![pod.put()]), ()))
    })
    .await?;
    Ok(Reply::success())
}
