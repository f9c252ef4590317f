//! What runs pods. A runtime turns an assignment into a task that keeps the pod as it should be and says what it sees; it knows nothing of
//! the control plane.

pub(crate) mod process;
mod simulated;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::assignment::Assignment;
use crate::events::Teller;
use crate::logs::PodLogs;
use crate::options::{AgentOptions, RuntimeKind};
use crate::runtime::process::{ProcessConfig, ProcessRuntime};
use crate::status::Observation;

/// A wish that a pod ends, and the time it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stop {
    pub(crate) grace: Duration,
    pub(crate) cause: StopCause,
}

/// Why a pod is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopCause {
    /// It is not wanted on this node any more; nothing of it stays.
    Unwanted,
    /// The agent stops and takes its pods with it; the next start runs them again.
    AgentStops,
}

/// A pod in the care of a runtime. Dropping it lets the pod go on unattended.
#[derive(Debug)]
pub(crate) struct PodHandle {
    pub(crate) assignment: watch::Sender<Assignment>,
    pub(crate) stop: watch::Sender<Option<Stop>>,
    pub(crate) observed: watch::Receiver<Observation>,
    pub(crate) logs: PodLogs,
    pub(crate) task: JoinHandle<()>,
}

impl PodHandle {
    /// Asks for the end. A second wish counts when it is more urgent.
    pub(crate) fn stop(&self, wish: Stop) {
        self.stop.send_if_modified(|current| match current {
            Some(earlier) if earlier.grace <= wish.grace => false,
            _ => {
                *current = Some(wish);
                true
            }
        });
    }
}

/// The runtime an agent was started with.
#[derive(Debug, Clone)]
pub(crate) enum Runtime {
    Process(ProcessRuntime),
    Simulated,
}

impl Runtime {
    pub(crate) fn new(
        options: &AgentOptions,
        node_name: &str,
        node: IpAddr,
        pods: std::path::PathBuf,
        events: Teller,
    ) -> Self {
        match options.runtime {
            RuntimeKind::Simulated => Self::Simulated,
            RuntimeKind::Process => Self::Process(ProcessRuntime::new(Arc::new(ProcessConfig {
                pods,
                node_name: node_name.to_owned(),
                node,
                search_path: options.search_path.clone(),
                backoff: options.restart_backoff,
                log_bytes_max: options.log_bytes_max,
                keeper: options.keeper.clone(),
                events,
            }))),
        }
    }

    /// Takes a pod into care.
    pub(crate) fn start(&self, assignment: Assignment) -> std::io::Result<PodHandle> {
        match self {
            Self::Process(runtime) => runtime.start(assignment),
            Self::Simulated => Ok(simulated::start(assignment)),
        }
    }

    /// Takes up the pods that an earlier run of the agent left.
    pub(crate) fn restore(&self) -> Vec<(Assignment, PodHandle)> {
        match self {
            Self::Process(runtime) => runtime.restore(),
            Self::Simulated => Vec::new(),
        }
    }

    /// Removes what an ended pod leaves on disk.
    pub(crate) fn forget(&self, uid: &str) {
        if let Self::Process(runtime) = self {
            runtime.forget(uid);
        }
    }
}
