//! [`Place`]: who this replica is: its certificates, keys, and what it puts into an empty state. Made at first start
//! when the replica is alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use quilt_api::roster::{Authorities, PemPair};
use quilt_api::{AgentCredential, RootKey};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsAcceptor;

use crate::assemble::Options;
use crate::assemble::first_start::First;
use crate::exit::{Failure, Hinted};
use crate::http::{certificates, private_key};
use crate::join::Joined;
use crate::tls::authority::{Authority, Subject};
use crate::tls::files::{self, ReplicaFiles};
use crate::{host, output, secret};

/// What is read from a replica's directory.
pub(crate) struct Place {
    pub(crate) control_plane: String,
    pub(crate) root_key: RootKey,
    pub(crate) first: First,
    serving: PemPair,
    peer: PemPair,
    peer_ca: String,
}

/// `bootstrap.json`: only hashes of keys.
#[derive(Serialize, Deserialize)]
struct Bootstrap {
    control_plane: String,
    admin_key_sha256: String,
    api_key_sha256: Option<String>,
    /// Of a replica that was let in by others: it never founds a control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    joined: Option<Membership>,
}

/// As what a replica was let in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Membership {
    pub(crate) replica: u64,
    /// Where its peers reach it.
    pub(crate) address: String,
}

/// As what the replica of this directory was let in, if it was.
pub(crate) fn membership(data_dir: &Path) -> anyhow::Result<Option<Membership>> {
    let file = ReplicaFiles::new(data_dir).bootstrap();
    if file.exists() { Ok(bootstrap(&file)?.joined) } else { Ok(None) }
}

fn bootstrap(file: &Path) -> anyhow::Result<Bootstrap> {
    serde_json::from_str(&files::read_private(file)?).with_context(|| format!("'{}' is damaged", file.display()))
}

/// Reads the replica's directory, filling it first when the replica is alone and new.
pub(crate) fn load(options: &Options) -> anyhow::Result<Place> {
    files::private_dir(&options.data_dir)?;
    let place = ReplicaFiles::new(&options.data_dir);
    if !place.bootstrap().exists() {
        if options.members.len() > 1 {
            return Err(Failure::Refused(format!(
                "directory '{}' holds no certificates for a replica of a larger control plane",
                options.data_dir.display()
            )))
            .hint("copy there what `quiltd init` made for this replica, or start it alone");
        }
        make(options, &place)?;
    }
    read(&options.data_dir)
}

/// Reads what a replica's directory says of it.
pub(crate) fn read(data_dir: &Path) -> anyhow::Result<Place> {
    let place = ReplicaFiles::new(data_dir);
    let bootstrap = bootstrap(&place.bootstrap())?;
    let mut root_key = [0; 32];
    hex::decode_to_slice(files::read_private(&place.root_key())?.trim(), &mut root_key)
        .with_context(|| format!("'{}' does not hold 32 bytes in hex", place.root_key().display()))?;
    Ok(Place {
        control_plane: bootstrap.control_plane,
        root_key: RootKey::new(root_key),
        first: First {
            admin_key_sha256: bootstrap.admin_key_sha256,
            api_key_sha256: bootstrap.api_key_sha256,
            serving_ca_pem: files::read(&place.serving_ca())?,
            authorities: authorities(&place)?,
        },
        serving: files::read_pair(&place.serving())?,
        peer: files::read_pair(&place.peer())?,
        peer_ca: files::read(&place.peer_ca())?,
    })
}

/// The authorities' keys, where they were made.
fn authorities(place: &ReplicaFiles) -> anyhow::Result<Option<Authorities>> {
    let pair = |place: (PathBuf, PathBuf)| place.1.exists().then(|| files::read_pair(&place)).transpose();
    let serving = pair((place.serving_ca(), place.serving_ca_key()))?;
    let peer = pair((place.peer_ca(), place.peer_ca_key()))?;
    Ok(serving.zip(peer).map(|(serving, peer)| Authorities { serving, peer }))
}

/// First start of a lone replica: everything is made, and the admin key shown once.
fn make(options: &Options, place: &ReplicaFiles) -> anyhow::Result<()> {
    let serving_ca = Authority::create("quiltd serving CA")?;
    let peer_ca = Authority::create("quiltd peer CA")?;
    write_authorities(place, &serving_ca, &peer_ca)?;
    let admin_key = secret::credential("qa_")?;
    let names = host::names(options.listen, options.advertise, &options.names);
    issue(place, options.id, &serving_ca, &peer_ca, &names)?;
    files::write_private(&place.root_key(), hex::encode(secret::random()?).as_bytes())?;
    write_bootstrap(place, &uuid::Uuid::new_v4().to_string(), &admin_key, None)?;
    output::line(&format!("admin key (shown once): {admin_key}"));
    output::line(&format!("certificate authority: {}", place.serving_ca().display()));
    Ok(())
}

