//! Filters: each says why a Pod cannot go to a node, or lets it pass. The table is their order.

mod affinity;
mod cordon;
mod fit;
pub mod gpu;
mod name;
mod ports;
mod ready;
mod taints;

use crate::node::Node;
use crate::pod::Pod;
use crate::snapshot::Ledger;

/// One candidate: a Pod, a node, and what is taken there, the Pod it replaces aside.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    /// The Pod that looks for a node.
    pub pod: &'a Pod,
    /// The node looked at.
    pub node: &'a Node,
    /// What is taken on that node.
    pub ledger: &'a Ledger,
}

/// One filter.
#[derive(Clone, Copy)]
pub struct Filter {
    /// Its name, as shown beside the reason.
    pub name: &'static str,
    /// Why the node will not do; `None` lets it pass.
    pub refuse: fn(&Candidate<'_>) -> Option<String>,
}

/// All filters in the order they are asked; the first refusal is the node's reason.
pub const FILTERS: [Filter; 8] = [
    Filter { name: "Unschedulable", refuse: cordon::refuse },
    Filter { name: "NodeName", refuse: name::refuse },
    Filter { name: "TaintToleration", refuse: taints::refuse },
    Filter { name: "NodeReady", refuse: ready::refuse },
    Filter { name: "NodeAffinity", refuse: affinity::refuse },
    Filter { name: "NodePorts", refuse: ports::refuse },
    Filter { name: "ResourcesFit", refuse: fit::refuse },
    Filter { name: "Gpu", refuse: gpu::refuse },
];
