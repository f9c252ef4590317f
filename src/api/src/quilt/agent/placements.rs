//! `GET .../placements`: what this node is to run, with everything it takes to run it.
//!
//! The list can be waited for: the answer is held until it differs from what the agent has. Must not know how Pods get
//! onto nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quilt_proto::{Event, KeyPrefix};
use quilt_raft::View;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::materials;
use crate::context::RootKey;
use crate::problem::Problem;
use crate::quilt::call::Call;
use crate::quilt::marks;
use crate::quilt::objects::Target;
use crate::quilt::projection::{Placement, slots};
use crate::quilt::reply::{Reply, etag, is_known};
use crate::quilt::view::node::is_pod_agent;
use crate::quilt::view::placement::{self, PlacementState};
use crate::quilt::view::workload::Source;
use crate::store::{
    DAEMON_SETS, DEPLOYMENTS, JOBS, Owner, PODS, REPLICA_SETS, STATEFUL_SETS, Shelf, Stored, WORKLOADS, contains,
};
use crate::verbs::delete::DeleteOptions;

/// Between two looks at a busy cluster: a burst of binds is one answer.
const SETTLE: Duration = Duration::from_millis(5);
/// How long a poll may take over Pods that are gone with it.
const FORGET_WITHIN: Duration = Duration::from_secs(1);
/// The longest wait that may be asked for.
pub(crate) const WAIT_SECS_MAX: u64 = 30;

/// One Pod of the list.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The Pod.
    pub(crate) pod: Stored,
    /// It is to be ended.
    pub(crate) terminating: bool,
    placement: Placement,
    workload: Option<Source>,
}

impl Entry {
    /// The placement's id.
    pub(crate) fn id(&self) -> &str {
        &self.placement.id
    }
}

/// How a Pod that is bound to a node of this name says so.
fn binding(node: &str) -> String {
    format!("\"nodeName\":{}", json!(node))
}

/// Pods bound to `node`, deleted ones among them.
fn bound(view: &View, cluster: &str, node: &Stored) -> Result<Vec<Stored>, Problem> {
    let binding = binding(node.name());
    let mut pods = PODS.list(view, cluster, |record| contains(&record.value, binding.as_bytes()))?;
    pods.retain(|pod| pod.text("/spec/nodeName") == node.name());
    Ok(pods)
}

/// The list of `node`. A placement is in it at most once: while a terminating Pod holds its id, that one.
pub(crate) fn entries(view: &View, cluster: &str, node: &Stored) -> Result<Vec<Entry>, Problem> {
    let mut found: BTreeMap<String, Entry> = BTreeMap::new();
    for pod in bound(view, cluster, node)? {
        let entry = entry(view, cluster, node, pod)?;
        if entry.terminating && !is_pod_agent(node) {
            continue;
        }
        match found.get(entry.id()) {
            Some(other) if other.terminating => {}
            Some(other) if !entry.terminating && other.pod.created_at() >= entry.pod.created_at() => {}
            _ => drop(found.insert(entry.id().to_owned(), entry)),
        }
    }
    let mut list: Vec<Entry> = found.into_values().collect();
    list.sort_by(|one, two| {
        let key =
            |entry: &Entry| (entry.placement.created_at, entry.placement.replica_index, entry.placement.id.clone());
        key(one).cmp(&key(two))
    });
    Ok(list)
}

fn entry(view: &View, cluster: &str, node: &Stored, pod: Stored) -> Result<Entry, Problem> {
    let workload = workload_of(view, cluster, &pod)?;
    let annotated = |name: &str| pod.annotation(name).map(str::to_owned);
    let of_workload = pod
        .controller()
        .is_some_and(|owner| owner.kind == WORKLOADS.kind && owner.api_version == WORKLOADS.api_version);
    let (id, index) = match &workload {
        Some(Source::Own(own)) => match slots(own).find(|slot| slot.pod_name == pod.name()) {
            Some(slot) => (Some(slot.placement_id.to_owned()), Some(slot.index)),
            None => (annotated(marks::PLACEMENT_ID), None),
        },
        _ if of_workload => (annotated(marks::PLACEMENT_ID), None),
        _ => (None, None),
    };
    let index = index.or_else(|| annotated(marks::REPLICA_INDEX).and_then(|text| text.parse().ok()));
    // A Workload that is deleted takes its Pods along, whether or not the garbage collector has come by.
    let orphaned = of_workload && !matches!(workload, Some(Source::Own(_)));
    let placement = Placement {
        id: id.unwrap_or_else(|| pod.uid().to_owned()),
        workload_id: workload.as_ref().map_or_else(
            || pod.controller().map_or_else(|| pod.uid(), |owner| owner.uid).to_owned(),
            |source| source.id().to_owned(),
        ),
        replica_index: index.unwrap_or(0),
        node_id: Some(node.uid().to_owned()),
        container_id: placement::container_id(&pod.value).map(str::to_owned),
        state: PlacementState::of(&pod.value),
        message: placement::message(&pod.value),
        created_at: pod.created_at(),
        updated_at: placement::updated_at(&pod),
    };
    Ok(Entry { terminating: pod.is_terminating() || orphaned, pod, placement, workload })
}

