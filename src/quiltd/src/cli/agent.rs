//! `quiltd agent`: makes this host a node.

use std::net::IpAddr;
use std::path::PathBuf;

use quilt_agent::{AgentOptions, OnShutdown, RuntimeKind};

use crate::cli::client::tls_address;
use crate::log;

/// The first word of a keeper's command line; for the agent only, and so in no help.
pub(crate) const CONTAINER_KEEPER: &str = "container-keeper";

/// Join this host to a Quilt cluster as a node and run what is placed on it.
///
/// The agent asks any of the given servers and changes to another by itself when one dies. Its identity is kept in
/// the data directory: started again it is the same node, and the join token is not needed any more.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  quiltd agent --server https://cp-1:6443 --server https://cp-2:6443 --cluster default --join-token-file join.token --ca ca.crt\n  quiltd agent --server https://cp-1:6443 --cluster default --ca ca.crt --runtime simulated --data-dir /var/lib/quilt-agent"
)]
pub(crate) struct Agent {
    /// A replica's address; give it once for each replica.
    #[arg(long, required = true, value_name = "URL", value_parser = tls_address)]
    server: Vec<String>,
    /// Id of the Quilt cluster to join; `default` is the built-in one.
    #[arg(long, value_name = "ID")]
    cluster: String,
    /// File that holds a join token (`qj_…`); needed the first time only.
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// Certificate authority of the control plane, PEM.
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// Name of the node; the host's name when absent.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where identity, pods and their output are kept.
    #[arg(long, default_value = "/var/lib/quilt-agent", value_name = "DIR")]
    data_dir: PathBuf,
    /// How containers are run.
    #[arg(long, value_enum, default_value_t = Runtime::Process)]
    runtime: Runtime,
    /// The node's address; found by asking the system when absent.
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Port of the log endpoint; 0 takes a free one.
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    kubelet_port: u16,
    /// What becomes of running pods when the agent is told to stop.
    #[arg(long, value_enum, default_value_t = Shutdown::Leave)]
    on_shutdown: Shutdown,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Runtime {
    /// A container is a supervised process of this host; images are not pulled.
    Process,
    /// Nothing runs; states are reported as if it did.
    Simulated,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Shutdown {
    /// They go on; the next start takes them up again.
    Leave,
    /// They are ended with their grace period.
    Stop,
}

impl Agent {
    pub(crate) fn run(self, directives: &str) -> anyhow::Result<()> {
        log::start(directives)?;
        let mut options = AgentOptions::new(self.server, self.cluster, self.ca, self.data_dir);
        options.join_token_file = self.join_token_file;
        options.name = self.name;
        options.address = self.address;
        options.kubelet_port = self.kubelet_port;
        options.keeper = Some(vec![std::env::current_exe()?.into(), CONTAINER_KEEPER.into()]);
        options.runtime = match self.runtime {
            Runtime::Process => RuntimeKind::Process,
            Runtime::Simulated => RuntimeKind::Simulated,
        };
        options.on_shutdown = match self.on_shutdown {
            Shutdown::Leave => OnShutdown::LeavePods,
            Shutdown::Stop => OnShutdown::StopPods,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let result = runtime.block_on(quilt_agent::run(options, async {
            crate::assemble::termination().await;
        }));
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        Ok(result?)
    }
}
