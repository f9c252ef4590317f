//! Makes what runs on this host what the control plane's list says should: starts, changes, ends, and has each pod reported.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use crate::assignment::{Assignment, AssignmentError};
use crate::client::Pause;
use crate::error::AgentError;
use crate::logs::PodLogs;
use crate::report;
use crate::runtime::{PodHandle, Runtime, Stop, StopCause};
use crate::session::{Session, SessionError};
use crate::status::{Observation, Progress};

/// When the agent stops with its pods, none gets longer than this: whoever stops the agent is waiting.
const LAST_GRACE: Duration = Duration::from_secs(10);
/// A refused list is not a dead replica: it will be refused again, so it is asked for slowly.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// What the log endpoint may know of a pod.
#[derive(Debug, Clone)]
pub(crate) struct PodEntry {
    uid: String,
    pub(crate) logs: PodLogs,
    pub(crate) observed: watch::Receiver<Observation>,
}

/// The pods on this host by namespace and name. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodTable {
    pods: Arc<Mutex<BTreeMap<(String, String), PodEntry>>>,
}

impl PodTable {
    pub(crate) fn find(&self, namespace: &str, name: &str) -> Option<PodEntry> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    fn enter(&self, assignment: &Assignment, handle: &PodHandle) {
        let pod = &assignment.pod;
        let entry = PodEntry { uid: pod.uid.clone(), logs: handle.logs.clone(), observed: handle.observed.clone() };
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.insert((pod.namespace.clone(), pod.name.clone()), entry);
    }

    fn leave(&self, assignment: &Assignment) {
        let pod = &assignment.pod;
        let key = (pod.namespace.clone(), pod.name.clone());
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        // Another pod of that name may have come meanwhile.
        if pods.get(&key).is_some_and(|entry| entry.uid == pod.uid) {
            pods.remove(&key);
        }
    }
}

/// A pod in care, and who tells of it.
struct Cared {
    handle: PodHandle,
    reporting: JoinHandle<()>,
}

/// Keeps the host in step with the list.
pub(crate) struct Sync {
    session: Session,
    runtime: Runtime,
    node: IpAddr,
    table: PodTable,
    /// By uid.
    cared: BTreeMap<String, Cared>,
    /// The newest list.
    wanted: Vec<Assignment>,
    /// Terminating placements this host knows nothing of, already reported.
    disowned: BTreeSet<String>,
    over: mpsc::UnboundedSender<String>,
    ended: mpsc::UnboundedReceiver<String>,
}

impl Sync {
    pub(crate) fn new(session: Session, runtime: Runtime, table: PodTable, node: IpAddr) -> Self {
        // At most one message a pod; the number of pods on a node is bounded by the scheduler.
        let (over, ended) = mpsc::unbounded_channel();
        Self {
            session,
            runtime,
            node,
            table,
            cared: BTreeMap::new(),
            wanted: Vec::new(),
            disowned: BTreeSet::new(),
            over,
            ended,
        }
    }

    /// Takes up the pods of an earlier run, before the control plane is asked.
    pub(crate) fn restore(&mut self) {
        for (assignment, handle) in self.runtime.restore() {
            info!(pod = %assignment.pod.name, "pod taken up again");
            self.take_into_care(&assignment, handle);
        }
    }

    /// Follows the list until the node is removed.
    pub(crate) async fn run(&mut self) -> Result<(), AgentError> {
        let (lists, mut newest) = mpsc::channel(1);
        let polling = tokio::spawn(poll(self.session.clone(), lists));
        let result = loop {
            tokio::select! {
                list = newest.recv() => match list {
                    Some(list) => {
                        self.take_list(&list);
                        self.reconcile();
                    }
                    None => break Err(AgentError::NodeRemoved {
                        name: self.session.node_name().to_owned(),
                    }),
                },
                Some(uid) = self.ended.recv() => {
                    self.let_go(&uid);
                    self.reconcile();
                }
            }
        };
        polling.abort();
        result
    }

    fn take_list(&mut self, list: &Value) {
        self.wanted.clear();
        for entry in list["assignments"].as_array().into_iter().flatten() {
            match Assignment::parse(entry) {
                Ok(assignment) => self.wanted.push(assignment),
                Err(AssignmentError::NoPlacement) => {
                    warn!("an entry of the list of placements has no placement.id");
                }
                Err(AssignmentError::Pod { placement_id, source }) => {
                    self.report_once(placement_id, "failed", format!("the pod cannot be run: {source}"));
                }
            }
        }
        let terminating: BTreeSet<&str> = list["assignments"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|entry| entry["placement"]["id"].as_str())
            .collect();
        self.disowned.retain(|id| terminating.contains(id.as_str()));
    }

    fn reconcile(&mut self) {
        let wanted_uids: BTreeSet<&str> = self.wanted.iter().map(|assignment| assignment.pod.uid.as_str()).collect();
        for (uid, cared) in &self.cared {
            if !wanted_uids.contains(uid.as_str()) {
                let grace = cared.handle.assignment.borrow().pod.grace();
                cared.handle.stop(Stop { grace, cause: StopCause::Unwanted });
            }
        }
        let wanted = std::mem::take(&mut self.wanted);
        for assignment in &wanted {
            self.make_so(assignment);
        }
        self.wanted = wanted;
    }

