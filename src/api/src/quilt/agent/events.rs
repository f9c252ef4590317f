//! `POST .../events`: what an agent tells people about the Pods of its node. It goes to the leader's memory, from where it
//! is written behind everything of more weight. Must not know how Events are kept.

use quilt_objects::event::Notice;
use serde_json::{Map, Value, json};

use crate::problem::Problem;
use crate::quilt::asking::ask;
use crate::quilt::call::Call;
use crate::quilt::fields::{Fields, clip, type_name};
use crate::quilt::refuse;
use crate::quilt::reply::Reply;
use crate::store::{NAMESPACES, PODS};

/// The leader's service.
const SERVICE: &str = "events";
/// Most Events of one request.
const EVENTS_MAX: usize = 100;
/// What each of them says.
const FIELDS: [&str; 6] = ["namespace", "name", "uid", "type", "reason", "message"];

pub(crate) async fn tell(
    call: &Call<'_>,
    cluster: &str,
    node: &str,
    body: &Map<String, Value>,
) -> Result<Reply, Problem> {
    call.judge(|view| call.agent(view, cluster, node).map(|_| ())).await?;
    let told = events(body)?;
    if told.len() > EVENTS_MAX {
        let range = format!("at most {EVENTS_MAX} events");
        return Err(refuse::invalid("events", format!("events must have {range}"), &[&range], json!(told.len())));
    }
    let mut notices = Vec::with_capacity(told.len());
    for (index, event) in told.iter().enumerate() {
        notices.push(Notice::of_node(event).map_err(|field| {
            let name = format!("events[{index}].{field}");
            let message = format!("{name} must be one of the words that agents tell Events in");
            refuse::invalid(&name, message, &["text"], json!(clip(event[field].as_str().unwrap_or_default())))
        })?);
    }
    // Of Pods of other nodes an agent has nothing to tell; a Pod that has just gone is nobody's.
    let known = call.read(|view| {
        let agent = call.agent(view, cluster, node)?;
        let mut known = Vec::with_capacity(told.len());
        for (event, Notice { about, .. }) in told.iter().zip(&notices) {
            let is_here = match PODS.get(view, cluster, &about.namespace, &about.name)? {
                Some(pod) => pod.uid() == about.uid && pod.text("/spec/nodeName") == agent.node.name(),
                None => NAMESPACES.get(view, cluster, "", &about.namespace)?.is_some(),
            };
            if is_here {
                known.push(event.clone());
            }
        }
        Ok(known)
    });
    let known = known.await?;
    if known.is_empty() {
        return Ok(Reply::success());
    }
    let request = json!({"cluster": cluster, "events": known}).to_string();
    match ask(call.replica(), SERVICE, request.into(), call.remaining()).await {
        Ok(_) => Ok(Reply::success()),
        Err(error) => Err(refuse::not_done(error)),
    }
}

/// The Events of a body, each an object of texts.
fn events(body: &Map<String, Value>) -> Result<&[Value], Problem> {
    let mut fields = Fields::of(body);
    let told = fields.required_array("events");
    for (index, event) in told.iter().take(EVENTS_MAX).enumerate() {
        if !event.is_object() {
            fields.note(format!("events[{index}]"), "object", type_name(event));
            continue;
        }
        for field in FIELDS.into_iter().filter(|field| !event[field].is_string()) {
            fields.note(format!("events[{index}].{field}"), "string", type_name(&event[field]));
        }
    }
    fields.finish()?;
    Ok(told)
}
