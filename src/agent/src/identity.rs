//! Who this node is, across restarts: id, name, token and allocation in the data directory, for its owner's eyes only.
//!
//! ```text
//! agent.lock         held while an agent runs here
//! registration.json  an attempt to register whose answer has not arrived: its key and its exact body
//! identity.json      the answer
//! kubelet.{crt,key}  the certificate of the log endpoint
//! pods/<uid>/        a pod: what runs, its volumes, its output
//! ```

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::durable;
use crate::error::AgentError;

/// A node that has been admitted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) cluster: String,
    pub(crate) node_id: String,
    pub(crate) name: String,
    pub(crate) token: String,
    /// As the control plane gave it; kept whole for whoever sets up the node's network.
    pub(crate) allocation: Value,
}

/// A registration on its way. Repeating it with the same key and the same body gets the first answer, token included.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Registration {
    pub(crate) cluster: String,
    pub(crate) idempotency_key: String,
    pub(crate) body: Value,
    /// Whether an attempt may have taken effect although its answer did not arrive.
    pub(crate) answer_was_lost: bool,
}

/// The agent's own directory, locked.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

impl DataDirectory {
    /// Makes the directory when it is missing and takes its lock.
    pub(crate) fn open(path: &Path) -> Result<Self, AgentError> {
        durable::private_directory(path).map_err(AgentError::file(path))?;
        let lock_path = path.join("agent.lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(AgentError::file(lock_path))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_held| AgentError::DirectoryInUse { path: path.to_owned() })?;
        // Processes are told absolute paths, whatever the agent's own working directory is.
        let path = std::fs::canonicalize(path).map_err(AgentError::file(path))?;
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn identity(&self) -> Result<Option<Identity>, AgentError> {
        self.read("identity.json")
    }

    /// Keeps the identity; the registration it answers is no longer pending.
    pub(crate) fn keep_identity(&self, identity: &Identity) -> Result<(), AgentError> {
        self.write("identity.json", identity)?;
        self.forget_registration()
    }

    /// The token is dead; a later start joins as a new node. The file stays for whoever wants to know what was.
    pub(crate) fn set_identity_aside(&self) -> Result<(), AgentError> {
        let path = self.join("identity.json");
        match std::fs::rename(&path, self.join("identity.removed.json")) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(AgentError::file(path)(error)),
        }
    }

    pub(crate) fn registration(&self) -> Result<Option<Registration>, AgentError> {
        self.read("registration.json")
    }

    pub(crate) fn keep_registration(&self, registration: &Registration) -> Result<(), AgentError> {
        self.write("registration.json", registration)
    }

    pub(crate) fn forget_registration(&self) -> Result<(), AgentError> {
        let path = self.join("registration.json");
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(AgentError::file(path)(error)),
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, AgentError> {
        let path = self.join(name);
        let Some(bytes) = durable::read_if_there(&path).map_err(AgentError::file(&path))? else {
            return Ok(None);
        };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| AgentError::Content { path, reason: error.to_string() })
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), AgentError> {
        let path = self.join(name);
        let bytes = serde_json::to_vec_pretty(value)
            .map_err(|error| AgentError::Content { path: path.clone(), reason: error.to_string() })?;
        durable::replace(&path, &bytes).map_err(AgentError::file(path))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{DataDirectory, Identity};
    use crate::error::AgentError;

    /// An identity is read back as written, by its owner only, and a second agent in the same directory is refused.
    #[test]
    fn identity_is_private_and_exclusive() {
        let directory = tempfile::tempdir().expect("a directory");
        let data = DataDirectory::open(directory.path()).expect("opens");
        assert!(data.identity().expect("reads").is_none());
        let identity = Identity {
            cluster: "c".into(),
            node_id: "n".into(),
            name: "node-a".into(),
            token: "qn_secret".into(),
            allocation: serde_json::json!({}),
        };
        data.keep_identity(&identity).expect("writes");
        assert_eq!(data.identity().expect("reads").expect("there").token, "qn_secret");
        let mode = std::fs::metadata(data.join("identity.json")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(DataDirectory::open(directory.path()), Err(AgentError::DirectoryInUse { .. })));
        data.set_identity_aside().expect("moves");
        assert!(data.identity().expect("reads").is_none());
    }
}
