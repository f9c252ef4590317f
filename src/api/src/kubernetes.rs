//! The Kubernetes surface: from a parsed path to the verb or document that answers it.

use std::sync::Arc;

use axum::body::Body;
use http::header::ACCEPT;
use http::{HeaderMap, Method, Request, Response};
use quilt_objects::kind::{Kind, Verb};
use quilt_objects::registry::registry;

use crate::access::{self, ClusterPath, Credentials};
use crate::admission::Part;
use crate::authz::Attributes;
use crate::context::Api;
use crate::problem::Problem;
use crate::query::{Query, ReadAt};
use crate::request::{BODY_BYTES_MAX, Call, read_body};
use crate::route::{self, ResourcePath, RouteError, Target};
use crate::subresources::{binding, eviction, finalize, log, review, scale};
use crate::verbs::{create, delete, get, list, patch, update, watch};
use crate::{documents, health};

/// Answers any request on a Kubernetes path.
pub(crate) async fn serve(api: &Arc<Api>, request: Request<Body>) -> Response<Body> {
    match route_request(api, request).await {
        Ok(response) => response,
        Err(problem) => problem.response(),
    }
}

impl From<RouteError> for Problem {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::NotFound => Self::no_such_path(),
            RouteError::Encoding(_) => Self::bad_request(error.to_string()),
        }
    }
}

async fn route_request(api: &Arc<Api>, request: Request<Body>) -> Result<Response<Body>, Problem> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    #[cfg(test)]
    crate::quilt::tests::museum::urls::note(path);
    let query = Query::parse(parts.uri.query())?;
    let parsed = route::parse(path);
    // Probes and the version are answered to everyone, at the root only: a virtual path says nothing to strangers.
    if let Ok(route::Route { cluster: None, target }) = &parsed {
        match target {
            Target::Health { endpoint, check } => {
                return health::serve(api, *endpoint, check.as_deref(), &query).await;
            }
            Target::Version => return documents::version(api),
            _ => {}
        }
    }
    let credentials = Credentials::new(&parts.headers, None);
    if credentials.is_empty() {
        return Err(Problem::unauthorized());
    }
    // A path outside the grammar is refused like a foreign cluster: only to those who are known.
    let (cluster, target) = match parsed {
        Ok(route) => (ClusterPath::of(route.cluster.as_deref()), Ok(route.target)),
        Err(error) => (ClusterPath::of(None), Err(error)),
    };
    let deadline = query.deadline(api.options.deadline)?;
    let mut call = Call {
        api: Arc::clone(api),
        cluster,
        kind: create::namespaces(),
        namespace: String::new(),
        name: String::new(),
        query,
        headers: parts.headers,
        credentials,
        attributes: Attributes::path(path),
        deadline,
    };
    let resource = match target {
        Ok(Target::Resource(resource)) => resource,
        Ok(target) => {
            if !matches!(parts.method, Method::GET | Method::HEAD) {
                call.view(ReadAt::Any).await?;
                return Err(Problem::method_not_allowed(None, parts.method.as_str()));
            }
            let answer = document(&call, target).await;
            // Clients of aggregated discovery show a refusal's words only where they come as plain text.
            return match answer {
                Err(problem) if asks_for_discovery(&call.headers) => Ok(problem.as_text()),
                other => other,
            };
        }
        Err(error) => {
            call.view(ReadAt::Any).await?;
            return Err(error.into());
        }
    };
    let Some(kind) = served(&resource) else {
        call.view(ReadAt::Any).await?;
        return Err(Problem::no_such_path());
    };
    call.kind = kind;
    dispatch(call, resource, &parts.method, body).await
}

/// The kind behind a path, if the path fits its scope.
fn served(path: &ResourcePath) -> Option<&'static Kind> {
    let kind = registry().resource(&path.group, &path.version, &path.resource)?;
    if !documents::is_served(&kind.group) {
        return None;
    }
    let fits = match (&path.namespace, &path.name) {
        (Some(_), _) => kind.is_namespaced(),
        (None, Some(_)) => !kind.is_namespaced(),
        (None, None) => true,
    };
    fits.then_some(kind)
}

/// Discovery, OpenAPI, health and version of one cluster.
async fn document(call: &Call, target: Target) -> Result<Response<Body>, Problem> {
    // Whoever asks has to be known and the cluster his; the documents themselves are the same for all.
    call.view(ReadAt::Any).await?;
    match target {
        Target::Health { endpoint, check } => health::serve(&call.api, endpoint, check.as_deref(), &call.query).await,
        Target::Version => documents::version(&call.api),
        Target::Paths => documents::paths(),
        Target::CoreVersions => documents::core_versions(call),
        Target::Groups => documents::groups(call),
        Target::Group(group) => documents::group(call, &group),
        Target::Resources { group, version } => documents::resources(call, &group, &version),
        Target::OpenApiIndex => documents::open_api_index(call),
        Target::OpenApiDocument(name) => documents::open_api(call, &name),
        Target::Resource(_) => Err(Problem::no_such_path()),
    }
}

