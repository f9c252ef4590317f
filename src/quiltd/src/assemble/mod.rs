//! Builds one replica out of its parts, in the order in which they depend on each other, and stops it in the opposite
//! order: another replica leads, the API drains, controllers stop, the agreement layer flushes and ends.

mod about;
mod advertise;
#[cfg(test)]
mod at_rest;
mod first_start;
pub(crate) mod identity;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use quilt_api::{Api, ApiOptions, Server};
use quilt_controllers::Controllers;
use quilt_proto::ReplicaId;
use quilt_raft::{Leadership, OpenError, Parts, Replica, TransportOptions};
use quilt_scheduler::Scheduler;
use quilt_storage::{Home, HomeError, Identity};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::dev::FOLLOW_STDIN;
use crate::exit::Hinted;
use crate::kv::{Credentials, Kv, KvApi};
use crate::listener::{self, Surface};
use crate::operator;

/// What the command line decided about one replica.
pub(crate) struct Options {
    pub(crate) id: ReplicaId,
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) advertise: Option<SocketAddr>,
    pub(crate) http_listen: Option<SocketAddr>,
    pub(crate) peer_listen: SocketAddr,
    pub(crate) members: Vec<(ReplicaId, String)>,
    pub(crate) start: Start,
    /// Names for the serving certificate, beside those found on this host.
    pub(crate) names: Vec<String>,
    pub(crate) kv_api: KvApi,
    /// Bytes of log that stay for replicas that were away.
    pub(crate) log_keep_bytes: u64,
}

/// What a replica with an empty log does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Founds a control plane, together with the other members.
    Found,
    /// Waits for the leader that let it in.
    Wait,
}

/// How long the first objects may take once there is a leader; repeated until they exist.
const BOOTSTRAP_DEADLINE: Duration = Duration::from_secs(10);

/// How long another replica may take to take over from one that is asked to stop.
const STEP_ASIDE_WITHIN: Duration = Duration::from_secs(1);

/// How long a replica that has failed may take to end.
const FAILED_ENDS_WITHIN: Duration = Duration::from_secs(8);

/// Pause between looks for deletions of clusters that were not finished.
const FINISH_DROPS_EVERY: Duration = Duration::from_secs(30);

/// How often in a row a state or a log is made anew before the disk is given up.
const REBUILDS_MAX: u32 = 3;

/// A replica that has worked for so long since then has a disk to be trusted again.
const REBUILT_WELL: Duration = Duration::from_secs(3_600);

/// What is still held of the run before is let go of within this, and how often that is looked at.
const LETS_GO: Duration = Duration::from_secs(30);
const OPENED_AGAIN: Duration = Duration::from_millis(250);

/// Runs one replica until a signal says stop or the replica fails. One whose state or log is found damaged is started again
/// right here: a start makes the state anew, and the log whole.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut rebuilds = 0;
    let mut again: Option<std::time::Instant> = None;
    loop {
        let began = std::time::Instant::now();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("api").build()?;
        let result = runtime.block_on(serve(options));
        runtime.shutdown_timeout(Duration::from_secs(2));
        if began.elapsed() > REBUILT_WELL {
            rebuilds = 0;
        }
        match &result {
            Err(error) if rebuilds < REBUILDS_MAX && Home::is_condemned(&options.data_dir) && !is_refused(error) => {
                rebuilds += 1;
                tracing::warn!(%error, "starting again, without what is damaged");
                again = Some(std::time::Instant::now());
            }
            // On a busy host threads of the run before may not have let go of the log yet.
            Err(error) if is_refused(error) && again.is_some_and(|since| since.elapsed() < LETS_GO) => {
                tracing::warn!(%error, "the data directory cannot be opened yet");
                std::thread::sleep(OPENED_AGAIN);
            }
            _ => return result,
        }
    }
}

/// Whether a start was refused, so that another would be as well. One that met damage while it read was not.
fn is_refused(error: &anyhow::Error) -> bool {
    let refusal = |cause: &OpenError| !matches!(cause, OpenError::Storage(_));
    error.chain().any(|cause| cause.downcast_ref().is_some_and(refusal) || cause.is::<HomeError>())
}

