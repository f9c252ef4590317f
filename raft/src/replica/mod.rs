//! [`Replica`]: all that the layers above see of agreement. Knows everybody here a little.

mod assemble;
mod decision;
#[cfg(all(test, not(simulated)))]
mod leaks;
#[cfg(all(test, not(simulated)))]
mod mended;
mod options;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::type_config::TypeConfigExt;
use parking_lot::RwLock;
use quilt_proto::{KeyPrefix, ReplicaId, Revision, Txn};
use quilt_state::Store;
use quilt_storage::LogEngine;

use crate::admin::Admin;
#[cfg(test)]
use crate::answers::Answers;
use crate::applied::Applied;
use crate::clock::{self, Clock};
use crate::courier::Destination;
use crate::disk::Disk;
use crate::error::{AskError, OpenError, ProposeError, ReadError};
use crate::host::{self, Handle, JoinHandle, Threads, watch};
use crate::hub::{EventStream, Hub};
use crate::leadership::{LeaderId, Leadership};
use crate::proposer::{Proposer, Refused};
use crate::read::ReadIndex;
use crate::rebuild::Repaired;
use crate::requests::{Answer, Requests};
use crate::retention::Retention;
use crate::scan::Scanned;
use crate::service::{Handler, Services};
use crate::space::{Room, Space};
use crate::state_machine::Raft;
use crate::status::{self, History, Load, Member, Status};
use crate::transport::{PeerIdentity, PeerReport, Peers, Tls, TransportOptions};
use crate::types::TypeConfig;
use crate::view::{Consistency, View};

pub use decision::{Decision, DeletedRange};
pub use options::{Options, Parts};

/// Added to a transaction's expiry: clocks of proposer and leader may differ by what a message takes.
const EXPIRY_MARGIN_MS: u64 = 500;
/// A fenced write of a controller that is not decided by then is given up; the log says which way.
const LOCAL_DEADLINE: Duration = Duration::from_secs(10);
/// A leader that was heard from within this is at work.
const LED_WITHIN: Duration = Duration::from_millis(500);
/// How long a background write may wait for its turn.
const BACKGROUND_PATIENCE: Duration = Duration::from_secs(60);

struct Inner {
    options: Options,
    raft: Raft,
    store: Arc<dyn Store>,
    log: Arc<dyn LogEngine>,
    applied: Arc<Applied>,
    hub: Arc<Hub>,
    clock: Arc<Clock>,
    requests: Arc<Requests>,
    proposer: Arc<Proposer>,
    #[cfg(test)]
    answers: Arc<Answers>,
    reads: Arc<ReadIndex>,
    services: Arc<Services>,
    peers: Arc<Peers>,
    disk: Arc<Disk>,
    about: Arc<RwLock<Bytes>>,
    scanned: Arc<parking_lot::Mutex<Option<Scanned>>>,
    scanned_bytes: Arc<std::sync::atomic::AtomicU64>,
    repaired: Vec<Repaired>,
    alarms: Arc<parking_lot::Mutex<Vec<String>>>,
    space: Space,
    tls: Option<Arc<Tls>>,
    retention: Retention,
    leadership: watch::Receiver<Leadership>,
    destination: watch::Receiver<Destination>,
    stopped: Arc<watch::Sender<Option<String>>>,
    threads: parking_lot::Mutex<Option<Threads>>,
    control: Handle,
}

/// One replica of the control plane. Cheap to clone; the replica stops when the last clone is gone.
#[derive(Clone)]
pub struct Replica {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replica {}", self.inner.options.id)
    }
}

impl Replica {
    /// A control plane of one replica that keeps everything in memory. The same code as any other, for tests of the
    /// layers above; ready for reads and writes when it returns.
    ///
    /// # Panics
    /// When the operating system gives no threads.
    pub async fn memory(id: ReplicaId) -> Self {
        let options = Options::new(id, "memory");
        let replica = Self::open(options, Parts::memory(), None).await.expect("memory storage opens");
        let members = BTreeMap::from([(id, String::new())]);
        replica.admin().initialize(members).await.expect("a replica without data can be initialized");
        let mut session = replica.inner.requests.session();
        session.wait_for(Option::is_some).await.expect("the replica was just started");
        let mut ready = replica.inner.reads.ready();
        ready.wait_for(|ready| *ready).await.expect("the replica was just started");
        replica
    }

