//! [`Snapshot`]: nodes, Pods, and the ledger of what is taken where. Kept up to date change by change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use quilt_proto::{Key, Revision};

use crate::node::Node;
use crate::pod::{Owner, Pod};
use crate::resources::Resources;

/// What the Pods bound to one node take, whether the node is known (yet, still) or not.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Requests of Pods that have not ended.
    pub requested: Resources,
    /// Pods that have not ended.
    pub pods: i64,
    /// Placements: Pods that are not going.
    pub placements: u32,
    /// Placements by owner.
    pub by_owner: HashMap<String, u32>,
    /// Devices taken, and by which Pod.
    pub gpus: BTreeMap<String, String>,
    /// Devices taken by number only.
    pub gpus_unnamed: usize,
    /// Ports taken: protocol, address, port.
    pub ports: Vec<(String, String, i64)>,
}

/// The cluster as the scheduler sees it.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, Node>,
    /// Node names by creation, the last tie-break.
    by_creation: BTreeSet<(Revision, String)>,
    pods: HashMap<Key, Pod>,
    by_uid: HashMap<String, Key>,
    by_owner: HashMap<String, BTreeSet<Key>>,
    ledgers: HashMap<String, Ledger>,
    /// Deployment of each `ReplicaSet` and back, for indexes that count over all of a Deployment's sets.
    parents: HashMap<String, String>,
    children: HashMap<String, BTreeSet<String>>,
}

static EMPTY: LazyLock<Ledger> = LazyLock::new(Ledger::default);

impl Snapshot {
    /// Takes in a node.
    pub fn put_node(&mut self, node: Node) {
        self.remove_node(&node.name);
        self.by_creation.insert((node.created, node.name.clone()));
        self.nodes.insert(node.name.clone(), node);
    }

    /// Forgets a node; what its Pods take stays on record as long as they exist.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(node) = self.nodes.remove(name) {
            self.by_creation.remove(&(node.created, node.name));
        }
    }

    /// Takes in a Pod in place of an earlier version of it.
    pub fn put_pod(&mut self, key: &Key, pod: Pod) {
        self.remove_pod(key);
        self.by_uid.insert(pod.uid.clone(), key.clone());
        if let Some(owner) = &pod.owner {
            self.by_owner.entry(owner.uid.clone()).or_default().insert(key.clone());
        }
        if !pod.node.is_empty() {
            self.ledgers.entry(pod.node.clone()).or_default().add(&pod);
        }
        self.pods.insert(key.clone(), pod);
    }

    /// Forgets a Pod and gives back what it took; answers what was known of it.
    pub fn remove_pod(&mut self, key: &Key) -> Option<Pod> {
        let pod = self.pods.remove(key)?;
        self.by_uid.remove(&pod.uid);
        if let Some(owner) = &pod.owner
            && let Some(keys) = self.by_owner.get_mut(&owner.uid)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.by_owner.remove(&owner.uid);
            }
        }
        if let Some(ledger) = self.ledgers.get_mut(&pod.node) {
            ledger.take_off(&pod);
            if ledger.pods == 0 && ledger.placements == 0 && ledger.by_owner.is_empty() {
                self.ledgers.remove(&pod.node);
            }
        }
        Some(pod)
    }

    /// `set` belongs to Deployment `deployment`, or to none.
    pub fn put_parent(&mut self, set: &str, deployment: Option<&str>) {
        if let Some(known) = self.parents.remove(set)
            && let Some(sets) = self.children.get_mut(&known)
        {
            sets.remove(set);
            if sets.is_empty() {
                self.children.remove(&known);
            }
        }
        if let Some(deployment) = deployment {
            self.parents.insert(set.to_owned(), deployment.to_owned());
            self.children.entry(deployment.to_owned()).or_default().insert(set.to_owned());
        }
    }

    /// The Pod at `key`.
    #[must_use]
    pub fn pod(&self, key: &Key) -> Option<&Pod> {
        self.pods.get(key)
    }

    /// The Pod with `uid`.
    #[must_use]
    pub fn pod_by_uid(&self, uid: &str) -> Option<&Pod> {
        self.pods.get(self.by_uid.get(uid)?)
    }

    /// All Pods.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// All nodes, oldest first.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.by_creation.iter().filter_map(|(_, name)| self.nodes.get(name))
    }

    /// The node named `name`.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// What is taken on the node named `name`.
    #[must_use]
    pub fn ledger(&self, name: &str) -> &Ledger {
        self.ledgers.get(name).unwrap_or(&EMPTY)
    }

    /// The lowest index that no live Pod of the same workload holds. The workload of a Deployment's Pod is the
    /// Deployment, over all its sets; that of a `StatefulSet`'s Pod is the set, and its index is the ordinal in its name.
    #[must_use]
    pub fn free_index(&self, pod: &Pod) -> u32 {
        let Some(owner) = &pod.owner else { return 0 };
        if owner.kind == "StatefulSet"
            && let Some(ordinal) = ordinal(pod)
        {
            return ordinal;
        }
        let mut held = BTreeSet::new();
        for uid in self.family(owner) {
            for key in self.by_owner.get(uid).into_iter().flatten() {
                let other = self.pods.get(key).filter(|other| other.uid != pod.uid && !other.going && !other.ended);
                held.extend(other.and_then(|other| other.replica_index));
            }
        }
        (0..=u32::MAX).find(|index| !held.contains(index)).unwrap_or(u32::MAX)
    }

    fn family<'a>(&'a self, owner: &'a Owner) -> Vec<&'a str> {
        let sets = self.parents.get(&owner.uid).and_then(|deployment| self.children.get(deployment));
        sets.map_or_else(|| vec![owner.uid.as_str()], |sets| sets.iter().map(String::as_str).collect())
    }
}

fn ordinal(pod: &Pod) -> Option<u32> {
    pod.key.as_ref()?.parts().name.rsplit_once('-')?.1.parse().ok()
}

impl Ledger {
    fn add(&mut self, pod: &Pod) {
        if !pod.ended {
            self.requested.add(&pod.requests);
            self.pods += 1;
            for id in pod.gpu_ids.iter().filter(|_| pod.gpus() > 0) {
                self.gpus.insert(id.clone(), pod.uid.clone());
            }
            self.gpus_unnamed += pod.gpus().saturating_sub(pod.gpu_ids.len());
            self.ports.extend(pod.host_ports.iter().cloned());
        }
        if !pod.going {
            self.placements += 1;
            if let Some(owner) = &pod.owner {
                *self.by_owner.entry(owner.uid.clone()).or_default() += 1;
            }
        }
    }

    /// Gives back what [`Ledger::add`] took.
    pub fn take_off(&mut self, pod: &Pod) {
        if !pod.ended {
            self.requested.subtract(&pod.requests);
            self.pods -= 1;
            self.gpus.retain(|_, holder| *holder != pod.uid);
            self.gpus_unnamed -= pod.gpus().saturating_sub(pod.gpu_ids.len()).min(self.gpus_unnamed);
            for port in &pod.host_ports {
                if let Some(at) = self.ports.iter().position(|held| held == port) {
                    self.ports.swap_remove(at);
                }
            }
        }
        if !pod.going {
            self.placements = self.placements.saturating_sub(1);
            if let Some(owner) = &pod.owner
                && let Some(count) = self.by_owner.get_mut(&owner.uid)
            {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.by_owner.remove(&owner.uid);
                }
            }
        }
    }
}
