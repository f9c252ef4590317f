//! The certificates of an agent: those it trusts, and its own, self-made, by which the control plane recognises its log endpoint.
//!
//! The endpoint's certificate is pinned by its SHA-256, announced at registration; so it names nobody's authority, and it is kept
//! across restarts.

use std::net::IpAddr;
use std::path::Path;

use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use ring::digest::{SHA256, digest};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::durable;
use crate::error::AgentError;
use crate::identity::DataDirectory;

/// The certificates in a PEM file, at least one.
pub(crate) fn read_authority(path: &Path) -> Result<Vec<CertificateDer<'static>>, AgentError> {
    let bytes = std::fs::read(path).map_err(AgentError::file(path))?;
    let wrong = |reason: String| AgentError::Content { path: path.to_owned(), reason };
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() {
        return Err(wrong("no certificate in PEM form".to_owned()));
    }
    Ok(certificates)
}

/// The agent's own certificate and key.
#[derive(Debug)]
pub(crate) struct Own {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Own {
    /// The one kept in the data directory, or a new one.
    pub(crate) fn load_or_make(data: &DataDirectory, name: &str, address: IpAddr) -> Result<Self, AgentError> {
        let certificate_path = data.join("kubelet.crt");
        let key_path = data.join("kubelet.key");
        let kept = (
            durable::read_if_there(&certificate_path).map_err(AgentError::file(&certificate_path))?,
            durable::read_if_there(&key_path).map_err(AgentError::file(&key_path))?,
        );
        if let (Some(certificate), Some(key)) = kept
            && let (Ok(certificate), Ok(key)) =
                (CertificateDer::from_pem_slice(&certificate), PrivateKeyDer::from_pem_slice(&key))
        {
            return Ok(Self { certificate, key });
        }
        let failed = |error: rcgen::Error| AgentError::Tls(error.to_string());
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(Vec::<String>::new()).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names.push(SanType::IpAddress(address));
        if let Ok(dns) = name.try_into() {
            params.subject_alt_names.push(SanType::DnsName(dns));
        }
        // Pinned, not chained: it ends with the node, not with a date.
        params.not_after = rcgen::date_time_ymd(4096, 1, 1);
        let certificate = params.self_signed(&key).map_err(failed)?;
        durable::replace(&key_path, key.serialize_pem().as_bytes()).map_err(AgentError::file(key_path))?;
        durable::replace(&certificate_path, certificate.pem().as_bytes())
            .map_err(AgentError::file(certificate_path))?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|reason| AgentError::Tls(reason.to_owned()))?;
        Ok(Self { certificate: certificate.der().clone(), key })
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }

    /// What the control plane pins: SHA-256 of the certificate, in lower-case hexadecimal digits.
    pub(crate) fn sha256(&self) -> String {
        hex::encode(digest(&SHA256, &self.certificate))
    }
}
