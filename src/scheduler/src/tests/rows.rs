//! Rows as the API would have written them, in a cluster `default`.

use std::time::Duration;

use quilt_proto::{Key, Op};
use serde_json::{Value, json};

use crate::bind;

/// Until then a replica has answered.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

pub(super) fn key(resource: &str, name: &str) -> Key {
    let namespace = if resource == "nodes" { "" } else { "default" };
    Key::new("default", "", resource, namespace, name).expect("valid")
}

/// Puts an object under its key, named as that says.
pub(super) fn put(key: &Key, mut value: Value) -> Op {
    value["metadata"]["name"] = json!(key.parts().name);
    value["metadata"]["namespace"] = json!(key.parts().namespace);
    value["metadata"]["uid"] = json!(format!("uid-{}", key.parts().name));
    bind::put(key, &value, "", 0)
}
