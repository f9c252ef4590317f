//! The controllers of one cluster while this replica leads: list, watch, look, write.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use quilt_objects::event::Recorder;
use quilt_proto::{Event, Key, KeyPrefix, Record, Revision};
use quilt_raft::{Consistency, Decision, EventStream, LeaderId, Limit, ProposeError, ReadError, Replica, WatchError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::entropy::Entropy;
use crate::heartbeats::Heartbeats;
use crate::moment::Moment;
use crate::object::Object;
use crate::plan::{Notice, Plan};
use crate::reconcile::Controller;
use crate::route::{Work, is_ignored, is_remembered, work_of};
use crate::runtime::metrics::{Counter, Metrics};
use crate::runtime::queue::Queue;
use crate::view::{Change, Cluster, LoadError, Occasion, Settings, Source, Urgency, View};

/// Transactions of one cluster under way at once.
const IN_FLIGHT_MAX: usize = 16;
/// Bytes read at a time from one prefix.
const PAGE_BYTES: usize = 1 << 20;
/// Work done between two looks at the watch.
const STEPS_MAX: usize = 64;
const READ_DEADLINE: Duration = Duration::from_secs(5);

/// What every runner of a leadership shares.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) replica: Replica,
    pub(super) leader: LeaderId,
    pub(super) heartbeats: Arc<Heartbeats>,
    pub(super) metrics: Arc<Metrics>,
}

/// Asks a runner to do everything now; answered when nothing is left to do.
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

enum Done {
    Plan { work: Work, result: Result<Decision, ProposeError>, notices: Vec<Notice>, more: bool },
    Events(Result<(), ProposeError>),
}

pub(super) struct Runner {
    shared: Shared,
    cluster: Cluster,
    queue: Queue,
    recorder: Recorder,
    /// What nodes have to tell.
    nodes: Recorder,
    telling: bool,
    in_flight: FuturesUnordered<BoxFuture<'static, Done>>,
    heard: Heard,
    forced: Vec<Force>,
}

/// What a runner is told from outside.
pub(super) struct Heard {
    pub(super) settings: watch::Receiver<Settings>,
    pub(super) forced: mpsc::Receiver<Force>,
    /// What nodes tell of their Pods.
    pub(super) told: mpsc::Receiver<Notice>,
}

impl Runner {
    pub(super) fn new(shared: Shared, cluster: &str, heard: Heard) -> Self {
        Self {
            shared,
            cluster: Cluster::new(cluster),
            queue: Queue::default(),
            recorder: Recorder::new(cluster, "quilt-controllers"),
            nodes: Recorder::new(cluster, "quilt-agent"),
            telling: false,
            in_flight: FuturesUnordered::new(),
            heard,
            forced: Vec::new(),
        }
    }

