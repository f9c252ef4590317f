//! An authority over peer certificates, for tests that use real connections, inside the crate and beside it.

use quilt_proto::ReplicaId;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{PeerIdentity, peer_name};

pub(crate) struct Authority {
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("self-signed").der().clone();
        Self { root, issuer: Issuer::new(params, key) }
    }

    /// What peers trust.
    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.root.clone()
    }

    /// A certificate for any name, with its key.
    pub(crate) fn certify(&self, name: String) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec![name]).expect("params").signed_by(&key, &self.issuer).expect("signed");
        (leaf.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    /// All that a replica needs.
    pub(crate) fn identity(&self, id: ReplicaId) -> PeerIdentity {
        let (certificate, key) = self.certify(peer_name(id));
        PeerIdentity { certificates: vec![certificate], key, roots: vec![self.root()] }
    }
}
