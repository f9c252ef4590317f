//! One parser for every Kubernetes path, at the root and under `/clusters/{id}`. It knows the grammar of paths, not
//! which resources exist; the kinds table decides that afterwards.

/// A parsed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The cluster named in the path; `None` for root paths, which mean the built-in one.
    pub cluster: Option<String>,
    /// What is asked for there.
    pub target: Target,
}

/// What a path names inside one cluster's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/`: the list of paths.
    Paths,
    /// `/healthz`, `/livez`, `/readyz`, with the single check named behind it, if any.
    Health {
        /// First path segment.
        endpoint: Endpoint,
        /// `/readyz/{check}`.
        check: Option<String>,
    },
    /// `/version`.
    Version,
    /// `/api`: the core group's versions.
    CoreVersions,
    /// `/apis`: all groups.
    Groups,
    /// `/apis/{group}`.
    Group(String),
    /// `/api/v1` and `/apis/{group}/{version}`: the resources of one version.
    Resources {
        /// API group; empty for core.
        group: String,
        /// Version.
        version: String,
    },
    /// `/openapi/v3`.
    OpenApiIndex,
    /// `/openapi/v3/{api/v1 | apis/group/version | version …}`.
    OpenApiDocument(String),
    /// A resource, an object, or one of its subresources.
    Resource(ResourcePath),
}

/// The health endpoints, which differ in the checks they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/healthz`.
    Healthz,
    /// `/livez`.
    Livez,
    /// `/readyz`.
    Readyz,
}

/// Path of a resource request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourcePath {
    /// API group; empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural resource name.
    pub resource: String,
    /// Namespace the path names; `None` means all namespaces, or a cluster-scoped resource.
    pub namespace: Option<String>,
    /// Object name; `None` for the collection.
    pub name: Option<String>,
    /// Subresource, such as `status` or `log`.
    pub subresource: Option<String>,
    /// What stands behind the subresource (`proxy/…`), without the leading slash.
    pub rest: Option<String>,
    /// The old `/watch/` form of a watch.
    pub watch: bool,
}

/// Why a path is no Kubernetes path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No such path.
    #[error("the server could not find the requested resource")]
    NotFound,
    /// A segment is not percent-encoded UTF-8, or holds a byte no name may hold.
    #[error("path segment {0:?} is not valid percent-encoded text")]
    Encoding(String),
}

/// Parses the path of a request (without its query).
///
/// # Errors
/// [`RouteError::NotFound`] for paths outside the grammar, [`RouteError::Encoding`] for undecodable segments.
pub fn parse(path: &str) -> Result<Route, RouteError> {
    let segments =
        path.split('/').filter(|segment| !segment.is_empty()).map(decode_segment).collect::<Result<Vec<_>, _>>()?;
    let mut segments: &[String] = &segments;
    let mut cluster = None;
    if let [first, id, rest @ ..] = segments
        && first == "clusters"
    {
        cluster = Some(id.clone());
        segments = rest;
    }
    Ok(Route { cluster, target: target(segments)? })
}

/// Whether a path belongs to the Kubernetes surface rather than to the Quilt routes.
#[must_use]
pub fn is_kubernetes(path: &str) -> bool {
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    match segments.next() {
        Some("api") => matches!(segments.next(), None | Some("v1")),
        Some("health") => false,
        _ => true,
    }
}

fn target(segments: &[String]) -> Result<Target, RouteError> {
    let text: Vec<&str> = segments.iter().map(String::as_str).collect();
    match text.as_slice() {
        [] => Ok(Target::Paths),
        ["version"] => Ok(Target::Version),
        ["healthz", check @ ..] => health(Endpoint::Healthz, check),
        ["livez", check @ ..] => health(Endpoint::Livez, check),
        ["readyz", check @ ..] => health(Endpoint::Readyz, check),
        ["api"] => Ok(Target::CoreVersions),
        ["apis"] => Ok(Target::Groups),
        ["openapi", "v3"] => Ok(Target::OpenApiIndex),
        ["openapi", "v3", rest @ ..] => Ok(Target::OpenApiDocument(rest.join("/"))),
        ["apis", group] => Ok(Target::Group((*group).into())),
        ["api", version, rest @ ..] => versioned("", version, rest),
        ["apis", group, version, rest @ ..] => versioned(group, version, rest),
        _ => Err(RouteError::NotFound),
    }
}

fn health(endpoint: Endpoint, check: &[&str]) -> Result<Target, RouteError> {
    match check {
        [] => Ok(Target::Health { endpoint, check: None }),
        [check] => Ok(Target::Health { endpoint, check: Some((*check).into()) }),
        _ => Err(RouteError::NotFound),
    }
}

fn versioned(group: &str, version: &str, rest: &[&str]) -> Result<Target, RouteError> {
    if rest.is_empty() {
        return Ok(Target::Resources { group: group.into(), version: version.into() });
    }
    let (watch, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        _ => (false, rest),
    };
    let mut path = ResourcePath { group: group.into(), version: version.into(), watch, ..ResourcePath::default() };
    // `namespaces/{ns}/{resource}` names a resource in a namespace, except that the subresources of the namespace
    // object itself stand at the same place.
    let rest = match rest {
        ["namespaces", namespace, resource, tail @ ..]
            if !(group.is_empty() && tail.is_empty() && matches!(*resource, "status" | "finalize")) =>
        {
            path.namespace = Some((*namespace).into());
            path.resource = (*resource).into();
            tail
        }
        [resource, tail @ ..] => {
            path.resource = (*resource).into();
            tail
        }
        [] => return Err(RouteError::NotFound),
    };
    let mut parts = rest.iter();
    path.name = parts.next().map(|part| (*part).into());
    path.subresource = parts.next().map(|part| (*part).into());
    let tail: Vec<&str> = parts.copied().collect();
    if !tail.is_empty() {
        path.rest = Some(tail.join("/"));
    }
    Ok(Target::Resource(path))
}