async fn serve(options: &Options) -> anyhow::Result<()> {
    let place = identity::load(options)?;
    // Ports first: nothing is started that could not be reached.
    let api_listener = bind(options.listen, "--listen").await?;
    let peer_listener = bind(options.peer_listen, "--peer-listen").await?;
    let http_listener = match options.http_listen {
        Some(address) => Some(bind(address, "--http-listen").await?),
        None => None,
    };
    let home = Home::open(&options.data_dir, Identity { cluster: place.control_plane.clone(), replica: options.id.0 })
        .context("the data directory cannot be used")?;
    let transport = TransportOptions { listener: peer_listener.into_std()?, identity: place.peer_identity()? };
    let settings = quilt_raft::Options {
        epoch: home.epoch(),
        log_keep_bytes: options.log_keep_bytes,
        peers: options.members.iter().cloned().collect(),
        ..quilt_raft::Options::new(options.id, place.control_plane.clone())
    };
    // Opening waits for a peer when the state has to be taken from one.
    let replica = tokio::select! {
        opened = Replica::open(settings, Parts::of(&home), Some(transport)) => {
            opened.context("the replica cannot be opened")?
        }
        () = termination() => return Ok(()),
    };
    let members: BTreeMap<_, _> = options.members.iter().cloned().collect();
    if options.start == Start::Found && !replica.admin().is_initialized().await? {
        replica.admin().initialize(members).await?;
    }

    let controllers = Controllers::new(replica.clone());
    let scheduler = Scheduler::new(replica.clone());
    let binder = scheduler.clone();
    replica.serve(
        "reconcile",
        controllers.reconcile_service(move |cluster| {
            let binder = binder.clone();
            Box::pin(async move { binder.force(&cluster).await.map_err(|error| error.to_string()) })
        }),
    );

    replica.serve(operator::status::SERVICE, operator::status::service(&replica));

    let api = Api::new(api_options(options, &place)?, replica.clone());
    let server = Server::new(
        Arc::clone(&api),
        quilt_api::quilt::router(Arc::clone(&api)).merge(operator::router(
            &api,
            &home.snapshots,
            &place.first.admin_key_sha256,
        )),
    );
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(controllers.run(stopped(stopping.clone())));
    tasks.spawn(scheduler.run(stopped(stopping.clone())));
    tasks.spawn(first_start::bootstrap(
        replica.clone(),
        place.first.clone(),
        place.root_key.clone(),
        stopping.clone(),
        BOOTSTRAP_DEADLINE,
    ));
    tasks.spawn(quilt_api::endpoints::run(Arc::clone(&api), stopped(stopping.clone())));
    tasks.spawn(finish_drops(replica.clone(), stopping.clone()));
    tasks.spawn(operator::queue::run(replica.clone(), stopped(stopping.clone())));
    tasks.spawn(about::keep(replica.clone(), options.data_dir.clone(), stopped(stopping.clone())));
    tasks.spawn(announce(replica.clone(), stopping.clone()));
    let kv = match options.kv_api {
        KvApi::Off => None,
        KvApi::On => {
            let credentials = Credentials::new(replica.clone());
            tasks.spawn(credentials.clone().follow(stopping.clone()));
            Some(Kv::new(replica.clone(), credentials))
        }
    };
    let surface = Surface { server: server.clone(), kv, replica: replica.clone() };
    tasks.spawn(listener::serve(api_listener, Some(place.acceptor()?), surface, stopping.clone()));
    if let Some(http_listener) = http_listener {
        // Without TLS there is nothing an operator's key may travel over: the key-value service is not offered here.
        let surface = Surface { server, kv: None, replica: replica.clone() };
        tasks.spawn(listener::serve(http_listener, None, surface, stopping));
    }
    tracing::info!(replica = options.id.0, listen = %options.listen, version = env!("CARGO_PKG_VERSION"), "replica is starting");

    let failure = tokio::select! {
        () = termination() => None,
        reason = replica.stopped() => Some(reason),
    };
    let overdue = failure.is_some().then(Overdue::begin);
    if failure.is_none() {
        step_aside(&replica).await;
    }
    api.drain();
    stop.send_replace(true);
    while tasks.join_next().await.is_some() {}
    replica.shutdown().await;
    drop(home);
    drop(overdue);
    match failure {
        None => {
            tracing::info!(replica = options.id.0, "replica has stopped");
            Ok(())
        }
        // Data at risk or an invariant broken: the process must end, and not look as if it had been asked to.
        Some(reason) => Err(anyhow::anyhow!("replica {} has stopped: {reason}", options.id)),
    }
}

