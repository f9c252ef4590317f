//! The reference node agent: it makes a host a node of one Quilt cluster and runs what the control plane places there.
//!
//! It is a client of the public HTTP API and of nothing else: no raft, no storage, no knowledge of which replica leads.
//! Any of the given servers will do; when one dies the next one is asked and nobody above [`client`] notices.
//!
//! ```text
//! enrol ──► session ──┬─► heartbeat   every 10 s, and at once when the state changes
//!  (identity on disk) ├─► sync        waiting poll of the placements ──► runtime (one task a pod) ──► reports
//!                     └─► logs        kubelet-compatible HTTPS endpoint, for the control plane only
//! ```
//!
//! What survives what:
//! - *the agent is restarted*: it resumes as the same node; processes go on and are taken up again by pid and start time, and the exit codes
//!   of those that ended meanwhile are found where their [`keeper`] wrote them.
//! - *the node is removed* (its token is refused): the agent ends its pods, sets its identity aside and stops with
//!   [`AgentError::NodeRemoved`]. Started again with a join token that is still good it joins as a new node, as a kubelet would.
//! - *the control plane is away*: pods go on, reports wait.
//!
//! The `process` runtime is honest about what it is: processes on the host, without images, mount, network or PID
//! namespaces and without cgroups. [`runtime::process`] says what a container sees.
#![forbid(unsafe_code)]

mod assignment;
mod certificate;
mod client;
mod clock;
mod durable;
mod enrol;
mod error;
mod events;
mod heartbeat;
mod host;
mod identity;
pub mod keeper;
mod logs;
mod options;
mod pod;
mod report;
mod runtime;
mod session;
mod status;
mod sync;

pub use error::AgentError;
pub use options::{AgentOptions, OnShutdown, RestartBackoff, RuntimeKind};

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::client::ControlPlane;
use crate::enrol::Offer;
use crate::identity::DataDirectory;
use crate::logs::LogServer;
use crate::runtime::Runtime;
use crate::sync::Sync;

/// Runs an agent until `shutdown` completes or the node is removed from its cluster.
///
/// Returns `Ok` after an orderly stop. What happens to the pods then is the choice of [`AgentOptions::on_shutdown`].
///
/// # Errors
/// [`AgentError`] says what a person has to change; [`AgentError::exit_code`] gives the process's exit code for it.
pub async fn run(options: AgentOptions, shutdown: impl Future<Output = ()> + Send) -> Result<(), AgentError> {
    // A second installation is refused and harmless: the binary around us may have installed the same provider.
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    options.check()?;
    let data = Arc::new(DataDirectory::open(&options.data_dir)?);
    let authority = certificate::read_authority(&options.ca_file)?;
    let control = ControlPlane::new(&options.servers, &authority)?;
    let name = options.name.clone().map_or_else(host::name, Ok)?;
    let address = match options.address {
        Some(address) => address,
        None => host::address_towards(control.servers()).await,
    };
    let own = certificate::Own::load_or_make(&data, &name, address)?;
    let listen = SocketAddr::new(address, options.kubelet_port);
    let listener = TcpListener::bind(listen).await.map_err(|source| AgentError::Listen { address: listen, source })?;
    let kubelet_port = listener.local_addr().map_err(|source| AgentError::Listen { address: listen, source })?.port();
    let offer = Offer {
        name,
        address,
        kubelet_port,
        kubelet_cert_sha256: own.sha256(),
        version: options.version.clone(),
        labels: options.labels.clone(),
        capacity: host::capacity(&options.data_dir),
    };

    tokio::pin!(shutdown);
    let session = tokio::select! {
        enrolled = enrol::enrol(&options, &data, &control, &offer) => enrolled?,
        () = &mut shutdown => return Ok(()),
    };
    info!(node = %session.node_name(), id = %session.node_id(), cluster = %options.cluster, "node is part of the cluster");

    let (teller, told) = events::Teller::new();
    let telling = tokio::spawn(events::run(session.clone(), told));
    let runtime = Runtime::new(&options, session.node_name(), address, data.join("pods"), teller);
    let pods = sync::PodTable::default();
    let server = LogServer::new(&own, &authority, pods.clone())?;
    let serving = tokio::spawn(server.serve(listener));
    let mut sync = Sync::new(session.clone(), runtime, pods, address);
    sync.restore();

    let ended = tokio::select! {
        () = heartbeat::run(session.clone(), &offer, options.heartbeat) => Ok(()),
        removed = sync.run() => removed,
        () = &mut shutdown => Ok(()),
    };
    let ended = match ended {
        // A heartbeat that ends has met the same refusal as the poll; both are the node's removal.
        Ok(()) if session.is_removed() => Err(AgentError::NodeRemoved { name: session.node_name().to_owned() }),
        other => other,
    };
    match (&ended, options.on_shutdown) {
        (Err(AgentError::NodeRemoved { .. }), _) => {
            warn!(node = %session.node_name(), "the node was removed from its cluster; its pods are ended");
            sync.stop_all().await;
            data.set_identity_aside()?;
        }
        (_, OnShutdown::StopPods) => {
            heartbeat::say_not_ready(&session).await;
            sync.stop_all().await;
        }
        (_, OnShutdown::LeavePods) => sync.leave_all(),
    }
    serving.abort();
    telling.abort();
    ended
}
