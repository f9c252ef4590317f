//! Row keys of each family, in one place. Knows layouts, not their meaning.

use bytes::Bytes;
use quilt_proto::Revision;

/// The machine's own row in `Meta`.
pub const MACHINE: &[u8] = b"machine";

const FLOOR: &[u8] = b"floor/";
const DROPPED: &[u8] = b"dropped/";

fn join(parts: &[&[u8]]) -> Bytes {
    parts.concat().into()
}

/// `key ‖ !revision`: newer versions sort before older ones.
#[must_use]
pub fn version(key: &[u8], revision: Revision) -> Bytes {
    join(&[key, &(!revision.get()).to_be_bytes()])
}

/// Where the newest version of `key` is looked for.
#[must_use]
pub fn newest_version(key: &[u8]) -> Bytes {
    version(key, Revision::new(u64::MAX))
}

/// Splits a `Versions` row key.
#[must_use]
pub fn split_version(row: &[u8]) -> Option<(&[u8], Revision)> {
    let (key, tail) = row.split_last_chunk::<8>()?;
    Some((key, Revision::new(!u64::from_be_bytes(*tail))))
}

/// First `Versions` row key behind all versions of `key`. A key ends in 0x00, so no other key starts with it.
#[must_use]
pub fn versions_end(key: &[u8]) -> Vec<u8> {
    let mut end = [key, &[0xff; 8]].concat();
    end.push(0);
    end
}

/// `cluster ‖ 0 ‖ revision`.
#[must_use]
pub fn change(cluster: &str, revision: Revision) -> Bytes {
    join(&[cluster.as_bytes(), &[0], &revision.get().to_be_bytes()])
}

/// Splits a `Changes` row key into cluster and revision.
#[must_use]
pub fn split_change(row: &[u8]) -> Option<(&[u8], Revision)> {
    let (head, tail) = row.split_last_chunk::<8>()?;
    Some((head.strip_suffix(&[0])?, Revision::new(u64::from_be_bytes(*tail))))
}

/// `expiry ‖ key`.
#[must_use]
pub fn expiry(at_ms: u64, key: &[u8]) -> Bytes {
    join(&[&at_ms.to_be_bytes(), key])
}

/// Splits an `Expiry` row key.
#[must_use]
pub fn split_expiry(row: &[u8]) -> Option<(u64, &[u8])> {
    let (at, key) = row.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*at), key))
}

/// The session's own row.
#[must_use]
pub fn session(session: u64) -> Bytes {
    join(&[&session.to_be_bytes()])
}

/// The outcomes of neighbouring requests.
#[must_use]
pub fn outcomes(session: u64, chunk: u64) -> Bytes {
    join(&[&session.to_be_bytes(), &chunk.to_be_bytes()])
}

/// Splits a `Sessions` row key into session and, for outcomes, which chunk they are.
#[must_use]
pub fn split_session(row: &[u8]) -> Option<(u64, Option<u64>)> {
    let (session, rest) = row.split_first_chunk::<8>()?;
    let sequence = match rest {
        [] => None,
        rest => Some(u64::from_be_bytes(rest.try_into().ok()?)),
    };
    Some((u64::from_be_bytes(*session), sequence))
}

/// The history floor of a cluster.
#[must_use]
pub fn floor(cluster: &str) -> Bytes {
    join(&[FLOOR, cluster.as_bytes()])
}

/// The cluster of a floor row.
#[must_use]
pub fn split_floor(row: &[u8]) -> Option<&str> {
    std::str::from_utf8(row.strip_prefix(FLOOR)?).ok()
}

/// The mark of a dropped cluster.
#[must_use]
pub fn dropped(cluster: &str) -> Bytes {
    join(&[DROPPED, cluster.as_bytes()])
}

/// The cluster of a dropped mark.
#[must_use]
pub fn split_dropped(row: &[u8]) -> Option<&str> {
    std::str::from_utf8(row.strip_prefix(DROPPED)?).ok()
}
