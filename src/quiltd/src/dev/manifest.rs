//! `dev.json`: what outside programs rely on. Fields are only ever added.

use std::path::Path;

use serde::Serialize;

use crate::dev::layout::Layout;
use crate::dev::supervise::{Child, Supervisor};
use crate::tls::files;

/// The file's content.
#[derive(Serialize)]
pub(crate) struct Manifest {
    replicas: Vec<Replica>,
    agents: Vec<Agent>,
    cluster: &'static str,
    kubeconfig: String,
    ca: String,
    admin_token: String,
    tenant: &'static str,
    api_key: String,
    /// Address of the web UI; null while the binary carries none.
    ui: Option<String>,
}

#[derive(Serialize)]
struct Replica {
    id: u16,
    pid: Option<u32>,
    argv: Vec<String>,
    env: std::collections::BTreeMap<String, String>,
    api: String,
    http: String,
    data_dir: String,
    peer: String,
    log: String,
}

#[derive(Serialize)]
struct Agent {
    name: String,
    pid: Option<u32>,
    argv: Vec<String>,
    log: String,
}

impl Manifest {
    /// The picture as it is now.
    pub(crate) fn of(layout: &Layout, supervisor: &Supervisor) -> Self {
        let child = |name: &str| supervisor.child(name);
        let argv = |name: &str| child(name).map(Child::argv).unwrap_or_default();
        let log = |name: &str| layout.log_file(name).display().to_string();
        let replicas = layout.replicas.iter().map(|replica| {
            let name = format!("replica-{}", replica.id);
            Replica {
                id: replica.id,
                pid: child(&name).and_then(Child::pid),
                argv: argv(&name),
                env: child(&name).map(Child::env).unwrap_or_default(),
                api: replica.api.clone(),
                http: format!("http://127.0.0.1:{}", replica.http_port),
                data_dir: replica.data_dir.display().to_string(),
                peer: format!("127.0.0.1:{}", replica.peer_port),
                log: log(&name),
            }
        });
        let agents = layout.agents.iter().map(|agent| Agent {
            name: agent.name.clone(),
            pid: child(&agent.name).and_then(Child::pid),
            argv: argv(&agent.name),
            log: log(&agent.name),
        });
        Self {
            replicas: replicas.collect(),
            agents: agents.collect(),
            cluster: "default",
            kubeconfig: layout.kubeconfig.display().to_string(),
            ca: layout.ca.display().to_string(),
            admin_token: layout.keys.admin_token.clone(),
            tenant: "default",
            api_key: layout.keys.api_key.clone(),
            ui: None,
        }
    }

    /// Replaces `dev.json` atomically.
    pub(crate) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        files::write_private(&dir.join("dev.json"), &serde_json::to_vec_pretty(self)?)
    }
}
