//! [`Projection`]: the workloads and placements of a cluster at one revision, worked out from its objects.
//!
//! A placement is a slot of a Workload with the Pod that fills it, or any other Pod by itself. There is no second
//! store: this is computed on each read. Must not know routes or tenants.

use std::collections::{BTreeMap, BTreeSet};

use quilt_raft::{ReadError, View};
use serde_json::{Value, json};

use super::marks;
use super::view::placement::{self, PlacementState};
use super::view::workload::Source;
use crate::store::{
    DAEMON_SETS, DEPLOYMENTS, JOBS, NODES, Owner, PODS, REPLICA_SETS, STATEFUL_SETS, Shelf, Stored, WORKLOADS, text,
};

/// Kinds whose objects are workloads; ReplicaSets only where no Deployment owns them.
const OWNERS: [Shelf; 5] = [DEPLOYMENTS, STATEFUL_SETS, REPLICA_SETS, DAEMON_SETS, JOBS];

/// One placement.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    /// The slot's id, or the Pod's uid.
    pub(crate) id: String,
    /// Its workload.
    pub(crate) workload_id: String,
    /// Its index there.
    pub(crate) replica_index: u64,
    /// The node it is bound to.
    pub(crate) node_id: Option<String>,
    /// Its container there.
    pub(crate) container_id: Option<String>,
    /// Its state.
    pub(crate) state: PlacementState,
    /// What is said about it.
    pub(crate) message: Option<String>,
    /// Unix seconds.
    pub(crate) created_at: u64,
    /// Unix seconds.
    pub(crate) updated_at: u64,
}

impl Placement {
    /// The placement as Quilt shows it.
    pub(crate) fn render(&self, cluster: &str) -> Value {
        json!({
            "id": self.id, "workload_id": self.workload_id, "cluster_id": cluster, "replica_index": self.replica_index,
            "node_id": self.node_id, "container_id": self.container_id, "state": self.state.word(),
            "message": self.message, "created_at": self.created_at, "updated_at": self.updated_at,
        })
    }
}

/// One slot of a Workload, as its status holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot<'a> {
    /// Index.
    pub(crate) index: u64,
    /// The placement's id.
    pub(crate) placement_id: &'a str,
    /// The Pod that fills it; empty when none does.
    pub(crate) pod_name: &'a str,
    facts: &'a Value,
}

/// The slots of a Workload that its spec still wants.
pub(crate) fn slots(workload: &Stored) -> impl Iterator<Item = Slot<'_>> {
    let wanted = workload.value.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(0);
    let slots = workload.value.pointer("/status/slots").and_then(Value::as_array).into_iter().flatten();
    slots
        .map(|slot| Slot {
            index: slot["index"].as_u64().unwrap_or(0),
            placement_id: text(slot, "/placementId"),
            pod_name: text(slot, "/podName"),
            facts: slot,
        })
        // A surplus slot leaves with the write that lowers `replicas`, whenever the controller gets to it.
        .filter(move |slot| slot.index < wanted)
}

/// Workloads and placements of one cluster.
#[derive(Debug, Default)]
pub(crate) struct Projection {
    sources: Vec<Source>,
    placements: BTreeMap<String, Vec<Placement>>,
}