/// The workload a Pod belongs to, found by name from the Pod upwards.
fn workload_of(view: &View, cluster: &str, pod: &Stored) -> Result<Option<Source>, Problem> {
    let Some(owner) = pod.controller() else {
        return Ok(Some(Source::Projected { api_version: "v1".into(), kind: "Pod".into(), object: pod.clone() }));
    };
    let load = |shelf: Shelf, owner: Owner<'_>| -> Result<Option<Stored>, Problem> {
        let object = shelf.get(view, cluster, pod.namespace(), owner.name)?;
        Ok(object.filter(|object| object.uid() == owner.uid))
    };
    if owner.kind == WORKLOADS.kind && owner.api_version == WORKLOADS.api_version {
        return Ok(load(WORKLOADS, owner)?.filter(|workload| !workload.is_terminating()).map(Source::Own));
    }
    for shelf in [REPLICA_SETS, STATEFUL_SETS, DAEMON_SETS, JOBS] {
        if owner.kind != shelf.kind || owner.api_version != shelf.api_version {
            continue;
        }
        let projected = |shelf: Shelf, object| Source::Projected {
            api_version: shelf.api_version.into(),
            kind: shelf.kind.into(),
            object,
        };
        let Some(object) = load(shelf, owner)? else { return Ok(None) };
        let top = match object
            .controller()
            .filter(|top| top.kind == DEPLOYMENTS.kind && top.api_version == DEPLOYMENTS.api_version)
        {
            Some(top) => load(DEPLOYMENTS, top)?.map(|top| projected(DEPLOYMENTS, top)),
            None => None,
        };
        return Ok(Some(top.unwrap_or_else(|| projected(shelf, object))));
    }
    Ok(Some(Source::foreign(owner, pod.clone())))
}

/// Which of the cluster's changes may be news to a node.
struct Concern {
    node: String,
    /// Stands in each Pod that is bound to it.
    binding: String,
    /// Where its Pods are, and with them all that they refer to.
    namespaces: BTreeSet<String>,
}

impl Concern {
    fn of(node: &Stored, list: &[Entry]) -> Self {
        Self {
            node: node.name().to_owned(),
            binding: binding(node.name()),
            namespaces: list.iter().map(|entry| entry.pod.namespace().to_owned()).collect(),
        }
    }

    /// A Pod counts as it is and as it was: one that leaves the node is news to it.
    fn holds(&self, event: &Event) -> bool {
        let place = event.key.parts();
        match place.resource {
            "nodes" => place.name == self.node,
            "pods" => {
                let versions = [&event.record, &event.previous].into_iter().flatten();
                versions.into_iter().any(|record| contains(&record.value, self.binding.as_bytes()))
            }
            _ => self.namespaces.contains(place.namespace),
        }
    }
}

/// The document of the list, and its tag: the same tag means nothing to do.
fn render(view: &View, cluster: &str, root: &RootKey, list: &[Entry]) -> Result<(Value, String), Problem> {
    let mut assignments = Vec::with_capacity(list.len());
    let mut facts = Vec::with_capacity(list.len());
    for entry in list {
        let materials = materials::of(view, cluster, root, &entry.pod)?;
        let mut pod = entry.pod.value.clone();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        let workload = entry.workload.as_ref().map_or(Value::Null, |source| source.render_as_stored(cluster));
        let placement = entry.placement.render(cluster);
        // Counts of a workload's other replicas are shown, but no news to this node.
        let (id, spec) = (workload["id"].clone(), workload["spec"].clone());
        facts.push(json!([placement, id, spec, pod, materials, entry.terminating]));
        assignments.push(json!({
            "placement": placement, "workload": workload, "pod": pod, "materials": materials,
            "terminating": entry.terminating,
        }));
    }
    Ok((json!({"assignments": assignments}), etag(&json!(facts))))
}

