//! Makes credentials: 256 random bits behind a prefix that says what they open. Only their SHA-256 is ever replicated.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

/// 32 bytes from the operating system.
pub(crate) fn random() -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    Ok(bytes)
}

/// A fresh credential, such as `qa_…`.
pub(crate) fn credential(prefix: &str) -> anyhow::Result<String> {
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random()?)))
}

/// Hex SHA-256 of a credential: the form in which it is kept.
pub(crate) fn sha256_hex(credential: &str) -> String {
    hex::encode(digest(&SHA256, credential.as_bytes()))
}
