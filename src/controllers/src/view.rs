//! [`View`]: what a reconcile reads. A cluster's remembered objects with their indexes, and behind them the replica's
//! own state for whole objects. Reading only; a plan says what is to change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use quilt_objects::hooks;
use quilt_objects::kind::Scope;
use quilt_objects::registry::registry;
use quilt_objects::select::LabelSelector;
use quilt_proto::{Key, KeyPrefix, Record, Revision};
use serde_json::{Value, json};

use crate::entropy::Entropy;
use crate::heartbeats::Heartbeats;
use crate::moment::Moment;
use crate::object::{Object, Owner, Ready};

/// The remembered objects of one cluster, as of one revision.
#[derive(Debug, Default)]
pub struct Cluster {
    id: String,
    revision: Revision,
    objects: BTreeMap<Key, Arc<Object>>,
    by_owner: HashMap<String, BTreeSet<Key>>,
    by_node: HashMap<String, BTreeSet<Key>>,
    by_label: HashMap<(String, String, String), BTreeSet<Key>>,
}

/// What a change did to one remembered object.
#[derive(Clone, Debug)]
pub struct Change {
    /// The object that changed.
    pub key: Key,
    /// Before; `None` when it is new.
    pub before: Option<Arc<Object>>,
    /// After; `None` when it is gone.
    pub after: Option<Arc<Object>>,
}

impl Change {
    /// Both ends of the change.
    pub fn ends(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.before.iter().chain(self.after.iter())
    }
}

impl Cluster {
    /// Nothing remembered yet.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self { id: id.to_owned(), ..Self::default() }
    }

    /// The cluster's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The revision up to which every change is known.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// Every change up to `revision` has been put in.
    pub fn reached(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    /// Remembers `object` in place of an earlier version of it.
    pub fn put(&mut self, object: Object) -> Change {
        let key = object.key.clone();
        let object = Arc::new(object);
        let before = self.objects.insert(key.clone(), Arc::clone(&object));
        if let Some(before) = &before {
            self.unindex(before);
        }
        self.index(&object);
        Change { key, before, after: Some(object) }
    }

    /// Forgets the object at `key`.
    pub fn remove(&mut self, key: &Key) -> Change {
        let before = self.objects.remove(key);
        if let Some(before) = &before {
            self.unindex(before);
        }
        Change { key: key.clone(), before, after: None }
    }

    fn index(&mut self, object: &Object) {
        for owner in &object.owners {
            self.by_owner.entry(owner.uid.clone()).or_default().insert(object.key.clone());
        }
        if let Some(pod) = object.pod() {
            if !pod.node.is_empty() {
                self.by_node.entry(pod.node.clone()).or_default().insert(object.key.clone());
            }
            for place in label_places(object) {
                self.by_label.entry(place).or_default().insert(object.key.clone());
            }
        }
    }

    fn unindex(&mut self, object: &Object) {
        for owner in &object.owners {
            drop_from(&mut self.by_owner, &owner.uid, &object.key);
        }
        if let Some(pod) = object.pod() {
            drop_from(&mut self.by_node, &pod.node, &object.key);
            for place in label_places(object) {
                drop_from(&mut self.by_label, &place, &object.key);
            }
        }
    }

    /// The object at `key`.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// Every remembered object.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// Remembered objects whose key starts with `prefix`.
    pub fn under<'a>(&'a self, prefix: &KeyPrefix) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        let prefix = prefix.clone();
        // A key sorts by its bytes, and the prefix's own bytes are below every key under it.
        let start = Key::from_bytes(padded(prefix.bytes())).ok();
        let from = start.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Included);
        self.objects
            .range((from, std::ops::Bound::Unbounded))
            .take_while(move |(key, _)| prefix.contains(key))
            .map(|(_, object)| object)
    }

    /// Remembered objects of one resource, in `namespace` or (empty) everywhere.
    pub fn resource<'a>(
        &'a self,
        group: &str,
        resource: &str,
        namespace: &str,
    ) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        let prefix = if namespace.is_empty() {
            KeyPrefix::resource(&self.id, group, resource)
        } else {
            KeyPrefix::namespace(&self.id, group, resource, namespace)
        };
        prefix.ok().into_iter().flat_map(|prefix| self.under(&prefix))
    }

    /// Objects that name `uid` as an owner.
    pub fn owned_by(&self, uid: &str) -> impl Iterator<Item = &Arc<Object>> {
        self.by_owner.get(uid).into_iter().flatten().filter_map(|key| self.objects.get(key))
    }

    /// Pods whose managing controller is `uid`.
    pub fn pods_of(&self, uid: &str) -> impl Iterator<Item = &Arc<Object>> {
        self.owned_by(uid)
            .filter(move |object| object.pod().is_some() && object.controller().is_some_and(|owner| owner.uid == uid))
    }

    /// Pods bound to `node`.
    pub fn on_node(&self, node: &str) -> impl Iterator<Item = &Arc<Object>> {
        self.by_node.get(node).into_iter().flatten().filter_map(|key| self.objects.get(key))
    }

    /// Names of nodes that Pods are bound to.
    pub fn nodes_in_use(&self) -> impl Iterator<Item = &str> {
        self.by_node.keys().map(String::as_str)
    }

    /// Pods of `namespace` that `selector` selects.
    #[must_use]
    pub fn pods_matching(&self, namespace: &str, selector: &LabelSelector) -> Vec<&Arc<Object>> {
        if let Some((label, value)) = selector.pinned() {
            let place = (namespace.to_owned(), label.to_owned(), value.to_owned());
            let keys = self.by_label.get(&place).into_iter().flatten();
            return keys
                .filter_map(|key| self.objects.get(key))
                .filter(|object| selector.matches_labels(&object.labels))
                .collect();
        }
        self.resource("", "pods", namespace).filter(|object| selector.matches_labels(&object.labels)).collect()
    }

    /// The Node named `name`.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Arc<Object>> {
        self.get(&self.key("", "nodes", "", name)?)
    }

    /// The key of an object of this cluster; `None` for names that make no key.
    #[must_use]
    pub fn key(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Key> {
        Key::new(&self.id, group, resource, namespace, name).ok()
    }

    /// Where an owner of `object` is stored; `None` for kinds that are not built in.
    #[must_use]
    pub fn owner_key(&self, object: &Object, owner: &Owner) -> Option<Key> {
        let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let kind = registry().kind(group, version, &owner.kind)?;
        let namespace = match kind.scope {
            Scope::Cluster => "",
            Scope::Namespaced => object.namespace(),
        };
        self.key(&kind.storage_group, &kind.plural, namespace, &owner.name)
    }
}

