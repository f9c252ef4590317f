//! [`Secret`]: a fresh credential, and [`Digest`], the only form of it that is ever stored.
//!
//! All kinds of secret carry 256 random bits behind a prefix that names the kind. Only the SHA-256 of the whole
//! text is kept; a lookup by hash compares in constant time by construction. Must not know HTTP or where digests live.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SecureRandom;

/// What a secret opens; its prefix tells people and scanners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// A tenant's API key, `qk_`.
    ApiKey,
    /// The operator's key, `qa_`.
    AdminKey,
    /// Lets agents join, `qj_`.
    JoinToken,
    /// One node of one cluster, `qn_`.
    NodeToken,
    /// Lets replicas join, `qr_`.
    ReplicaToken,
}

impl SecretKind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::ApiKey => "qk_",
            Self::AdminKey => "qa_",
            Self::JoinToken => "qj_",
            Self::NodeToken => "qn_",
            Self::ReplicaToken => "qr_",
        }
    }
}

/// A plain secret, shown once in the answer that creates it.
#[derive(Clone)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl Secret {
    /// Draws a new secret of `kind` from the system's entropy.
    ///
    /// # Panics
    /// When the system has no entropy source: nothing secret can be made then.
    #[must_use]
    pub fn draw(kind: SecretKind) -> Self {
        let mut random = [0_u8; 32];
        ring::rand::SystemRandom::new().fill(&mut random).expect("the system's entropy source answers");
        Self(format!("{}{}", kind.prefix(), URL_SAFE_NO_PAD.encode(random)))
    }

    /// The plain text, for the one answer that shows it.
    #[must_use]
    pub fn plain(&self) -> &str {
        &self.0
    }

    /// What is stored.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

/// Lower-case hexadecimal SHA-256 of a secret's text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    /// Digest of the text a client presented.
    #[must_use]
    pub fn of(plain: &str) -> Self {
        Self(hex::encode(ring::digest::digest(&ring::digest::SHA256, plain.as_bytes())))
    }

    /// A digest made elsewhere (by whoever drew the first admin key); `None` when it is not 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let hexadecimal =
            text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
        hexadecimal.then(|| Self(text.into()))
    }

    /// The hexadecimal text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A fresh UUID as text.
#[must_use]
pub fn fresh_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Secrets differ, name their kind, and never print themselves; the digest is the text's SHA-256.
    #[test]
    fn secrets_are_fresh_and_hidden() {
        let (one, two) = (Secret::draw(SecretKind::JoinToken), Secret::draw(SecretKind::JoinToken));
        assert_ne!(one.plain(), two.plain());
        assert!(one.plain().starts_with("qj_") && one.plain().len() == 46);
        assert_eq!(format!("{one:?}"), "Secret(***)");
        assert_eq!(Digest::of("abc").as_str(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(Digest::from_hex("AB").is_none());
        assert_eq!(Digest::from_hex(one.digest().as_str()), Some(one.digest()));
    }
}
