//! Stored form of an object: canonical JSON bytes, and the one place in them where apply writes the revision.
//!
//! Canonical means: keys sorted bytewise at every depth, no white space, neither `apiVersion` nor `kind` (the key
//! implies them), and `metadata.resourceVersion` present as an empty text whose inner offset is remembered. The offset
//! is found while writing, never by searching text, so nothing in user data can be mistaken for it. This module knows
//! no kinds and no revisions beyond their digits.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value};

use crate::kind::Kind;

/// Why stored bytes could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CanonicalError {
    /// The bytes are not JSON.
    #[error("stored object is not JSON")]
    Json(#[from] serde_json::Error),
    /// The bytes are JSON but not a map.
    #[error("stored object is not a JSON object")]
    NotAnObject,
    /// The revision does not stand where the record says it does.
    #[error("no revision {revision} at offset {splice_at} of the stored object")]
    NoRevision {
        /// Where it should be.
        splice_at: u32,
        /// What should be there.
        revision: u64,
    },
}

/// What is proposed: bytes without a revision, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical {
    /// Canonical JSON with `"resourceVersion":""`.
    pub bytes: Bytes,
    /// Offset between the two quotes of that empty text.
    pub splice_at: u32,
}

/// Encodes `object`.
///
/// Objects come out of the decoder, so they are maps and `metadata`, if present, is a map; anything else is written as
/// if it were empty. `resourceVersion` may be present and is ignored.
#[must_use]
pub fn encode(object: &Value) -> Canonical {
    let empty = Map::new();
    let object = object.as_object().unwrap_or(&empty);
    let metadata = object.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let mut out = Vec::with_capacity(1024);
    let mut splice_at = 0;
    write_map(&mut out, object, &["apiVersion", "kind", "metadata"], Some("metadata"), |out| {
        write_map(out, metadata, &["resourceVersion"], Some("resourceVersion"), |out| {
            out.push(b'"');
            splice_at = out.len();
            out.push(b'"');
        });
    });
    let splice_at = u32::try_from(splice_at).expect("a request body is limited to a few MiB");
    Canonical { bytes: out.into(), splice_at }
}

/// Writes `map` sorted, without the keys of `skip`, with `own` written by `write_own` in its sorted place.
fn write_map(
    out: &mut Vec<u8>,
    map: &Map<String, Value>,
    skip: &[&str],
    own: Option<&str>,
    write_own: impl FnOnce(&mut Vec<u8>),
) {
    let mut entries: Vec<(&str, Option<&Value>)> = map
        .iter()
        .map(|(key, value)| (key.as_str(), Some(value)))
        .filter(|(key, _)| !skip.contains(key))
        .chain(own.map(|key| (key, None)))
        .collect();
    // The map type is sorted today; a dependency may switch serde_json to insertion order for the whole build.
    entries.sort_unstable_by_key(|(key, _)| *key);
    let mut write_own = Some(write_own);
    out.push(b'{');
    for (position, (key, value)) in entries.into_iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write_scalar(out, &key);
        out.push(b':');
        match (value, write_own.take_if(|_| value.is_none())) {
            (Some(value), _) => write_value(out, value),
            (None, Some(write)) => write(out),
            (None, None) => {}
        }
    }
    out.push(b'}');
}

fn write_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Object(map) => write_map(out, map, &[], None, |_| {}),
        Value::Array(items) => {
            out.push(b'[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(b',');
                }
                write_value(out, item);
            }
            out.push(b']');
        }
        scalar => write_scalar(out, scalar),
    }
}

fn write_scalar(out: &mut Vec<u8>, scalar: &impl serde::Serialize) {
    serde_json::to_writer(out, scalar).expect("texts, numbers and flags always serialize into memory");
}

impl Canonical {
    /// The bytes with `revision` written in, as apply does it: for dry runs and tests.
    #[must_use]
    pub fn splice(&self, revision: u64) -> Bytes {
        write_between(&self.bytes, self.splice_at as usize, self.splice_at as usize, revision)
    }
}

fn write_between(bytes: &[u8], from: usize, to: usize, revision: u64) -> Bytes {
    let digits = revision.to_string();
    let (head, tail) = (bytes.get(..from).unwrap_or_default(), bytes.get(to..).unwrap_or_default());
    let mut out = BytesMut::with_capacity(head.len() + digits.len() + tail.len());
    out.extend_from_slice(head);
    out.extend_from_slice(digits.as_bytes());
    out.extend_from_slice(tail);
    out.freeze()
}

/// Replaces revision `old` in a stored record by `new`: a DELETED event shows the revision of the deletion.
///
/// # Errors
/// [`CanonicalError::NoRevision`] when `old` does not stand at `splice_at`: the record is corrupt.
pub fn resplice(stored: &[u8], splice_at: u32, old: u64, new: u64) -> Result<Bytes, CanonicalError> {
    let digits = old.to_string();
    let from = splice_at as usize;
    let to = from + digits.len();
    let there = from > 0
        && stored.get(from - 1) == Some(&b'"')
        && stored.get(from..to) == Some(digits.as_bytes())
        && stored.get(to) == Some(&b'"');
    if there {
        Ok(write_between(stored, from, to, new))
    } else {
        Err(CanonicalError::NoRevision { splice_at, revision: old })
    }
}

