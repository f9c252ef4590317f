//! Where controllers live: they start when this replica gains leadership and stop when it loses it.
//!
//! One runner per cluster; losing leadership drops the runners, never the process. All writes go through the fence
//! (`propose_local`), so a runner that has not noticed its end yet can do no harm.

mod metrics;
mod queue;
mod runner;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use quilt_objects::event::{Notice, WAITING_MAX};
use quilt_objects::first;
use quilt_proto::{Event, KeyPrefix, Record};
use quilt_raft::{Consistency, Handler, LeaderId, Replica};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

pub use metrics::{Counter, Metrics};
use runner::{Ended, Force, Heard, Runner, Shared};

use crate::heartbeats::Heartbeats;
use crate::view::Settings;

/// Pause before a runner that failed starts over.
const RESTART_AFTER: Duration = Duration::from_millis(500);
/// Forced runs of one cluster that may wait.
const FORCED_MAX: usize = 16;
/// How long a forced run is waited for; what is left continues by itself.
const FORCE_DEADLINE: Duration = Duration::from_secs(3);
const READ_DEADLINE: Duration = Duration::from_secs(5);

/// The controllers of one replica. Cheap to clone; [`Controllers::run`] does the work.
#[derive(Clone)]
pub struct Controllers {
    replica: Replica,
    heartbeats: Arc<Heartbeats>,
    metrics: Arc<Metrics>,
    runners: Arc<Mutex<HashMap<String, Handle>>>,
}

/// A forced run could not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForceError {
    /// The controllers of that cluster do not run here (any more).
    #[error("the controllers of cluster '{cluster}' are not running here")]
    NotRunning {
        /// The cluster asked for.
        cluster: String,
    },
    /// The request is not `{"cluster": id}`.
    #[error("the request is malformed: {reason}")]
    Malformed {
        /// What the parser found.
        reason: String,
    },
}

#[derive(Deserialize)]
struct ForceRequest {
    cluster: String,
}

#[derive(Default, Deserialize)]
struct ClusterRecord {
    node_timeout_secs: Option<u64>,
    placement_grace_secs: Option<u64>,
    service_cidr: Option<String>,
}

impl Controllers {
    /// The controllers of `replica`; registers the heartbeat table as its service `heartbeats`.
    #[must_use]
    pub fn new(replica: Replica) -> Self {
        let heartbeats = Arc::new(Heartbeats::default());
        let (table, clock) = (Arc::clone(&heartbeats), replica.clone());
        let handler: Handler = Arc::new(move |request: Bytes| {
            let answer = table.answer(&request, clock.cluster_time_ms(), clock.wall_ms());
            let answer = answer.map_err(|error| error.to_string());
            let answer: BoxFuture<'static, Result<Bytes, String>> = Box::pin(std::future::ready(answer));
            answer
        });
        replica.serve("heartbeats", handler);
        let runners: Arc<Mutex<HashMap<String, Handle>>> = Arc::default();
        let directory = Arc::clone(&runners);
        let handler: Handler = Arc::new(move |request: Bytes| {
            let answer = take_told(&directory.lock(), &request).map(|()| Bytes::from_static(b"{}"));
            let answer: BoxFuture<'static, Result<Bytes, String>> = Box::pin(std::future::ready(answer));
            answer
        });
        replica.serve("events", handler);
        Self { replica, heartbeats, metrics: Arc::new(Metrics::default()), runners }
    }

    /// What the controllers of this replica have done.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// The table of last heartbeats.
    #[must_use]
    pub fn heartbeats(&self) -> Arc<Heartbeats> {
        Arc::clone(&self.heartbeats)
    }

    /// Runs all controllers of `cluster` now, without waiting for graces, until nothing is left to do or the deadline
    /// has passed; then the rest continues by itself.
    ///
    /// # Errors
    /// The cluster's controllers do not run here.
    pub async fn force(&self, cluster: &str) -> Result<(), ForceError> {
        let not_running = || ForceError::NotRunning { cluster: cluster.to_owned() };
        let runner = self.runners.lock().get(cluster).cloned().ok_or_else(not_running)?;
        let (sender, done) = oneshot::channel();
        runner.force.send(sender).await.map_err(|_| not_running())?;
        match tokio::time::timeout(FORCE_DEADLINE, done).await {
            Ok(Err(_)) => Err(not_running()),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// The handler of the leader's service `reconcile`: this crate's forced run, then `then` (the scheduler's), then
    /// ours once more for what binding has made possible.
    #[must_use]
    pub fn reconcile_service<F>(&self, then: F) -> Handler
    where
        F: Fn(String) -> BoxFuture<'static, Result<(), String>> + Send + Sync + 'static,
    {
        let controllers = self.clone();
        let then = Arc::new(then);
        Arc::new(move |request: Bytes| {
            let (controllers, then) = (controllers.clone(), Arc::clone(&then));
            let run: BoxFuture<'static, Result<Bytes, String>> = Box::pin(async move {
                let request: ForceRequest = serde_json::from_slice(&request)
                    .map_err(|error| ForceError::Malformed { reason: error.to_string() }.to_string())?;
                controllers.force(&request.cluster).await.map_err(|error| error.to_string())?;
                then(request.cluster.clone()).await?;
                controllers.force(&request.cluster).await.map_err(|error| error.to_string())?;
                Ok(Bytes::from_static(b"{}"))
            });
            run
        })
    }

