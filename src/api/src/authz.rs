//! Who may do what. In force today: masters everything, a tenant everything in its own clusters, all others nothing.
//! RBAC objects are stored and will be judged here; nothing else needs to change for that.

use quilt_objects::kind::Kind;
use quilt_objects::status::{Attempt, Resource, Status};

use crate::identity::{Identity, IdentityKind, MASTERS, TENANT_ADMINS};
use crate::problem::Problem;

/// What a request wants to do, in RBAC's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// `get`, `list`, `watch`, `create`, …
    pub(crate) verb: String,
    /// API group; empty for core.
    pub(crate) group: String,
    /// Plural resource; empty for a path that is no resource.
    pub(crate) resource: String,
    /// Subresource, if any.
    pub(crate) subresource: String,
    /// Namespace; empty for all, or for cluster-scoped resources.
    pub(crate) namespace: String,
    /// Object name, if one is named.
    pub(crate) name: String,
    /// The path, for requests that name no resource.
    pub(crate) path: String,
}

impl Attributes {
    /// A request for a resource of `kind`.
    pub(crate) fn resource(verb: &str, kind: &Kind, namespace: &str, name: &str, subresource: &str) -> Self {
        Self {
            verb: verb.into(),
            group: kind.group.to_string(),
            resource: kind.plural.to_string(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            name: name.into(),
            path: String::new(),
        }
    }

    /// A request for a path that is no resource, such as discovery.
    pub(crate) fn path(path: &str) -> Self {
        Self { verb: "get".into(), path: path.into(), ..Self::default() }
    }
}

/// Whether `identity` may do `attributes` in a cluster of tenant `owner`.
pub(crate) fn allows(identity: &Identity, owner: &str, attributes: &Attributes) -> bool {
    match identity.kind {
        IdentityKind::ControlPlane => true,
        IdentityKind::Node { .. } => false,
        _ if identity.is_in(MASTERS) => true,
        IdentityKind::Tenant => identity.is_in(TENANT_ADMINS) && identity.tenant.as_deref() == Some(owner),
        // Discovery and health are open to everyone who is known, as upstream's bootstrap roles have it.
        IdentityKind::Admin | IdentityKind::Certificate => !attributes.path.is_empty(),
    }
}

/// Refuses what `identity` may not do.
pub(crate) fn authorize(identity: &Identity, owner: &str, attributes: &Attributes) -> Result<(), Problem> {
    if allows(identity, owner, attributes) {
        return Ok(());
    }
    let Attributes { verb, group, resource, subresource, namespace, name, path } = attributes;
    if !path.is_empty() {
        return Err(Status::denied_path(&identity.user, verb, path).into());
    }
    Err(Status::denied(Attempt {
        user: &identity.user,
        verb,
        resource: Resource { group, plural: resource, kind: "" },
        subresource,
        namespace: Some(namespace.as_str()).filter(|namespace| !namespace.is_empty()),
        name,
    })
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(kind: IdentityKind, group: &str, tenant: Option<&str>) -> Identity {
        Identity {
            user: "u".into(),
            groups: vec![group.into()],
            tenant: tenant.map(str::to_owned),
            kind,
            guards: Vec::new(),
        }
    }

    /// Masters may do everything, tenants everything in their own clusters, nodes and strangers nothing.
    #[test]
    fn who_may() {
        let pods = Attributes { verb: "list".into(), resource: "pods".into(), ..Attributes::default() };
        let admin = identity(IdentityKind::Admin, MASTERS, None);
        let tenant = identity(IdentityKind::Tenant, TENANT_ADMINS, Some("t1"));
        let node = identity(IdentityKind::Node { cluster: "c".into(), node_id: "n".into() }, "system:nodes", None);
        let stranger = identity(IdentityKind::Certificate, "dev", None);
        assert!(allows(&admin, "t2", &pods));
        assert!(allows(&tenant, "t1", &pods));
        assert!(!allows(&tenant, "t2", &pods));
        assert!(!allows(&node, "t1", &pods));
        assert!(!allows(&stranger, "t1", &pods));
        assert!(allows(&stranger, "t1", &Attributes::path("/api")));
        let refusal = authorize(&stranger, "t1", &Attributes { namespace: "ns".into(), ..pods }).expect_err("refused");
        assert_eq!(refusal.code(), 403);
        assert_eq!(
            refusal.to_string(),
            "pods is forbidden: User \"u\" cannot list resource \"pods\" in API group \"\" in the namespace \"ns\""
        );
    }
}
