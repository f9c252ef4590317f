//! Peer identity: mutual TLS in which a certificate names the replica it belongs to.
//!
//! A replica's certificate carries the DNS name `replica-<id>`. The dialling side asks for exactly that name, the
//! accepting side reads it from the client's certificate; so the peer reached is the peer addressed, whoever answers
//! at its address.

use std::sync::Arc;

use parking_lot::RwLock;
use quilt_proto::ReplicaId;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::error::OpenError;

const NAME_PREFIX: &str = "replica-";

/// The DNS name a replica's peer certificate must carry, as a subject alternative name.
#[must_use]
pub fn peer_name(id: ReplicaId) -> String {
    format!("{NAME_PREFIX}{id}")
}

/// Keys and certificates by which replicas know each other. Made elsewhere.
pub struct PeerIdentity {
    /// This replica's certificate and what leads to a root, leaf first.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
    /// The authorities peers are checked against. Two during a change of authority.
    pub roots: Vec<CertificateDer<'static>>,
}

impl std::fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerIdentity").field("certificates", &self.certificates.len()).finish_non_exhaustive()
    }
}

/// What a connection is for, told in TLS as the application protocol.
const DATA: &[u8] = b"h2";
pub(super) const CONTROL: &[u8] = b"quilt-control/1";

/// The identity in use; new connections take the newest.
pub(crate) struct Tls {
    current: RwLock<Configs>,
}

struct Configs {
    data: (Arc<ServerConfig>, Arc<ClientConfig>),
    control: (Arc<ServerConfig>, Arc<ClientConfig>),
}

fn refused(error: impl std::fmt::Display) -> OpenError {
    OpenError::Tls(error.to_string())
}

fn configs(id: ReplicaId, identity: PeerIdentity) -> Result<Configs, OpenError> {
    let PeerIdentity { certificates, key, roots } = identity;
    let leaf = certificates.first().ok_or_else(|| refused("no certificate given"))?;
    if replica_of(leaf) != Some(id.0) {
        return Err(refused(format!("the certificate does not carry the name {}", peer_name(id))));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root).map_err(refused)?;
    }
    let store = Arc::new(store);
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&store), Arc::clone(&provider));
    let verifier = verifier.build().map_err(refused)?;
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refused)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates.clone(), key.clone_key())
        .map_err(refused)?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(refused)?
        .with_root_certificates(store)
        .with_client_auth_cert(certificates, key)
        .map_err(refused)?;
    // Tickets would only be written after every handshake; connections are few and long.
    server.send_tls13_tickets = 0;
    let speaking = |protocol: &[u8]| {
        let (mut server, mut client) = (server.clone(), client.clone());
        server.alpn_protocols = vec![protocol.to_vec()];
        client.alpn_protocols = vec![protocol.to_vec()];
        (Arc::new(server), Arc::new(client))
    };
    Ok(Configs { data: speaking(DATA), control: speaking(CONTROL) })
}

impl Tls {
    pub(crate) fn new(id: ReplicaId, identity: PeerIdentity) -> Result<Self, OpenError> {
        Ok(Self { current: RwLock::new(configs(id, identity)?) })
    }

    /// Takes a renewed certificate, or a changed set of authorities, for all connections from here on.
    pub(crate) fn renew(&self, id: ReplicaId, identity: PeerIdentity) -> Result<(), OpenError> {
        let renewed = configs(id, identity)?;
        *self.current.write() = renewed;
        Ok(())
    }

    pub(in crate::transport) fn data_acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.read().data.0))
    }

    pub(in crate::transport) fn data_connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::clone(&self.current.read().data.1))
    }

    pub(in crate::transport) fn control_acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.read().control.0))
    }

    pub(in crate::transport) fn control_connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::clone(&self.current.read().control.1))
    }
}

/// The name to ask for when dialling a replica.
pub(crate) fn server_name(id: u64) -> ServerName<'static> {
    ServerName::try_from(peer_name(ReplicaId(id))).expect("letters, a hyphen and digits are a DNS name")
}

/// The replica a certificate belongs to.
pub(crate) fn replica_of(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::DNSName(name) => name.strip_prefix(NAME_PREFIX)?.parse().ok(),
        _ => None,
    })
}
