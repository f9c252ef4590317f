//! The documents by which clients learn what is served: version, discovery in both forms, OpenAPI v3. All of them
//! derive from the kinds table; each is made once and carries an ETag.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use axum::body::Body;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use parking_lot::Mutex;
use quilt_objects::discovery::Catalogue;
use quilt_objects::registry::{KUBERNETES_VERSION, registry};
use quilt_objects::{discovery, openapi};
use serde_json::{Value, json};

use crate::context::Api;
use crate::descriptions::describe;
use crate::negotiate::{DiscoveryForm, Encoding, Shapes, accept, accept_discovery};
use crate::problem::Problem;
use crate::render::{respond, respond_value};
use crate::request::Call;

/// Content type of aggregated discovery; clients look for exactly this.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Groups of the table that are not served: nothing measures nodes and pods yet, and a client that finds the group
/// listed says "not available yet" instead of "not available".
const UNSERVED: [&str; 1] = ["metrics.k8s.io"];

/// Whether kinds of `group` are served.
pub(crate) fn is_served(group: &str) -> bool {
    !UNSERVED.contains(&group)
}

/// The kinds that are served.
fn catalogue() -> Catalogue<'static> {
    Catalogue::from(registry()).hiding(&UNSERVED)
}

/// Group and version of everything served.
fn group_versions() -> impl Iterator<Item = (&'static str, &'static str)> {
    registry().group_versions().into_iter().filter(|(group, _)| is_served(group))
}

/// A document as served.
#[derive(Clone)]
struct Document {
    bytes: Bytes,
    /// SHA-256 as hex: the ETag, and OpenAPI's `hash`.
    digest: Arc<str>,
}

impl Document {
    fn new(value: &Value) -> Self {
        let bytes = Bytes::from(value.to_string());
        let digest = hex::encode_upper(ring::digest::digest(&ring::digest::SHA256, &bytes));
        Self { bytes, digest: digest.into() }
    }
}

/// Documents made so far, by name. There are as many names as groups and versions, so this is bounded.
static MADE: LazyLock<Mutex<HashMap<String, Document>>> = LazyLock::new(Mutex::default);

fn made(name: &str, make: impl FnOnce() -> Value) -> Document {
    if let Some(document) = MADE.lock().get(name) {
        return document.clone();
    }
    let document = Document::new(&make());
    MADE.lock().insert(name.to_owned(), document.clone());
    document
}

/// `/version`.
pub(crate) fn version(api: &Api) -> Result<Response<Body>, Problem> {
    let (major, minor) = KUBERNETES_VERSION;
    let value = json!({
        "major": major.to_string(),
        "minor": minor.to_string(),
        "gitVersion": format!("v{major}.{minor}.0+quilt.{}", api.options.version),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    });
    respond_value(StatusCode::OK, Encoding::Json, &value)
}

/// `/`.
pub(crate) fn paths() -> Result<Response<Body>, Problem> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, version) in group_versions().filter(|(group, _)| !group.is_empty()) {
        let of_group = format!("/apis/{group}");
        if !paths.contains(&of_group) {
            paths.push(of_group);
        }
        paths.push(format!("/apis/{group}/{version}"));
    }
    paths.extend(["/healthz", "/livez", "/openapi/v3", "/readyz", "/version"].map(str::to_owned));
    respond_value(StatusCode::OK, Encoding::Json, &json!({"paths": paths}))
}

/// `/api`.
pub(crate) fn core_versions(call: &Call) -> Result<Response<Body>, Problem> {
    match accept_discovery(&call.headers).map_err(not_acceptable)? {
        DiscoveryForm::Aggregated => {
            aggregated(call, &made("aggregated core", || discovery::aggregated_core(catalogue())))
        }
        DiscoveryForm::Legacy => plain(call, &made("core", discovery::core_versions)),
    }
}

