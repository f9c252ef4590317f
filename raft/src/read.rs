//! Linearizable reads on every replica by batched ReadIndex.
//!
//! One confirmation of leadership serves all reads that were waiting when it began; a read that comes later waits for
//! the next one. A follower asks the leader once per batch, over the control connection. No clock decides anything.

use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::type_config::TypeConfigExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::applied::Applied;
use crate::courier::Destination;
use crate::error::ReadError;
use crate::host::{exhibit, watch};
use crate::state_machine::Raft;
use crate::transport::Peers;
use crate::types::TypeConfig;

/// Reads waiting at once.
const READS_MAX: usize = 65_536;
/// How long one question to the leader may take.
const ROUND_TIMEOUT: Duration = Duration::from_millis(500);
/// How long ago a majority was heard, for a planted bug.
const LEASE_PLANTED: Duration = Duration::from_millis(250);
/// Pause after a failed round, while a leader is being elected.
const RETRY_AFTER: Duration = Duration::from_millis(15);

/// Log index that must be applied before the read.
type Waiter = oneshot::Sender<u64>;

pub(crate) struct ReadIndex {
    id: u64,
    waiters: Mutex<Vec<Waiter>>,
    wake: Notify,
    applied: Arc<Applied>,
    /// Set once a linearizable point has been applied since this replica started.
    ready: watch::Sender<bool>,
}

impl ReadIndex {
    pub(crate) fn new(id: u64, applied: Arc<Applied>) -> Self {
        Self { id, waiters: Mutex::default(), wake: Notify::new(), applied, ready: watch::Sender::new(false) }
    }

    /// Whether this replica has caught up once since it started.
    pub(crate) fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    fn ask(&self) -> Result<oneshot::Receiver<u64>, ReadError> {
        let (sender, confirmed) = oneshot::channel();
        let mut waiters = self.waiters.lock();
        if waiters.len() >= READS_MAX {
            // Shed those whose callers have gone before refusing.
            waiters.retain(|waiter| !waiter.is_closed());
            if waiters.len() >= READS_MAX {
                return Err(ReadError::Overloaded { limit: "READS_MAX" });
            }
        }
        waiters.push(sender);
        drop(waiters);
        self.wake.notify_one();
        Ok(confirmed)
    }

    /// The log index a read that begins now must have applied. Waits for as long as there is no leader.
    pub(crate) async fn index(&self) -> Result<u64, ReadError> {
        self.ask()?.await.map_err(|_| ReadError::Stopped)
    }

    /// Waits until everything acknowledged before this call is applied here.
    pub(crate) async fn linearize(&self, deadline: Duration) -> Result<(), ReadError> {
        let confirmed = self.ask()?;
        let wait = async {
            let index = confirmed.await.map_err(|_| ReadError::Stopped)?;
            let index = if exhibit!(ReadBeforeApplied) { 0 } else { index };
            let mut applied = self.applied.watch();
            let reached = applied.wait_for(|mark| mark.index >= index).await.map(drop);
            reached.map_err(|_| ReadError::Stopped)
        };
        match TypeConfig::timeout(deadline, wait).await {
            Ok(result) => result?,
            Err(_) => return Err(ReadError::NoLeader),
        }
        self.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
        Ok(())
    }

    /// Runs rounds for whoever waits until the replica stops.
    pub(crate) async fn run(self: Arc<Self>, raft: Raft, peers: Arc<Peers>, destination: watch::Receiver<Destination>) {
        loop {
            if self.waiters.lock().is_empty() {
                self.wake.notified().await;
            }
            // Only those waiting now: the round begins after they came.
            let mut waiting = std::mem::take(&mut *self.waiters.lock());
            waiting.retain(|waiter| !waiter.is_closed());
            if waiting.is_empty() {
                continue;
            }
            let leader = destination.borrow().leader;
            match self.round(&raft, &peers, leader).await {
                Ok(index) => {
                    for waiter in waiting {
                        // A caller whose deadline has passed is gone.
                        let _ = waiter.send(index);
                    }
                }
                Err(Round::Failed) => {
                    self.waiters.lock().append(&mut waiting);
                    TypeConfig::sleep(RETRY_AFTER).await;
                }
                Err(Round::Stopped) => return,
            }
        }
    }

