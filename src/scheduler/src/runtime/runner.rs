//! The scheduler of one cluster while this replica leads: list, watch, decide, bind.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use quilt_objects::event::{About, Notice, NoticeKind, Recorder};
use quilt_proto::{Compare, Event, Key, KeyPrefix, Record, Revision, Txn};
use quilt_raft::{Consistency, EventStream, LeaderId, ProposeError, ReadError, Replica, View, WatchError};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::bind::{Basis, Batch, Binding, load, put, unschedulable};
use crate::decide::{Decision, decide};
use crate::node::Node;
use crate::pod::Pod;
use crate::runtime::Metrics;
use crate::runtime::queue::Queue;
use crate::snapshot::Snapshot;

/// Pods decided in one turn, and bytes of one transaction.
const BATCH_PODS: usize = 200;
const BATCH_BYTES: usize = 512 << 10;
const READ_DEADLINE: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(super) struct Shared {
    pub(super) replica: Replica,
    pub(super) leader: LeaderId,
    pub(super) metrics: Arc<Metrics>,
}

/// Asks for a look at every waiting Pod; answered when none is left that fits.
pub(super) type Force = oneshot::Sender<()>;

/// Why a runner has stopped.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("this leadership has ended")]
    NotLeader,
    #[error("a write's fate is unknown; starting over from the state")]
    Unsettled,
    #[error("watching failed")]
    Watch(#[from] WatchError),
    #[error("listing failed")]
    Read(#[from] ReadError),
    #[error("the cluster's id makes no key")]
    Key(#[from] quilt_proto::KeyError),
}

pub(super) struct Runner {
    shared: Shared,
    cluster: String,
    snapshot: Snapshot,
    /// Every change up to here is in the snapshot.
    reached: Revision,
    /// Nothing is decided before the snapshot has reached the last own write, and what was there when somebody asked for a run.
    barrier: Revision,
    queue: Queue,
    recorder: Recorder,
    /// Events on their way, if any.
    telling: Option<BoxFuture<'static, Result<(), ProposeError>>>,
    force: mpsc::Receiver<Force>,
    forced: Vec<Force>,
}

impl Runner {
    pub(super) fn new(shared: Shared, cluster: &str, force: mpsc::Receiver<Force>) -> Self {
        Self {
            shared,
            cluster: cluster.to_owned(),
            snapshot: Snapshot::default(),
            reached: Revision::ZERO,
            barrier: Revision::ZERO,
            queue: Queue::default(),
            recorder: Recorder::new(cluster, "default-scheduler"),
            telling: None,
            force,
            forced: Vec::new(),
        }
    }

    /// Runs until the leadership or the cluster ends.
    pub(super) async fn run(&mut self) -> Result<(), Ended> {
        let mut events = self.start_over().await?;
        loop {
            self.reached = self.reached.max(events.position());
            if self.reached >= self.barrier {
                self.turn().await?;
                self.answer_forced();
            }
            self.tell();
            let telling = self.telling_due();
            let idle = self.reached >= self.barrier;
            let due = if idle && !self.queue.is_quiet() { Some(Instant::now()) } else { self.queue.next_due() };
            let wake = [due, telling].into_iter().flatten().min();
            tokio::select! {
                biased;
                batch = events.next() => {
                    let batch = batch?;
                    for event in &batch.events {
                        self.take(event);
                    }
                    self.reached = self.reached.max(batch.upto);
                }
                told = async { self.telling.as_mut().expect("checked").await }, if self.telling.is_some() => {
                    self.telling = None;
                    // An Event that was not written is not worth a retry; the end of the leadership is worth noticing.
                    if matches!(told, Err(ProposeError::NotLeader | ProposeError::Stopped)) {
                        return Err(Ended::NotLeader);
                    }
                }
                Some(force) = self.force.recv() => {
                    self.forced.push(force);
                    self.barrier = self.barrier.max(events.head());
                    self.queue.wake();
                }
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    async fn start_over(&mut self) -> Result<EventStream, Ended> {
        self.snapshot = Snapshot::default();
        self.queue = Queue::default();
        self.barrier = Revision::ZERO;
        let kinds = [("apps", "replicasets"), ("", "nodes"), ("", "pods")];
        let list = kinds.map(|(group, resource)| KeyPrefix::resource(&self.cluster, group, resource));
        let list: Vec<KeyPrefix> = list.into_iter().collect::<Result<_, _>>()?;
        let (replica, cluster) = (self.shared.replica.clone(), KeyPrefix::cluster(&self.cluster)?);
        // Confirmed by a quorum: a write of unknown fate, ours included, is decided and seen from here on.
        let listing =
            replica.list_then_watch(Consistency::Linearizable, READ_DEADLINE, &list, cluster, |key, record| {
                self.put(key, record);
            });
        let events = listing.await?;
        self.reached = events.position();
        Ok(events)
    }

    fn take(&mut self, event: &Event) {
        match &event.record {
            Some(record) => self.put(&event.key, record),
            None => self.remove(&event.key, event.previous.as_deref()),
        }
    }

    fn put(&mut self, key: &Key, record: &Record) {
        let parts = key.parts();
        match (parts.group, parts.resource) {
            ("", "pods") => match Pod::read(key, record) {
                Ok(pod) => self.put_pod(key, pod),
                Err(error) => tracing::error!(?key, %error, "corrupt object"),
            },
            ("", "nodes") => match Node::read(key, record) {
                Ok(node) => {
                    self.snapshot.put_node(node);
                    self.queue.wake();
                }
                Err(error) => tracing::error!(?key, %error, "corrupt object"),
            },
            ("apps", "replicasets") => match serde_json::from_slice::<SetRaw>(&record.value) {
                Ok(set) => {
                    let owners = set.metadata.owner_references.unwrap_or_default();
                    let owner = owners.iter().find(|owner| owner.controller == Some(true));
                    let deployment = owner.filter(|owner| owner.kind == "Deployment").map(|owner| owner.uid.as_str());
                    self.snapshot.put_parent(&set.metadata.uid, deployment);
                }
                Err(error) => tracing::error!(?key, %error, "corrupt object"),
            },
            _ => {}
        }
    }

    fn put_pod(&mut self, key: &Key, pod: Pod) {
        if pod.is_waiting() {
            // A change of the condition alone, our own, must not wake the Pod.
            let known = self.snapshot.pod(key);
            if known.is_none_or(|known| !known.is_waiting() || !same_wishes(known, &pod)) {
                self.queue.push(key, pod.priority, pod.created);
            }
        } else {
            self.queue.remove(key);
            let gives_back = self.snapshot.pod(key).is_some_and(|known| !known.ended && pod.ended);
            if gives_back {
                self.queue.wake();
            }
        }
        self.snapshot.put_pod(key, pod);
    }

    fn remove(&mut self, key: &Key, previous: Option<&Record>) {
        let parts = key.parts();
        match (parts.group, parts.resource) {
            ("", "pods") => {
                self.queue.remove(key);
                if self.snapshot.remove_pod(key).is_some_and(|pod| !pod.node.is_empty()) {
                    self.queue.wake();
                }
            }
            ("", "nodes") => self.snapshot.remove_node(parts.name),
            ("apps", "replicasets") => {
                let previous = previous.and_then(|record| serde_json::from_slice::<SetRaw>(&record.value).ok());
                if let Some(set) = previous {
                    self.snapshot.put_parent(&set.metadata.uid, None);
                }
            }
            _ => {}
        }
    }

    /// Decides a batch of Pods and writes what was decided.
    async fn turn(&mut self) -> Result<(), Ended> {
        let keys = self.queue.pop(BATCH_PODS, Instant::now());
        if keys.is_empty() {
            return Ok(());
        }
        let newest = self.shared.replica.read(Consistency::Stale, READ_DEADLINE).await?;
        let view = newest.at(self.reached)?;
        let now = rfc3339(self.shared.replica.wall_ms());
        let (bindings, refused, batch) = self.decide(keys, &view, &now);
        if !batch.is_empty() {
            let (txn, bases) = batch.finish();
            let rejected = self.propose(txn).await?;
            self.settle(bindings, rejected.map(|compare| bases.get(compare).cloned()));
        }
        self.tell_refused(refused, &view, &now).await
    }

    /// Decides in order, each Pod on top of what the ones before it take.
    fn decide(&mut self, keys: Vec<Key>, view: &View, now: &str) -> (Vec<Binding>, Vec<(Pod, String)>, Batch) {
        let read = |key: &Key| view.get(key).ok().flatten();
        let mut batch = Batch::default();
        let mut bindings: Vec<Binding> = Vec::new();
        let mut assumed: Vec<(Key, Pod)> = Vec::new();
        let mut refused = Vec::new();
        for key in keys {
            let Some(pod) = self.snapshot.pod(&key).filter(|pod| pod.is_waiting()).cloned() else { continue };
            if batch.bytes() > BATCH_BYTES {
                self.queue.push(&key, pod.priority, pod.created);
                continue;
            }
            self.shared.metrics.decisions.fetch_add(1, Ordering::Relaxed);
            match decide(&self.snapshot, &pod) {
                Decision::Bind { node, gpus } => {
                    let needs_index = pod.replica_index.is_none();
                    let index = needs_index.then(|| self.snapshot.free_index(&pod));
                    let binding = Binding { pod: pod.clone(), node, gpus, index };
                    if !batch.add(&binding, &self.snapshot, &read, now) {
                        self.queue.retry(&key, pod.priority, pod.created, Instant::now());
                        continue;
                    }
                    let taken = Pod {
                        node: binding.node.clone(),
                        gpu_ids: binding.gpus.clone(),
                        replica_index: binding.index.or(pod.replica_index),
                        ..pod.clone()
                    };
                    self.snapshot.put_pod(&key, taken);
                    assumed.push((key, pod));
                    bindings.push(binding);
                }
                Decision::Unschedulable(refusal) => {
                    self.queue.sleep(&key, pod.priority, pod.created, Instant::now());
                    refused.push((pod, refusal.message()));
                }
            }
        }
        // What was assumed is taken back; the changes themselves come with the watch, and the barrier waits for them.
        for (key, pod) in assumed {
            self.snapshot.put_pod(&key, pod);
        }
        (bindings, refused, batch)
    }

    /// Proposes; answers the compare that failed, if one did.
    async fn propose(&mut self, txn: Txn) -> Result<Option<usize>, Ended> {
        match self.shared.replica.propose_local(self.shared.leader, txn).await {
            Ok(quilt_raft::Decision::Applied { last, .. }) => {
                self.barrier = self.barrier.max(last);
                Ok(None)
            }
            Ok(quilt_raft::Decision::Rejected { compare, .. }) => Ok(Some(compare)),
            Err(ProposeError::NotLeader | ProposeError::Stopped) => Err(Ended::NotLeader),
            Err(ProposeError::Unknown) => Err(Ended::Unsettled),
            Err(error @ (ProposeError::NotApplied | ProposeError::Overloaded { .. } | ProposeError::Invalid(_))) => {
                tracing::warn!(%error, cluster = self.cluster, "binding not applied");
                Ok(Some(usize::MAX))
            }
        }
    }

    /// After the answer: told, or back into the queue. Pods that were not at fault are tried again at once.
    fn settle(&mut self, bindings: Vec<Binding>, rejected: Option<Option<Basis>>) {
        let metrics = &self.shared.metrics;
        let Some(culprit) = rejected else {
            metrics.bound.fetch_add(bindings.len() as u64, Ordering::Relaxed);
            for binding in &bindings {
                self.tell_scheduled(&binding.pod, &binding.node);
            }
            return;
        };
        metrics.rejected.fetch_add(1, Ordering::Relaxed);
        for Binding { pod, .. } in bindings {
            let Some(key) = pod.key.clone() else { continue };
            match &culprit {
                Some(Basis::Pod(at_fault)) if *at_fault != key && pod.replaces.is_none() => {
                    self.queue.push(&key, pod.priority, pod.created);
                }
                _ => self.queue.retry(&key, pod.priority, pod.created, Instant::now()),
            }
        }
    }

    /// Writes why Pods wait, where that is news.
    async fn tell_refused(&mut self, refused: Vec<(Pod, String)>, view: &View, now: &str) -> Result<(), Ended> {
        let read = |key: &Key| view.get(key).ok().flatten();
        let (mut compares, mut ops) = (Vec::new(), Vec::new());
        for (pod, message) in refused {
            let Some(key) = &pod.key else { continue };
            let Some(mut value) = load(&read, key, pod.revision) else { continue };
            if unschedulable(&mut value, &message, now) {
                compares.push(Compare::at(key, pod.revision));
                ops.push(put(key, &value, "", 0));
                self.note(&pod, NoticeKind::Warning, "FailedScheduling", message);
            }
        }
        if ops.is_empty() {
            return Ok(());
        }
        self.shared.metrics.unschedulable.fetch_add(ops.len() as u64, Ordering::Relaxed);
        if self.propose(Txn::new(compares.clone(), ops.clone())).await?.is_some() {
            // One of them has changed meanwhile. Each by itself: the others still tell the truth.
            for (compare, op) in compares.into_iter().zip(ops) {
                self.propose(Txn::new(vec![compare], vec![op])).await?;
            }
        }
        Ok(())
    }

    fn tell_scheduled(&mut self, pod: &Pod, node: &str) {
        let Some(key) = &pod.key else { return };
        let parts = key.parts();
        let message = format!("Successfully assigned {}/{} to {node}", parts.namespace, parts.name);
        self.note(pod, NoticeKind::Normal, "Scheduled", message);
    }

    fn note(&mut self, pod: &Pod, kind: NoticeKind, reason: &'static str, message: String) {
        let Some(key) = &pod.key else { return };
        let about = About::pod(key.parts().namespace, key.parts().name, &pod.uid);
        self.recorder.add(Notice { about, kind, reason, message });
    }

    /// When Events are to be written, unless some are on their way.
    fn telling_due(&mut self) -> Option<Instant> {
        let now = self.shared.replica.cluster_time_ms();
        let due = self.recorder.due_ms(now).filter(|_| self.telling.is_none() && self.queue.is_quiet())?;
        Some(Instant::now() + Duration::from_millis(due.saturating_sub(now)))
    }

    /// Tells people, behind every binding.
    fn tell(&mut self) {
        if self.telling.is_some() || !self.queue.is_quiet() {
            return;
        }
        let (replica, leader) = (self.shared.replica.clone(), self.shared.leader);
        let mut draw = || uuid::Uuid::new_v4().as_u128();
        let txn = self.recorder.batch(replica.cluster_time_ms(), replica.wall_ms(), &mut draw);
        self.telling = txn.map(|txn| {
            let writing = async move { replica.propose_background(leader, txn).await };
            let writing: BoxFuture<'static, _> = Box::pin(writing);
            writing
        });
    }

    fn answer_forced(&mut self) {
        if self.reached >= self.barrier && self.queue.is_quiet() {
            for force in self.forced.drain(..) {
                // Whoever asked may have gone; the work is done all the same.
                let _ = force.send(());
            }
        }
    }
}

/// Whether two versions of a waiting Pod ask for the same.
fn same_wishes(a: &Pod, b: &Pod) -> bool {
    a.requests == b.requests
        && a.node_selector == b.node_selector
        && a.replaces == b.replaces
        && a.tolerations.len() == b.tolerations.len()
        && a.priority == b.priority
        && a.gpu_ids == b.gpu_ids
}

fn rfc3339(wall_ms: u64) -> String {
    let seconds = i64::try_from(wall_ms / 1000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map(|at| at.to_string()).unwrap_or_default()
}

#[derive(Deserialize)]
struct SetRaw {
    metadata: SetMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SetMeta {
    #[serde(default)]
    uid: String,
    owner_references: Option<Vec<SetOwner>>,
}

#[derive(Deserialize)]
struct SetOwner {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    uid: String,
    controller: Option<bool>,
}
