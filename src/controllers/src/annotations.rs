//! Names of the control plane's own annotations and labels (`quilt.sh/…`), which no other writer may set.

/// The placement a Pod of a Workload fills: the slot's id, which outlives Pods.
pub const PLACEMENT_ID: &str = "quilt.sh/placement-id";
/// Index of the Pod among its owner's Pods.
pub const REPLICA_INDEX: &str = "quilt.sh/replica-index";
/// Uid of the Pod that goes when this one is bound.
pub const REPLACES: &str = "quilt.sh/replaces";
/// Hash of the Workload spec a Pod was made from.
pub const SPEC_HASH: &str = "quilt.sh/spec-hash";
/// Why a placement was moved.
pub const MESSAGE: &str = "quilt.sh/message";
/// Labels of a Workload that are not valid Kubernetes labels, as JSON.
pub const LABELS: &str = "quilt.sh/labels";
/// Ids of the devices a Pod asks for by name, separated by commas.
pub const GPU_IDS: &str = "quilt.sh/gpu-ids";
/// `true` on Nodes whose agent ends deleted Pods itself and reports their end.
pub const POD_AGENT: &str = "quilt.sh/pod-agent";
/// Label of Nodes run by a Quilt agent.
pub const AGENT: &str = "quilt.sh/agent";
/// Label of a Workload's Pods: the Workload's uid.
pub const WORKLOAD: &str = "quilt.sh/workload";
/// Image of a Pod whose Workload names none; hidden again in Quilt views.
pub const NO_IMAGE: &str = "quilt.sh/none";
/// Extended resource under which devices are counted.
pub const GPU: &str = "quilt.sh/gpu";