/// Has another replica lead before this one goes, so that nobody waits for an election.
async fn step_aside(replica: &Replica) {
    if !matches!(*replica.leadership().borrow(), Leadership::Leader(_)) {
        return;
    }
    match tokio::time::timeout(STEP_ASIDE_WITHIN, replica.admin().transfer_leadership(None)).await {
        Ok(Ok(next)) => tracing::info!(next = next.0, "another replica leads"),
        Ok(Err(error)) => tracing::info!(%error, "no other replica is to lead"),
        Err(_) => tracing::info!("no other replica has taken over; they will elect one"),
    }
}

/// Ends the process hard when a replica that has failed does not end: a write that a stalled disk never finishes cannot be
/// waited for, and it holds up whoever closes the files.
struct Overdue {
    _ended_in_time: std::sync::mpsc::Sender<()>,
}

impl Overdue {
    fn begin() -> Self {
        use std::sync::mpsc::{RecvTimeoutError, channel};

        let (ended, end) = channel::<()>();
        std::thread::spawn(move || {
            if matches!(end.recv_timeout(FAILED_ENDS_WITHIN), Err(RecvTimeoutError::Timeout)) {
                tracing::error!("the replica that has failed does not come to its end: aborting");
                std::process::abort();
            }
        });
        Self { _ended_in_time: ended }
    }
}

fn api_options(options: &Options, place: &identity::Place) -> anyhow::Result<ApiOptions> {
    let mut api = ApiOptions::new(env!("CARGO_PKG_VERSION"), place.root_key.clone());
    api.agent_credential = Some(place.agent_credential()?);
    api.serving_ca_pem.clone_from(&place.first.serving_ca_pem);
    api.advertise = advertise::address(options);
    Ok(api)
}

async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
        .hint(format!("another process may use it; choose another address with {flag} IP:PORT"))
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    // The sender lives as long as the process serves; its end means stop as well.
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Finishes deletions of clusters that a crash or a leader change left half done.
async fn finish_drops(replica: Replica, stopping: watch::Receiver<bool>) {
    let stop = stopped(stopping);
    tokio::pin!(stop);
    while tokio::time::timeout(FINISH_DROPS_EVERY, &mut stop).await.is_err() {
        if matches!(*replica.leadership().borrow(), Leadership::Leader(_)) {
            quilt_api::quilt::finish_drops(&replica, BOOTSTRAP_DEADLINE).await;
        }
    }
}

/// Says in the log who leads, as this replica sees it.
async fn announce(replica: Replica, stopping: watch::Receiver<bool>) {
    let mut leadership = replica.leadership();
    let stop = stopped(stopping);
    tokio::pin!(stop);
    loop {
        match *leadership.borrow_and_update() {
            Leadership::Leader(id) => tracing::info!(replica = id.replica.0, term = id.term, "this replica leads"),
            Leadership::Follower => tracing::info!(replica = replica.id().0, "this replica follows"),
        }
        tokio::select! {
            changed = leadership.changed() => if changed.is_err() { return },
            () = &mut stop => return,
        }
    }
}

/// Completes when the process is asked to stop: SIGTERM, Ctrl-C, or, for a child of `quiltd dev`, the end of its
/// standard input.
pub(crate) async fn termination() {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signals) => drop(signals.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::interrupt()) => {}
        () = parent_gone() => {}
    }
}

async fn parent_gone() {
    if std::env::var_os(FOLLOW_STDIN).is_none() {
        return std::future::pending().await;
    }
    // A thread of its own: a blocked read of standard input would hold up the runtime's end.
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = sender.send(());
    });
    let _ = receiver.await;
}
