//! Where keys of the service lie in the replicated key space, and back.

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

/// What the client calls a key.
pub(super) fn name(key: &Key) -> &str {
    key.parts().name
}
