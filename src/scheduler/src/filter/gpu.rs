//! Devices are exclusive: so many must be free, and those asked for by id must be.

use super::Candidate;
use crate::node::Node;
use crate::pod::Pod;
use crate::resources::GPU;
use crate::snapshot::Ledger;

pub(super) fn refuse(candidate: &Candidate<'_>) -> Option<String> {
    let Candidate { pod, node, ledger } = candidate;
    let wanted = pod.gpus();
    if wanted == 0 {
        return None;
    }
    if !pod.gpu_ids.is_empty() {
        let free = |id: &String| node.gpus.contains(id) && !ledger.gpus.contains_key(id);
        return (!pod.gpu_ids.iter().all(free)).then(|| "node(s) didn't have the requested GPUs free".to_owned());
    }
    let has = usize::try_from(node.has(GPU).unwrap_or_default()).unwrap_or_default();
    let taken = ledger.gpus.len() + ledger.gpus_unnamed;
    (wanted > has.saturating_sub(taken)).then(|| format!("Insufficient {GPU}"))
}

/// The devices a Pod gets on a node that passed: those it named, else the first free ones of the inventory.
#[must_use]
pub fn assign(pod: &Pod, node: &Node, ledger: &Ledger) -> Vec<String> {
    if !pod.gpu_ids.is_empty() {
        return pod.gpu_ids.clone();
    }
    node.gpus.iter().filter(|id| !ledger.gpus.contains_key(*id)).take(pod.gpus()).cloned().collect()
}
