//! What is known of one pod, in memory for whoever watches and on disk for the next run of the agent. One place changes both.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use tracing::warn;

use crate::assignment::Assignment;
use crate::clock;
use crate::durable;
use crate::logs::PodLogs;
use crate::pod::Pod;
use crate::runtime::process::ProcessConfig;
use crate::status::{ContainerRecord, Observation, Progress};

const FILE: &str = "pod.json";

/// A pod as it stands on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PodRecord {
    pub(super) placement_id: String,
    pub(super) pod: Value,
    pub(super) seen: Observation,
}

impl PodRecord {
    pub(super) fn read(directory: &Path) -> io::Result<Option<Self>> {
        let Some(bytes) = durable::read_if_there(&directory.join(FILE))? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other)
    }
}

/// Nothing has happened to this pod yet.
pub(super) fn fresh(pod: &Pod) -> Observation {
    let waiting = if pod.spec.init_containers.is_empty() { "ContainerCreating" } else { "PodInitializing" };
    let records = |containers: &[crate::pod::Container]| {
        containers.iter().map(|container| ContainerRecord::waiting(container, waiting)).collect()
    };
    Observation {
        init: records(&pod.spec.init_containers),
        containers: records(&pod.spec.containers),
        started_at: clock::to_seconds(clock::now()),
        progress: Progress::Going,
    }
}

/// Which container of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    Init(usize),
    Main(usize),
}

/// A pod in care: its place on disk and what is seen of it.
#[derive(Debug)]
pub(super) struct PodState {
    pub(super) config: Arc<ProcessConfig>,
    pub(super) directory: PathBuf,
    pub(super) logs: PodLogs,
    assignment: watch::Receiver<Assignment>,
    observed: watch::Sender<Observation>,
    /// Orders writes of the record, so that an older one never replaces a newer.
    writing: Mutex<()>,
}

impl PodState {
    pub(super) fn new(
        config: Arc<ProcessConfig>,
        directory: PathBuf,
        assignment: watch::Receiver<Assignment>,
        seen: Observation,
        logs: PodLogs,
    ) -> (Self, watch::Receiver<Observation>) {
        let (observed, receiver) = watch::channel(seen);
        let state = Self { config, directory, logs, assignment, observed, writing: Mutex::new(()) };
        state.write();
        (state, receiver)
    }

    pub(super) fn pod(&self) -> Arc<Pod> {
        self.assignment.borrow().pod.clone()
    }

    pub(super) fn seen(&self) -> watch::Receiver<Observation> {
        self.observed.subscribe()
    }

    pub(super) fn container(&self, slot: Slot) -> ContainerRecord {
        let seen = self.observed.borrow();
        match slot {
            Slot::Init(index) => seen.init[index].clone(),
            Slot::Main(index) => seen.containers[index].clone(),
        }
    }

    /// Changes what is known of one container; written and told only if it differs.
    pub(super) fn update(&self, slot: Slot, change: impl FnOnce(&mut ContainerRecord)) {
        self.change(|seen| match slot {
            Slot::Init(index) => change(&mut seen.init[index]),
            Slot::Main(index) => change(&mut seen.containers[index]),
        });
    }

    pub(super) fn set_progress(&self, progress: Progress) {
        self.change(|seen| seen.progress = progress);
    }

    fn change(&self, change: impl FnOnce(&mut Observation)) {
        let changed = self.observed.send_if_modified(|seen| {
            let before = seen.clone();
            change(seen);
            *seen != before
        });
        if changed {
            self.write();
        }
    }

    fn write(&self) {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (placement_id, pod) = {
            let assignment = self.assignment.borrow();
            (assignment.placement_id.clone(), assignment.pod.object.clone())
        };
        let record = PodRecord { placement_id, pod, seen: self.observed.borrow().clone() };
        let written = serde_json::to_vec(&record)
            .map_err(io::Error::other)
            .and_then(|bytes| durable::swap(&self.directory.join(FILE), &bytes));
        if let Err(error) = written {
            warn!(pod = %self.directory.display(), %error, "pod record cannot be written");
        }
    }
}
