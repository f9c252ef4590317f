//! `pods/{name}/log`: the replica that got the request asks the Pod's node and passes the answer on as it comes.

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use quilt_objects::place;
use quilt_objects::registry::registry;
use serde_json::Value;

use crate::agent::Endpoint;
use crate::problem::Problem;
use crate::query::ReadAt;
use crate::records;
use crate::request::Call;

/// Query parameters passed on to the node, each checked here.
const FLAGS: [&str; 3] = ["follow", "previous", "timestamps"];
const NUMBERS: [&str; 3] = ["tailLines", "sinceSeconds", "limitBytes"];

/// GET.
pub(crate) async fn get(call: &Call) -> Result<Response<Body>, Problem> {
    let query = log_query(call)?;
    let view = call.view(ReadAt::Latest).await?;
    let root = &call.api.options.root_key;
    let record = view.get(&call.key(&call.name)?)?.ok_or_else(|| Problem::not_found(call.kind, &call.name))?;
    let pod = records::parse(root, call.kind, &record)?;
    let container = container(call, &pod)?;
    let node_name = place::text_or_empty(&pod, &["spec", "nodeName"]);
    if node_name.is_empty() {
        return Err(Problem::bad_request(format!("pod {} does not have a host assigned", call.name)));
    }
    let nodes = registry().resource("", "v1", "nodes").expect("the kinds table has nodes: a test asks for them");
    let record = view
        .get(&call.key_of(nodes, "", node_name)?)?
        .ok_or_else(|| Problem::unavailable(format!("node {node_name:?} of pod {:?} is gone", call.name)))?;
    let node = records::parse(root, nodes, &record)?;
    let path = format!("/containerLogs/{}/{}/{container}{query}", call.namespace, call.name);
    let answer = Endpoint::of(&node)?.get(&call.api, &path).await?;
    let (parts, body) = answer.into_parts();
    if parts.status == StatusCode::OK {
        let mut response = Response::new(Body::new(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        return Ok(response);
    }
    let text = crate::request::read_body(Body::new(body), 64 << 10).await?;
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    Err(match parts.status {
        StatusCode::BAD_REQUEST => Problem::bad_request(text),
        StatusCode::NOT_FOUND => Problem::not_found(call.kind, &call.name).with_cause("NotFound", &text, ""),
        other => Problem::unavailable(format!(
            "node {node_name:?} answered {other} for the log of pod {:?}: {text}",
            call.name
        )),
    })
}

/// The parameters of the request, checked, as a query for the node.
fn log_query(call: &Call) -> Result<String, Problem> {
    let mut parts = Vec::new();
    for name in FLAGS {
        if call.query.flag(name)? {
            parts.push(format!("{name}=true"));
        }
    }
    for name in NUMBERS {
        if let Some(number) = call.query.number(name)? {
            if number == 0 && name != "tailLines" {
                return Err(Problem::bad_request(format!("query parameter {name} must be greater than 0")));
            }
            parts.push(format!("{name}={number}"));
        }
    }
    if let Some(time) = call.query.get("sinceTime") {
        let parsed: jiff::Timestamp = time
            .parse()
            .map_err(|_| Problem::bad_request(format!("query parameter sinceTime is {time:?}, expected RFC 3339")))?;
        if call.query.get("sinceSeconds").is_some() {
            return Err(Problem::bad_request("at most one of sinceTime or sinceSeconds may be specified"));
        }
        parts.push(format!("sinceTime={parsed}"));
    }
    Ok(if parts.is_empty() { String::new() } else { format!("?{}", parts.join("&")) })
}

/// The container asked for; the only one, or the annotated default, when none is named.
fn container(call: &Call, pod: &Value) -> Result<String, Problem> {
    let names = |list: &str| -> Vec<String> {
        let items = place::items(pod, &["spec", list]);
        items.iter().map(|container| place::text_or_empty(container, &["name"]).to_owned()).collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    let all: Vec<&String> = init.iter().chain(&main).collect();
    let ephemeral = names("ephemeralContainers");
    if let Some(asked) = call.query.get("container") {
        if all.iter().any(|name| *name == asked) || ephemeral.iter().any(|name| name == asked) {
            return Ok(asked.to_owned());
        }
        return Err(Problem::bad_request(format!("container {asked} is not valid for pod {}", call.name)));
    }
    let annotated = place::text(pod, &["metadata", "annotations", "kubectl.kubernetes.io/default-container"]);
    if let Some(default) = annotated.filter(|default| main.iter().any(|name| name == default)) {
        return Ok(default.to_owned());
    }
    match main.as_slice() {
        [only] => Ok(only.clone()),
        _ => Err(Problem::bad_request(format!(
            "a container name must be specified for pod {}, choose one of: {main:?}",
            call.name
        ))),
    }
}
