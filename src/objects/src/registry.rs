//! The registry of built-in kinds: the checked-in table, parsed once, with the lookups that routing, discovery and decoding use.
//!
//! It holds what the table says and nothing more; custom resources live beside it, in the layer that knows the cluster.

mod text;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::kind::{Kind, Target};
use crate::schema::{Schema, TypeId};

pub use text::TableError;

/// The Kubernetes version whose API the table describes.
pub const KUBERNETES_VERSION: (u32, u32) = (1, 36);

/// Generated tables first, own entries last: later types may refer to earlier ones and the reverse.
const TABLES: &[&str] = &[
    include_str!("../kinds/v1.36.types"),
    include_str!("../kinds/v1.36.kinds"),
    include_str!("../kinds/own.types"),
    include_str!("../kinds/own.kinds"),
];

/// Group, version and plural or kind.
type Names = (&'static str, &'static str, &'static str);

static REGISTRY: LazyLock<Registry> =
    LazyLock::new(|| Registry::parse(TABLES).expect("the embedded kinds table is valid: a test parses it"));

/// The built-in kinds of this binary.
pub fn registry() -> &'static Registry {
    &REGISTRY
}

/// Kinds and types, indexed.
#[derive(Debug)]
pub struct Registry {
    types: Arc<Schema>,
    kinds: Vec<Kind>,
    by_resource: HashMap<Names, usize>,
    by_kind: HashMap<Names, usize>,
    by_gvk: HashMap<Names, (Names, TypeId)>,
}

impl Registry {
    /// Reads tables in the text form of `kinds/`.
    pub fn parse(tables: &[&'static str]) -> Result<Registry, TableError> {
        text::parse(tables)
    }

    /// The kind served at `group`/`version`/`plural` (group empty for core).
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Kind> {
        self.by_resource.get(&(group, version, plural)).and_then(|at| self.kinds.get(*at))
    }

    /// The kind whose objects are stored under this group and plural.
    pub fn stored(&self, group: &str, plural: &str) -> Option<&Kind> {
        let stored_there = |kind: &&Kind| kind.storage_group == group && kind.plural == plural;
        self.kinds.iter().filter(stored_there).find(|kind| kind.version == kind.storage_version)
    }

    /// The served kind of this group, version and kind.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<&Kind> {
        self.by_kind.get(&(group, version, kind)).and_then(|at| self.kinds.get(*at))
    }

    /// All kinds, ordered by group, version and plural.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// All served group/versions in order, each once, the core group (empty) first.
    pub fn group_versions(&self) -> Vec<(&str, &str)> {
        let mut all: Vec<(&str, &str)> = self.kinds.iter().map(|kind| (&*kind.group, &*kind.version)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The kinds of one group and version, ordered by plural.
    pub fn kinds_of<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Kind> + 'a {
        self.kinds.iter().filter(move |kind| kind.group == group && kind.version == version)
    }

    /// All types.
    pub fn types(&self) -> &Arc<Schema> {
        &self.types
    }

    /// The body type of any group, version and kind, resources and others alike: `Scale`, `Eviction`, `Binding`, reviews, `DeleteOptions`.
    /// `DeleteOptions` is the same type in every group and version.
    pub fn target(&self, group: &str, version: &str, kind: &str) -> Option<Target<'_>> {
        let key = if kind == "DeleteOptions" { ("", "v1", kind) } else { (group, version, kind) };
        let &((group, version, kind), id) = self.by_gvk.get(&key)?;
        Some(Target { group, version, kind, node: self.types.node(id) })
    }

    /// The body of DELETE requests.
    pub fn delete_options(&self) -> Target<'_> {
        self.target("", "v1", "DeleteOptions").expect("the table holds DeleteOptions: a test asks for it")
    }
}

#[cfg(test)]
mod tests;