    /// Runs until the leadership or the cluster ends.
    pub(super) async fn run(&mut self) -> Result<(), Ended> {
        let mut events = self.start_over().await?;
        loop {
            self.work(&events).await?;
            self.answer_forced();
            // One turn takes only so much; what is ready beyond it gets its turn right after the watch.
            let ready = self.queue.has_ready() && self.in_flight.len() < IN_FLIGHT_MAX;
            let due = if ready { Some(Instant::now()) } else { self.queue.next_due() };
            let telling_due = self.telling_due();
            let wake = [due, telling_due].into_iter().flatten().min();
            tokio::select! {
                batch = events.next() => {
                    let batch = batch?;
                    for event in &batch.events {
                        self.take(event);
                    }
                    self.cluster.reached(batch.upto);
                }
                Some(done) = self.in_flight.next(), if !self.in_flight.is_empty() => self.settle(done)?,
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
                Some(force) = self.heard.forced.recv() => self.start_forced(force, events.head()),
                Some(notice) = self.heard.told.recv() => self.nodes.add(notice),
                changed = self.heard.settings.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    self.everything();
                }
            }
        }
    }

    /// Forgets what was under way, before starting over.
    pub(super) fn forget(&mut self) {
        self.queue = Queue::default();
        self.in_flight = FuturesUnordered::new();
        self.telling = false;
    }

    /// Lists the cluster, then watches it from the same revision.
    async fn start_over(&mut self) -> Result<EventStream, Ended> {
        let prefix = KeyPrefix::cluster(self.cluster.id())?;
        self.cluster = Cluster::new(self.cluster.id());
        let replica = self.shared.replica.clone();
        let list = std::slice::from_ref(&prefix);
        // Confirmed by a quorum: a write of unknown fate, ours included, is decided and seen from here on.
        let listing =
            replica.list_then_watch(Consistency::Linearizable, READ_DEADLINE, list, prefix.clone(), |key, record| {
                self.remember(key, record);
            });
        let events = listing.await?;
        self.cluster.reached(events.position());
        self.everything();
        Ok(events)
    }

    /// Queues a look at everything.
    fn everything(&mut self) {
        let mut work = BTreeSet::new();
        for object in self.cluster.all() {
            let change = Change { key: object.key.clone(), before: None, after: Some(Arc::clone(object)) };
            work_of(&self.cluster, &change, None, &mut work);
        }
        for work in work {
            self.queue.push(work);
        }
    }

    fn read(key: &Key, record: &Record) -> Option<Object> {
        let read = Object::read(key, Revision::new(record.mod_revision), &record.value);
        // A corrupt record is an alarm; what was remembered of the object before stays, so nothing is deleted over it.
        read.inspect_err(|error| tracing::error!(?key, %error, "corrupt object")).ok()
    }

    fn remember(&mut self, key: &Key, record: &Record) -> Option<Change> {
        if is_ignored(key) {
            return None;
        }
        let object = Self::read(key, record)?;
        if is_remembered(&object) {
            return Some(self.cluster.put(object));
        }
        let change = self.cluster.remove(key);
        change.before.is_some().then_some(change)
    }

    /// Takes one change in and queues the work it makes.
    fn take(&mut self, event: &Event) {
        let key = &event.key;
        let parts = key.parts();
        if parts.resource == "leases" && parts.namespace == "kube-node-lease" && event.record.is_some() {
            self.hear(parts.name);
        }
        if is_ignored(key) {
            return;
        }
        let mut work = BTreeSet::new();
        if parts.group.is_empty() && parts.resource == "endpoints" {
            // Not remembered, but whoever else writes them is put right by their Service's controller.
            let service = self.cluster.key("", "services", parts.namespace, parts.name);
            work.extend(service.filter(|key| self.cluster.get(key).is_some()).map(|key| (Controller::Endpoints, key)));
        }
        if let Some(record) = &event.record {
            if let Some(change) = self.remember(key, record) {
                work_of(&self.cluster, &change, None, &mut work);
            }
        } else {
            let change = self.cluster.remove(key);
            let remembered = change.before.as_ref().map(|before| before.uid.clone());
            let uid = remembered.or_else(|| Some(Self::read(key, event.previous.as_ref()?)?.uid));
            work_of(&self.cluster, &change, uid.as_deref(), &mut work);
            if parts.group.is_empty() && parts.resource == "nodes" {
                self.shared.heartbeats.forget(self.cluster.id(), parts.name);
            }
        }
        for work in work {
            self.queue.push(work);
        }
    }

    /// A kubelet's lease is its heartbeat.
    fn hear(&self, node: &str) {
        let Shared { replica, heartbeats, .. } = &self.shared;
        let heard = heartbeats.beat(self.cluster.id(), node, replica.cluster_time_ms(), replica.wall_ms());
        if let Err(error) = heard {
            tracing::warn!(%error, node, "heartbeat not taken");
        }
    }

    /// Looks at what may be looked at.
    async fn work(&mut self, events: &EventStream) -> Result<(), Ended> {
        self.cluster.reached(events.position());
        let newest = self.shared.replica.read(Consistency::Stale, READ_DEADLINE).await?;
        // Exactly what is remembered: nothing is decided on two different states.
        let view = newest.at(self.cluster.revision())?;
        let source = Applied(view);
        for _ in 0..STEPS_MAX {
            if self.in_flight.len() >= IN_FLIGHT_MAX {
                break;
            }
            let Some(work) = self.queue.pop(Instant::now(), self.cluster.revision()) else { break };
            self.step(work, &source);
        }
        self.tell();
        // More is ready than one turn takes: the watch gets its turn first.
        tokio::task::yield_now().await;
        Ok(())
    }

    fn step(&mut self, work: Work, source: &Applied) {
        let Shared { replica, heartbeats, metrics, .. } = &self.shared;
        metrics.count(work.0, Counter::Reconciles);
        let mut at = Occasion {
            now: Moment(replica.wall_ms()),
            cluster_ms: replica.cluster_time_ms(),
            entropy: Entropy::new(uuid::Uuid::new_v4().as_u128()),
        };
        let view = View {
            cluster: &self.cluster,
            source,
            settings: *self.heard.settings.borrow(),
            heartbeats,
            urgency: if self.forced.is_empty() { Urgency::Usual } else { Urgency::Now },
        };
        let plan = match work.0.reconcile(&view, &work.1, &mut at) {
            Ok(plan) => plan,
            Err(error) => {
                tracing::warn!(controller = work.0.name(), key = ?work.1, %error, "reconcile failed");
                metrics.count(work.0, Counter::Failed);
                self.queue.failed(&work, Instant::now());
                return;
            }
        };
        tracing::debug!(controller = work.0.name(), key = ?work.1, %plan, "reconciled");
        if let Some(again) = plan.look_again_at {
            let pause = Duration::from_millis(again.0.saturating_sub(at.now.0));
            self.queue.push_at(work.clone(), Instant::now() + pause);
        }
        if plan.writes.is_empty() {
            self.record(plan.notices);
            self.queue.done(&work);
            if plan.more {
                self.queue.push(work);
            }
            return;
        }
        self.propose(work, plan);
    }

    fn propose(&mut self, work: Work, plan: Plan) {
        let txn = plan.txn();
        let Plan { notices, more, .. } = plan;
        let (replica, leader) = (self.shared.replica.clone(), self.shared.leader);
        self.in_flight.push(Box::pin(async move {
            let result = replica.propose_local(leader, txn).await;
            Done::Plan { work, result, notices, more }
        }));
    }

    fn record(&mut self, notices: Vec<Notice>) {
        let dropped = self.recorder.dropped();
        notices.into_iter().for_each(|notice| self.recorder.add(notice));
        self.shared.metrics.dropped(self.recorder.dropped() - dropped);
    }

    /// When Events are to be written, unless some are on their way.
    fn telling_due(&mut self) -> Option<Instant> {
        if self.telling {
            return None;
        }
        let now = self.shared.replica.cluster_time_ms();
        let due = [self.recorder.due_ms(now), self.nodes.due_ms(now)].into_iter().flatten().min()?;
        Some(Instant::now() + Duration::from_millis(due.saturating_sub(now)))
    }

    /// Tells people, behind everything of more weight.
    fn tell(&mut self) {
        if self.telling {
            return;
        }
        let (replica, leader) = (self.shared.replica.clone(), self.shared.leader);
        let mut draw = || uuid::Uuid::new_v4().as_u128();
        let (now, wall) = (replica.cluster_time_ms(), replica.wall_ms());
        let own = self.recorder.batch(now, wall, &mut draw);
        let Some(txn) = own.or_else(|| self.nodes.batch(now, wall, &mut draw)) else { return };
        self.telling = true;
        self.in_flight.push(Box::pin(async move { Done::Events(replica.propose_background(leader, txn).await) }));
    }

    fn settle(&mut self, done: Done) -> Result<(), Ended> {
        let (work, result, notices, more) = match done {
            Done::Events(result) => {
                self.telling = false;
                // An Event that was not written is not worth a retry; the end of the leadership is worth noticing.
                return match result {
                    Err(ProposeError::NotLeader | ProposeError::Stopped) => Err(Ended::NotLeader),
                    _ => Ok(()),
                };
            }
            Done::Plan { work, result, notices, more } => (work, result, notices, more),
        };
        let metrics = Arc::clone(&self.shared.metrics);
        match result {
            Ok(Decision::Applied { last, .. }) => {
                metrics.count(work.0, Counter::Applied);
                self.queue.wrote(&work, last);
                if more {
                    self.queue.push(work);
                }
                self.record(notices);
            }
            Ok(Decision::Rejected { .. }) => {
                metrics.count(work.0, Counter::Rejected);
                self.queue.failed(&work, Instant::now());
            }
            Err(ProposeError::NotLeader | ProposeError::Stopped) => return Err(Ended::NotLeader),
            Err(ProposeError::Unknown) => return Err(Ended::Unsettled),
            Err(error @ (ProposeError::NotApplied | ProposeError::Overloaded { .. } | ProposeError::Invalid(_))) => {
                tracing::warn!(controller = work.0.name(), key = ?work.1, %error, "plan not applied");
                metrics.count(work.0, Counter::Failed);
                self.queue.failed(&work, Instant::now());
            }
        }
        Ok(())
    }

    /// Looks at everything now, and at what the changes up to `head` make: whoever asks has seen those.
    fn start_forced(&mut self, force: Force, head: Revision) {
        self.forced.push(force);
        self.queue.raise_barrier(head);
        self.everything();
    }

    /// A forced run ends when nothing is left to do.
    fn answer_forced(&mut self) {
        if !self.forced.is_empty() && self.queue.is_quiet(self.cluster.revision()) {
            for force in self.forced.drain(..) {
                // Whoever asked may have gone; the work is done all the same.
                let _ = force.send(());
            }
        }
        tracing::trace!(depth = self.queue.depth(), "queue");
    }
}

/// The replica's state as remembered.
struct Applied(quilt_raft::View);

impl Source for Applied {
    fn record(&self, key: &Key) -> Result<Option<Record>, LoadError> {
        self.0.get(key).map_err(|error| LoadError::Read { key: key.bytes().clone(), reason: error.to_string() })
    }

    fn first(&self, prefix: &KeyPrefix, limit: u32) -> Result<Vec<(Key, Record)>, LoadError> {
        let limit = Limit { records: usize::try_from(limit).unwrap_or(usize::MAX), bytes: PAGE_BYTES };
        let page = self.0.scan(prefix, None, limit);
        let page = page.map_err(|error| LoadError::Read { key: prefix.bytes().clone(), reason: error.to_string() })?;
        Ok(page.records)
    }
}
