//! [`Identity`]: who sends a request, as every later step sees it. How credentials are checked is `authn`'s business;
//! what an identity may do is `authz`'s.

use quilt_proto::Compare;

/// Group of those who may do everything in every cluster.
pub const MASTERS: &str = "system:masters";
/// Group of a tenant's own credentials: cluster-admin in that tenant's clusters.
pub const TENANT_ADMINS: &str = "quilt:tenant-admins";
/// Group of node identities.
pub const NODES: &str = "system:nodes";
/// Group every authenticated identity is in.
pub const AUTHENTICATED: &str = "system:authenticated";

/// Who sends a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// User name, such as `quilt:admin` or `quilt:tenant:<id>`.
    pub user: String,
    /// Groups, [`AUTHENTICATED`] among them.
    pub groups: Vec<String>,
    /// The tenant a tenant credential stands for; `None` for all others.
    pub tenant: Option<String>,
    /// What kind of credential it was.
    pub kind: IdentityKind,
    /// What must still hold when a write of this identity commits: its credential record unchanged. Added to every
    /// transaction, so that a revoked credential cannot commit, and checked again on the view of a linearizable read.
    pub guards: Vec<Compare>,
}

/// What kind of credential made an [`Identity`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityKind {
    /// An admin key (`qa_…`).
    Admin,
    /// A tenant's API key or token.
    Tenant,
    /// A node token; good for one node of one cluster.
    Node {
        /// The node's cluster.
        cluster: String,
        /// The node's id.
        node_id: String,
    },
    /// A client certificate.
    Certificate,
    /// The control plane itself: reserved fields are open to it.
    ControlPlane,
}

impl Identity {
    /// The control plane acting for itself, for writes that no client asked for.
    #[must_use]
    pub fn control_plane() -> Self {
        Self {
            user: "system:quilt".into(),
            groups: vec![MASTERS.into(), AUTHENTICATED.into()],
            tenant: None,
            kind: IdentityKind::ControlPlane,
            guards: Vec::new(),
        }
    }

    /// Whether the identity is in `group`.
    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}

/// The certificate a TLS peer showed, if any, as an extension of its requests. Only certificates that the listener's
/// client verifier accepted may stand here.
#[derive(Clone, Debug, Default)]
pub struct PeerCertificate(pub Option<rustls_pki_types::CertificateDer<'static>>);
