//! Typed ids. One name per kind of thing, so that a replica's number never stands where a cluster's name belongs.

use std::fmt;

/// Number of one `quiltd` server within its control plane, from 1; never reused after its data was wiped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ReplicaId(pub u64);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Id of one Quilt cluster, that is, one virtual Kubernetes API: a UUID, or `default` for the built-in one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ClusterId(pub String);

impl ClusterId {
    /// The built-in cluster, served at the root paths.
    #[must_use]
    pub fn built_in() -> Self {
        Self("default".into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
