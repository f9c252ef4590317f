//! Runs each container as a supervised process of the host.
//!
//! What a container sees, and what it does not:
//! - **Program.** The image is not pulled. `command` followed by `args` is run if its first word is an executable of this host: a path, or a
//!   name found in the container's `PATH`. Otherwise the container waits with reason `ImageNotRunnable`; it is looked for again every 10 s.
//! - **Environment.** Only what the Pod says, `$(VAR)` expanded, plus `PATH`, `HOSTNAME`, `HOME` and the `QUILT_*` names below; nothing of the agent's.
//! - **Files.** There is no mount namespace: paths are the host's. `QUILT_POD_DIR` is the pod's own directory, `QUILT_VOLUME_<NAME>` each
//!   volume (name in capitals, other characters as `_`), and `QUILT_ROOT` a directory in which every `mountPath` is a link to its volume:
//!   `$QUILT_ROOT/etc/config` for a mount at `/etc/config`. Volumes: emptyDir, hostPath, configMap, secret, projected (ConfigMaps and Secrets),
//!   downwardAPI. Any other keeps the container waiting with `CreateContainerConfigError`.
//! - **Working directory.** `workingDir` must exist on the host; without it, the pod's directory.
//! - **Network.** The host's: podIP is the node's address, and ports are not separated.
//! - **User and limits.** The agent's user; CPU and memory limits are not enforced.
//! - **Life.** A process group of its own. SIGTERM to the group, SIGKILL after the grace period; when the first process ends, what is left
//!   of its group is killed. A container's output passes through named pipes, so an agent's restart neither ends it nor loses its output;
//!   one that is not collected for a pipe's worth (64 KiB) makes the writer wait. The exit code of a process that ended while no agent
//!   ran is what its keeper wrote down; where the host went down with both, it is unknown and reported as 137 with reason
//!   `ContainerStatusUnknown`, as a kubelet does.

mod backoff;
mod child;
mod container;
mod environment;
mod launch;
mod output;
mod probe;
mod record;
mod supervisor;
mod volumes;

pub(crate) use child::start_ticks;

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::warn;

use crate::assignment::Assignment;
use crate::durable;
use crate::events::Teller;
use crate::logs::PodLogs;
use crate::options::RestartBackoff;
use crate::pod::Pod;
use crate::runtime::PodHandle;
use crate::runtime::process::record::{PodRecord, PodState};
use crate::status::Observation;

/// What all pods of this runtime share.
#[derive(Debug)]
pub(crate) struct ProcessConfig {
    /// One directory a pod, named by its uid.
    pub(crate) pods: PathBuf,
    pub(crate) node_name: String,
    pub(crate) node: IpAddr,
    pub(crate) search_path: String,
    pub(crate) backoff: RestartBackoff,
    pub(crate) log_bytes_max: u64,
    /// The command line of a keeper, without its arguments; containers are started directly when absent.
    pub(crate) keeper: Option<Vec<OsString>>,
    pub(crate) events: Teller,
}

/// The runtime. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct ProcessRuntime {
    config: Arc<ProcessConfig>,
}

impl ProcessRuntime {
    pub(crate) fn new(config: Arc<ProcessConfig>) -> Self {
        Self { config }
    }

    pub(crate) fn start(&self, assignment: Assignment) -> io::Result<PodHandle> {
        let directory = self.config.pods.join(&assignment.pod.uid);
        durable::private_directory(&directory)?;
        let seen = record::fresh(&assignment.pod);
        self.care_for(directory, assignment, seen)
    }

    /// The pods on disk, with what was known of them when the last agent ended.
    pub(crate) fn restore(&self) -> Vec<(Assignment, PodHandle)> {
        let Ok(entries) = std::fs::read_dir(&self.config.pods) else {
            return Vec::new();
        };
        let mut pods = Vec::new();
        for entry in entries.flatten() {
            let directory = entry.path();
            match PodRecord::read(&directory) {
                Ok(Some(record)) => match self.resume(directory.clone(), &record) {
                    Ok(resumed) => pods.push(resumed),
                    Err(error) => warn!(pod = %directory.display(), %error, "pod cannot be resumed"),
                },
                // Made and never started: nothing of it can run.
                Ok(None) => self.forget(&entry.file_name().to_string_lossy()),
                Err(error) => warn!(pod = %directory.display(), %error, "pod record cannot be read"),
            }
        }
        pods
    }

    fn resume(&self, directory: PathBuf, record: &PodRecord) -> io::Result<(Assignment, PodHandle)> {
        let pod = Pod::parse(&record.pod).map_err(io::Error::other)?;
        let assignment = Assignment {
            placement_id: record.placement_id.clone(),
            terminating: false,
            pod: Arc::new(pod),
            materials: None,
        };
        let handle = self.care_for(directory, assignment.clone(), record.seen.clone())?;
        Ok((assignment, handle))
    }

    fn care_for(&self, directory: PathBuf, assignment: Assignment, seen: Observation) -> io::Result<PodHandle> {
        let pod = assignment.pod.clone();
        let logs = PodLogs::new(&directory, pod.spec.init_containers.iter().chain(&pod.spec.containers))?;
        let (assignment_sender, assignment) = watch::channel(assignment);
        let (stop_sender, stop) = watch::channel(None);
        let (state, observed) = PodState::new(self.config.clone(), directory, assignment.clone(), seen, logs.clone());
        let task = tokio::spawn(supervisor::run(Arc::new(state), assignment, stop));
        Ok(PodHandle { assignment: assignment_sender, stop: stop_sender, observed, logs, task })
    }

    pub(crate) fn forget(&self, uid: &str) {
        let directory = self.config.pods.join(uid);
        if let Err(error) = std::fs::remove_dir_all(&directory)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(pod = %directory.display(), %error, "pod directory cannot be removed");
        }
    }
}