    fn make_so(&mut self, assignment: &Assignment) {
        let pod = &assignment.pod;
        if let Some(cared) = self.cared.get(&pod.uid) {
            cared.handle.assignment.send_if_modified(|current| {
                let differs = current != assignment;
                if differs {
                    current.clone_from(assignment);
                }
                differs
            });
            if assignment.terminating {
                cared.handle.stop(Stop { grace: pod.grace(), cause: StopCause::Unwanted });
            }
            return;
        }
        if assignment.terminating {
            let why = "the pod was not running on this node when it was deleted";
            self.report_once(assignment.placement_id.clone(), "failed", why.to_owned());
            return;
        }
        // A predecessor that is still ending keeps its name and its placement until it is gone.
        let waits = self.cared.values().any(|cared| {
            let other = cared.handle.assignment.borrow();
            other.placement_id == assignment.placement_id
                || (other.pod.namespace == pod.namespace && other.pod.name == pod.name)
        });
        if waits {
            debug!(pod = %pod.name, "waits for its predecessor to end");
            return;
        }
        match self.runtime.start(assignment.clone()) {
            Ok(handle) => {
                info!(pod = %pod.name, namespace = %pod.namespace, "pod started");
                self.take_into_care(assignment, handle);
            }
            Err(error) => {
                warn!(pod = %pod.name, %error, "pod cannot be started");
                let why = format!("the node cannot keep the pod: {error}");
                self.report_once(assignment.placement_id.clone(), "failed", why);
            }
        }
    }

    fn take_into_care(&mut self, assignment: &Assignment, mut handle: PodHandle) {
        self.table.enter(assignment, &handle);
        let reporting = tokio::spawn(report::run(
            self.session.clone(),
            handle.assignment.subscribe(),
            handle.observed.clone(),
            self.node,
        ));
        let uid = assignment.pod.uid.clone();
        let over = self.over.clone();
        let mut observed = handle.observed.clone();
        let telling = uid.clone();
        tokio::spawn(async move {
            let stopped = observed.wait_for(|seen| seen.progress == Progress::Stopped).await.is_ok();
            if stopped {
                let _agent_ends = over.send(telling);
            }
        });
        handle.observed.mark_unchanged();
        self.cared.insert(uid, Cared { handle, reporting });
    }

    /// A pod has ended: its last report goes on by itself, all else of it goes.
    fn let_go(&mut self, uid: &str) {
        let Some(cared) = self.cared.remove(uid) else {
            return;
        };
        let assignment = cared.handle.assignment.borrow().clone();
        info!(pod = %assignment.pod.name, "pod ended");
        // The list may show it until the report has arrived; it is not to be reported as unknown meanwhile.
        self.disowned.insert(assignment.placement_id.clone());
        self.table.leave(&assignment);
        self.runtime.forget(uid);
        drop(cared.reporting);
    }

    /// Reports a placement this host has no pod for.
    fn report_once(&mut self, placement_id: String, state: &'static str, message: String) {
        if !self.disowned.insert(placement_id.clone()) {
            return;
        }
        let session = self.session.clone();
        tokio::spawn(async move {
            let body = json!({"state": state, "message": message});
            let mut pause = Pause::default();
            while let Err(SessionError::Unavailable(_)) = session.report(&placement_id, body.clone()).await {
                pause.wait().await;
            }
        });
    }

    /// Ends all pods and waits for that; their reports would be of no use and are not made.
    pub(crate) async fn stop_all(&mut self) {
        for cared in self.cared.values() {
            cared.reporting.abort();
            let grace = cared.handle.assignment.borrow().pod.grace().min(LAST_GRACE);
            let cause = if self.session.is_removed() { StopCause::Unwanted } else { StopCause::AgentStops };
            cared.handle.stop(Stop { grace, cause });
        }
        for (uid, cared) in std::mem::take(&mut self.cared) {
            let _panicked = cared.handle.task.await;
            if self.session.is_removed() {
                self.runtime.forget(&uid);
            }
        }
    }

    /// Leaves all pods as they are, for the next run of the agent.
    pub(crate) fn leave_all(&mut self) {
        for cared in std::mem::take(&mut self.cared).into_values() {
            cared.reporting.abort();
            cared.handle.task.abort();
        }
    }
}

/// Asks for the list for ever; the channel closes when the node is removed.
async fn poll(session: Session, lists: mpsc::Sender<Value>) {
    let mut etag: Option<String> = None;
    let mut pause = Pause::default();
    loop {
        match session.placements(etag.as_deref()).await {
            Ok(answer) if answer.status == 304 => pause.reset(),
            Ok(answer) => {
                pause.reset();
                let unchanged = answer.etag.is_some() && answer.etag == etag;
                etag = answer.etag;
                if !unchanged && lists.send(answer.body).await.is_err() {
                    return;
                }
                if etag.is_none() {
                    // A server without ETags answers at once each time.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Err(SessionError::Removed) => return,
            Err(SessionError::Refused { status, message }) => {
                warn!(status, %message, "the list of placements was refused");
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
            Err(SessionError::Unavailable(reason)) => {
                debug!(%reason, "the list of placements waits for the control plane");
                pause.wait().await;
            }
        }
    }
}