/// `/apis`.
pub(crate) fn groups(call: &Call) -> Result<Response<Body>, Problem> {
    match accept_discovery(&call.headers).map_err(not_acceptable)? {
        DiscoveryForm::Aggregated => {
            aggregated(call, &made("aggregated groups", || discovery::aggregated_groups(catalogue())))
        }
        DiscoveryForm::Legacy => plain(call, &made("groups", || discovery::groups(catalogue()))),
    }
}

/// `/apis/{group}`.
pub(crate) fn group(call: &Call, group: &str) -> Result<Response<Body>, Problem> {
    let value = discovery::group(catalogue(), group).ok_or_else(Problem::no_such_path)?;
    plain(call, &made(&format!("group {group}"), || value))
}

/// `/apis/{group}/{version}`.
pub(crate) fn resources(call: &Call, group: &str, version: &str) -> Result<Response<Body>, Problem> {
    let value = discovery::resources(catalogue(), group, version).ok_or_else(Problem::no_such_path)?;
    plain(call, &made(&format!("resources {group}/{version}"), || value))
}

/// Name of a group and version in OpenAPI paths.
fn open_api_name(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn open_api_document(group: &str, version: &str) -> Document {
    made(&format!("openapi {group}/{version}"), || openapi::v3_described(registry(), group, version, &describe))
}

/// `/openapi/v3`.
pub(crate) fn open_api_index(call: &Call) -> Result<Response<Body>, Problem> {
    let prefix = call.cluster.prefix();
    let document = made(&format!("openapi index {prefix}"), || {
        let paths: serde_json::Map<String, Value> = group_versions()
            .map(|(group, version)| {
                let name = open_api_name(group, version);
                let digest = open_api_document(group, version).digest;
                let url = format!("{prefix}/openapi/v3/{name}?hash={digest}");
                (name, json!({"serverRelativeURL": url}))
            })
            .collect();
        json!({"paths": paths})
    });
    plain(call, &document)
}

/// `/openapi/v3/{name}`.
pub(crate) fn open_api(call: &Call, name: &str) -> Result<Response<Body>, Problem> {
    let (group, version) = group_versions()
        .find(|(group, version)| open_api_name(group, version) == name)
        .ok_or_else(Problem::no_such_path)?;
    let document = open_api_document(group, version);
    let asked = call.query.get("hash");
    if asked.is_some_and(|asked| asked != &*document.digest) {
        let place = format!("{}/openapi/v3/{name}?hash={}", call.cluster.prefix(), document.digest);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        let place = HeaderValue::from_str(&place).map_err(|error| Problem::internal(&error.to_string()))?;
        response.headers_mut().insert(http::header::LOCATION, place);
        return Ok(response);
    }
    let mut response = plain(call, &document)?;
    if asked.is_some() {
        // Named by its hash it can never change.
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        response.headers_mut().insert(EXPIRES, HeaderValue::from_static("Fri, 01 Jan 2100 00:00:00 GMT"));
    }
    Ok(response)
}

fn not_acceptable(error: crate::negotiate::NotAcceptable) -> Problem {
    error.into()
}

fn plain(call: &Call, document: &Document) -> Result<Response<Body>, Problem> {
    let encoding = accept(&call.headers, Shapes::ObjectOnly).map_or(Encoding::Json, |form| form.encoding);
    let response = respond(StatusCode::OK, encoding, document.bytes.clone())?;
    tagged(&call.headers, document, response)
}

fn aggregated(call: &Call, document: &Document) -> Result<Response<Body>, Problem> {
    let mut response = respond(StatusCode::OK, Encoding::Json, document.bytes.clone())?;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
    tagged(&call.headers, document, response)
}

/// Adds the ETag, and answers 304 to a client that has this version.
fn tagged(headers: &HeaderMap, document: &Document, mut response: Response<Body>) -> Result<Response<Body>, Problem> {
    let tag = format!("\"{}\"", document.digest);
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|known| known.trim() == tag || known.trim() == "*")) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
    }
    let tag = HeaderValue::from_str(&tag).map_err(|error| Problem::internal(&error.to_string()))?;
    response.headers_mut().insert(ETAG, tag);
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}
