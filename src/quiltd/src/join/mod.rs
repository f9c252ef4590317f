//! How a new replica gets into a control plane: it proves the control plane by the CA's hash in its token, makes its own
//! keys, and is given a number, certificates for those keys, and the root key, all over a connection it has verified.

pub(crate) mod token;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use rcgen::{CertificateParams, KeyPair};
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};

use crate::assemble::identity;
use crate::exit::{Failure, Hinted};
use crate::tls::files::{self, ReplicaFiles};
use crate::{http, output};

use token::ReplicaToken;

/// What a new replica asks with.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JoinRequest {
    /// Certificate request for what it shows to clients, PEM (RFC 2986).
    pub(crate) serving_csr: String,
    /// Certificate request for what it shows to other replicas.
    pub(crate) peer_csr: String,
    /// Where other replicas reach it, `HOST:PORT`.
    pub(crate) address: String,
    /// Names and addresses by which clients reach it.
    pub(crate) names: Vec<String>,
}

/// What it is given.
#[derive(Serialize, Deserialize)]
pub(crate) struct Joined {
    /// Its number.
    pub(crate) id: u64,
    /// Id of the control plane, and the epoch it is in.
    pub(crate) control_plane: String,
    pub(crate) epoch: u64,
    /// Certificates for its two keys, PEM.
    pub(crate) serving_certificate: String,
    pub(crate) peer_certificate: String,
    /// Who signed them.
    pub(crate) serving_ca: String,
    pub(crate) peer_ca: String,
    /// Under which secrets are sealed, hexadecimal.
    pub(crate) root_key: String,
    /// What a first leader would put into an empty state; this one never founds anything.
    pub(crate) admin_key_sha256: String,
}

/// What the command line says of it.
#[derive(Debug)]
pub(crate) struct Joining {
    pub(crate) url: String,
    pub(crate) token_file: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) address: String,
    pub(crate) names: Vec<String>,
}

/// How long a control plane that does not answer, or has no leader now, is asked again.
const PATIENCE: Duration = Duration::from_secs(120);
const RETRY_AFTER: Duration = Duration::from_secs(1);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

impl Joining {
    /// Fills the data directory, unless that was done before. May be repeated: a replica that asks again with its keys is
    /// given the same number.
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        let place = ReplicaFiles::new(&self.data_dir);
        if place.bootstrap().exists() {
            return Ok(());
        }
        let text = files::read(&self.token_file)?;
        let token = ReplicaToken::parse(&text).map_err(|why| {
            Failure::Usage(format!("file '{}' holds no replica token: {why}", self.token_file.display()))
        })?;
        files::private_dir(&self.data_dir)?;
        let (serving_key, peer_key) = (key(&place.serving().1)?, key(&place.peer().1)?);
        let request = JoinRequest {
            serving_csr: CertificateParams::default().serialize_request(&serving_key)?.pem()?,
            peer_csr: CertificateParams::default().serialize_request(&peer_key)?.pem()?,
            address: self.address.clone(),
            names: self.names.clone(),
        };
        let ca = self.authority(&token).await?;
        let joined = self.ask(&token, &ca, &request).await?;
        fill(&place, &self.data_dir, &joined, &self.address)?;
        output::note(&format!("joined control plane {} as replica {}", joined.control_plane, joined.id));
        Ok(())
    }

    /// The CA's certificate. It is fetched from somebody not yet verified and believed by its hash only.
    async fn authority(&self, token: &ReplicaToken) -> anyhow::Result<String> {
        let client = http::unverified_client(REQUEST_TIMEOUT)?;
        let url = format!("{}/api/admin/ca", self.url.trim_end_matches('/'));
        let pem = self.until_answered(None, || client.get(&url)).await?.text().await?;
        let found = token::ca_hash(&pem).context("the control plane did not show its CA")?;
        if found != token.ca_hash {
            return Err(Failure::Refused(format!(
                "the CA at '{}' is not the one the token was made for: its SHA-256 is {found}",
                self.url
            )))
            .hint("check the address, and that nobody stands between; then make a new token");
        }
        Ok(pem)
    }

    async fn ask(&self, token: &ReplicaToken, ca: &str, request: &JoinRequest) -> anyhow::Result<Joined> {
        let client = http::client(Some(ca), REQUEST_TIMEOUT)?;
        let url = format!("{}/api/admin/replicas/join", self.url.trim_end_matches('/'));
        let answer =
            self.until_answered(Some(ca), || client.post(&url).bearer_auth(&token.secret).json(request)).await?;
        answer.json().await.context("the control plane's answer is not what this release expects")
    }

    /// Asks until there is an answer other than "not now".
    async fn until_answered(
        &self,
        ca: Option<&str>,
        ask: impl Fn() -> reqwest::RequestBuilder,
    ) -> anyhow::Result<reqwest::Response> {
        let began = Instant::now();
        let mut told = false;
        loop {
            let failure = match ask().send().await {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => {
                    if answer.status() == StatusCode::UNAUTHORIZED {
                        let why = "the replica token is unknown, used up, expired or revoked";
                        return Err(Failure::Refused(why.into())).hint("make a new one: quiltd token create");
                    }
                    let not_now =
                        matches!(answer.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT);
                    let refusal = crate::cli::refusal(answer).await;
                    if !not_now {
                        return Err(refusal);
                    }
                    refusal
                }
                Err(error) => http::unreachable(&self.url, ca, &error),
            };
            if began.elapsed() > PATIENCE {
                return Err(failure);
            }
            if !told {
                tracing::warn!("{failure:#}; asking again for {} s", PATIENCE.as_secs());
                told = true;
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

/// The key in `file`, made when it is not there: by it the control plane knows who asks again.
fn key(file: &Path) -> anyhow::Result<KeyPair> {
    if file.exists() {
        let text = files::read_private(file)?;
        return KeyPair::from_pem(&text).with_context(|| format!("'{}' does not hold a private key", file.display()));
    }
    let key = KeyPair::generate()?;
    files::write_private(file, key.serialize_pem().as_bytes())?;
    Ok(key)
}

fn fill(place: &ReplicaFiles, data_dir: &Path, joined: &Joined, address: &str) -> anyhow::Result<()> {
    files::write_public(&place.serving().0, joined.serving_certificate.as_bytes())?;
    files::write_public(&place.peer().0, joined.peer_certificate.as_bytes())?;
    files::write_public(&place.serving_ca(), joined.serving_ca.as_bytes())?;
    files::write_public(&place.peer_ca(), joined.peer_ca.as_bytes())?;
    files::write_private(&place.root_key(), joined.root_key.as_bytes())?;
    let identity = quilt_storage::Identity { cluster: joined.control_plane.clone(), replica: joined.id };
    quilt_storage::Home::prepare(data_dir, identity, joined.epoch)?;
    identity::write_joined(place, joined, address)
}