impl Projection {
    /// Works out everything.
    pub(crate) fn of(view: &View, cluster: &str) -> Result<Self, ReadError> {
        let pods = PODS.list(view, cluster, |_| true)?;
        let node_ids: BTreeMap<String, String> = NODES
            .list(view, cluster, |_| true)?
            .iter()
            .map(|node| (node.name().to_owned(), node.uid().to_owned()))
            .collect();
        let mut projection = Self::default();
        let by_name: BTreeMap<(&str, &str), &Stored> =
            pods.iter().map(|pod| ((pod.namespace(), pod.name()), pod)).collect();
        for workload in WORKLOADS.list(view, cluster, |_| true)? {
            if workload.is_terminating() {
                continue;
            }
            let placements = slots(&workload)
                .map(|slot| {
                    let pod = by_name.get(&(workload.namespace(), slot.pod_name)).copied();
                    of_slot(&workload, slot, pod.filter(|pod| !pod.is_terminating()), &node_ids)
                })
                .collect();
            projection.placements.insert(workload.uid().into(), placements);
            projection.sources.push(Source::Own(workload));
        }
        let owners = Owners::of(view, cluster)?;
        let mut fills: BTreeMap<String, Vec<&Stored>> = BTreeMap::new();
        let mut foreign: BTreeMap<String, Source> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| !pod.is_terminating()) {
            match owners.of_pod(pod) {
                PodOwner::Workload => {}
                PodOwner::Bare => {
                    projection.sources.push(Source::Projected {
                        api_version: "v1".into(),
                        kind: "Pod".into(),
                        object: pod.clone(),
                    });
                    fills.entry(pod.uid().into()).or_default().push(pod);
                }
                PodOwner::Known(uid) => fills.entry(uid).or_default().push(pod),
                PodOwner::Foreign(owner) => {
                    foreign.entry(owner.uid.into()).or_insert_with(|| Source::foreign(owner, pod.clone()));
                    fills.entry(owner.uid.into()).or_default().push(pod);
                }
            }
        }
        projection.sources.extend(owners.into_sources());
        for mut source in foreign.into_values() {
            if let Source::Foreign { uid, pods, .. } = &mut source {
                *pods = fills.get(uid).map_or(0, |pods| pods.len() as u64);
            }
            projection.sources.push(source);
        }
        for (owner, pods) in fills {
            let placements = of_pods(&owner, pods, &node_ids);
            projection.placements.insert(owner, placements);
        }
        // Newest first; ties by id.
        projection
            .sources
            .sort_by(|one, two| two.created_at().cmp(&one.created_at()).then_with(|| one.id().cmp(two.id())));
        Ok(projection)
    }

    /// Every workload, newest first.
    pub(crate) fn workloads(&self, cluster: &str) -> Vec<Value> {
        self.sources.iter().map(|source| self.render(source, cluster)).collect()
    }

    /// Every placement: by creation of its workload, then by index.
    pub(crate) fn placements(&self, cluster: &str) -> Vec<Value> {
        let mut sources: Vec<&Source> = self.sources.iter().collect();
        sources.sort_by(|one, two| one.created_at().cmp(&two.created_at()).then_with(|| one.id().cmp(two.id())));
        sources
            .into_iter()
            .flat_map(|source| self.placements.get(source.id()).into_iter().flatten())
            .map(|placement| placement.render(cluster))
            .collect()
    }

    /// The workload `id`, as shown.
    pub(crate) fn workload(&self, cluster: &str, id: &str) -> Option<Value> {
        Some(self.render(self.source(id)?, cluster))
    }

    /// What the workload `id` is made from.
    pub(crate) fn source(&self, id: &str) -> Option<&Source> {
        self.sources.iter().find(|source| source.id() == id)
    }

    fn render(&self, source: &Source, cluster: &str) -> Value {
        let placements = self.placements.get(source.id()).map_or(&[][..], Vec::as_slice);
        let states: Vec<PlacementState> = placements.iter().map(|placement| placement.state).collect();
        source.render(cluster, &states)
    }
}

/// One of Quilt's own workloads as shown, without a look at anything but its own Pods.
pub(crate) fn own_workload(view: &View, cluster: &str, workload: Stored) -> Result<Value, ReadError> {
    let mut states = Vec::new();
    for slot in slots(&workload) {
        let pod = PODS.get(view, cluster, workload.namespace(), slot.pod_name)?;
        let pod = pod.filter(|pod| !pod.is_terminating());
        states.push(pod.map_or(PlacementState::Pending, |pod| PlacementState::of(&pod.value)));
    }
    Ok(Source::Own(workload).render(cluster, &states))
}

fn of_slot(workload: &Stored, slot: Slot<'_>, pod: Option<&Stored>, node_ids: &BTreeMap<String, String>) -> Placement {
    let made_at = slot.facts["createdAt"].as_u64();
    let mut placement = Placement {
        id: slot.placement_id.into(),
        workload_id: workload.uid().into(),
        replica_index: slot.index,
        node_id: None,
        container_id: None,
        state: PlacementState::Pending,
        message: slot.facts["message"].as_str().map(str::to_owned),
        created_at: made_at.unwrap_or_else(|| workload.created_at()),
        updated_at: made_at.unwrap_or_else(|| workload.created_at()),
    };
    if let Some(pod) = pod {
        placement.fill(pod, node_ids);
        if made_at.is_none() {
            placement.created_at = pod.created_at().min(placement.updated_at);
        }
    }
    placement
}

