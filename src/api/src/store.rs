//! [`Stored`]: objects as the Quilt routes read and write them: parsed from a view, encoded into a transaction.
//!
//! The bytes are the ones every other writer makes (canonical, revision spliced by apply), so a Quilt write and a
//! Kubernetes write of the same object cannot be told apart. Must not know routes, answers or what objects mean.

use std::ops::ControlFlow;

use quilt_objects::canonical;
use quilt_objects::kind::Kind;
use quilt_objects::registry::registry;
use quilt_proto::{Key, KeyPrefix, Op, Put, Record, Revision};
use quilt_raft::{Limit, ReadError, View};
use serde_json::{Map, Value, json};

/// Where a kind is stored, and how its objects name themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shelf {
    /// Storage group.
    pub(crate) group: &'static str,
    /// Plural resource.
    pub(crate) resource: &'static str,
    /// `apiVersion` of its objects.
    pub(crate) api_version: &'static str,
    /// `kind` of its objects.
    pub(crate) kind: &'static str,
}

macro_rules! shelves {
    ($($(#[$doc:meta])* $name:ident = $group:literal $resource:literal $api_version:literal $kind:literal;)*) => {
        $($(#[$doc])* pub(crate) const $name: Shelf =
            Shelf { group: $group, resource: $resource, api_version: $api_version, kind: $kind };)*

        /// All of them.
        #[cfg(test)]
        const SHELVES: &[Shelf] = &[$($name),*];
    };
}

shelves! {
    /// Nodes.
    NODES = "" "nodes" "v1" "Node";
    /// Pods.
    PODS = "" "pods" "v1" "Pod";
    /// Namespaces.
    NAMESPACES = "" "namespaces" "v1" "Namespace";
    /// Services.
    SERVICES = "" "services" "v1" "Service";
    /// Endpoints of Services.
    ENDPOINTS = "" "endpoints" "v1" "Endpoints";
    /// Slices of endpoints.
    ENDPOINT_SLICES = "discovery.k8s.io" "endpointslices" "discovery.k8s.io/v1" "EndpointSlice";
    /// Service accounts.
    SERVICE_ACCOUNTS = "" "serviceaccounts" "v1" "ServiceAccount";
    /// Config maps.
    CONFIG_MAPS = "" "configmaps" "v1" "ConfigMap";
    /// Secrets.
    SECRETS = "" "secrets" "v1" "Secret";
    /// Quilt's own workloads.
    WORKLOADS = "quilt.sh" "workloads" "quilt.sh/v1" "Workload";
    /// Deployments.
    DEPLOYMENTS = "apps" "deployments" "apps/v1" "Deployment";
    /// Replica sets.
    REPLICA_SETS = "apps" "replicasets" "apps/v1" "ReplicaSet";
    /// Stateful sets.
    STATEFUL_SETS = "apps" "statefulsets" "apps/v1" "StatefulSet";
    /// Daemon sets.
    DAEMON_SETS = "apps" "daemonsets" "apps/v1" "DaemonSet";
    /// Jobs.
    JOBS = "batch" "jobs" "batch/v1" "Job";
}

/// The kind that an `apiVersion` and a `kind` name.
pub(crate) fn kind_of(api_version: &str, kind: &str) -> Option<&'static Kind> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    registry().kind(group, version, kind)
}

/// Most records and bytes of one page: the bound of one synchronous call on the read path.
const PAGE: Limit = Limit { records: 500, bytes: 1 << 20 };

impl Shelf {
    /// Its entry in the kinds table.
    pub(crate) fn kind(&self) -> &'static Kind {
        kind_of(self.api_version, self.kind).expect("the kinds table has every kind named here: a test asks for them")
    }

    /// Key of one object; `None` when a part cannot stand in a key, so that no such object exists.
    pub(crate) fn key(&self, cluster: &str, namespace: &str, name: &str) -> Option<Key> {
        Key::new(cluster, self.group, self.resource, namespace, name).ok()
    }

    /// Prefix of all objects of the kind; `None` as for [`Shelf::key`].
    pub(crate) fn prefix(&self, cluster: &str) -> Option<KeyPrefix> {
        KeyPrefix::resource(cluster, self.group, self.resource).ok()
    }

    /// One object.
    pub(crate) fn get(
        &self,
        view: &View,
        cluster: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Stored>, ReadError> {
        let Some(key) = self.key(cluster, namespace, name) else { return Ok(None) };
        view.get(&key)?.map(|record| Stored::parse(key, &record)).transpose()
    }

    /// All objects that `wanted` lets through, judged on the bytes before anything is parsed.
    pub(crate) fn list(
        &self,
        view: &View,
        cluster: &str,
        wanted: impl Fn(&Record) -> bool,
    ) -> Result<Vec<Stored>, ReadError> {
        let mut found = Vec::new();
        let Some(prefix) = self.prefix(cluster) else { return Ok(found) };
        visit(view, &prefix, |key, record| {
            if wanted(record) {
                found.push(Stored::parse(key.clone(), record)?);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// The object with `metadata.uid` equal to `uid`.
    pub(crate) fn by_uid(&self, view: &View, cluster: &str, uid: &str) -> Result<Option<Stored>, ReadError> {
        let mut found = None;
        let Some(prefix) = self.prefix(cluster) else { return Ok(found) };
        let needle = format!("\"uid\":{}", json!(uid));
        visit(view, &prefix, |key, record| {
            if !contains(&record.value, needle.as_bytes()) {
                return Ok(ControlFlow::Continue(()));
            }
            let stored = Stored::parse(key.clone(), record)?;
            if stored.uid() == uid {
                found = Some(stored);
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }
}

/// Whether `bytes` contain `needle`: a cheap no before a costly parse.
pub(crate) fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return true };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = &rest[at..];
        if rest.starts_with(needle) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

/// Shows every record under `prefix`, in key order, page by page, until told to stop.
pub(crate) fn visit(
    view: &View,
    prefix: &KeyPrefix,
    mut each: impl FnMut(&Key, &Record) -> Result<ControlFlow<()>, ReadError>,
) -> Result<(), ReadError> {
    let mut after: Option<Key> = None;
    loop {
        let page = view.scan(prefix, after.as_ref(), PAGE)?;
        for (key, record) in &page.records {
            if each(key, record)?.is_break() {
                return Ok(());
            }
        }
        match page.records.last() {
            Some((key, _)) if page.more => after = Some(key.clone()),
            _ => return Ok(()),
        }
    }
}

/// One object as read.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// Where.
    pub(crate) key: Key,
    /// The document, without `apiVersion` and `kind`.
    pub(crate) value: Value,
}

impl Stored {
    /// Parses a record. A record that is no object is an error for its reader, never skipped.
    pub(crate) fn parse(key: Key, record: &Record) -> Result<Self, ReadError> {
        let value: Value = serde_json::from_slice(&record.value)
            .map_err(|error| ReadError::Storage(format!("{key:?} is not a stored object: {error}")))?;
        Ok(Self { key, value })
    }

    /// The text at a JSON pointer, empty when absent.
    pub(crate) fn text(&self, pointer: &str) -> &str {
        text(&self.value, pointer)
    }

    /// Its uid.
    pub(crate) fn uid(&self) -> &str {
        self.text("/metadata/uid")
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// Its namespace, empty for cluster-scoped kinds.
    pub(crate) fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    /// One annotation.
    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        self.value.get("metadata")?.get("annotations")?.get(name)?.as_str()
    }

    /// Creation time in unix seconds.
    pub(crate) fn created_at(&self) -> u64 {
        unix_seconds(self.text("/metadata/creationTimestamp"))
    }

    /// Whether it is being deleted.
    pub(crate) fn is_terminating(&self) -> bool {
        !self.text("/metadata/deletionTimestamp").is_empty()
    }

    /// Whether something holds it back from being removed.
    pub(crate) fn has_finalizers(&self) -> bool {
        self.value.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
    }

    /// Its controlling owner.
    pub(crate) fn controller(&self) -> Option<Owner<'_>> {
        let owners = self.value.pointer("/metadata/ownerReferences")?.as_array()?;
        let owner = owners.iter().find(|owner| owner["controller"] == true)?;
        Some(Owner {
            api_version: text(owner, "/apiVersion"),
            kind: text(owner, "/kind"),
            name: text(owner, "/name"),
            uid: text(owner, "/uid"),
        })
    }
}

/// An owner reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner<'a> {
    /// `apiVersion` of the owner.
    pub(crate) api_version: &'a str,
    /// Its kind.
    pub(crate) kind: &'a str,
    /// Its name.
    pub(crate) name: &'a str,
    /// Its uid.
    pub(crate) uid: &'a str,
}

/// Writes a Kubernetes object. Bound Pods carry the tag that wakes their node's watchers.
pub(crate) fn put(key: &Key, value: &Value) -> Op {
    let encoded = canonical::encode(value);
    let parts = key.parts();
    let node = if parts.group.is_empty() && parts.resource == "pods" { text(value, "/spec/nodeName") } else { "" };
    let tags = if node.is_empty() { Vec::new() } else { vec![node_tag(node)] };
    Op::from(Put {
        key: key.bytes().clone(),
        value: encoded.bytes,
        splice_at: encoded.splice_at,
        sealed: bytes::Bytes::new(),
        ttl_ms: 0,
        tags,
    })
}

/// The tag of Pods bound to `node`.
pub(crate) fn node_tag(node: &str) -> bytes::Bytes {
    bytes::Bytes::from(format!("n={node}"))
}

/// Writes one of the control plane's own records: plain JSON without a revision inside.
pub(crate) fn put_record(key: &Key, value: &Value) -> Op {
    Op::put(key, value.to_string())
}

/// As [`put_record`], for a record that ends by itself after `ttl_ms` of cluster time.
pub(crate) fn put_record_for(key: &Key, value: &Value, ttl_ms: u64) -> Op {
    Op::from(Put { key: key.bytes().clone(), value: value.to_string().into(), ttl_ms, ..Put::default() })
}

/// One of the control plane's own records with its revision.
pub(crate) fn record(view: &View, key: &Key) -> Result<Option<(Value, Revision)>, ReadError> {
    let Some(record) = view.get(key)? else { return Ok(None) };
    let value = serde_json::from_slice(&record.value)
        .map_err(|error| ReadError::Storage(format!("{key:?} is not a record: {error}")))?;
    Ok(Some((value, Revision::new(record.mod_revision))))
}

/// The text at `pointer`, empty when absent.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The object under `field` of `parent`, made when absent or of another type.
pub(crate) fn object<'a>(parent: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    if !parent.is_object() {
        *parent = Value::Object(Map::new());
    }
    let Value::Object(map) = parent else { unreachable!("made an object above") };
    let child = map.entry(field).or_insert_with(|| Value::Object(Map::new()));
    if !child.is_object() {
        *child = Value::Object(Map::new());
    }
    let Value::Object(map) = child else { unreachable!("made an object above") };
    map
}

/// Unix seconds of an RFC 3339 time, 0 for anything else.
pub(crate) fn unix_seconds(time: &str) -> u64 {
    time.parse::<jiff::Timestamp>().ok().and_then(|time| u64::try_from(time.as_second()).ok()).unwrap_or(0)
}

/// RFC 3339 in UTC with whole seconds, as Kubernetes writes times.
pub(crate) fn rfc3339(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "1970-01-01T00:00:00Z".into(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every shelf is where the kinds table says that its kind is stored.
    #[test]
    fn shelves_are_kinds() {
        for shelf in SHELVES {
            let kind = shelf.kind();
            assert_eq!((&*kind.storage_group, &*kind.plural), (shelf.group, shelf.resource), "{shelf:?}");
        }
    }
}
