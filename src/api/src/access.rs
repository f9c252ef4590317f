//! From a request's credentials to an [`Identity`] that may do what it asks, judged on one view.
//!
//! Everything here is a synchronous look at a view, so that a refusal can be repeated on a linearizable one, and so
//! that a write judges its credential on the same state as its object.

use http::{HeaderMap, Method};
use quilt_proto::{ClusterId, Compare};
use quilt_raft::View;

use crate::authn::{Presented, Principal};
use crate::authz::{self, Attributes};
use crate::directory;
use crate::identity::{AUTHENTICATED, Identity, IdentityKind, MASTERS, TENANT_ADMINS};
use crate::problem::Problem;

/// What a request shows of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    presented: Presented,
    certificate: Option<Identity>,
}

impl Credentials {
    /// The credentials in the headers, and the identity of a verified client certificate, if there was one.
    pub(crate) fn new(headers: &HeaderMap, certificate: Option<Identity>) -> Self {
        Self { presented: Presented::any(headers), certificate }
    }

    /// Whether nothing was shown: refused without a look at the state.
    pub(crate) fn is_empty(&self) -> bool {
        self.presented.is_empty() && self.certificate.is_none()
    }

    /// Who it is, in `view`.
    fn identify(&self, view: &View) -> Result<Option<Identity>, Problem> {
        if let Some(proof) = self.presented.prove(view, |_| true)? {
            return Ok(Some(identity(proof.principal, proof.compares)));
        }
        // A key that was shown and is not good is refused, even beside a good certificate.
        Ok(if self.presented.is_empty() { self.certificate.clone() } else { None })
    }
}

/// A proven principal as the object layer knows it.
pub(crate) fn identity(principal: Principal, guards: Vec<Compare>) -> Identity {
    match principal {
        Principal::Admin => Identity {
            user: "quilt:admin".into(),
            groups: vec![MASTERS.into(), AUTHENTICATED.into()],
            tenant: None,
            kind: IdentityKind::Admin,
            guards,
        },
        Principal::Tenant { id } => Identity {
            user: format!("quilt:tenant:{id}"),
            groups: vec![TENANT_ADMINS.into(), AUTHENTICATED.into()],
            tenant: Some(id),
            kind: IdentityKind::Tenant,
            guards,
        },
    }
}

/// The cluster a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterPath {
    /// Its id.
    pub(crate) id: ClusterId,
    /// Whether the path named it, rather than being a root path.
    pub(crate) named: bool,
}

impl ClusterPath {
    /// The cluster of a route.
    pub(crate) fn of(named: Option<&str>) -> Self {
        match named {
            Some(id) => Self { id: ClusterId(id.to_owned()), named: true },
            None => Self { id: ClusterId::built_in(), named: false },
        }
    }

    /// What stands before `/api` in this cluster's URLs.
    pub(crate) fn prefix(&self) -> String {
        if self.named { format!("/clusters/{}", self.id) } else { String::new() }
    }
}

/// An identity that was let in.
#[derive(Clone, Debug)]
pub(crate) struct Admitted {
    /// Who.
    pub(crate) identity: Identity,
    /// The cluster's entry in the directory.
    pub(crate) cluster: directory::Cluster,
}

/// Lets a request in: known credential, known cluster that is not hidden from it, and an allowed act.
pub(crate) fn admit(
    view: &View,
    credentials: &Credentials,
    path: &ClusterPath,
    attributes: &Attributes,
) -> Result<Admitted, Problem> {
    #[cfg(test)]
    let path = &crate::quilt::tests::museum::urls::judged(path);
    let identity = credentials.identify(view)?.ok_or_else(Problem::unauthorized)?;
    let found = directory::find(view, path.id.as_str())?;
    let Some(entry) = found else { return Err(Problem::no_such_path()) };
    let foreign = identity.tenant.as_ref().is_some_and(|tenant| *tenant != entry.cluster.tenant_id);
    if foreign && path.named {
        return Err(Problem::no_such_path());
    }
    authz::authorize(&identity, &entry.cluster.tenant_id, attributes)?;
    Ok(Admitted { identity, cluster: entry.cluster })
}

/// RBAC's verb for a request on a resource.
pub(crate) fn verb(method: &Method, names_object: bool, watch: bool) -> Option<&'static str> {
    Some(match *method {
        Method::GET | Method::HEAD if watch => "watch",
        Method::GET | Method::HEAD if names_object => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if names_object => "delete",
        Method::DELETE => "deletecollection",
        _ => return None,
    })
}