/// Routes a request on a resource to its verb.
async fn dispatch(mut call: Call, path: ResourcePath, method: &Method, body: Body) -> Result<Response<Body>, Problem> {
    call.namespace = path.namespace.unwrap_or_default();
    call.name = path.name.unwrap_or_default();
    let subresource = path.subresource.unwrap_or_default();
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let watches =
        reads && subresource.is_empty() && (path.watch || (call.name.is_empty() && call.query.flag("watch")?));
    let verb = access::verb(method, !call.name.is_empty(), watches)
        .ok_or_else(|| Problem::method_not_allowed(Some(call.kind), method.as_str()))?;
    call.attributes = Attributes::resource(verb, call.kind, &call.namespace, &call.name, &subresource);
    if path.rest.is_some() {
        call.view(ReadAt::Any).await?;
        return Err(Problem::no_such_path());
    }
    if subresource.is_empty() {
        return main_resource(call, verb, body).await;
    }
    sub_resource(call, &subresource, method, body).await
}

async fn main_resource(call: Call, verb: &str, body: Body) -> Result<Response<Body>, Problem> {
    let kind = call.kind;
    let served = Verb::parse(verb).is_some_and(|verb| kind.allows(verb));
    // Objects of namespaced kinds are only made in a namespace; only a named one can be changed.
    let placed = match verb {
        "create" => call.name.is_empty() && (!kind.is_namespaced() || !call.namespace.is_empty()),
        "update" | "patch" => !call.name.is_empty(),
        _ => true,
    };
    if !served || !placed {
        call.view(ReadAt::Any).await?;
        return Err(Problem::method_not_allowed(Some(kind), verb));
    }
    match verb {
        "get" => get::get(&call).await,
        "list" => list::list(&call).await,
        "watch" => watch::watch(&call).await,
        "create" => {
            let bytes = read_body(body, BODY_BYTES_MAX).await?;
            if review::is_review(&call) {
                review::create(&call, bytes).await
            } else if kind.kind == "Binding" {
                binding::create_in_collection(&call, bytes).await
            } else if kind.allows(Verb::Get) {
                create::create(&call, bytes).await
            } else {
                Err(Problem::method_not_allowed(Some(kind), verb))
            }
        }
        "update" => update::update(&call, read_body(body, BODY_BYTES_MAX).await?, Part::Main).await,
        "patch" => patch::patch(&call, read_body(body, BODY_BYTES_MAX).await?, Part::Main).await,
        "delete" => delete::delete(&call, read_body(body, BODY_BYTES_MAX).await?).await,
        "deletecollection" => delete::delete_collection(&call, read_body(body, BODY_BYTES_MAX).await?).await,
        other => Err(Problem::method_not_allowed(Some(kind), other)),
    }
}

async fn sub_resource(call: Call, subresource: &str, method: &Method, body: Body) -> Result<Response<Body>, Problem> {
    if call.kind.subresource(subresource).is_none() {
        call.view(ReadAt::Any).await?;
        return Err(Problem::no_such_path());
    }
    let body = async { read_body(body, BODY_BYTES_MAX).await };
    match (subresource, method.as_str()) {
        ("status", "GET" | "HEAD") => get::get(&call).await,
        ("status", "PUT") => update::update(&call, body.await?, Part::Status).await,
        ("status", "PATCH") => patch::patch(&call, body.await?, Part::Status).await,
        ("scale", "GET" | "HEAD") => scale::get(&call).await,
        ("scale", "PUT") => scale::update(&call, body.await?).await,
        ("scale", "PATCH") => scale::patch(&call, body.await?).await,
        ("binding", "POST") => binding::create(&call, body.await?).await,
        ("eviction", "POST") => eviction::create(&call, body.await?).await,
        ("log", "GET") => log::get(&call).await,
        ("finalize", "PUT") => finalize::update(&call, body.await?).await,
        ("status" | "scale" | "binding" | "eviction" | "log" | "finalize", _) => {
            call.view(ReadAt::Any).await?;
            Err(Problem::method_not_allowed(Some(call.kind), method.as_str()))
        }
        _ => {
            call.view(ReadAt::Any).await?;
            Err(Problem::unserved(call.kind, subresource))
        }
    }
}

/// Whether the client reads discovery in its aggregated form.
fn asks_for_discovery(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.into_iter().any(|value| value.contains("as=APIGroupDiscoveryList"))
}
