//! `POST .../placements/{p}/report`: what became of a placement on its node.

use quilt_raft::View;
use serde_json::{Map, Value, json};

use super::placements::{Entry, entries};
use crate::admission::Part;
use crate::problem::Problem;
use crate::quilt::call::{Agent, Call};
use crate::quilt::fields::{Fields, clip};
use crate::quilt::objects::Target;
use crate::quilt::refuse;
use crate::quilt::reply::Reply;
use crate::quilt::view::placement::{PlacementState, Report};
use crate::store::{PODS, Stored, rfc3339};
use crate::verbs::delete::DeleteOptions;

/// Longest message or container id that is kept.
const TEXT_BYTES_MAX: usize = 32 << 10;

pub(crate) async fn report(
    call: &Call<'_>,
    cluster: &str,
    node: &str,
    placement: &str,
    body: &Map<String, Value>,
) -> Result<Reply, Problem> {
    call.judge(|view| call.agent(view, cluster, node).map(|_| ())).await?;
    let mut fields = Fields::of(body);
    let word = fields.required_string("state");
    let container_id = fields.string("container_id");
    let message = fields.string("message");
    let pod_status = fields.object("pod_status");
    fields.string_map("usage");
    fields.finish()?;

    let now = rfc3339(call.replica().wall_ms());
    let entry = |view: &View, agent: &Agent| {
        let mine = entries(view, cluster, &agent.node)?;
        mine.into_iter().find(|entry| entry.id() == placement).ok_or_else(|| refuse::not_found("placement"))
    };
    let target =
        |agent: &Agent, pod: &Stored| Target::new(call, agent.admitted(), PODS.kind(), pod.namespace(), pod.name());
    let written = call
        .write(|view| {
            let agent = call.agent(view, cluster, node)?;
            let Entry { pod, terminating, .. } = entry(view, &agent)?;
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
                    let message = format!("{field} must have {range}");
                    return Err(refuse::invalid(field, message, &[&range], json!(clip(text))));
                }
            }
            let ends = terminating && report.state.is_end();
            if ends && !pod.has_finalizers() {
                // The end of the Pod, and of nothing else: its slot has another one already, or none.
                let plan = target(&agent, &pod).delete(view, &DeleteOptions::ended(pod.uid()))?;
                return call.keeping(plan.map(|()| Held::No), |_| Reply::success());
            }
            let apply = |pod: &mut Value| {
                report.apply(pod, &now);
                Ok(())
            };
            let plan = target(&agent, &pod).update(view, Part::Status, apply)?;
            let plan = plan.map(|_| if ends { Held::ByFinalizers } else { Held::No });
            call.keeping(plan, |_| Reply::success())
        })
        .await?;
    if written.answer == Held::ByFinalizers {
        // How it ended is kept for whoever holds it; it goes with the last finalizer.
        call.write_plain(|view| {
            let agent = call.agent(view, cluster, node)?;
            let Entry { pod, .. } = entry(view, &agent)?;
            target(&agent, &pod).delete(view, &DeleteOptions::ended(pod.uid()))
        })
        .await?;
    }
    Ok(Reply::success())
}

/// Whether an ended Pod stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    No,
    ByFinalizers,
}
