//! Where the scheduler lives: it starts when this replica gains leadership and stops when it loses it. One runner per
//! cluster; all writes go through the fence (`propose_local`).

mod queue;
mod runner;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use quilt_proto::KeyPrefix;
use quilt_raft::{Consistency, LeaderId, Replica};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};

use runner::{Ended, Force, Runner, Shared};

/// Pause before a runner that failed starts over.
const RESTART_AFTER: Duration = Duration::from_millis(500);
/// Forced runs of one cluster that may wait.
const FORCED_MAX: usize = 16;
/// How long a forced run is waited for; what is left continues by itself.
const FORCE_DEADLINE: Duration = Duration::from_secs(2);
const READ_DEADLINE: Duration = Duration::from_secs(5);

/// Counters of the scheduler.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Decisions made.
    pub decisions: AtomicU64,
    /// Pods bound.
    pub bound: AtomicU64,
    /// Pods told that no node takes them.
    pub unschedulable: AtomicU64,
    /// Transactions rejected because something had changed.
    pub rejected: AtomicU64,
}

/// The scheduler of one replica. Cheap to clone; [`Scheduler::run`] does the work.
#[derive(Clone)]
pub struct Scheduler {
    replica: Replica,
    metrics: Arc<Metrics>,
    runners: Arc<Mutex<HashMap<String, mpsc::Sender<Force>>>>,
}

/// A forced run could not be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the scheduler of cluster '{cluster}' is not running here")]
pub struct NotRunning {
    /// The cluster asked for.
    pub cluster: String,
}

impl Scheduler {
    /// The scheduler of `replica`.
    #[must_use]
    pub fn new(replica: Replica) -> Self {
        Self { replica, metrics: Arc::default(), runners: Arc::default() }
    }

    /// What the scheduler of this replica has done.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Looks at every waiting Pod of the cluster, until none is left that fits or the deadline has passed.
    ///
    /// # Errors
    /// The cluster's scheduler does not run here.
    pub async fn force(&self, cluster: &str) -> Result<(), NotRunning> {
        let not_running = || NotRunning { cluster: cluster.to_owned() };
        let runner = self.runners.lock().get(cluster).cloned().ok_or_else(not_running)?;
        let (sender, done) = oneshot::channel();
        runner.send(sender).await.map_err(|_| not_running())?;
        match tokio::time::timeout(FORCE_DEADLINE, done).await {
            Ok(Err(_)) => Err(not_running()),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// Runs whenever this replica leads, until `shutdown` completes.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        self.replica.while_leading(shutdown, |leader| self.reign(leader)).await;
    }

    async fn reign(&self, leader: LeaderId) {
        tracing::info!(term = leader.term, "scheduler starts");
        let _end = EndOfReign(self);
        let shared = Shared { replica: self.replica.clone(), leader, metrics: Arc::clone(&self.metrics) };
        loop {
            if let Err(error) = self.follow_clusters(&shared).await {
                tracing::warn!(%error, "the list of clusters is lost; starting over");
            }
            tokio::time::sleep(RESTART_AFTER).await;
        }
    }

    /// Keeps one runner per cluster record, and one for the built-in cluster in any case.
    async fn follow_clusters(&self, shared: &Shared) -> Result<(), Ended> {
        let mut tasks = JoinSet::new();
        let mut members: HashMap<String, AbortHandle> = HashMap::new();
        let mut keep = |cluster: &str, tasks: &mut JoinSet<()>, present: Presence| match present {
            Presence::There if !members.contains_key(cluster) => {
                let (force, forced) = mpsc::channel(FORCED_MAX);
                self.runners.lock().insert(cluster.to_owned(), force);
                let task = tasks.spawn(keep_running(shared.clone(), cluster.to_owned(), forced));
                members.insert(cluster.to_owned(), task);
            }
            Presence::There => {}
            Presence::Gone => {
                if let Some(task) = members.remove(cluster) {
                    task.abort();
                    self.runners.lock().remove(cluster);
                }
            }
        };
        let prefix = KeyPrefix::resource("", "quilt.sh", "clusters")?;
        keep("default", &mut tasks, Presence::There);
        let list = std::slice::from_ref(&prefix);
        let listing =
            self.replica.list_then_watch(Consistency::Stale, READ_DEADLINE, list, prefix.clone(), |key, _| {
                keep(key.parts().name, &mut tasks, Presence::There);
            });
        let mut events = listing.await?;
        loop {
            tokio::select! {
                batch = events.next() => {
                    for event in &batch?.events {
                        let present = if event.record.is_some() { Presence::There } else { Presence::Gone };
                        keep(event.key.parts().name, &mut tasks, present);
                    }
                }
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Err(error) = ended && error.is_panic() {
                        // A runner that panics has met a broken invariant; it must not die silently.
                        tracing::error!(%error, "a cluster's scheduler has panicked");
                    }
                }
            }
        }
    }
}

/// What of a leadership does not outlive it: dropped when it is lost, after its runners.
struct EndOfReign<'a>(&'a Scheduler);

impl Drop for EndOfReign<'_> {
    fn drop(&mut self) {
        self.0.runners.lock().clear();
    }
}

/// Whether a cluster is there.
#[derive(Clone, Copy, Debug)]
enum Presence {
    There,
    Gone,
}

/// Runs one cluster's scheduler, starting over from the state when its view is lost.
async fn keep_running(shared: Shared, cluster: String, forced: mpsc::Receiver<Force>) {
    let mut runner = Runner::new(shared, &cluster, forced);
    loop {
        match runner.run().await {
            Ok(()) | Err(Ended::NotLeader) => return,
            Err(Ended::Watch(quilt_raft::WatchError::Dropped) | Ended::Read(quilt_raft::ReadError::Dropped)) => return,
            Err(error) => tracing::warn!(%error, cluster, "scheduler starts over"),
        }
        tokio::time::sleep(RESTART_AFTER).await;
    }
}
