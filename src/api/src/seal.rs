//! Sealing of sensitive fields (architecture D5): an AES-256-GCM envelope with a fresh data key per write, the data
//! key wrapped under the root key. Log, state, snapshots and backups see only the envelope.
//!
//! Form: version byte 1, then nonce and wrapped data key, then nonce and sealed text. Associated data binds an
//! envelope to its object, so that one object's secrets cannot be moved into another.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use crate::context::RootKey;

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const WRAPPED_BYTES: usize = KEY_BYTES + TAG_BYTES;

/// Why an envelope cannot be made or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The operating system gave no randomness, or the cipher refused its input.
    #[error("sensitive fields cannot be sealed")]
    Seal,
    /// The envelope is cut short or of an unknown version.
    #[error("sealed fields are not in a form this version knows")]
    Form,
    /// The root key is another one, or the envelope belongs to another object or was changed.
    #[error("sealed fields do not open under this root key")]
    Open,
}

/// Seals `plain` for the object that `bound_to` names.
///
/// # Errors
/// [`SealError::Seal`].
pub fn seal(root: &RootKey, bound_to: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
    let random = SystemRandom::new();
    let mut data_key = [0; KEY_BYTES];
    random.fill(&mut data_key).map_err(|_| SealError::Seal)?;
    let mut out = Vec::with_capacity(1 + 2 * (NONCE_LEN + TAG_BYTES) + KEY_BYTES + plain.len());
    out.push(VERSION);
    append(&random, root.bytes(), bound_to, &data_key, &mut out)?;
    append(&random, &data_key, bound_to, plain, &mut out)?;
    Ok(out)
}

/// Opens what [`seal`] made for the same object.
///
/// # Errors
/// [`SealError::Form`] or [`SealError::Open`].
pub fn open(root: &RootKey, bound_to: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
    let (version, rest) = sealed.split_first().ok_or(SealError::Form)?;
    if *version != VERSION {
        return Err(SealError::Form);
    }
    let (wrapped, text) = rest.split_at_checked(NONCE_LEN + WRAPPED_BYTES).ok_or(SealError::Form)?;
    let data_key = open_one(root.bytes(), bound_to, wrapped)?;
    let data_key: [u8; KEY_BYTES] = data_key.try_into().map_err(|_| SealError::Form)?;
    open_one(&data_key, bound_to, text)
}

fn key(bytes: &[u8; KEY_BYTES]) -> Result<LessSafeKey, SealError> {
    UnboundKey::new(&AES_256_GCM, bytes).map(LessSafeKey::new).map_err(|_| SealError::Seal)
}

fn append(
    random: &SystemRandom,
    under: &[u8; KEY_BYTES],
    bound_to: &[u8],
    plain: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), SealError> {
    let mut nonce = [0; NONCE_LEN];
    random.fill(&mut nonce).map_err(|_| SealError::Seal)?;
    let mut text = plain.to_vec();
    key(under)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound_to), &mut text)
        .map_err(|_| SealError::Seal)?;
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&text);
    Ok(())
}

fn open_one(under: &[u8; KEY_BYTES], bound_to: &[u8], part: &[u8]) -> Result<Vec<u8>, SealError> {
    let (nonce, text) = part.split_at_checked(NONCE_LEN).ok_or(SealError::Form)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Form)?;
    let mut text = text.to_vec();
    let plain = key(under)?.open_in_place(nonce, Aad::from(bound_to), &mut text).map_err(|_| SealError::Open)?;
    Ok(plain.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is sealed opens again, and only for the same object, under the same key, unchanged and whole.
    #[test]
    fn opens_only_what_was_sealed() {
        let root = RootKey::new([7; 32]);
        let sealed = seal(&root, b"Secret/a/b/uid", b"top secret").expect("sealed");
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(open(&root, b"Secret/a/b/uid", &sealed), Ok(b"top secret".to_vec()));
        assert_eq!(open(&root, b"Secret/a/c/uid", &sealed), Err(SealError::Open));
        assert_eq!(open(&RootKey::new([8; 32]), b"Secret/a/b/uid", &sealed), Err(SealError::Open));
        assert_ne!(sealed, seal(&root, b"Secret/a/b/uid", b"top secret").expect("sealed"), "a fresh key each time");
        for at in 0..sealed.len() {
            let mut broken = sealed.clone();
            broken[at] ^= 1;
            assert!(open(&root, b"Secret/a/b/uid", &broken).is_err(), "byte {at}");
            assert!(open(&root, b"Secret/a/b/uid", &sealed[..at]).is_err(), "cut at {at}");
        }
    }
}
