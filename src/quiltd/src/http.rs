//! HTTP clients of this binary's own commands: trust exactly the given CA, and say plainly why a replica is not
//! reached.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use quilt_api::AcceptedLeaf;
use rustls_pki_types::CertificateDer;

use crate::exit::{Failure, hinted};

/// A client that trusts `ca_pem` only (nothing, when absent).
pub(crate) fn client(ca_pem: Option<&str>, timeout: Duration) -> anyhow::Result<reqwest::Client> {
    Ok(trusting(ca_pem)?.timeout(timeout).build()?)
}

/// The same for answers of any length: `timeout` is the longest silence.
pub(crate) fn download_client(ca_pem: Option<&str>, timeout: Duration) -> anyhow::Result<reqwest::Client> {
    Ok(trusting(ca_pem)?.connect_timeout(timeout).read_timeout(timeout).build()?)
}

/// A client that believes everybody: only for what is proven by other means afterwards.
pub(crate) fn unverified_client(timeout: Duration) -> anyhow::Result<reqwest::Client> {
    let config = rustls::ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptedLeaf::Any))
        .with_no_client_auth();
    Ok(reqwest::Client::builder().use_preconfigured_tls(config).timeout(timeout).build()?)
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
pub(crate) fn certificates(pem: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    use rustls_pki_types::pem::PemObject;
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>()?;
    anyhow::ensure!(!all.is_empty(), "the PEM text holds no certificate");
    Ok(all)
}

/// The private key of a PEM text.
pub(crate) fn private_key(pem: &str) -> anyhow::Result<rustls_pki_types::PrivateKeyDer<'static>> {
    use rustls_pki_types::pem::PemObject;
    rustls_pki_types::PrivateKeyDer::from_pem_slice(pem.as_bytes()).context("the PEM text holds no private key")
}

/// Says in words why `address` was not reached, and what to do about it. `ca_pem` is what the client trusted.
pub(crate) fn unreachable(address: &str, ca_pem: Option<&str>, error: &reqwest::Error) -> anyhow::Error {
    let mut cause = String::new();
    let mut next = error.source();
    while let Some(error) = next {
        cause = error.to_string();
        next = error.source();
    }
    if error.is_timeout() {
        let text = format!("replica at '{address}' did not answer in time");
        return hinted(
            Failure::TimedOut(text),
            "ask another replica with --address URL, or wait longer with --timeout",
        );
    }
    if cause.is_empty() {
        cause = error.to_string();
    }
    let (reason, hint) = reason(&cause, ca_pem.is_some());
    hinted(Failure::Unavailable(format!("replica at '{address}' was not reached: {reason}")), hint)
}

/// The words of the libraries below, told as an operator would.
fn reason(cause: &str, ca_given: bool) -> (&str, &'static str) {
    const OTHER: &str = "the API's port is 6443 unless --listen or --api-port say otherwise, and its URL has https://";
    let has = |words: &[&str]| words.iter().any(|word| cause.contains(word));
    if has(&["refused"]) {
        (
            "nothing listens there",
            "start `quiltd server` or `quiltd dev`, or name a replica that runs with --address URL",
        )
    } else if has(&["UnknownIssuer"]) && !ca_given {
        ("its certificate cannot be checked without its authority", "name the control plane's ca.crt with --ca FILE")
    } else if has(&["UnknownIssuer"]) {
        (
            "the authority given with --ca has not signed its certificate",
            "give the ca.crt of this control plane, and the address of its API, not of its peers",
        )
    } else if has(&["NotValidForName"]) {
        (
            "its certificate is for other names",
            "use an address that `quiltd init` was told, there also with --name HOST",
        )
    } else if has(&["Expired"]) {
        ("its certificate has expired", "make new certificates for this replica; compare this host's clock, too")
    } else if has(&["InvalidContentType", "invalid HTTP version", "CertificateRequired"]) {
        ("what listens there is not the API over TLS", OTHER)
    } else if has(&["lookup address", "dns error"]) {
        ("no host of that name is known", "correct --address URL or QUILTD_ADDRESS")
    } else {
        (cause, OTHER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What went wrong on the way is told in words, with what to do about it rather than a guess.
    #[test]
    fn reasons_are_told() {
        let told = |cause, ca_given| reason(cause, ca_given).0;
        assert_eq!(told("Connection refused (os error 111)", true), "nothing listens there");
        assert!(told("invalid peer certificate: UnknownIssuer", false).contains("without its authority"));
        assert!(told("invalid peer certificate: UnknownIssuer", true).contains("--ca"));
        assert!(told("received corrupt message of type InvalidContentType", true).contains("not the API"));
        assert_eq!(told("no route to host", true), "no route to host");
    }
}