fn label_places(object: &Object) -> impl Iterator<Item = (String, String, String)> {
    let namespace = object.namespace();
    object.labels.iter().map(move |(label, value)| (namespace.to_owned(), label.clone(), value.clone()))
}

fn drop_from<K: std::hash::Hash + Eq>(index: &mut HashMap<K, BTreeSet<Key>>, place: &K, key: &Key) {
    if let Some(keys) = index.get_mut(place) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(place);
        }
    }
}

/// The lowest key under a prefix: its bytes with the missing parts empty.
fn padded(prefix: &Bytes) -> Bytes {
    let closed = prefix.iter().filter(|byte| **byte == 0).count();
    let mut bytes = prefix.to_vec();
    bytes.resize(prefix.len() + 5_usize.saturating_sub(closed), 0);
    bytes.into()
}

/// A whole object, loaded to be changed.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Where it is stored.
    pub key: Key,
    /// The version that was loaded: the precondition of every change made to it.
    pub revision: Revision,
    /// The object, without apiVersion and kind.
    pub value: Value,
    /// Its sealed part, to be carried along by a change.
    pub sealed: Bytes,
}

/// Whole objects, from the replica's own state.
pub trait Source: Send + Sync {
    /// The record at `key`.
    ///
    /// # Errors
    /// The state could not be read.
    fn record(&self, key: &Key) -> Result<Option<Record>, LoadError>;

    /// Up to `limit` records under `prefix` in key order.
    ///
    /// # Errors
    /// The state could not be read.
    fn first(&self, prefix: &KeyPrefix, limit: u32) -> Result<Vec<(Key, Record)>, LoadError>;
}

