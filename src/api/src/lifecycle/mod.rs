//! What is special about a kind in the life of its objects, as data: how it is deleted, what it allocates, by which
//! tags its watchers are woken. Verbs ask [`of`] and never name a kind themselves.

pub(crate) mod namespaces;
pub(crate) mod nodes;
pub(crate) mod pods;
pub(crate) mod services;
pub(crate) mod workloads;

use quilt_objects::kind::Kind;
use quilt_proto::{Compare, Op};
use quilt_raft::View;
use serde_json::Value;

use crate::directory::Cluster;
use crate::problem::Problem;

/// The special part of one kind.
pub(crate) struct Lifecycle {
    group: &'static str,
    resource: &'static str,
    /// How an object is deleted.
    pub(crate) deletion: fn(&Value, Option<u64>) -> Result<Deletion, Problem>,
    /// Whether a deleting object without finalizers may go for good.
    pub(crate) may_go: fn(&Value) -> bool,
    /// What `details.kind` of the Status of a removed object says; the plural where empty.
    pub(crate) removed_kind: &'static str,
    /// Index tags by which narrow watches of the kind are woken.
    pub(crate) tags: fn(&Value) -> Vec<Vec<u8>>,
    /// Lifetime of an object; 0 = for ever.
    pub(crate) ttl_ms: u64,
    /// Takes what the object needs of the cluster's pools, and gives back what it no longer needs.
    pub(crate) allocate: Allocate,
    /// Gives back what is free from the moment the object is marked for deletion, whatever still keeps it.
    pub(crate) parting: fn(&Allocation<'_>, &Value) -> Result<Claims, Problem>,
}

/// Where, the object before (none at its birth), and the object to be (none at its end).
type Allocate = fn(&Allocation<'_>, Option<&Value>, Option<&mut Value>) -> Result<Claims, Problem>;

/// How an object is to be deleted, finalizers apart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Deletion {
    /// At once.
    Now,
    /// It is marked and stays for `grace_seconds`, until whoever runs it reports its end.
    Graceful {
        /// Seconds it may take.
        grace_seconds: u64,
    },
    /// It is marked, with these further changes, and goes when a controller has emptied it.
    Marked(Value),
}

/// Where allocations are judged.
pub(crate) struct Allocation<'a> {
    /// The state.
    pub(crate) view: &'a View,
    /// The cluster with its ranges.
    pub(crate) cluster: &'a Cluster,
    /// Wall time of the write.
    pub(crate) now_ms: u64,
}

/// What has to hold and happen with the object's own write.
#[derive(Default)]
pub(crate) struct Claims {
    /// Preconditions.
    pub(crate) compares: Vec<Compare>,
    /// Changes of the pools.
    pub(crate) ops: Vec<Op>,
}

const PLAIN: Lifecycle = Lifecycle {
    group: "",
    resource: "",
    deletion: |_, _| Ok(Deletion::Now),
    may_go: |_| true,
    removed_kind: "",
    tags: |_| Vec::new(),
    ttl_ms: 0,
    allocate: |_, _, _| Ok(NOTHING),
    parting: |_, _| Ok(NOTHING),
};

const NOTHING: Claims = Claims { compares: Vec::new(), ops: Vec::new() };

static ENTRIES: [Lifecycle; 7] = [
    Lifecycle { resource: "nodes", allocate: nodes::allocate, parting: nodes::release, ..PLAIN },
    Lifecycle { group: "quilt.sh", resource: "workloads", allocate: workloads::allocate, ..PLAIN },
    Lifecycle { resource: "namespaces", deletion: namespaces::deletion, may_go: namespaces::may_go, ..PLAIN },
    Lifecycle { resource: "pods", deletion: pods::deletion, removed_kind: "Pod", tags: pods::tags, ..PLAIN },
    Lifecycle { resource: "services", allocate: services::allocate, ..PLAIN },
    // Both served groups of Event share one store and one lifetime of an hour.
    Lifecycle { resource: "events", ttl_ms: 3_600_000, ..PLAIN },
    Lifecycle { group: "events.k8s.io", resource: "events", ttl_ms: 3_600_000, ..PLAIN },
];

static DEFAULT: Lifecycle = PLAIN;

/// The special part of `kind`; of most kinds there is none.
pub(crate) fn of(kind: &Kind) -> &'static Lifecycle {
    ENTRIES.iter().find(|entry| entry.resource == kind.plural && entry.group == kind.group).unwrap_or(&DEFAULT)
}
