//! One pure reconcile per file: `(view, key, occasion) → plan`. No clock, no chance of their own, no writing.

pub mod budget;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod furnish;
pub mod garbage;
pub mod namespace;
pub mod node;
pub mod replicaset;
pub mod termination;
pub mod workload;

use quilt_proto::Key;

use crate::plan::Plan;
use crate::view::{LoadError, Occasion, View};

/// The controllers, by what they look after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    /// Workloads and their slots.
    Workload,
    /// Deployments.
    Deployment,
    /// `ReplicaSets`.
    ReplicaSet,
    /// Services: Endpoints and slices.
    Endpoints,
    /// Disruption budgets.
    Budget,
    /// Nodes.
    Node,
    /// Pods nobody ends.
    Termination,
    /// Owners and dependents.
    Garbage,
    /// What namespaces are never without.
    Furnish,
    /// Namespaces being deleted.
    Namespace,
}

impl Controller {
    /// Every controller, in the order in which a forced run goes through them: owners before what they own.
    pub const ALL: [Self; 10] = [
        Self::Node,
        Self::Workload,
        Self::Deployment,
        Self::ReplicaSet,
        Self::Termination,
        Self::Garbage,
        Self::Namespace,
        Self::Furnish,
        Self::Endpoints,
        Self::Budget,
    ];

    /// Name for metrics and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Deployment => "deployment",
            Self::ReplicaSet => "replicaset",
            Self::Endpoints => "endpoints",
            Self::Budget => "disruption",
            Self::Node => "node",
            Self::Termination => "termination",
            Self::Furnish => "furnishing",
            Self::Garbage => "garbage",
            Self::Namespace => "namespace",
        }
    }

    /// One look at `key`.
    ///
    /// # Errors
    /// State could not be read.
    pub fn reconcile(self, view: &View<'_>, key: &Key, at: &mut Occasion) -> Result<Plan, LoadError> {
        match self {
            Self::Workload => workload::reconcile(view, key, at),
            Self::Deployment => deployment::reconcile(view, key, at),
            Self::ReplicaSet => replicaset::reconcile(view, key, at),
            Self::Endpoints => endpoints::reconcile(view, key, at),
            Self::Budget => budget::reconcile(view, key, at),
            Self::Node => node::reconcile(view, key, at),
            Self::Termination => termination::reconcile(view, key, at),
            Self::Furnish => furnish::reconcile(view, key, at),
            Self::Garbage => garbage::reconcile(view, key, at),
            Self::Namespace => namespace::reconcile(view, key, at),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
