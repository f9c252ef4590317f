//! What must hold of Pods, Nodes and Deployments at every single revision, whoever leads and whatever it believes.

use std::collections::{BTreeMap, BTreeSet};

use super::replay::{Life, Replay, Version};
use super::{Findings, Promise, Violation};
use crate::history::{Facts, History, Revision};

/// Checks the collections of one API, named by what their paths have in common, at every revision.
pub(super) fn check(history: &History, replay: &Replay, findings: &mut Findings) {
    // Collections of one virtual cluster share the beginning of their paths.
    let mut clusters: BTreeMap<&str, Vec<(Revision, &str, &Version)>> = BTreeMap::new();
    for (collection, course) in history.collections.iter().zip(replay.courses()) {
        let Some(cluster) = collection.path.find("/api").map(|at| &collection.path[..at]) else { continue };
        for (name, track) in &course.tracks {
            for version in track.iter().filter(|version| version.facts.is_some()) {
                clusters.entry(cluster).or_default().push((version.revision, name, version));
            }
        }
    }
    for (_, mut changes) in clusters {
        changes.sort_by_key(|(revision, ..)| *revision);
        let mut picture = Picture::default();
        for (revision, name, version) in changes {
            picture.take(revision, name, version, findings);
            findings.counts().invariants += 1;
        }
    }
}

#[derive(Debug, Clone)]
struct Pod {
    name: String,
    node: Option<String>,
    cpu_millis: u64,
    memory_bytes: u64,
    finished: bool,
    terminating: bool,
    owner: Option<String>,
    replaces: Option<String>,
}

#[derive(Debug, Clone)]
struct Node {
    cpu_millis: Option<u64>,
    memory_bytes: Option<u64>,
    pods: Option<u64>,
    subnet: Option<String>,
}

/// How many there may be: falls only when there are so few.
#[derive(Debug, Clone, Copy, Default)]
struct Ceiling {
    wanted: u64,
    ceiling: u64,
}

impl Ceiling {
    fn want(&mut self, wanted: u64) {
        self.wanted = wanted;
        self.ceiling = self.ceiling.max(wanted);
    }

    /// Whether so many are too many; once few enough, that is the measure.
    fn is_broken_by(&mut self, count: u64) -> bool {
        if count <= self.wanted {
            self.ceiling = self.wanted;
        }
        count > self.ceiling
    }
}

#[derive(Debug, Clone)]
struct Set {
    owner: Option<String>,
    replicas: u64,
    pods: Ceiling,
}

/// What there is at one revision.
#[derive(Debug, Default)]
struct Picture {
    pods: BTreeMap<String, Pod>,
    nodes: BTreeMap<String, Node>,
    sets: BTreeMap<String, Set>,
    deployments: BTreeMap<String, Ceiling>,
}

impl Picture {
    fn take(&mut self, revision: Revision, name: &str, version: &Version, findings: &mut Findings) {
        let uid = version.uid.clone();
        let gone = version.life == Life::Gone;
        match &version.facts {
            Some(Facts::Pod { .. }) if gone => drop(self.pods.remove(&uid)),
            Some(Facts::Node { .. }) if gone => drop(self.nodes.remove(name)),
            Some(Facts::ReplicaSet { .. }) if gone => drop(self.sets.remove(&uid)),
            Some(Facts::Deployment { .. }) if gone => drop(self.deployments.remove(&uid)),
            Some(Facts::Pod { node, cpu_millis, memory_bytes, finished, terminating, owner, replaces }) => {
                let pod = Pod {
                    name: name.to_owned(),
                    node: node.clone(),
                    cpu_millis: *cpu_millis,
                    memory_bytes: *memory_bytes,
                    finished: *finished,
                    terminating: *terminating,
                    owner: owner.clone(),
                    replaces: replaces.clone(),
                };
                self.pod(revision, uid, &pod, findings);
            }
            Some(Facts::Node { cpu_millis, memory_bytes, pods, subnet }) => {
                let node =
                    Node { cpu_millis: *cpu_millis, memory_bytes: *memory_bytes, pods: *pods, subnet: subnet.clone() };
                self.node(revision, name, node, findings);
            }
            Some(Facts::ReplicaSet { owner, replicas }) => {
                let set = self.sets.entry(uid).or_insert_with(|| Set {
                    owner: owner.clone(),
                    replicas: 0,
                    pods: Ceiling::default(),
                });
                let grew = *replicas > set.replicas;
                set.replicas = *replicas;
                set.pods.want(*replicas);
                if grew {
                    self.rolled(revision, owner.as_deref(), name, findings);
                }
            }
            Some(Facts::Deployment { replicas, surge }) => {
                self.deployments.entry(uid).or_default().want(replicas + surge);
            }
            None => {}
        }
    }

