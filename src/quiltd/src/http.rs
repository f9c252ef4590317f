//! HTTP clients of this binary's own commands: trust exactly the given CA, and say plainly why a replica is not
//! reached.

use std::error::Error as _;
use std::time::Duration;

use anyhow::Context;

use crate::exit::Failure;

/// A client that trusts `ca_pem` only (nothing, when absent).
pub(crate) fn client(ca_pem: Option<&str>, timeout: Duration) -> anyhow::Result<reqwest::Client> {
    Ok(trusting(ca_pem)?.timeout(timeout).build()?)
}

/// The same for answers of any length: `timeout` is the longest silence.
pub(crate) fn download_client(ca_pem: Option<&str>, timeout: Duration) -> anyhow::Result<reqwest::Client> {
    Ok(trusting(ca_pem)?.connect_timeout(timeout).read_timeout(timeout).build()?)
}

fn trusting(ca_pem: Option<&str>) -> anyhow::Result<reqwest::ClientBuilder> {
    let mut roots = rustls::RootCertStore::empty();
    if let Some(pem) = ca_pem {
        for certificate in certificates(pem)? {
            roots.add(certificate).context("the CA certificate is not usable")?;
        }
    }
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(reqwest::Client::builder().use_preconfigured_tls(config))
}

/// The certificates of a PEM text.
pub(crate) fn certificates(pem: &str) -> anyhow::Result<Vec<rustls_pki_types::CertificateDer<'static>>> {
    use rustls_pki_types::pem::PemObject;
    let all: Vec<_> = rustls_pki_types::CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>()?;
    anyhow::ensure!(!all.is_empty(), "the PEM text holds no certificate");
    Ok(all)
}

/// The private key of a PEM text.
pub(crate) fn private_key(pem: &str) -> anyhow::Result<rustls_pki_types::PrivateKeyDer<'static>> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::PrivateKeyDer::from_pem_slice(pem.as_bytes()).context("the PEM text holds no private key")
}

/// Says in words why `address` was not reached.
pub(crate) fn unreachable(address: &str, error: &reqwest::Error) -> Failure {
    let mut causes = String::new();
    let mut cause = error.source();
    while let Some(next) = cause {
        causes = next.to_string();
        cause = next.source();
    }
    if error.is_timeout() {
        return Failure::TimedOut(format!("replica at '{address}' did not answer in time"));
    }
    let reason = if causes.contains("refused") {
        "nothing listens there".to_owned()
    } else if causes.contains("UnknownIssuer") {
        "its certificate is not signed by the given CA (--ca FILE)".to_owned()
    } else if causes.is_empty() {
        error.to_string()
    } else {
        causes
    };
    Failure::Unavailable(format!("replica at '{address}' was not reached: {reason}"))
}