/// An object could not be loaded; the key is tried again later.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The replica's state could not be read.
    #[error("reading {key:?} failed: {reason}")]
    Read {
        /// What was read.
        key: Bytes,
        /// Why it failed.
        reason: String,
    },
    /// The stored bytes are no object.
    #[error("{key:?} is corrupt")]
    Corrupt {
        /// The corrupt record's key.
        key: Key,
        /// What the parser found.
        #[source]
        source: serde_json::Error,
    },
}

/// What a reconcile reads.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Remembered objects and indexes.
    pub cluster: &'a Cluster,
    /// Whole objects.
    pub source: &'a dyn Source,
    /// What the cluster's record says.
    pub settings: Settings,
    /// Last signs of life of nodes.
    pub heartbeats: &'a Heartbeats,
    /// Whether moves wait for their grace.
    pub urgency: Urgency,
}

/// What a cluster's record says: its times (quilt-api 2.1), and where its API is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Silence that makes a node not ready.
    pub node_timeout_secs: u64,
    /// Further time until placements leave it.
    pub placement_grace_secs: u64,
    /// Address of the Service that leads to the API, once the record is known.
    pub api_address: Option<Ipv4Addr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { node_timeout_secs: 40, placement_grace_secs: 30, api_address: None }
    }
}

/// Whether moves wait for their grace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Urgency {
    /// They wait.
    #[default]
    Usual,
    /// Somebody asked for all of it now.
    Now,
}

/// The time and the chance of one reconcile.
#[derive(Clone, Debug)]
pub struct Occasion {
    /// Wall time, for what people read and for times kept in objects.
    pub now: Moment,
    /// Cluster time, for silence: it never jumps.
    pub cluster_ms: u64,
    /// Chance, for names and uids.
    pub entropy: Entropy,
}

impl Occasion {
    /// Metadata of an object that is made now; `namespace` is where it lives.
    pub(crate) fn born(&mut self, namespace: &str, name: &str) -> Value {
        json!({
            "name": name, "namespace": namespace, "uid": self.entropy.uid(), "creationTimestamp": self.now.rfc3339(),
        })
    }
}

impl View<'_> {
    /// Whether a Pod serves: its own condition says so, and its node is not away.
    #[must_use]
    pub fn is_ready(&self, pod: &Object) -> bool {
        pod.pod().is_some_and(|facts| facts.ready_since.is_some() && !self.is_away(&facts.node))
    }

    /// Whether the node has gone silent, reports trouble, or is missing.
    #[must_use]
    pub fn is_away(&self, node: &str) -> bool {
        let node = self.cluster.node(node).and_then(|node| node.node());
        node.is_none_or(|node| matches!(node.ready, Ready::No | Ready::Unknown))
    }

    /// Loads the object at `key` to read or change it.
    ///
    /// # Errors
    /// It cannot be read, or is corrupt.
    pub fn load(&self, key: &Key) -> Result<Option<Loaded>, LoadError> {
        let Some(record) = self.source.record(key)? else { return Ok(None) };
        Loaded::parse(key, &record).map(Some)
    }

    /// Loads an object that is remembered, if it still is what is remembered; `None` when it has moved on, in which
    /// case its change is on the way and will bring the reconcile back.
    ///
    /// # Errors
    /// It cannot be read, or is corrupt.
    pub fn load_seen(&self, object: &Object) -> Result<Option<Loaded>, LoadError> {
        Ok(self.load(&object.key)?.filter(|loaded| loaded.revision == object.revision))
    }
}

/// Fills in the defaults of the kind that is kept under `key`. Objects get them when they are made and when they are
/// read: one may be older than a default, and must still equal what is made of it today.
pub(crate) fn complete(key: &Key, value: &mut Value) {
    let parts = key.parts();
    if let Some(kind) = registry().stored(parts.group, parts.resource) {
        hooks::complete(kind, value);
    }
}

impl Loaded {
    /// Parses a record, with the defaults of this release.
    ///
    /// # Errors
    /// [`LoadError::Corrupt`].
    pub fn parse(key: &Key, record: &Record) -> Result<Self, LoadError> {
        let mut value =
            serde_json::from_slice(&record.value).map_err(|source| LoadError::Corrupt { key: key.clone(), source })?;
        complete(key, &mut value);
        Ok(Self {
            key: key.clone(),
            revision: Revision::new(record.mod_revision),
            value,
            sealed: record.sealed.clone(),
        })
    }
}