pub(crate) async fn list(
    call: &Call<'_>,
    root: &RootKey,
    cluster: &str,
    node: &str,
    wait_secs: u64,
) -> Result<Reply, Problem> {
    let until = Instant::now() + Duration::from_secs(wait_secs);
    let known = |tag: &str| is_known(call.headers, tag);
    let asked = |view: &View| {
        let agent = call.agent(view, cluster, node)?;
        let list = entries(view, cluster, &agent.node)?;
        let (document, tag) = render(view, cluster, root, &list)?;
        let concern = Concern::of(&agent.node, &list);
        Ok::<_, Problem>((agent.node, document, tag, concern))
    };
    let mut view = call.view().await?;
    let (mut own, mut document, mut tag, mut concern) = asked(&view)?;
    if wait_secs > 0 && known(&tag) {
        // Everything a list is made of lives in the cluster's range.
        let mut changes = [("", "pods"), ("", "configmaps"), ("", "secrets"), ("quilt.sh", "workloads"), ("", "nodes")]
            .into_iter()
            .filter_map(|(group, resource)| KeyPrefix::resource(cluster, group, resource).ok())
            .map(|prefix| call.replica().watch(prefix, view.revision()))
            .collect::<Vec<_>>();
        // The agent asks another replica then.
        let mut draining = call.api.draining();
        while known(&tag) {
            let next = futures::future::select_all(changes.iter_mut().map(|stream| Box::pin(stream.next())));
            let changed = tokio::select! {
                (changed, _, _) = next => changed.ok(),
                () = tokio::time::sleep_until(until) => None,
                _ = draining.wait_for(|draining| *draining) => None,
            };
            let Some(changed) = changed else { break };
            // A look reads all Pods of the cluster: not for what is no news.
            if !changed.events.iter().any(|event| concern.holds(event)) {
                continue;
            }
            tokio::time::sleep(SETTLE).await;
            view = call.replica().read(quilt_raft::Consistency::Stale, Duration::from_secs(1)).await?;
            // A refusal on local state ends the wait: the agent asks again and is answered from a linearizable view.
            match asked(&view) {
                Ok(now) => (own, document, tag, concern) = now,
                Err(_) => break,
            }
        }
    }
    forget_ended(call, &view, cluster, &own).await;
    Ok(if known(&tag) { Reply::not_modified(tag) } else { Reply::ok(document).tagged(tag) })
}

/// For an agent that does not end Pods itself: once it has polled a list without a deleted Pod, that Pod is gone.
async fn forget_ended(call: &Call<'_>, view: &View, cluster: &str, node: &Stored) {
    if is_pod_agent(node) {
        return;
    }
    let Ok(pods) = bound(view, cluster, node) else { return };
    // Best effort: the next poll, or the end of its grace period, removes what this one could not.
    let brief = Call { deadline: call.deadline.min(Instant::now() + FORGET_WITHIN), once: None, ..*call };
    for pod in pods.iter().filter(|pod| pod.is_terminating() && !pod.has_finalizers()) {
        let forgotten = brief
            .write(|view| {
                let agent = brief.agent(view, cluster, node.uid())?;
                let target = Target::new(&brief, agent.admitted(), PODS.kind(), pod.namespace(), pod.name());
                target.delete(view, &DeleteOptions::ended(pod.uid()))
            })
            .await;
        if let Err(problem) = forgotten {
            tracing::debug!(%problem, pod = pod.name(), "a deleted pod was not removed with its node's poll");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quilt_proto::state::Record;
    use quilt_proto::{EventKind, Key, Revision};

    use super::*;

    /// A node looks again for its own Node, for Pods that come to it or leave it, and for what lies beside its Pods; not for what others have.
    #[test]
    fn only_what_may_be_news_is_looked_at() {
        let concern =
            Concern { node: "n1".to_owned(), binding: binding("n1"), namespaces: BTreeSet::from(["near".to_owned()]) };
        let record = |text: &str| Some(Arc::new(Record { value: text.to_owned().into(), ..Record::default() }));
        let on = |node: &str| record(&json!({"spec": {"nodeName": node}}).to_string());
        let event = |resource: &str, namespace: &str, name: &str, record, previous| Event {
            revision: Revision::new(2),
            txn_end: Revision::new(2),
            key: Key::new("c", "", resource, namespace, name).expect("a key"),
            kind: EventKind::Update,
            record,
            previous,
        };
        for (told, news) in [
            (event("nodes", "", "n1", None, None), true),
            (event("nodes", "", "n2", None, None), false),
            (event("pods", "far", "p", on("n1"), record("{}")), true),
            (event("pods", "far", "p", None, on("n1")), true),
            (event("pods", "near", "p", on("n2"), on("n2")), false),
            (event("pods", "near", "p", on("n11"), record("{}")), false),
            (event("configmaps", "near", "m", None, None), true),
            (event("secrets", "far", "s", None, None), false),
            (event("workloads", "near", "w", None, None), true),
        ] {
            assert_eq!(concern.holds(&told), news, "{:?}", told.key);
        }
    }
}
