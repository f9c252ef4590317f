//! Where keys of the service lie in the replicated key space, and back.

use bytes::Bytes;
use quilt_proto::{Key, KeyPrefix};
use tonic::Status;

/// Reserved: ids of clusters are UUIDs or `default`, so no directory entry and no path can name this one.
const CLUSTER: &str = "kv.internal.quilt.sh";
const GROUP: &str = "kv.quilt.sh";
const RESOURCE: &str = "keys";

/// The place of a key.
pub(super) fn key(name: &str) -> Result<Key, Status> {
    if name.is_empty() {
        return Err(Status::invalid_argument("key is empty"));
    }
    Key::new(CLUSTER, GROUP, RESOURCE, "", name).map_err(|error| Status::invalid_argument(format!("key: {error}")))
}

/// All keys.
pub(super) fn all() -> KeyPrefix {
    KeyPrefix::resource(CLUSTER, GROUP, RESOURCE).expect("the parts are constants without a zero byte")
}

/// Keys that begin so, as the bounds of a range.
pub(super) fn beginning(prefix: &str) -> Result<(Bytes, Bytes), Status> {
    if prefix.is_empty() {
        return Ok((all().bytes().clone(), all().end()));
    }
    // Without the zero byte that closes the name. No byte of UTF-8 is the highest, so the last one has a next.
    let from = key(prefix)?.bytes().clone();
    let from = from.slice(..from.len() - 1);
    let mut to = from.to_vec();
    if let Some(last) = to.last_mut() {
        *last += 1;
    }
    Ok((from, to.into()))
}

/// What the client calls a key.
pub(super) fn name(key: &Key) -> &str {
    key.parts().name
}