impl Placement {
    fn fill(&mut self, pod: &Stored, node_ids: &BTreeMap<String, String>) {
        self.updated_at = placement::updated_at(pod).max(self.created_at);
        self.message = placement::message(&pod.value).or_else(|| self.message.take());
        let node = pod.text("/spec/nodeName");
        if node.is_empty() {
            return;
        }
        match node_ids.get(node) {
            Some(id) => {
                self.node_id = Some(id.clone());
                self.state = PlacementState::of(&pod.value);
                self.container_id = placement::container_id(&pod.value).map(str::to_owned);
            }
            None => self.message = Some("its node was removed".into()),
        }
    }
}

fn of_pods(owner: &str, mut pods: Vec<&Stored>, node_ids: &BTreeMap<String, String>) -> Vec<Placement> {
    pods.sort_by(|one, two| one.created_at().cmp(&two.created_at()).then_with(|| one.name().cmp(two.name())));
    let index_of = |pod: &Stored| pod.annotation(marks::REPLICA_INDEX).and_then(|text| text.parse::<u64>().ok());
    let ordinal = |pod: &Stored| {
        let owner = pod.controller()?;
        (owner.kind == "StatefulSet").then(|| pod.name().rsplit('-').next()?.parse::<u64>().ok()).flatten()
    };
    let mut taken: BTreeSet<u64> = pods.iter().filter_map(|pod| index_of(pod).or_else(|| ordinal(pod))).collect();
    let mut placements: Vec<Placement> = pods
        .into_iter()
        .map(|pod| {
            // Pods the leader has not numbered yet take the gaps, oldest first.
            let replica_index = index_of(pod).or_else(|| ordinal(pod)).unwrap_or_else(|| {
                let free = (0..).find(|index| !taken.contains(index)).unwrap_or(0);
                taken.insert(free);
                free
            });
            let mut placement = Placement {
                id: pod.uid().into(),
                workload_id: owner.into(),
                replica_index,
                node_id: None,
                container_id: None,
                state: PlacementState::Pending,
                message: None,
                created_at: pod.created_at(),
                updated_at: pod.created_at(),
            };
            placement.fill(pod, node_ids);
            placement
        })
        .collect();
    placements.sort_by(|one, two| (one.replica_index, &one.id).cmp(&(two.replica_index, &two.id)));
    placements
}

/// Who a Pod belongs to.
#[derive(Debug)]
pub(crate) enum PodOwner<'a> {
    /// A Quilt Workload: it shows through a slot.
    Workload,
    /// Nobody.
    Bare,
    /// The object with this uid.
    Known(String),
    /// An owner of a kind that is not read here.
    Foreign(Owner<'a>),
}

/// The owners of Pods in a cluster.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    /// (kind, object) by uid.
    objects: BTreeMap<String, (Shelf, Stored)>,
}

impl Owners {
    /// Reads them.
    pub(crate) fn of(view: &View, cluster: &str) -> Result<Self, ReadError> {
        let mut objects = BTreeMap::new();
        for shelf in OWNERS {
            for object in shelf.list(view, cluster, |_| true)? {
                objects.insert(object.uid().to_owned(), (shelf, object));
            }
        }
        Ok(Self { objects })
    }

    /// Whose Pod it is; a ReplicaSet of a Deployment stands for the Deployment.
    pub(crate) fn of_pod<'a>(&self, pod: &'a Stored) -> PodOwner<'a> {
        let Some(owner) = pod.controller() else { return PodOwner::Bare };
        if owner.kind == WORKLOADS.kind && owner.api_version == WORKLOADS.api_version {
            return PodOwner::Workload;
        }
        match self.objects.get(owner.uid) {
            Some((_, object)) => match object.controller().filter(is_owner) {
                Some(top) => PodOwner::Known(top.uid.into()),
                None => PodOwner::Known(owner.uid.into()),
            },
            // An owner that is gone already: its Pods are leaving and are nobody's workload any more.
            None if is_owner(&owner) => PodOwner::Known(owner.uid.into()),
            None => PodOwner::Foreign(owner),
        }
    }

    /// The objects that are workloads by themselves. What another workload controls is not, not even after that one is
    /// gone: then it is leaving as well.
    fn into_sources(self) -> Vec<Source> {
        self.objects
            .into_values()
            .filter(|(_, object)| {
                !object.is_terminating() && !object.controller().is_some_and(|owner| is_owner(&owner))
            })
            .map(|(shelf, object)| Source::Projected {
                api_version: shelf.api_version.into(),
                kind: shelf.kind.into(),
                object,
            })
            .collect()
    }
}

/// Whether `owner` is of a kind that is a workload.
fn is_owner(owner: &Owner<'_>) -> bool {
    OWNERS.iter().any(|shelf| shelf.kind == owner.kind && shelf.api_version == owner.api_version)
}
