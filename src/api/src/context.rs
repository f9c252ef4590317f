//! [`Api`]: what every request handler shares. Holds handles and options, no request state and no objects.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quilt_raft::Replica;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

/// The key under which data keys and signing keys are sealed (architecture D5). Never replicated, never shown.
#[derive(Clone)]
pub struct RootKey([u8; 32]);

impl RootKey {
    /// Wraps the 32 bytes read from the root key file.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw key.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(..)")
    }
}

/// The client certificate the control plane shows to agents' kubelet-compatible endpoints.
pub struct AgentCredential {
    /// Certificate chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
}

impl fmt::Debug for AgentCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentCredential(..)")
    }
}

/// What the assembly decides about the API.
#[derive(Debug)]
pub struct ApiOptions {
    /// Version of quiltd, shown behind the claimed Kubernetes version.
    pub version: String,
    /// Seals sensitive fields and signing keys.
    pub root_key: RootKey,
    /// Shown to agents when logs are fetched; without it log requests answer 503.
    pub agent_credential: Option<AgentCredential>,
    /// How long a request is held while there is no leader.
    pub deadline: Duration,
    /// Pod CIDR of the built-in cluster, used when it is bootstrapped.
    pub built_in_pod_cidr: String,
    /// PEM of the CA that signed the serving certificates: `kube-root-ca.crt` everywhere.
    pub serving_ca_pem: String,
    /// Address under which this replica's API is reached: one of those behind the Service `kubernetes`.
    pub advertise: Option<std::net::SocketAddr>,
}

impl ApiOptions {
    /// Options with the documented defaults.
    #[must_use]
    pub fn new(version: &str, root_key: RootKey) -> Self {
        Self {
            version: version.into(),
            root_key,
            agent_credential: None,
            deadline: Duration::from_secs(10),
            built_in_pod_cidr: "10.244.0.0/16".into(),
            serving_ca_pem: String::new(),
            advertise: None,
        }
    }
}

/// State shared by all request handlers of one replica.
pub struct Api {
    /// The replicated state, as this replica sees it.
    pub replica: Replica,
    /// What the assembly decided.
    pub options: ApiOptions,
    draining: watch::Sender<bool>,
}

impl Api {
    /// Shared state over `replica`.
    #[must_use]
    pub fn new(options: ApiOptions, replica: Replica) -> Arc<Self> {
        Arc::new(Self { replica, options, draining: watch::Sender::new(false) })
    }

    /// Begins an orderly end: `/readyz` fails and open watches close cleanly. Requests under way are finished.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Whether [`Api::drain`] was called; changes once, to true.
    #[must_use]
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Wall time of this replica as `metav1.Time` text, whole seconds.
    #[must_use]
    pub fn now(&self) -> String {
        timestamp(self.replica.wall_ms())
    }
}

/// `metav1.Time` text of a wall time in milliseconds: RFC 3339, UTC, whole seconds.
#[must_use]
pub fn timestamp(wall_ms: u64) -> String {
    let seconds = i64::try_from(wall_ms / 1000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |time| time.to_string())
}