    /// Runs whenever this replica leads, until `shutdown` completes.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        self.replica.while_leading(shutdown, |leader| self.reign(leader)).await;
    }

    /// One leadership: a runner for every cluster there is.
    async fn reign(&self, leader: LeaderId) {
        tracing::info!(term = leader.term, "controllers start");
        self.heartbeats.gained(self.replica.cluster_time_ms());
        let _end = EndOfReign(self);
        let shared = Shared {
            replica: self.replica.clone(),
            leader,
            heartbeats: Arc::clone(&self.heartbeats),
            metrics: Arc::clone(&self.metrics),
        };
        loop {
            if let Err(error) = self.follow_clusters(&shared).await {
                match error {
                    Ended::NotLeader => return,
                    error => tracing::warn!(%error, "the list of clusters is lost; starting over"),
                }
            }
            tokio::time::sleep(RESTART_AFTER).await;
        }
    }

    /// Keeps one runner per cluster record, and one for the built-in cluster in any case.
    async fn follow_clusters(&self, shared: &Shared) -> Result<(), Ended> {
        let mut flock =
            Flock { shared: shared.clone(), members: HashMap::new(), tasks: JoinSet::new(), directory: self };
        let prefix = KeyPrefix::resource("", "quilt.sh", "clusters")?;
        flock.keep("default", Settings::default());
        let list = std::slice::from_ref(&prefix);
        let listing =
            self.replica.list_then_watch(Consistency::Stale, READ_DEADLINE, list, prefix.clone(), |key, record| {
                flock.keep(key.parts().name, settings(record));
            });
        let mut events = listing.await?;
        loop {
            tokio::select! {
                batch = events.next() => {
                    for event in &batch?.events {
                        flock.take(event);
                    }
                }
                Some(ended) = flock.tasks.join_next(), if !flock.tasks.is_empty() => {
                    if let Err(error) = ended && error.is_panic() {
                        // A runner that panics has met a broken invariant; it must not die silently.
                        tracing::error!(%error, "a cluster's controllers have panicked");
                    }
                }
            }
        }
    }
}

/// How a cluster's runner is spoken to.
#[derive(Clone)]
struct Handle {
    force: mpsc::Sender<Force>,
    tell: mpsc::Sender<Notice>,
}

/// What nodes tell of their Pods, on its way to the runner of their cluster.
#[derive(Deserialize)]
struct Told {
    cluster: String,
    events: Vec<Value>,
}

/// Hands what nodes tell to the runner that writes it down; what is too much is dropped.
fn take_told(runners: &HashMap<String, Handle>, request: &Bytes) -> Result<(), String> {
    let told: Told = serde_json::from_slice(request).map_err(|error| format!("malformed Events: {error}"))?;
    let runner =
        runners.get(&told.cluster).ok_or_else(|| format!("cluster {} has no controllers here", told.cluster))?;
    for event in &told.events {
        let notice = Notice::of_node(event).map_err(|field| format!("an Event's {field} is not what nodes tell"))?;
        let _dropped = runner.tell.try_send(notice);
    }
    Ok(())
}

/// What of a leadership does not outlive it: dropped when it is lost, after its runners.
struct EndOfReign<'a>(&'a Controllers);

impl Drop for EndOfReign<'_> {
    fn drop(&mut self) {
        self.0.runners.lock().clear();
        self.0.heartbeats.lost();
    }
}

fn settings(record: &Record) -> Settings {
    let record: ClusterRecord = serde_json::from_slice(&record.value).unwrap_or_default();
    let usual = Settings::default();
    Settings {
        node_timeout_secs: record.node_timeout_secs.unwrap_or(usual.node_timeout_secs),
        placement_grace_secs: record.placement_grace_secs.unwrap_or(usual.placement_grace_secs),
        api_address: record.service_cidr.as_deref().and_then(first::api_address),
    }
}

/// The runners of one leadership.
struct Flock<'a> {
    shared: Shared,
    members: HashMap<String, Member>,
    tasks: JoinSet<()>,
    directory: &'a Controllers,
}

struct Member {
    settings: watch::Sender<Settings>,
    task: tokio::task::AbortHandle,
}

impl Flock<'_> {
    fn take(&mut self, event: &Event) {
        let cluster = event.key.parts().name;
        match &event.record {
            Some(record) => self.keep(cluster, settings(record)),
            None => {
                if let Some(member) = self.members.remove(cluster) {
                    member.task.abort();
                    self.directory.runners.lock().remove(cluster);
                    self.shared.heartbeats.forget_cluster(cluster);
                }
            }
        }
    }

    fn keep(&mut self, cluster: &str, settings: Settings) {
        if let Some(member) = self.members.get(cluster) {
            member.settings.send_if_modified(|known| {
                let changed = *known != settings;
                *known = settings;
                changed
            });
            return;
        }
        let (sender, receiver) = watch::channel(settings);
        let (force, forced) = mpsc::channel(FORCED_MAX);
        let (tell, told) = mpsc::channel(WAITING_MAX);
        self.directory.runners.lock().insert(cluster.to_owned(), Handle { force, tell });
        let heard = Heard { settings: receiver, forced, told };
        let task = self.tasks.spawn(keep_running(self.shared.clone(), cluster.to_owned(), heard));
        self.members.insert(cluster.to_owned(), Member { settings: sender, task });
    }
}

/// Runs one cluster's controllers, starting over from the state when their view is lost.
async fn keep_running(shared: Shared, cluster: String, heard: Heard) {
    let mut runner = Runner::new(shared, &cluster, heard);
    loop {
        match runner.run().await {
            Ok(()) | Err(Ended::NotLeader) => return,
            Err(Ended::Watch(quilt_raft::WatchError::Dropped) | Ended::Read(quilt_raft::ReadError::Dropped)) => return,
            Err(error) => tracing::warn!(%error, cluster, "controllers start over"),
        }
        tokio::time::sleep(RESTART_AFTER).await;
        runner.forget();
    }
}
