//! `quiltd dev`: a whole control plane on this host.

use std::path::PathBuf;

use crate::dev::{self, Options};
use crate::log;

/// Run a control plane of several replicas and some agents on this host, with real TLS and Raft on loopback.
///
/// Prints `ready` on its own line when every replica is; Ctrl-C stops everything. `DIR/dev.json` tells other programs
/// addresses, pids and keys, and `. DIR/env` makes kubectl and quiltd of a shell use it. Relaxed against production: keys and
/// certificates of all replicas lie in one directory, and a plain-HTTP listener is open on loopback.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  quiltd dev\n  quiltd dev --replicas 5 --agents 0 --dir ./cluster --restart")]
pub(crate) struct Dev {
    /// Number of replicas.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9), value_name = "N")]
    replicas: u16,
    /// Number of agents.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=50), value_name = "N")]
    agents: u16,
    /// Where everything is kept; without it a temporary directory, removed at the end.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Empty DIR first, if it is one that this command made.
    #[arg(long, requires = "dir")]
    fresh: bool,
    /// Start a child again, within a second, when it dies.
    #[arg(long)]
    restart: bool,
    /// API port of replica 1, replica i uses the i-1st after it; 0 takes free ones.
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    api_port: u16,
    /// Plain-HTTP port of replica 1, on loopback only; counted and 0 as above.
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    http_port: u16,
    /// Peer port of replica 1; counted and 0 as above.
    #[arg(long, default_value_t = 7443, value_name = "PORT")]
    peer_port: u16,
    /// Start the replicas with --kv-api.
    #[arg(long)]
    kv_api: bool,
}

impl Dev {
    pub(crate) fn run(self, directives: &str) -> anyhow::Result<()> {
        log::start(directives)?;
        dev::run(&Options {
            replicas: self.replicas,
            agents: self.agents,
            dir: self.dir,
            fresh: self.fresh,
            restart: self.restart,
            api_port: self.api_port,
            http_port: self.http_port,
            peer_port: self.peer_port,
            kv_api: self.kv_api.into(),
            log: directives.to_owned(),
        })
    }
}
