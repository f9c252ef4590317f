//! The output of containers: the files it is kept in, reading them back, and the endpoint that serves them to the control plane.
//!
//! Each line of a file is `<time> <stdout|stderr> <F|P> <text>`, the form container runtimes give a kubelet: `P` marks a part of a line too
//! long to be kept whole. A run of a container has its own file, `<restart count>.log`, and one older part of it, `<restart count>.log.1`.

mod request;
mod server;
pub(crate) mod stream;
pub(crate) mod write;

pub(crate) use server::LogServer;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use crate::durable;
use crate::pod::Container;

/// How far the writing of a container's output has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Written {
    /// Which run of the container.
    pub(crate) run: u32,
    /// How often its file has been turned over.
    pub(crate) turned: u64,
    /// Bytes written to the file in use.
    pub(crate) bytes: u64,
    /// More may come.
    pub(crate) open: bool,
}

/// Where one container's output is, and how far it has come.
#[derive(Debug)]
pub(crate) struct ContainerLog {
    pub(crate) directory: PathBuf,
    pub(crate) written: watch::Sender<Written>,
}

impl ContainerLog {
    pub(crate) fn file(&self, run: u32) -> PathBuf {
        self.directory.join(format!("{run}.log"))
    }

    /// Where the keeper of a run writes how it ended.
    pub(crate) fn exit_file(&self, run: u32) -> PathBuf {
        self.directory.join(format!("{run}.exit"))
    }

    pub(crate) fn older(&self, run: u32) -> PathBuf {
        self.directory.join(format!("{run}.log.1"))
    }
}

/// The output of a pod's containers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct PodLogs {
    containers: Arc<BTreeMap<String, Arc<ContainerLog>>>,
}

impl PodLogs {
    /// No container has output.
    pub(crate) fn none() -> Self {
        Self { containers: Arc::default() }
    }

    pub(crate) fn new<'a>(pod: &Path, containers: impl Iterator<Item = &'a Container>) -> io::Result<Self> {
        let mut logs = BTreeMap::new();
        for container in containers {
            let directory = pod.join("containers").join(&container.name);
            durable::private_directory(&directory)?;
            let log = ContainerLog { directory, written: watch::Sender::default() };
            logs.insert(container.name.clone(), Arc::new(log));
        }
        Ok(Self { containers: Arc::new(logs) })
    }

    pub(crate) fn container(&self, name: &str) -> Option<Arc<ContainerLog>> {
        self.containers.get(name).cloned()
    }
}
