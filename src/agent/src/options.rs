//! What a person decides about an agent. Parsing flags and reading the environment is the binary's work.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::client::parse_server;
use crate::error::AgentError;

/// Where to look for executables when neither the caller nor the pod says.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How pods are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RuntimeKind {
    /// Each container is a supervised process of the host; its image is not pulled.
    #[default]
    Process,
    /// Nothing is run; states are reported as if it were. For tests of scale.
    Simulated,
}

/// What becomes of the pods when the agent is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnShutdown {
    /// They go on; the next start of the agent takes them up again. What an upgrade of the agent wants.
    #[default]
    LeavePods,
    /// They are ended with their grace period. What `quiltd dev` wants: nothing is left behind.
    StopPods,
}

/// The pauses between restarts of a container that keeps ending: none, then `first`, doubled up to `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartBackoff {
    /// The pause before the second restart; the first restart is immediate, as with a kubelet.
    pub first: Duration,
    /// No pause is longer.
    pub longest: Duration,
    /// A run at least this long forgets earlier ends.
    pub forgotten_after: Duration,
}

impl Default for RestartBackoff {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(10),
            longest: Duration::from_secs(300),
            forgotten_after: Duration::from_secs(600),
        }
    }
}

/// Everything an agent needs to know.
#[derive(Debug, Clone)]
pub struct AgentOptions {
    /// Base addresses of the control plane's replicas (`https://host:6443`), at least one. Any of them will do; with several the
    /// agent changes to the next by itself.
    pub servers: Vec<String>,
    /// The id of the cluster to join.
    pub cluster: String,
    /// A file holding a join token (`qj_…`). Needed until the node has an identity, and again after the node was removed.
    pub join_token_file: Option<PathBuf>,
    /// The certificates (PEM) by which the control plane is recognised, and by which its calls to this agent are.
    pub ca_file: PathBuf,
    /// The node's name; the host's name when absent.
    pub name: Option<String>,
    /// Where identity, pods and their output live; private to the agent.
    pub data_dir: PathBuf,
    /// How pods are run.
    pub runtime: RuntimeKind,
    /// The node's address, which is also every pod's; when absent, the one this host uses towards the control plane.
    pub address: Option<IpAddr>,
    /// Port of the log endpoint; 0 takes a free one.
    pub kubelet_port: u16,
    /// Labels of the node.
    pub labels: BTreeMap<String, String>,
    /// What becomes of the pods when the agent is told to stop.
    pub on_shutdown: OnShutdown,
    /// Where executables without a slash are looked up when the container sets no `PATH` (colon-separated).
    pub search_path: String,
    /// The version shown on the node.
    pub version: String,
    /// Pause between heartbeats.
    pub heartbeat: Duration,
    /// Pauses between restarts of a container.
    pub restart_backoff: RestartBackoff,
    /// The command line that starts a container's [`keeper`](crate::keeper), without its arguments. Without one, containers are children of
    /// the agent alone, and the exit code of one that ends while no agent runs is lost.
    pub keeper: Option<Vec<OsString>>,
    /// A container's output file is turned over at this size; one older file is kept.
    pub log_bytes_max: u64,
}

impl AgentOptions {
    /// Options with every choice at its default.
    #[must_use]
    pub fn new(
        servers: Vec<String>,
        cluster: impl Into<String>,
        ca_file: impl Into<PathBuf>,
        data_dir: impl Into<PathBuf>,
    ) -> Self {
        Self {
            servers,
            cluster: cluster.into(),
            join_token_file: None,
            ca_file: ca_file.into(),
            name: None,
            data_dir: data_dir.into(),
            runtime: RuntimeKind::default(),
            address: None,
            kubelet_port: 0,
            labels: BTreeMap::new(),
            on_shutdown: OnShutdown::default(),
            search_path: SEARCH_PATH.to_owned(),
            version: format!("quilt-agent/{}", env!("CARGO_PKG_VERSION")),
            heartbeat: Duration::from_secs(10),
            restart_backoff: RestartBackoff::default(),
            keeper: None,
            log_bytes_max: 10 * 1024 * 1024,
        }
    }

    pub(crate) fn check(&self) -> Result<(), AgentError> {
        let refuse = |option, reason: &str| Err(AgentError::Option { option, reason: reason.to_owned() });
        if self.servers.is_empty() {
            return refuse("--server", "at least one server is needed");
        }
        for server in &self.servers {
            parse_server(server)?;
        }
        if self.cluster.is_empty()
            || !self.cluster.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        {
            return refuse("--cluster", "a cluster id is letters, digits and dashes");
        }
        if let Some(name) = &self.name
            && (name.is_empty() || name.len() > 253)
        {
            return refuse("--name", "a node name has 1 to 253 characters");
        }
        if self.heartbeat.is_zero() {
            return refuse("heartbeat", "the pause between heartbeats is not zero");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text that is no replica's address is refused by the option's name, before anything is read or made.
    #[test]
    fn servers_are_addresses() {
        let of = |server: &str| AgentOptions::new(vec![server.to_owned()], "c", "ca.crt", "data").check();
        for right in ["https://10.0.0.1:6443", "https://cp-1", "https://[fd00::1]:6443/"] {
            assert!(of(right).is_ok(), "{right}");
        }
        for wrong in [
            "",
            "cp 1",
            "cp-1:6443",
            "10.0.0.1",
            "http://cp-1:6443",
            "https://",
            "https://cp-1:port",
            "https://cp-1/api",
            "https://cp-1?x",
            "https://me:word@cp-1",
        ] {
            let refused = of(wrong).expect_err(wrong).to_string();
            assert!(refused.starts_with("option --server: "), "{wrong}: {refused}");
            assert!(refused.contains(&format!("\"{wrong}\"")), "{wrong}: {refused}");
        }
    }
}