fn decode_segment(segment: &str) -> Result<String, RouteError> {
    percent_decode(segment, false)
        .filter(|text| !text.contains(['\0', '/']))
        .ok_or_else(|| RouteError::Encoding(segment.into()))
}

/// Decodes `%XX`; in queries also `+` as a space. `None` when the result is not UTF-8 or an escape is cut off.
#[must_use]
pub(crate) fn percent_decode(text: &str, plus_is_space: bool) -> Option<String> {
    if !(text.contains('%') || plus_is_space && text.contains('+')) {
        return Some(text.into());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                out.push(u8::try_from(high * 16 + low).ok()?);
            }
            b'+' if plus_is_space => out.push(b' '),
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(path: &str) -> ResourcePath {
        match parse(path).expect("a path").target {
            Target::Resource(resource) => resource,
            other => panic!("{path} is {other:?}"),
        }
    }

    fn summary(path: &str) -> String {
        let path = resource(path);
        let text = |part: Option<String>| part.unwrap_or_else(|| "-".into());
        format!(
            "{}|{}|{}|{}|{}|{}|{}{}",
            path.group,
            path.version,
            path.resource,
            text(path.namespace),
            text(path.name),
            text(path.subresource),
            text(path.rest),
            if path.watch { "|watch" } else { "" }
        )
    }

    /// Every form of resource path, each compared with its parts.
    #[test]
    fn resource_paths() {
        let cases = [
            ("/api/v1/pods", "|v1|pods|-|-|-|-"),
            ("/api/v1/namespaces", "|v1|namespaces|-|-|-|-"),
            ("/api/v1/namespaces/a", "|v1|namespaces|-|a|-|-"),
            ("/api/v1/namespaces/a/status", "|v1|namespaces|-|a|status|-"),
            ("/api/v1/namespaces/a/finalize", "|v1|namespaces|-|a|finalize|-"),
            ("/api/v1/namespaces/a/pods", "|v1|pods|a|-|-|-"),
            ("/api/v1/namespaces/a/pods/", "|v1|pods|a|-|-|-"),
            ("/api/v1/namespaces/a/pods/p", "|v1|pods|a|p|-|-"),
            ("/api/v1/namespaces/a/pods/p/log", "|v1|pods|a|p|log|-"),
            ("/api/v1/namespaces/a/pods/p/proxy/x/y", "|v1|pods|a|p|proxy|x/y"),
            ("/apis/apps/v1/namespaces/a/deployments/d/scale", "apps|v1|deployments|a|d|scale|-"),
            ("/apis/apps/v1/watch/namespaces/a/deployments", "apps|v1|deployments|a|-|-|-|watch"),
            ("/api/v1/nodes/n%2Dx", "|v1|nodes|-|n-x|-|-"),
        ];
        for (path, expected) in cases {
            assert_eq!(summary(path), expected, "{path}");
            assert_eq!(summary(&format!("/clusters/c{path}")), expected, "virtual {path}");
        }
    }

    /// Paths that are not resources, with and without a cluster; unknown ones and undecodable ones are refused.
    #[test]
    fn other_paths() {
        let target = |path: &str| parse(path).map(|route| route.target);
        assert_eq!(target("/"), Ok(Target::Paths));
        assert_eq!(target("/api"), Ok(Target::CoreVersions));
        assert_eq!(target("/apis/"), Ok(Target::Groups));
        assert_eq!(target("/apis/apps"), Ok(Target::Group("apps".into())));
        assert_eq!(
            target("/clusters/c/apis/apps/v1"),
            Ok(Target::Resources { group: "apps".into(), version: "v1".into() })
        );
        assert_eq!(target("/openapi/v3/apis/apps/v1"), Ok(Target::OpenApiDocument("apis/apps/v1".into())));
        assert_eq!(
            target("/readyz/ping"),
            Ok(Target::Health { endpoint: Endpoint::Readyz, check: Some("ping".into()) })
        );
        assert_eq!(target("/nothing"), Err(RouteError::NotFound));
        assert_eq!(target("/clusters/c/nothing"), Err(RouteError::NotFound));
        assert!(matches!(target("/api/v1/pods/%zz"), Err(RouteError::Encoding(_))));
        assert!(matches!(target("/api/v1/pods/%00"), Err(RouteError::Encoding(_))));
        assert!(matches!(target("/api/v1/pods/a%2Fb"), Err(RouteError::Encoding(_))));
        assert!(matches!(target("/api/v1/pods/%ff"), Err(RouteError::Encoding(_))));
    }

    /// Quilt's own routes under `/api` are told from the core group.
    #[test]
    fn quilt_paths_are_told_apart() {
        for path in ["/api", "/api/", "/api/v1/pods", "/apis", "/clusters/c/api", "/version", "/"] {
            assert!(is_kubernetes(path), "{path}");
        }
        for path in ["/api/clusters", "/api/agent/clusters/c/nodes/register", "/api/k8s/apply", "/health", "/api/x"] {
            assert!(!is_kubernetes(path), "{path}");
        }
    }
}
