//! What the Quilt routes show of Kubernetes objects: each noun as a pure function of the objects behind it.

pub(crate) mod node;
pub(crate) mod placement;
pub(crate) mod workload;
