//! A kind: one served resource of one group and version, with everything routing, discovery and storage need to know about it.
//!
//! Built-in kinds come from the table, custom ones are built at run time; the code paths are the same.

use std::sync::Arc;

use crate::schema::{Gvk, Node, Schema, Text, TypeId};

/// One resource of one group and version.
#[derive(Clone, Debug)]
pub struct Kind {
    /// API group, empty for the core group.
    pub group: Text,
    /// API version, such as `v1`.
    pub version: Text,
    /// Kind, such as `Deployment`.
    pub kind: Text,
    /// Kind of its lists, such as `DeploymentList`; empty for kinds that cannot be listed.
    pub list_kind: Text,
    /// Resource name in URLs, such as `deployments`.
    pub plural: Text,
    /// Singular resource name, such as `deployment`.
    pub singular: Text,
    /// Short names, such as `deploy`.
    pub short_names: Vec<Text>,
    /// Categories, such as `all`.
    pub categories: Vec<Text>,
    /// Whether objects live in a namespace.
    pub scope: Scope,
    /// Verbs of the main resource, sorted.
    pub verbs: Vec<Verb>,
    /// Subresources, sorted by name.
    pub subresources: Vec<Subresource>,
    /// Group under which objects are stored: differs where two groups share one store.
    pub storage_group: Text,
    /// Version in which objects are stored.
    pub storage_version: Text,
    /// Fields a field selector may name, besides `metadata.name` and `metadata.namespace`.
    pub selectable_fields: Vec<Text>,
    /// What raises `metadata.generation`.
    pub generation: Generation,
    /// Whether the kind is built in or defined by a CustomResourceDefinition.
    pub origin: Origin,
    /// The types of the object.
    pub types: Arc<Schema>,
    /// The type of the object inside `types`.
    pub schema: TypeId,
}

/// Whether objects live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One object per cluster and name.
    Cluster,
    /// One object per namespace and name.
    Namespaced,
}

/// Where a kind comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the table: protobuf and strategic merge patches are understood.
    BuiltIn,
    /// From a CustomResourceDefinition.
    Custom,
}

/// What raises `metadata.generation` by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// Nothing: the kind has no generation.
    None,
    /// A change of `spec`.
    Spec,
    /// A change of anything but `metadata` and `status`.
    Content,
}

/// What a client may do with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// POST.
    Create,
    /// DELETE of one object.
    Delete,
    /// DELETE of a list.
    DeleteCollection,
    /// GET of one object.
    Get,
    /// GET of a list.
    List,
    /// PATCH.
    Patch,
    /// PUT.
    Update,
    /// GET of a stream of changes.
    Watch,
}

/// A part of a resource with its own path.
#[derive(Clone, Debug)]
pub struct Subresource {
    /// Path element, such as `scale`.
    pub name: Text,
    /// What is read and written there, such as `autoscaling/v1` `Scale`.
    pub kind: Gvk,
    /// Verbs, sorted.
    pub verbs: Vec<Verb>,
}

/// What a body is expected to be: names for messages and the type to check against.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// API group, empty for the core group.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    /// Kind.
    pub kind: &'a str,
    /// The type of the body.
    pub node: Node<'a>,
}

impl Verb {
    /// All verbs, sorted as discovery shows them.
    pub const ALL: [Verb; 8] = [
        Verb::Create,
        Verb::Delete,
        Verb::DeleteCollection,
        Verb::Get,
        Verb::List,
        Verb::Patch,
        Verb::Update,
        Verb::Watch,
    ];

    /// The verb as discovery and RBAC write it.
    pub fn name(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Patch => "patch",
            Verb::Update => "update",
            Verb::Watch => "watch",
        }
    }

    /// The verb of this name.
    pub fn parse(name: &str) -> Option<Verb> {
        Verb::ALL.into_iter().find(|verb| verb.name() == name)
    }
}

impl Kind {
    /// `v1` for the core group, else `group/version`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// The type of the object, ready to walk.
    pub fn node(&self) -> Node<'_> {
        self.types.node(self.schema)
    }

    /// The subresource of this name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|sub| sub.name == name)
    }

    /// Whether the main resource has this verb.
    pub fn allows(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// Whether objects live in a namespace.
    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// This kind as the expected content of a body.
    pub fn target(&self) -> Target<'_> {
        Target { group: &self.group, version: &self.version, kind: &self.kind, node: self.node() }
    }
}

impl<'a> From<&'a Kind> for Target<'a> {
    fn from(kind: &'a Kind) -> Self {
        kind.target()
    }
}

impl Target<'_> {
    /// `v1` for the core group, else `group/version`.
    pub fn api_version(&self) -> String {
        api_version(self.group, self.version)
    }
}

/// `v1` for the core group, else `group/version`.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Splits an `apiVersion` into group (empty for core) and version.
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}