/// Puts both authorities, their keys included, into a replica's directory.
pub(crate) fn write_authorities(place: &ReplicaFiles, serving: &Authority, peer: &Authority) -> anyhow::Result<()> {
    files::write_pair(&(place.serving_ca(), place.serving_ca_key()), serving.pair())?;
    files::write_pair(&(place.peer_ca(), place.peer_ca_key()), peer.pair())
}

/// Signs a replica's serving and peer certificates into its directory.
pub(crate) fn issue(
    place: &ReplicaFiles,
    id: quilt_proto::ReplicaId,
    serving_ca: &Authority,
    peer_ca: &Authority,
    addresses: &[String],
) -> anyhow::Result<()> {
    let common_name = common_name(id);
    let serving = serving_ca.issue(serving_subject(&common_name, serving_names(addresses)))?;
    files::write_pair(&place.serving(), &serving)?;
    let peer = peer_ca.issue(peer_subject(&common_name, id))?;
    files::write_pair(&place.peer(), &peer)
}

pub(crate) fn common_name(id: quilt_proto::ReplicaId) -> String {
    format!("replica-{id}")
}

/// What a replica's serving certificate says.
pub(crate) fn serving_subject(common_name: &str, names: Vec<String>) -> Subject<'_> {
    Subject { common_name, organizations: &["quilt:control-plane"], names }
}

/// What its peer certificate says.
pub(crate) fn peer_subject(common_name: &str, id: quilt_proto::ReplicaId) -> Subject<'_> {
    Subject { common_name, organizations: &[], names: vec![quilt_raft::peer_name(id)] }
}

/// All names of a serving certificate: those given, and those every replica has.
pub(crate) fn serving_names(given: &[String]) -> Vec<String> {
    /// Names under which clients reach the API, the ones inside a cluster included (Kubernetes' own set).
    const NAMES: [&str; 7] = [
        "localhost",
        "127.0.0.1",
        "::1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let mut names: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).chain(given.iter().cloned()).collect();
    names.retain(|name| name != "0.0.0.0" && name != "::");
    names.sort();
    names.dedup();
    names
}

/// Notes as what a replica was let in. Written last: its presence says that the rest is complete.
pub(crate) fn write_joined(place: &ReplicaFiles, joined: &Joined, address: &str) -> anyhow::Result<()> {
    let bootstrap = Bootstrap {
        control_plane: joined.control_plane.clone(),
        admin_key_sha256: joined.admin_key_sha256.clone(),
        api_key_sha256: None,
        joined: Some(Membership { replica: joined.id, address: address.to_owned() }),
    };
    files::write_private(&place.bootstrap(), &serde_json::to_vec_pretty(&bootstrap)?)
}

/// Writes what the first leader puts into an empty state. Written last: its presence says that the rest is complete.
pub(crate) fn write_bootstrap(
    place: &ReplicaFiles,
    control_plane: &str,
    admin_key: &str,
    api_key: Option<&str>,
) -> anyhow::Result<()> {
    let bootstrap = Bootstrap {
        control_plane: control_plane.to_owned(),
        admin_key_sha256: secret::sha256_hex(admin_key),
        api_key_sha256: api_key.map(secret::sha256_hex),
        joined: None,
    };
    files::write_private(&place.bootstrap(), &serde_json::to_vec_pretty(&bootstrap)?)
}

impl Place {
    /// TLS of the API listener. Client certificates are not asked for: no authority for them exists yet.
    pub(crate) fn acceptor(&self) -> anyhow::Result<TlsAcceptor> {
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(self.serving_chain()?, private_key(&self.serving.key)?)
            .context("the serving certificate does not fit its key")?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    fn serving_chain(&self) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        certificates(&self.serving.certificate)
    }

    /// What the control plane shows to agents.
    pub(crate) fn agent_credential(&self) -> anyhow::Result<AgentCredential> {
        Ok(AgentCredential { chain: self.serving_chain()?, key: private_key(&self.serving.key)? })
    }

    /// What other replicas know this one by.
    pub(crate) fn peer_identity(&self) -> anyhow::Result<quilt_raft::PeerIdentity> {
        Ok(quilt_raft::PeerIdentity {
            certificates: certificates(&self.peer.certificate)?,
            key: private_key(&self.peer.key)?,
            roots: certificates(&self.peer_ca)?,
        })
    }
}
