//! `decide`: the one decision. The condition, the Event and the answer to "why is it pending" are renderings of it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::filter::{Candidate, FILTERS, gpu};
use crate::pod::Pod;
use crate::score::SCORES;
use crate::snapshot::{Ledger, Snapshot};

/// What was decided about a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes to this node.
    Bind {
        /// The node's name.
        node: String,
        /// The devices it gets there.
        gpus: Vec<String>,
    },
    /// No node takes it now.
    Unschedulable(Refusal),
}

/// Why no node takes a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Every node's own reason, oldest node first.
    pub nodes: Vec<Rejection>,
}

/// Why one node does not take the Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The node.
    pub node: String,
    /// The filter that refused.
    pub filter: &'static str,
    /// What it said.
    pub reason: String,
}

impl Refusal {
    /// In one sentence, as Kubernetes' scheduler says it: reasons with the number of nodes they hold for.
    #[must_use]
    pub fn message(&self) -> String {
        if self.nodes.is_empty() {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for rejection in &self.nodes {
            *counts.entry(&rejection.reason).or_default() += 1;
        }
        let mut reasons: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        reasons.sort();
        format!("0/{} nodes are available: {}.", self.nodes.len(), reasons.join(", "))
    }
}

/// Finds the node for `pod`: of those that pass every filter the one with the lowest costs, ties by creation.
#[must_use]
pub fn decide(snapshot: &Snapshot, pod: &Pod) -> Decision {
    let replaced = pod.replaces.as_deref().and_then(|uid| snapshot.pod_by_uid(uid));
    let home = replaced.map(|replaced| replaced.node.as_str()).filter(|home| !home.is_empty());
    let mut refusal = Refusal::default();
    let mut best: Option<([u64; SCORES.len()], &str, Vec<String>)> = None;
    for node in snapshot.nodes() {
        // On its own node a replacement may use what the replaced Pod gives back.
        let ledger: Cow<'_, Ledger> = match replaced.filter(|replaced| replaced.node == node.name) {
            Some(replaced) => {
                let mut ledger = snapshot.ledger(&node.name).clone();
                ledger.take_off(replaced);
                Cow::Owned(ledger)
            }
            None => Cow::Borrowed(snapshot.ledger(&node.name)),
        };
        let candidate = Candidate { pod, node, ledger: &ledger };
        let refused = FILTERS.iter().find_map(|filter| Some((filter.name, (filter.refuse)(&candidate)?)));
        if let Some((filter, reason)) = refused {
            refusal.nodes.push(Rejection { node: node.name.clone(), filter, reason });
            continue;
        }
        let costs = SCORES.map(|score| (score.cost)(&candidate, home));
        // Nodes come oldest first, so an equal later one does not win.
        if best.as_ref().is_none_or(|(lowest, _, _)| costs < *lowest) {
            best = Some((costs, &node.name, gpu::assign(pod, node, &ledger)));
        }
    }
    match best {
        Some((_, node, gpus)) => Decision::Bind { node: node.to_owned(), gpus },
        None => Decision::Unschedulable(refusal),
    }
}
