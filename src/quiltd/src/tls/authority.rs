//! [`Authority`]: a CA made at first start, and the leaves it signs (architecture D17).
//!
//! Two authorities exist: the *serving* CA, which clients and agents trust, and the *peer* CA, which only replicas
//! trust. A client certificate of one never opens the other.

use std::net::IpAddr;

use anyhow::Context;
use quilt_api::roster::PemPair;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType,
};

/// A certificate authority with its key at hand.
pub(crate) struct Authority {
    pair: PemPair,
}

/// Who a leaf is for.
pub(crate) struct Subject<'a> {
    /// Common name.
    pub(crate) common_name: &'a str,
    /// Organizations: Kubernetes' groups.
    pub(crate) organizations: &'a [&'a str],
    /// DNS names and IP addresses it may serve.
    pub(crate) names: Vec<String>,
}

/// Lifetime of a CA: replaced by rotation long before.
const CA_DAYS: i64 = 3650;
/// Lifetime of a leaf; a start past a third of it makes a new one.
const LEAF_DAYS: i64 = 365;
/// Clocks of hosts differ; a certificate is valid a little before it was made.
const BACKDATE_MINUTES: i64 = 10;

impl Authority {
    /// Makes a new CA.
    pub(crate) fn create(common_name: &str) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        valid_for(&mut params, CA_DAYS);
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { pair: PemPair { certificate, key: key.serialize_pem() } })
    }

    /// An authority made before.
    pub(crate) const fn from_pair(pair: PemPair) -> Self {
        Self { pair }
    }

    /// Certificate and key.
    pub(crate) const fn pair(&self) -> &PemPair {
        &self.pair
    }

    /// Makes a key and signs a leaf for it.
    pub(crate) fn issue(&self, subject: Subject<'_>) -> anyhow::Result<PemPair> {
        let key = KeyPair::generate()?;
        Ok(PemPair { certificate: self.sign(subject, &key)?, key: key.serialize_pem() })
    }

    /// Signs a leaf that both serves and authenticates as a client, for a key that is somebody else's to keep. Gives its
    /// PEM text.
    pub(crate) fn sign(&self, subject: Subject<'_>, key: &impl PublicKeyData) -> anyhow::Result<String> {
        let issuer_key = KeyPair::from_pem(&self.pair.key).context("the CA's private key cannot be read")?;
        let issuer = Issuer::from_ca_cert_pem(&self.pair.certificate, issuer_key).context("the CA cannot be read")?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, subject.common_name);
        for organization in subject.organizations {
            params.distinguished_name.push(DnType::OrganizationName, *organization);
        }
        for name in subject.names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.try_into()?),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        valid_for(&mut params, LEAF_DAYS);
        Ok(params.signed_by(key, &issuer)?.pem())
    }
}

fn valid_for(params: &mut CertificateParams, days: i64) {
    let now = std::time::SystemTime::now();
    let minutes = |n: i64| std::time::Duration::from_secs(u64::try_from(n * 60).unwrap_or(0));
    params.not_before = (now - minutes(BACKDATE_MINUTES)).into();
    params.not_after = (now + minutes(days * 24 * 60)).into();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leaf chains to its CA and carries the names it was asked for.
    #[test]
    fn issues_a_leaf_with_its_names() {
        let authority = Authority::create("test CA").expect("creates");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let leaf =
            authority.issue(Subject { common_name: "replica-1", organizations: &["quilt"], names }).expect("issues");
        let (_, pem) = x509_parser::pem::parse_x509_pem(leaf.certificate.as_bytes()).expect("pem");
        let certificate = pem.parse_x509().expect("x509");
        let (_, ca) = x509_parser::pem::parse_x509_pem(authority.pair().certificate.as_bytes()).expect("pem");
        let ca = ca.parse_x509().expect("x509");
        assert_eq!(certificate.issuer(), ca.subject());
        let names = certificate.subject_alternative_name().expect("readable").expect("present");
        assert_eq!(names.value.general_names.len(), 2);
    }
}