    /// Opens a replica over its data. The future is boxed so that the agreement library is compiled here, once: what an
    /// `async fn` does is compiled anew by every crate that awaits it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        options: Options,
        parts: Parts,
        transport: Option<TransportOptions>,
    ) -> BoxFuture<'static, Result<Self, OpenError>> {
        Box::pin(async move {
            let threads = Threads::start().map_err(OpenError::Runtime)?;
            let assembled = threads.control().spawn(assemble::assemble(options, parts, transport, threads));
            let inner = assembled.await.map_err(|error| OpenError::Runtime(std::io::Error::other(error)))??;
            Ok(Self { inner: Arc::new(inner) })
        })
    }

    /// This replica's id.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.inner.options.id
    }

    /// Changes keys, exactly once, from any replica. Returns after this replica has applied it too, unless it lags.
    ///
    /// # Errors
    /// See [`ProposeError`]. While there is no leader this waits until the deadline.
    pub async fn propose(&self, txn: Txn, deadline: Duration) -> Result<Decision, ProposeError> {
        #[cfg(simulated)]
        if let Some(refused) = crate::inspect::refused_by_own_state(&txn, &self.inner.applied) {
            return Ok(refused);
        }
        self.request(txn, deadline, None).await
    }

    /// Changes keys only while this leadership holds: it is checked where the entry is appended.
    ///
    /// # Errors
    /// See [`ProposeError`]; [`ProposeError::NotLeader`] when the leadership ended first.
    pub async fn propose_local(&self, leader: LeaderId, txn: Txn) -> Result<Decision, ProposeError> {
        if self.inner.leadership.borrow().held() != Some(leader) {
            return Err(ProposeError::NotLeader);
        }
        self.request(txn, LOCAL_DEADLINE, Some(leader)).await
    }

    /// Writes what nobody waits for and nobody misses, such as Events: only while nothing else is to be written, within a
    /// budget of bytes, and not again when it is lost with the leadership. Returns once it is applied.
    ///
    /// # Errors
    /// See [`ProposeError`]; [`ProposeError::Overloaded`] when too much waits already.
    pub async fn propose_background(&self, leader: LeaderId, mut txn: Txn) -> Result<(), ProposeError> {
        // What could not be told by then is not worth telling.
        txn.expires_at_ms = self.inner.clock.now_ms().saturating_add(clock::millis(BACKGROUND_PATIENCE));
        let done = self.inner.proposer.background(txn, leader).map_err(|refused| match refused {
            Refused::NotLeader => ProposeError::NotLeader,
            Refused::Overloaded(limit) => ProposeError::Overloaded { limit },
        })?;
        match self.unless_stopped(done).await {
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) if self.inner.leadership.borrow().held() != Some(leader) => Err(ProposeError::NotLeader),
            Some(Err(_)) => Err(ProposeError::Unknown),
            None => Err(ProposeError::Stopped),
        }
    }

    async fn request(&self, txn: Txn, deadline: Duration, fence: Option<LeaderId>) -> Result<Decision, ProposeError> {
        use openraft::Instant as _;

        let began = TypeConfig::now();
        let mut session = self.inner.requests.session();
        let registered = async {
            let session = session.wait_for(Option::is_some).await.map_err(|_| ProposeError::Stopped)?;
            (*session).ok_or(ProposeError::NotApplied)
        };
        // Until the session is registered nothing has been sent.
        let registered = TypeConfig::timeout(deadline, self.unless_stopped(registered)).await;
        let session = registered.map_err(|_| ProposeError::NotApplied)?.ok_or(ProposeError::Stopped)??;
        let left = deadline.saturating_sub(began.elapsed());
        let patience_ms = clock::millis(left).saturating_add(EXPIRY_MARGIN_MS);
        let expires_at_ms = self.inner.clock.now_ms().saturating_add(patience_ms);
        let answer = self.inner.requests.begin(session, txn, expires_at_ms, left, fence)?;
        match answer.await {
            Ok(Answer::Outcome(outcome)) => Decision::of(outcome),
            Ok(Answer::NotApplied) => Err(ProposeError::NotApplied),
            Ok(Answer::NotLeader) => Err(ProposeError::NotLeader),
            Ok(Answer::Overloaded(limit)) => Err(ProposeError::Overloaded { limit }),
            Ok(Answer::Unknown) | Err(_) => Err(ProposeError::Unknown),
        }
    }

    /// `None` when the replica stops first.
    async fn unless_stopped<T>(&self, wanted: impl Future<Output = T> + Send) -> Option<T>
    where
        T: Send,
    {
        use openraft::async_runtime::Select2;

        let mut stopped = self.inner.stopped.subscribe();
        let stopped = async { stopped.wait_for(Option::is_some).await.map(drop) };
        match TypeConfig::select2(std::pin::pin!(wanted), std::pin::pin!(stopped)).await {
            Select2::First(value) => Some(value),
            Select2::Second(_) => None,
        }
    }

    /// The state, as fresh as asked for.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(&self, consistency: Consistency, deadline: Duration) -> Result<View, ReadError> {
        let inner = &self.inner;
        let reading = async {
            match consistency {
                Consistency::Linearizable => inner.reads.linearize(deadline).await?,
                Consistency::Stale => self.caught_up_once(deadline).await?,
                Consistency::AtLeast(revision) => {
                    self.caught_up_once(deadline).await?;
                    let mut applied = inner.applied.watch();
                    let reached = async { applied.wait_for(|mark| mark.revision >= revision).await.map(drop) };
                    match TypeConfig::timeout(deadline, reached).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return Err(ReadError::Stopped),
                        Err(_) => return Err(ReadError::Ahead { current: inner.applied.mark().revision }),
                    }
                }
            }
            let newest = View::newest(&inner.applied);
            if host::exhibit!(ViewInsideTxn) && consistency == Consistency::Stale {
                return newest.at(Revision::new(newest.revision().get().saturating_sub(1)));
            }
            Ok(newest)
        };
        self.unless_stopped(reading).await.unwrap_or(Err(ReadError::Stopped))
    }

    /// A restarted replica serves nothing, not even stale reads, before it has applied one linearizable point.
    async fn caught_up_once(&self, deadline: Duration) -> Result<(), ReadError> {
        let mut ready = self.inner.reads.ready();
        if *ready.borrow() {
            return Ok(());
        }
        let ready = async { ready.wait_for(|ready| *ready).await.map(drop) };
        match TypeConfig::timeout(deadline, ready).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Stopped),
            Err(_) => Err(ReadError::NoLeader),
        }
    }

    /// Whether this replica has caught up once since it started, and may serve reads.
    #[must_use]
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.inner.reads.ready()
    }

    /// Every change under `prefix` behind `from`, in order, each once.
    #[must_use]
    pub fn watch(&self, prefix: KeyPrefix, from: Revision) -> EventStream {
        self.inner.hub.watch(prefix, from)
    }

    fn alarms(&self, members: &[Member]) -> Vec<String> {
        let mut alarms = self.inner.alarms.lock().clone();
        let id = self.inner.options.id;
        match self.inner.space.room() {
            Room::Enough => {}
            Room::Low => alarms.push(format!("the disk of replica {id} is nearly full: no new objects while it leads")),
            Room::Out => alarms.push(format!("the disk of replica {id} is full: only deletions while it leads")),
        }
        alarms.extend(self.inner.clock.apart().map(|apart| apart.alarm(id)));
        for member in members.iter().filter(|member| member.disk_is_slow == Some(true)) {
            let (id, ms) = (member.id, member.log_sync_us.unwrap_or(0) / 1_000);
            alarms.push(format!("the disk of replica {id} is slow: a sync of its log takes {ms} ms"));
        }
        alarms
    }

    /// One truthful picture of this replica.
    #[must_use]
    pub fn status(&self) -> Status {
        use openraft::async_runtime::watch::WatchReceiver as _;

        let inner = &self.inner;
        let metrics = inner.raft.metrics().borrow_watched().clone();
        let mark = inner.applied.mark();
        let own = || PeerReport {
            term: mark.term,
            applied_index: mark.index,
            about: inner.about.read().clone(),
            sync: inner.disk.sync(),
            disk_is_slow: inner.disk.is_slow(),
            at: TypeConfig::now(),
        };
        let report = |id| if id == inner.options.id.0 { Some(own()) } else { inner.peers.report(id) };
        let (members, failures_tolerated) = status::members(&metrics, |id| inner.peers.heard(id), report);
        let error = inner.stopped.borrow().clone();
        Status {
            id: inner.options.id,
            cluster: inner.options.cluster.clone(),
            epoch: inner.options.epoch,
            role: status::role(&metrics),
            leadership: *inner.leadership.borrow(),
            term: metrics.current_term,
            leader: status::leader(&metrics).map(ReplicaId),
            ready: *inner.reads.ready().borrow(),
            last_log_index: metrics.last_log_index.unwrap_or(0),
            committed_index: metrics.cluster_committed.as_ref().map_or(0, |id| id.index),
            applied_index: mark.index,
            snapshot_index: metrics.snapshot.as_ref().map(|id| id.index),
            purged_index: metrics.purged.as_ref().map(|id| id.index),
            log_bytes: inner.log.bytes(),
            revision: mark.revision.get(),
            history: History::of(&inner.applied.horizon()),
            state_hash: format!("{:016x}{:016x}", mark.hash.0, mark.hash.1),
            cluster_time_ms: self.cluster_time_ms(),
            quorum_acknowledged_ms: status::quorum_acknowledged_ms(&metrics),
            alarms: self.alarms(&members),
            members,
            membership_changing: metrics.membership_config.get_joint_config().len() > 1,
            failures_tolerated,
            load: Load {
                proposals_waiting: inner.proposer.waiting(),
                event_ring_bytes: inner.hub.bytes(),
                watched_prefixes: inner.hub.prefixes(),
                log_syncs: inner.log.syncs(),
            },
            scanned: inner.scanned.lock().clone(),
            scanned_bytes: inner.scanned_bytes.load(std::sync::atomic::Ordering::Relaxed),
            repaired: inner.repaired.clone(),
            error,
        }
    }

    /// Says what peers are told of this replica beside what raft knows: see [`crate::Member::about`].
    pub fn describe(&self, about: String) {
        *self.inner.about.write() = about.into();
    }

    /// Leadership gained and lost, as it may be relied on.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Whether a leader was at work within the last half second, as far as can be told here: what waits for one may get an
    /// answer.
    #[must_use]
    pub fn is_led(&self) -> bool {
        use openraft::async_runtime::watch::WatchReceiver as _;

        if self.inner.leadership.borrow().held().is_some() {
            return true;
        }
        let leader = self.inner.raft.server_metrics().borrow_watched().current_leader;
        let heard = leader.and_then(|leader| self.inner.peers.heard(leader));
        heard.is_some_and(|ago| ago < LED_WITHIN)
    }

    /// Cluster time: the clock every expiry counts by. Best local estimate.
    #[must_use]
    pub fn cluster_time_ms(&self) -> u64 {
        self.inner.clock.now_ms()
    }

    /// This host's wall clock, for timestamps people read.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        host::wall_ms()
    }

    /// Offers a service kept in the leader's memory. Register it on every replica; only the leader's is asked.
    pub fn serve(&self, service: &'static str, handler: Handler) {
        self.inner.services.register(service, handler);
    }

    /// Asks a service of whoever leads.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask_leader(
        &self,
        service: &'static str,
        request: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, AskError> {
        let asking = self.inner.services.ask(service, request, deadline);
        self.unless_stopped(asking).await.unwrap_or(Err(AskError::Stopped))
    }

    /// Takes a renewed peer certificate, or a changed set of authorities, for all connections from here on.
    ///
    /// # Errors
    /// It cannot be used; the one before stays in use.
    pub fn renew_identity(&self, identity: PeerIdentity) -> Result<(), OpenError> {
        match &self.inner.tls {
            Some(tls) => tls.renew(self.inner.options.id, identity),
            None => Ok(()),
        }
    }

    /// Changes of the control plane itself.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin { replica: self.clone() }
    }

    /// Waits until the replica has stopped, and says why. A failed replica must be taken out of service.
    pub async fn stopped(&self) -> String {
        let mut stopped = self.inner.stopped.subscribe();
        let reason = stopped.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }

    /// Stops the replica: waiting callers are answered, the state is flushed, threads end.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        let raft = inner.raft.clone();
        let ended = self.on_runtime(async move { raft.shutdown().await });
        inner.stop("shut down");
        inner.services.end();
        if ended.await.is_err() {
            return; // the runtime has ended: somebody else has shut down
        }
        let store = Arc::clone(&inner.store);
        let threads = inner.threads.lock().take();
        let last = TypeConfig::spawn_blocking(move || {
            if let Err(error) = store.flush() {
                tracing::error!(%error, "flushing the state at shutdown");
            }
            if let Some(threads) = threads {
                threads.end();
            }
        });
        if let Err(error) = last.await {
            tracing::error!(%error, "ending the threads of the replica");
        }
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    pub(crate) fn applied(&self) -> &Arc<Applied> {
        &self.inner.applied
    }

    pub(crate) fn retention(&self) -> &Retention {
        &self.inner.retention
    }

    pub(crate) fn proposer(&self) -> &Arc<Proposer> {
        &self.inner.proposer
    }

    pub(crate) fn destination(&self) -> watch::Receiver<Destination> {
        self.inner.destination.clone()
    }

    /// Runs something on the replica's own threads; an error means they have ended.
    pub(crate) fn on_runtime<T: Send + 'static>(
        &self,
        what: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.inner.control.spawn(what)
    }
}

impl Inner {
    fn stop(&self, reason: &str) {
        stop(&self.stopped, &self.requests, &self.hub, &self.reads, reason);
    }
}

/// Ends everybody who waits.
fn stop(stopped: &watch::Sender<Option<String>>, requests: &Requests, hub: &Hub, reads: &ReadIndex, reason: &str) {
    stopped.send_if_modified(|known| {
        let first = known.is_none();
        if first {
            *known = Some(reason.to_owned());
        }
        first
    });
    requests.stop();
    hub.stop();
    reads.stop();
}
