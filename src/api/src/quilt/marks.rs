//! Names of the labels, annotations, taints and resources by which Quilt's facts stand on Kubernetes objects.

/// Label of Nodes that an agent registered.
pub(crate) const AGENT: &str = "quilt.sh/agent";
/// Node: its exact Quilt name.
pub(crate) const NAME: &str = "quilt.sh/name";
/// Node and Pod: the labels exactly as sent, as JSON.
pub(crate) const LABELS: &str = "quilt.sh/labels";
/// Node: the facts of its allocation that no Node field holds, as JSON.
pub(crate) const ALLOCATION: &str = "quilt.sh/allocation";
/// Node: its agent's version.
pub(crate) const AGENT_VERSION: &str = "quilt.sh/agent-version";
/// Node: the state its agent reported last, `draining` aside.
pub(crate) const REPORTED_STATE: &str = "quilt.sh/reported-state";
/// Node: the taints its agent reported last, as JSON.
pub(crate) const REPORTED_TAINTS: &str = "quilt.sh/reported-taints";
/// Node: its devices, as JSON.
pub(crate) const GPU_INVENTORY: &str = "quilt.sh/gpu-inventory";
/// Node: facts about its GPU runtime, as JSON.
pub(crate) const GPU_RUNTIME: &str = "quilt.sh/gpu-runtime";
/// Node: facts about its VM runtime, as JSON.
pub(crate) const VMM_RUNTIME: &str = "quilt.sh/vmm-runtime";
/// Node: SHA-256 of the certificate of its agent's kubelet-compatible endpoint.
pub(crate) const KUBELET_CERT_SHA256: &str = "quilt.sh/kubelet-cert-sha256";
/// Node: `true` when its agent ends deleted Pods itself.
pub(crate) const POD_AGENT: &str = "quilt.sh/pod-agent";
/// Node: the taint that says `draining`.
pub(crate) const DRAINING: &str = "quilt.sh/draining";
/// Node: the resource that counts its devices.
pub(crate) const GPU: &str = "quilt.sh/gpu";
/// Pod: id of the placement it fills.
pub(crate) const PLACEMENT_ID: &str = "quilt.sh/placement-id";
/// Pod: its index among the Pods of its workload.
pub(crate) const REPLICA_INDEX: &str = "quilt.sh/replica-index";
/// Pod: type of the condition whose reason is the word its agent reported, where nothing else in the status tells.
pub(crate) const PLACEMENT_STATE: &str = "quilt.sh/placement-state";
/// Pod and slot: why it was moved here.
pub(crate) const MESSAGE: &str = "quilt.sh/message";
/// Workload: unix seconds of the last change of its spec.
pub(crate) const UPDATED_AT: &str = "quilt.sh/updated-at";
/// Image of a Pod whose workload named none.
pub(crate) const NO_IMAGE: &str = "quilt.sh/none";
