//! Between stored records and objects: parsing, opening and sealing sensitive fields, and the put that stores an
//! object. Which fields are sensitive is said by the kinds table.

use bytes::Bytes;
use quilt_objects::canonical;
use quilt_objects::convert::{self, Conversion};
use quilt_objects::kind::Kind;
use quilt_objects::place;
use quilt_proto::{Key, Op, Put, Record};
use serde_json::{Map, Value, json};

use crate::context::RootKey;
use crate::lifecycle;
use crate::problem::Problem;
use crate::seal;

/// Largest stored object, sealed part included (architecture D18).
pub(crate) const OBJECT_BYTES_MAX: usize = 3 << 19;

/// Where `kubectl apply` keeps the whole manifest it was given. On a kind with sensitive fields it repeats them, so it is
/// sealed with them.
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Parses a record into the served form of `kind`, sensitive fields opened.
pub(crate) fn parse(root: &RootKey, kind: &Kind, record: &Record) -> Result<Value, Problem> {
    let corrupt = |why: String| Problem::internal(&format!("a stored object of {} is corrupt: {why}", kind.plural));
    let mut object = canonical::parse_as(&kind.api_version(), &kind.kind, &record.value)
        .map_err(|error| corrupt(error.to_string()))?;
    convert::to_served(kind, &mut object);
    if !record.sealed.is_empty() {
        let plain = seal::open(root, &bound_to(kind, &object), &record.sealed)
            .map_err(|error| Problem::internal(&error.to_string()))?;
        let mut fields: Map<String, Value> =
            serde_json::from_slice(&plain).map_err(|error| corrupt(error.to_string()))?;
        if let Some(applied) = fields.remove("metadata").and_then(|mut metadata| take_applied(&mut metadata)) {
            place::set(&mut object, &["metadata", "annotations", APPLIED], applied);
        }
        if let Some(map) = object.as_object_mut() {
            map.extend(fields);
        }
    }
    Ok(object)
}

/// The operation that stores `object` under `key`.
pub(crate) fn put(root: &RootKey, kind: &Kind, key: &Key, object: &Value) -> Result<Op, Problem> {
    let mut sealed = Vec::new();
    let names = sensitive(kind);
    let nothing_sensitive = names.is_empty();
    let encoded = if nothing_sensitive && Conversion::of(kind) == Conversion::None {
        canonical::encode(object)
    } else {
        let mut plain = object.clone();
        convert::to_stored(kind, &mut plain);
        let mut fields = Map::new();
        if let Some(map) = plain.as_object_mut() {
            fields.extend(names.into_iter().filter_map(|name| map.remove_entry(name)));
        }
        if !nothing_sensitive && let Some(applied) = plain.get_mut("metadata").and_then(take_applied) {
            fields.insert("metadata".into(), json!({"annotations": {APPLIED: applied}}));
        }
        if !fields.is_empty() {
            let text = Value::Object(fields).to_string();
            sealed = seal::seal(root, &bound_to(kind, object), text.as_bytes())
                .map_err(|error| Problem::internal(&error.to_string()))?;
        }
        canonical::encode(&plain)
    };
    if encoded.bytes.len() + sealed.len() > OBJECT_BYTES_MAX {
        return Err(Problem::too_large("the object", OBJECT_BYTES_MAX));
    }
    let lifecycle = lifecycle::of(kind);
    Ok(Op::from(Put {
        key: key.bytes().clone(),
        value: encoded.bytes,
        splice_at: encoded.splice_at,
        sealed: sealed.into(),
        ttl_ms: lifecycle.ttl_ms,
        tags: (lifecycle.tags)(object).into_iter().map(Bytes::from).collect(),
    }))
}

/// Names of the sensitive fields of a kind. They stand at the top of the object; a test holds the table to that.
pub(crate) fn sensitive(kind: &Kind) -> Vec<&str> {
    let fields = kind.node().object().map(|object| object.fields()).unwrap_or_default();
    fields.iter().filter(|field| field.sensitive).map(|field| &*field.name).collect()
}

/// Takes the applied manifest out of an object's metadata.
fn take_applied(metadata: &mut Value) -> Option<Value> {
    metadata.get_mut("annotations")?.as_object_mut()?.remove(APPLIED)
}

/// What binds an envelope to its object.
fn bound_to(kind: &Kind, object: &Value) -> Vec<u8> {
    let metadata = |field: &str| place::text_or_empty(object, &["metadata", field]).to_owned();
    [kind.kind.to_string(), metadata("namespace"), metadata("name"), metadata("uid")].join("\0").into_bytes()
}

/// Whether two documents are the same object apart from the revision.
pub(crate) fn same(old: &Value, new: &Value) -> bool {
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return old == new };
    old.len() == new.len()
        && old.iter().zip(new).all(|((old_key, old_value), (new_key, new_value))| {
            old_key == new_key
                && if old_key == "metadata" { same_metadata(old_value, new_value) } else { old_value == new_value }
        })
}

fn same_metadata(old: &Value, new: &Value) -> bool {
    let without = |value: &Value| {
        let mut map = value.as_object().cloned().unwrap_or_default();
        map.remove("resourceVersion");
        map
    };
    without(old) == without(new)
}
