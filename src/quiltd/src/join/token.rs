//! The text of a replica token: what opens the door, and how the door is known.

use ring::digest::{SHA256, digest};

use crate::http;

/// A replica token as it is handed to whoever sets up the new host: `qr_….<SHA-256 of the CA's certificate>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaToken {
    /// What the control plane knows by its digest.
    pub(crate) secret: String,
    /// SHA-256 of the serving CA's certificate (DER), hexadecimal.
    pub(crate) ca_hash: String,
}

impl ReplicaToken {
    /// Puts the text together.
    pub(crate) fn text(&self) -> String {
        format!("{}.{}", self.secret, self.ca_hash)
    }

    /// Takes it apart.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let expected =
            "expected the text that quiltd token create printed, qr_... with a dot and 64 hexadecimal digits";
        let (secret, ca_hash) = text.trim().split_once('.').ok_or(expected)?;
        let hexadecimal = ca_hash.len() == 64 && ca_hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !secret.starts_with("qr_") || !hexadecimal {
            return Err(expected.into());
        }
        Ok(Self { secret: secret.to_owned(), ca_hash: ca_hash.to_ascii_lowercase() })
    }
}

/// The hash by which a CA is known: of the first certificate of a PEM text.
pub(crate) fn ca_hash(pem: &str) -> anyhow::Result<String> {
    let first = http::certificates(pem)?.into_iter().next();
    Ok(hex::encode(digest(&SHA256, &first.unwrap_or_else(|| Vec::new().into()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token comes back from its text, and what is cut or of another kind is no token.
    #[test]
    fn a_token_is_its_text() {
        let token = ReplicaToken { secret: "qr_abc".into(), ca_hash: "a1".repeat(32) };
        assert_eq!(ReplicaToken::parse(&format!("{}\n", token.text())), Ok(token));
        for wrong in ["", "qr_abc", "qj_abc.00", "qr_abc.00", &format!("qj_abc.{}", "a1".repeat(32))] {
            assert!(ReplicaToken::parse(wrong).is_err(), "{wrong}");
        }
    }
}
