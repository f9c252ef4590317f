//! [`Key`]: where an object lives. `cluster / group / resource / namespace / name` (architecture D3).
//!
//! Each part is written as its UTF-8 bytes and a closing zero byte; parts never contain a zero byte. So keys sort by
//! cluster, then group, resource, namespace, name, all bytewise; one cluster is one contiguous range, and no part can
//! be mistaken for another. The empty cluster is the *tenant range*: tenants, their keys and the cluster directory.

use std::fmt;

use bytes::Bytes;

/// Why parts do not make a key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// A part holds a zero byte.
    #[error("{part} contains a zero byte")]
    ZeroByte {
        /// Which part.
        part: &'static str,
    },
    /// The key would be longer than [`Key::BYTES_MAX`].
    #[error("key of {bytes} bytes is longer than {} bytes", Key::BYTES_MAX)]
    TooLong {
        /// Length it would have.
        bytes: usize,
    },
    /// Bytes read back are not a key.
    #[error("bytes are not a key of five closed parts")]
    Malformed,
}

/// The full key of one object.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

/// A key's parts, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyParts<'a> {
    /// Cluster id; empty for the tenant range.
    pub cluster: &'a str,
    /// API group; empty for core.
    pub group: &'a str,
    /// Plural resource name.
    pub resource: &'a str,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// Object name.
    pub name: &'a str,
}

const PARTS: [&str; 5] = ["cluster", "group", "resource", "namespace", "name"];

fn encode(parts: &[&str]) -> Result<Bytes, KeyError> {
    let bytes = parts.iter().map(|part| part.len() + 1).sum();
    if bytes > Key::BYTES_MAX {
        return Err(KeyError::TooLong { bytes });
    }
    let mut out = Vec::with_capacity(bytes);
    for (part, name) in parts.iter().zip(PARTS) {
        if part.as_bytes().contains(&0) {
            return Err(KeyError::ZeroByte { part: name });
        }
        out.extend_from_slice(part.as_bytes());
        out.push(0);
    }
    Ok(out.into())
}

impl Key {
    /// Longest key: five parts of Kubernetes' and Quilt's longest names (253 bytes) with room to spare.
    pub const BYTES_MAX: usize = 2048;

    /// Key of the object `name` in `namespace` (empty for cluster-scoped kinds).
    ///
    /// # Errors
    /// A part with a zero byte, or a key that is too long.
    pub fn new(cluster: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Result<Self, KeyError> {
        encode(&[cluster, group, resource, namespace, name]).map(Self)
    }

    /// Reads a key back from disk or a peer, checking its form.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] when `bytes` are not five closed UTF-8 parts.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, KeyError> {
        let closed = bytes.iter().filter(|byte| **byte == 0).count() == PARTS.len() && bytes.last() == Some(&0);
        if closed && bytes.len() <= Self::BYTES_MAX && std::str::from_utf8(&bytes).is_ok() {
            Ok(Self(bytes))
        } else {
            Err(KeyError::Malformed)
        }
    }

    /// The encoded form.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The parts.
    #[must_use]
    pub fn parts(&self) -> KeyParts<'_> {
        // Both constructors checked UTF-8 and the number of parts; the fallback is unreachable and harmless.
        let text = std::str::from_utf8(&self.0).unwrap_or_default();
        let mut parts = text.split('\0');
        let mut part = || parts.next().unwrap_or_default();
        KeyParts { cluster: part(), group: part(), resource: part(), namespace: part(), name: part() }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KeyParts { cluster, group, resource, namespace, name } = self.parts();
        write!(f, "{cluster}/{group}/{resource}/{namespace}/{name}")
    }
}

/// The leading parts of keys: everything in a cluster, of a resource, or in a namespace.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPrefix(Bytes);

impl KeyPrefix {
    /// All keys of one cluster (empty: the tenant range).
    ///
    /// # Errors
    /// As [`Key::new`].
    pub fn cluster(cluster: &str) -> Result<Self, KeyError> {
        encode(&[cluster]).map(Self)
    }

    /// All objects of one resource, in every namespace.
    ///
    /// # Errors
    /// As [`Key::new`].
    pub fn resource(cluster: &str, group: &str, resource: &str) -> Result<Self, KeyError> {
        encode(&[cluster, group, resource]).map(Self)
    }

    /// All objects of one resource in one namespace.
    ///
    /// # Errors
    /// As [`Key::new`].
    pub fn namespace(cluster: &str, group: &str, resource: &str, namespace: &str) -> Result<Self, KeyError> {
        encode(&[cluster, group, resource, namespace]).map(Self)
    }

    /// Exactly one key, as a prefix: a watch of a single object.
    #[must_use]
    pub fn exact(key: &Key) -> Self {
        Self(key.0.clone())
    }

    /// The encoded form.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Whether `key` lies under this prefix.
    #[must_use]
    pub fn contains(&self, key: &Key) -> bool {
        key.0.starts_with(&self.0)
    }

    /// First byte string above every key under this prefix: the exclusive end of its range.
    #[must_use]
    pub fn end(&self) -> Bytes {
        // The prefix closes a part with 0x00 and keys under it continue behind that byte, so 0x01 there is above all.
        let mut end = self.0.to_vec();
        if let Some(last) = end.last_mut() {
            *last = 1;
        }
        end.into()
    }

    /// The cluster part (empty for the tenant range).
    #[must_use]
    pub fn cluster_part(&self) -> &str {
        let text = std::str::from_utf8(&self.0).unwrap_or_default();
        text.split('\0').next().unwrap_or_default()
    }
}

impl fmt::Debug for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}*", String::from_utf8_lossy(&self.0).replace('\0', "/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts come back as they went in, and order follows the parts, not their concatenation.
    #[test]
    fn keys_round_trip_and_sort_by_parts() {
        let a = Key::new("c", "", "pods", "a", "z").expect("valid");
        let b = Key::new("c", "", "pods", "a-b", "a").expect("valid");
        assert!(a < b, "namespace a sorts before a-b although '-' < 'z'");
        assert_eq!(a.parts().namespace, "a");
        assert_eq!(Key::from_bytes(b.bytes().clone()).expect("valid"), b);
        let prefix = KeyPrefix::namespace("c", "", "pods", "a").expect("valid");
        assert!(prefix.contains(&a) && !prefix.contains(&b));
        assert!(a.bytes() < &prefix.end() && b.bytes() > &prefix.end());
    }

    #[test]
    fn bad_parts_are_refused_by_name() {
        assert_eq!(Key::new("c", "", "po\0ds", "", "x"), Err(KeyError::ZeroByte { part: "resource" }));
        assert_eq!(Key::from_bytes(Bytes::from_static(b"a\0b\0")), Err(KeyError::Malformed));
    }
}