/// Reads stored bytes back into a document of `kind`.
///
/// # Errors
/// Bytes that are not a JSON object: the record is corrupt.
pub fn parse(kind: &Kind, stored: &[u8]) -> Result<Value, CanonicalError> {
    parse_as(&kind.api_version(), &kind.kind, stored)
}

/// Reads stored bytes back into a document with `apiVersion` and `kind`.
///
/// # Errors
/// Bytes that are not a JSON object: the record is corrupt.
pub fn parse_as(api_version: &str, kind: &str, stored: &[u8]) -> Result<Value, CanonicalError> {
    let mut object: Value = serde_json::from_slice(stored)?;
    let map = object.as_object_mut().ok_or(CanonicalError::NotAnObject)?;
    map.insert("apiVersion".to_owned(), api_version.into());
    map.insert("kind".to_owned(), kind.into());
    Ok(object)
}

/// What goes before stored bytes when they are served with their type: `{"kind":"Pod","apiVersion":"v1",`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(Arc<[u8]>);

impl Prefix {
    /// The prefix of a kind in the version it is served in.
    #[must_use]
    pub fn of(kind: &Kind) -> Self {
        Self::new(&kind.api_version(), &kind.kind)
    }

    /// The prefix of one served version of a kind. Build it once and keep it.
    #[must_use]
    pub fn new(api_version: &str, kind: &str) -> Self {
        let mut out = br#"{"kind":"#.to_vec();
        write_scalar(&mut out, &kind);
        out.extend_from_slice(br#","apiVersion":"#);
        write_scalar(&mut out, &api_version);
        out.push(b',');
        Self(out.into())
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Two slices that together are the served object. Stored objects are never empty maps: they have `metadata`.
    #[must_use]
    pub fn serve<'a>(&'a self, stored: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        (&self.0, stored.get(1..).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// The stored form is exactly this: sorted, without type, revision empty in its sorted place.
    #[test]
    fn form_is_fixed() {
        let object = json!({"kind": "Pod", "apiVersion": "v1", "spec": {"b": [1, {"z": 1, "a": null}], "a": "é\n"},
            "metadata": {"uid": "u", "name": "x", "resourceVersion": "77"}});
        let canonical = encode(&object);
        assert_eq!(
            std::str::from_utf8(&canonical.bytes).expect("utf-8"),
            r#"{"metadata":{"name":"x","resourceVersion":"","uid":"u"},"spec":{"a":"é\n","b":[1,{"a":null,"z":1}]}}"#
        );
        let stored = canonical.splice(12);
        assert_eq!(
            parse_as("v1", "Pod", &stored).expect("parses").pointer("/metadata/resourceVersion"),
            Some(&json!("12"))
        );
        let prefix = Prefix::new("v1", "Pod");
        let (head, tail) = prefix.serve(&stored);
        assert_eq!(head, br#"{"kind":"Pod","apiVersion":"v1","#);
        let served: Value = serde_json::from_slice(&[head, tail].concat()).expect("json");
        assert_eq!(served, parse_as("v1", "Pod", &stored).expect("parses"));
    }

    /// Objects without metadata get one; the splice is right at the edges of the map.
    #[test]
    fn metadata_is_made_where_missing() {
        for object in [json!({}), json!({"metadata": null}), json!({"a": 1, "z": 2}), json!("text")] {
            let canonical = encode(&object);
            let stored = canonical.splice(7);
            let parsed = parse_as("v1", "X", &stored).expect("parses");
            assert_eq!(parsed.pointer("/metadata/resourceVersion"), Some(&json!("7")), "{object}");
        }
    }

    /// A revision that is not where the record says is an error, never a blind overwrite.
    #[test]
    fn resplice_checks_the_place() {
        let canonical = encode(&json!({"metadata": {"name": "x"}}));
        let stored = canonical.splice(99);
        let deleted = resplice(&stored, canonical.splice_at, 99, 100).expect("in place");
        assert_eq!(deleted, canonical.splice(100));
        assert!(resplice(&stored, canonical.splice_at, 9, 100).is_err());
        assert!(resplice(&stored, canonical.splice_at + 1, 99, 100).is_err());
        assert!(resplice(&stored, 0, 99, 100).is_err());
        assert!(resplice(&stored, u32::MAX, 99, 100).is_err());
    }

    fn arbitrary_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            Just(json!("\"resourceVersion\":\"\"")),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("(resourceVersion|metadata|kind|[a-z]{1,3})", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Splicing then parsing gives exactly that revision and the object otherwise unchanged, whatever is in it.
        #[test]
        fn splice_then_parse_gives_that_revision(
            spec in arbitrary_json(), labels in arbitrary_json(), revision in 1_u64..(1 << 53), next in 1_u64..(1 << 53),
        ) {
            let mut object = json!({"spec": spec, "metadata": {"labels": labels, "zone": spec}, "aaa": labels});
            let canonical = encode(&object);
            let stored = canonical.splice(revision);
            let parsed = parse_as("v1", "Thing", &stored).expect("parses");
            object["metadata"]["resourceVersion"] = json!(revision.to_string());
            object["apiVersion"] = json!("v1");
            object["kind"] = json!("Thing");
            prop_assert_eq!(&parsed, &object);
            prop_assert_eq!(&encode(&parsed), &canonical, "canonical form is a fixed point");
            let respliced = resplice(&stored, canonical.splice_at, revision, next).expect("in place");
            prop_assert_eq!(respliced, canonical.splice(next));
        }
    }
}