    fn pod(&mut self, revision: Revision, uid: String, pod: &Pod, findings: &mut Findings) {
        // Binding takes the mark off; what it said stays true.
        let known = self.pods.get(&uid).and_then(|known| known.replaces.clone());
        let replaces = pod.replaces.clone().or(known);
        let before = self.pods.insert(uid, Pod { replaces, ..pod.clone() });
        let old_node = before.as_ref().and_then(|before| before.node.as_deref());
        if let Some(old) = old_node
            && pod.node.as_deref() != Some(old)
        {
            let explanation =
                format!("pod {} was bound to {old} and is bound to {:?} at revision {revision}", pod.name, pod.node);
            findings.add(Violation::new(Promise::G7, "BoundOnce", explanation).at(revision));
        }
        if let (None, Some(node)) = (old_node, &pod.node) {
            findings.counts().bindings += 1;
            self.full(revision, node, pod, findings);
        }
        if before.is_none()
            && let Some(owner) = &pod.owner
            && let Some(set) = self.sets.get_mut(owner)
        {
            let live =
                self.pods.values().filter(|pod| pod.owner.as_ref() == Some(owner) && !pod.terminating && !pod.finished);
            let live = live.count() as u64;
            if set.pods.is_broken_by(live) {
                let explanation = format!(
                    "pod {} is number {live} of its ReplicaSet at revision {revision}, which wants {}",
                    pod.name, set.replicas
                );
                findings.add(Violation::new(Promise::G8, "CreatedWithinDesired", explanation).at(revision));
            }
        }
    }

    /// A pod was bound: what its node promises is not exceeded.
    fn full(&self, revision: Revision, node: &str, pod: &Pod, findings: &mut Findings) {
        let Some(limits) = self.nodes.get(node) else { return };
        let bound = || self.pods.iter().filter(|(_, pod)| pod.node.as_deref() == Some(node) && !pod.finished);
        // A Pod and the one that takes its place, bound as the other ends, are one.
        let replaced: BTreeSet<&str> = bound().filter_map(|(_, pod)| pod.replaces.as_deref()).collect();
        let counted = bound().filter(|(uid, _)| !replaced.contains(uid.as_str())).map(|(_, pod)| pod);
        let (mut count, mut cpu, mut memory) = (0_u64, 0_u64, 0_u64);
        for pod in counted {
            count += 1;
            cpu += pod.cpu_millis;
            memory += pod.memory_bytes;
        }
        for (what, used, limit) in [
            ("thousandths of a CPU", cpu, limits.cpu_millis),
            ("bytes of memory", memory, limits.memory_bytes),
            ("pods", count, limits.pods),
        ] {
            if let Some(limit) = limit.filter(|limit| used > *limit) {
                let explanation = format!(
                    "with pod {} bound at revision {revision}, node {node} holds {used} {what} of {limit}",
                    pod.name
                );
                findings.add(Violation::new(Promise::G7, "Capacity", explanation).at(revision));
            }
        }
    }

    fn node(&mut self, revision: Revision, name: &str, node: Node, findings: &mut Findings) {
        let own = node.subnet.as_deref().and_then(block);
        for (other, known) in self.nodes.iter().filter(|(other, _)| other.as_str() != name) {
            let theirs = known.subnet.as_deref().and_then(block);
            if let (Some(own), Some(theirs)) = (own, theirs)
                && own.0 <= theirs.1
                && theirs.0 <= own.1
            {
                let explanation = format!(
                    "at revision {revision} nodes {name} and {other} have the subnets {:?} and {:?}",
                    node.subnet, known.subnet
                );
                findings.add(Violation::new(Promise::G7, "Subnets", explanation).at(revision));
            }
        }
        self.nodes.insert(name.to_owned(), node);
    }

    /// A ReplicaSet grew: all of its Deployment together are within what is wanted and the surge.
    fn rolled(&mut self, revision: Revision, deployment: Option<&str>, name: &str, findings: &mut Findings) {
        let Some(deployment) = deployment else { return };
        let total = self.sets.values().filter(|set| set.owner.as_deref() == Some(deployment));
        let total = total.map(|set| set.replicas).sum();
        let Some(ceiling) = self.deployments.get_mut(deployment) else { return };
        if ceiling.is_broken_by(total) {
            let explanation = format!(
                "at revision {revision} ReplicaSet {name} grew, and all of its Deployment want {total} pods, where {} are \
                 wanted with the surge",
                ceiling.wanted
            );
            findings.add(Violation::new(Promise::G8, "CreatedWithinDesired", explanation).at(revision));
        }
    }
}

/// First and last address of an IPv4 block.
fn block(text: &str) -> Option<(u32, u32)> {
    let (address, length) = text.split_once('/')?;
    let address = u32::from(address.parse::<std::net::Ipv4Addr>().ok()?);
    let length: u32 = length.parse().ok().filter(|length| *length <= 32)?;
    let host = u32::MAX.checked_shr(length).unwrap_or(0);
    Some((address & !host, address | host))
}