    async fn round(&self, raft: &Raft, peers: &Peers, leader: Option<u64>) -> Result<u64, Round> {
        match leader {
            Some(leader) if leader != self.id => {
                let index = peers.read_index(leader, ROUND_TIMEOUT).await;
                index.map_err(|error| {
                    tracing::debug!(%error, leader, "read index round failed");
                    Round::Failed
                })
            }
            _ => confirm(raft).await,
        }
    }

    /// Stops all waiting reads.
    pub(crate) fn stop(&self) {
        self.waiters.lock().clear();
    }
}

pub(crate) enum Round {
    Failed,
    Stopped,
}

/// The leader's own part: its commit index, once a quorum has confirmed that it still leads.
pub(crate) async fn confirm(raft: &Raft) -> Result<u64, Round> {
    use openraft::errors::RaftError;

    if exhibit!(LeaseDuringTransfer) {
        use openraft::Instant as _;
        use openraft::async_runtime::watch::WatchReceiver as _;

        let metrics = raft.metrics().borrow_watched().clone();
        if metrics.last_quorum_acked.is_some_and(|at| at.elapsed() < LEASE_PLANTED) {
            return Ok(metrics.last_applied.map_or(0, |id| id.index));
        }
    }
    let asked = TypeConfig::timeout(ROUND_TIMEOUT, raft.get_read_linearizer(ReadPolicy::ReadIndex)).await;
    if exhibit!(LeaseRead) {
        use openraft::async_runtime::watch::WatchReceiver as _;

        return Ok(raft.metrics().borrow_watched().last_applied.map_or(0, |id| id.index));
    }
    match asked {
        Ok(Ok(linearizer)) => Ok(linearizer.read_log_id().index()),
        Ok(Err(RaftError::Fatal(_))) => Err(Round::Stopped),
        Ok(Err(RaftError::APIError(_))) | Err(_) => Err(Round::Failed),
    }
}

#[cfg(test)]
mod tests {
    use quilt_state::Horizon;

    use super::*;
    use crate::host;
    use crate::replica::Parts;

    /// openraft's own wait for a recovery (mended in alpha.29) was content with the first commit that a leader told of, which may be older
    /// than what this replica had served before. Readiness here is one read: whatever is applied meanwhile, it waits for
    /// the entry that the leader named when it was asked.
    #[tokio::test]
    async fn a_replica_is_not_ready_before_the_read_index_is_applied() {
        let store = Parts::memory().store;
        let at = |applied_index| Horizon { applied_index, ..Horizon::default() };
        let applied = Arc::new(Applied::new(store, at(3), 1, (0, 0)));
        let reads = Arc::new(ReadIndex::new(1, Arc::clone(&applied)));
        let first = {
            let reads = Arc::clone(&reads);
            TypeConfig::spawn(async move { reads.linearize(Duration::from_secs(30)).await })
        };
        let mut asked = Vec::new();
        while asked.is_empty() {
            host::yield_now().await;
            asked.append(&mut reads.waiters.lock());
        }
        for waiter in asked {
            waiter.send(7).expect("it waits");
        }
        let ready = reads.ready();
        for index in [4, 6] {
            applied.publish(at(index), 1, (0, 0));
            // Enough for whoever could go on to do so.
            for _ in 0..100 {
                host::yield_now().await;
            }
            assert!(!*ready.borrow(), "ready with entry {index} of 7");
        }
        applied.publish(at(7), 1, (0, 0));
        assert_eq!(first.await.expect("no panic"), Ok(()));
        assert!(*ready.borrow());
    }

    /// Where as many reads wait as may, one more is told so, and by which limit, at once and not as the lack of a leader; those
    /// whose callers have gone make room.
    #[tokio::test]
    async fn a_full_queue_of_reads_says_so() {
        let applied = Applied::new(Parts::memory().store, Horizon::default(), 0, (0, 0));
        let reads = ReadIndex::new(1, Arc::new(applied));
        let mut waiting: Vec<_> = (0..READS_MAX).map(|_| reads.ask().expect("there is room")).collect();
        let full = ReadError::Overloaded { limit: "READS_MAX" };
        let patience = Duration::from_secs(60);
        assert_eq!(reads.linearize(patience).await, Err(full.clone()));
        assert_eq!(reads.index().await, Err(full.clone()));
        assert!(full.to_string().contains("READS_MAX"), "{full}");
        waiting.truncate(READS_MAX - 1);
        assert_eq!(reads.linearize(Duration::from_millis(20)).await, Err(ReadError::NoLeader), "it waited");
        drop(waiting);
    }
}
