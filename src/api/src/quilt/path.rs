//! [`Route`]: which Quilt route a path names, and the methods it has. Pure; must not know handlers.

use http::Method;

/// A Quilt route with the ids of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    Health,
    Clusters,
    Cluster { cluster: &'a str },
    Reconcile { cluster: &'a str },
    Capabilities { cluster: &'a str },
    JoinTokens { cluster: &'a str },
    Nodes { cluster: &'a str },
    Node { cluster: &'a str, node: &'a str },
    Drain { cluster: &'a str, node: &'a str },
    Workloads { cluster: &'a str },
    Workload { cluster: &'a str, workload: &'a str },
    Placements { cluster: &'a str },
    Register { cluster: &'a str },
    Agent { cluster: &'a str, node: &'a str, verb: AgentVerb<'a> },
    Tenants,
    Tenant { tenant: &'a str },
    TenantKeys { tenant: &'a str },
    TenantKey { tenant: &'a str, key: &'a str },
    AdminCluster { cluster: &'a str },
}

/// What an agent asks with its node token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AgentVerb<'a> {
    Heartbeat,
    Allocation,
    Placements,
    Report { placement: &'a str },
    Events,
    Deregister,
    Peers,
}

/// Whether `path` belongs to the Quilt surface, so that its 404 is an envelope and not a Kubernetes Status.
#[must_use]
pub fn is_quilt(path: &str) -> bool {
    let mut segments = path.trim_start_matches('/').split('/');
    match segments.next() {
        Some("health") => segments.next().is_none_or(str::is_empty),
        Some("api") => matches!(segments.next(), Some("clusters" | "agent" | "admin" | "k8s")),
        _ => false,
    }
}

impl<'a> Route<'a> {
    /// The route of `path`; a trailing slash makes no difference.
    pub(crate) fn of(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let segments: Vec<&str> = path.split('/').collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            return None;
        }
        let route = match *segments {
            ["health"] => Self::Health,
            ["api", "clusters"] => Self::Clusters,
            ["api", "clusters", cluster] => Self::Cluster { cluster },
            ["api", "clusters", cluster, "reconcile"] => Self::Reconcile { cluster },
            ["api", "clusters", cluster, "capabilities"] => Self::Capabilities { cluster },
            ["api", "clusters", cluster, "join-tokens"] => Self::JoinTokens { cluster },
            ["api", "clusters", cluster, "nodes"] => Self::Nodes { cluster },
            ["api", "clusters", cluster, "nodes", node] => Self::Node { cluster, node },
            ["api", "clusters", cluster, "nodes", node, "drain"] => Self::Drain { cluster, node },
            ["api", "clusters", cluster, "workloads"] => Self::Workloads { cluster },
            ["api", "clusters", cluster, "workloads", workload] => Self::Workload { cluster, workload },
            ["api", "clusters", cluster, "placements"] => Self::Placements { cluster },
            ["api", "agent", "clusters", cluster, "nodes", "register"] => Self::Register { cluster },
            ["api", "agent", "clusters", cluster, "nodes", node, ref rest @ ..] => {
                let verb = match *rest {
                    ["heartbeat"] => AgentVerb::Heartbeat,
                    ["allocation"] => AgentVerb::Allocation,
                    ["placements"] => AgentVerb::Placements,
                    ["placements", placement, "report"] => AgentVerb::Report { placement },
                    ["events"] => AgentVerb::Events,
                    ["deregister"] => AgentVerb::Deregister,
                    ["peers"] => AgentVerb::Peers,
                    _ => return None,
                };
                Self::Agent { cluster, node, verb }
            }
            ["api", "admin", "tenants"] => Self::Tenants,
            ["api", "admin", "tenants", tenant] => Self::Tenant { tenant },
            ["api", "admin", "tenants", tenant, "keys"] => Self::TenantKeys { tenant },
            ["api", "admin", "tenants", tenant, "keys", key] => Self::TenantKey { tenant, key },
            ["api", "admin", "clusters", cluster] => Self::AdminCluster { cluster },
            _ => return None,
        };
        Some(route)
    }

    /// The cluster the path names.
    pub(crate) const fn cluster(&self) -> Option<&'a str> {
        match self {
            Self::Health
            | Self::Clusters
            | Self::Tenants
            | Self::Tenant { .. }
            | Self::TenantKeys { .. }
            | Self::TenantKey { .. } => None,
            Self::Cluster { cluster }
            | Self::Reconcile { cluster }
            | Self::Capabilities { cluster }
            | Self::JoinTokens { cluster }
            | Self::Nodes { cluster }
            | Self::Node { cluster, .. }
            | Self::Drain { cluster, .. }
            | Self::Workloads { cluster }
            | Self::Workload { cluster, .. }
            | Self::Placements { cluster }
            | Self::Register { cluster }
            | Self::Agent { cluster, .. }
            | Self::AdminCluster { cluster } => Some(cluster),
        }
    }

    /// The methods of the route, as the `Allow` header lists them.
    pub(crate) const fn allow(&self) -> &'static str {
        match self {
            Self::Health
            | Self::Capabilities { .. }
            | Self::Nodes { .. }
            | Self::Placements { .. }
            | Self::Agent { verb: AgentVerb::Allocation | AgentVerb::Placements | AgentVerb::Peers, .. } => "GET",
            Self::Reconcile { .. }
            | Self::JoinTokens { .. }
            | Self::Drain { .. }
            | Self::Register { .. }
            | Self::Agent { .. }
            | Self::TenantKeys { .. } => "POST",
            Self::Clusters | Self::Workloads { .. } | Self::Tenants => "GET, POST",
            Self::Cluster { .. } | Self::Node { .. } => "GET, DELETE",
            Self::Workload { .. } => "GET, PUT, DELETE",
            Self::Tenant { .. } => "PATCH, DELETE",
            Self::TenantKey { .. } => "DELETE",
            Self::AdminCluster { .. } => "PATCH",
        }
    }

    /// Whether the route has `method`.
    pub(crate) fn allows(&self, method: &Method) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each path names its route, with or without a slash at the end, and nothing else does.
    #[test]
    fn paths_name_routes() {
        assert_eq!(Route::of("/api/clusters/"), Some(Route::Clusters));
        assert_eq!(Route::of("/api/clusters/c/nodes/n/drain"), Some(Route::Drain { cluster: "c", node: "n" }));
        let report = AgentVerb::Report { placement: "p" };
        assert_eq!(
            Route::of("/api/agent/clusters/c/nodes/n/placements/p/report"),
            Some(Route::Agent { cluster: "c", node: "n", verb: report })
        );
        for unknown in ["/", "", "/api", "/api/clusters//nodes", "/api/clusters/c/x", "/api/agent/clusters/c/nodes/n"] {
            assert_eq!(Route::of(unknown), None, "{unknown}");
        }
        assert!(Route::of("/api/clusters").is_some_and(|route| !route.allows(&Method::PUT)));
    }

    /// Kubernetes' own paths under `/api` are not ours.
    #[test]
    fn surfaces_are_told_apart() {
        for path in ["/health", "/health/", "/api/clusters", "/api/agent/x", "/api/k8s/apply", "/api/admin"] {
            assert!(is_quilt(path), "{path}");
        }
        for path in ["/api", "/api/v1", "/api/v1/pods", "/healthz", "/apis", "/clusters/c/api", "/health/x"] {
            assert!(!is_quilt(path), "{path}");
        }
    }
}
