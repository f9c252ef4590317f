//! Puts one replica together out of its parts, in the order in which they depend on each other.

use std::sync::Arc;
use std::time::Duration;

use openraft::type_config::TypeConfigExt;
use quilt_state::{Machine, Store};
use quilt_storage::LogEngine;
use tokio::sync::mpsc;

use super::{Inner, Options, Parts, stop};
use crate::admin;
use crate::answers::Answers;
use crate::applied::Applied;
use crate::clock::Clock;
use crate::courier::{Courier, Destination};
use crate::disk::{Disk, DiskWatch};
use crate::error::{OpenError, ReadError};
use crate::history::Written;
use crate::host::{Threads, watch};
use crate::housekeeping::Housekeeping;
use crate::hub::Hub;
use crate::leadership::{self, Leadership};
use crate::log_store::LogStore;
use crate::membership::Membership;
use crate::proposer::Proposer;
use crate::read::ReadIndex;
use crate::rebuild;
use crate::requests::Requests;
use crate::retention::{OnTheirWay, Retention};
use crate::scan::Scan;
use crate::service::{Handler, Services};
use crate::settings;
use crate::snapshot::SnapshotHome;
use crate::space::Space;
use crate::state_machine::{Listeners, Raft, StateMachine};
use crate::transport::{self, Admission, Dialer, Network, Peers, Service, Tls, Touch, TransportOptions};
use crate::types::TypeConfig;

pub(super) async fn assemble(
    options: Options,
    parts: Parts,
    transport: Option<TransportOptions>,
    threads: Threads,
) -> Result<Inner, OpenError> {
    let Parts { store, log, snapshots } = parts;
    let id = options.id.0;
    let (control, apart) = (threads.control(), threads.apart());
    let storage = |error: &dyn std::fmt::Display| OpenError::Storage(error.to_string());
    let config = settings::config(&options.cluster, options.timing)?;
    let (resets, reset) = mpsc::unbounded_channel();
    let (dialer, listening) = match transport {
        None => (None, None),
        Some(TransportOptions { listener, identity }) => {
            transport::make_ready(&listener).map_err(OpenError::Listen)?;
            let tls = Arc::new(Tls::new(options.id, identity)?);
            let dialer = Dialer {
                id: options.id,
                cluster: options.cluster.clone(),
                epoch: options.epoch,
                tls: Arc::clone(&tls),
                resets,
                apart: apart.clone(),
            };
            (Some(dialer), Some((listener, tls)))
        }
    };
    let tls = listening.as_ref().map(|(_, tls)| Arc::clone(tls));
    let peers = Arc::new(Peers::new(dialer));
    let given = options.peers.iter().map(|(id, address)| (id.0, address.clone())).collect();
    let repaired = rebuild::make_whole(id, &given, &peers, &log, &snapshots, &store).await?;
    let machine: Machine<dyn Store> = Machine::open(Arc::clone(&store)).map_err(|error| storage(&error))?;
    rebuild::cover(&machine, &*log, &snapshots).await.map_err(|error| storage(&error))?;
    let horizon = machine.horizon();
    let term = machine.position().unwrap_or_default().term;
    let clock = Arc::new(Clock::new(horizon.cluster_time_ms));
    let hash = machine.hash().halves();
    let applied = Arc::new(Applied::new(Arc::clone(&store), horizon, term, hash));
    let hub = Arc::new(Hub::new(Arc::clone(&applied), options.event_ring_bytes));
    let requests = Arc::new(Requests::new(applied.mark()));
    let answers = Arc::new(Answers::default());
    let written = Arc::new(Written::default());
    let listeners = Listeners {
        applied: Arc::clone(&applied),
        hub: Arc::clone(&hub),
        requests: Arc::clone(&requests),
        answers: Arc::clone(&answers),
        clock: Arc::clone(&clock),
        written: Arc::clone(&written),
    };
    let audit = Arc::clone(machine.audit());
    let state_machine = StateMachine::new(machine, Arc::clone(&snapshots), listeners);
    let disk = Arc::new(Disk::default());
    let log_store = LogStore::new(Arc::clone(&log), Arc::clone(&disk));
    let on_their_way = Arc::new(OnTheirWay::default());
    let network = Network {
        on_their_way: Arc::clone(&on_their_way),
        id,
        peers: Arc::clone(&peers),
        applied: Arc::clone(&applied),
        disk: Arc::clone(&disk),
        snapshots: Arc::clone(&snapshots),
    };
    let raft = Raft::new(id, Arc::new(config), network, log_store, state_machine);
    let raft: Raft = raft.await.map_err(|error| storage(&error))?;

    let leadership = Arc::new(watch::Sender::new(Leadership::Follower));
    let destination = Arc::new(watch::Sender::new(Destination::default()));
    let stopped = Arc::new(watch::Sender::new(None));
    let space = Space::default();
    TypeConfig::spawn(space.clone().watch(Arc::clone(&snapshots), options.disk_reserve_bytes));
    let proposer = Arc::new(Proposer::new(leadership.subscribe(), space.clone()));
    let reads = Arc::new(ReadIndex::new(id, Arc::clone(&applied)));
    let services = Arc::new(Services::new(id, leadership.subscribe(), destination.subscribe(), Arc::clone(&peers)));
    let (giving_up, given_up) = watch::channel(0);
    let membership = Arc::new(Membership::new(id, raft.clone(), Arc::clone(&peers), giving_up));
    {
        let (membership, proposer) = (Arc::clone(&membership), Arc::clone(&proposer));
        let (changing, held) = (Arc::clone(&membership), leadership.subscribe());
        TypeConfig::spawn(async move { changing.finish_abandoned(held).await });
        let handler: Handler = Arc::new(move |body| {
            let (membership, proposer) = (Arc::clone(&membership), Arc::clone(&proposer));
            Box::pin(async move { admin::serve(&membership, &proposer, body).await })
        });
        services.register(admin::SERVICE, handler);
    }

    let lease = options.timing.lease();
    TypeConfig::spawn(leadership::follow(raft.clone(), Arc::clone(&applied), lease, given_up, Arc::clone(&leadership)));
    TypeConfig::spawn(Arc::clone(&proposer).run(raft.clone(), Arc::clone(&clock), Arc::clone(&requests)));
    TypeConfig::spawn(Arc::clone(&reads).run(raft.clone(), Arc::clone(&peers), destination.subscribe()));
    let housekeeping = Housekeeping {
        applied: Arc::clone(&applied),
        clock: Arc::clone(&clock),
        proposer: Arc::clone(&proposer),
        leadership: leadership.subscribe(),
        window: options.history_window,
        budget_bytes: options.history_budget_bytes,
        written: Arc::clone(&written),
    };
    TypeConfig::spawn(housekeeping.run());
    let retention = Retention {
        raft: raft.clone(),
        log: Arc::clone(&log),
        store: Arc::clone(&store),
        keep_bytes: options.log_keep_bytes,
        space: space.clone(),
        on_their_way,
    };
    TypeConfig::spawn(retention.clone().run());
    let courier = Courier {
        id,
        requests: Arc::clone(&requests),
        proposer: Arc::clone(&proposer),
        peers: Arc::clone(&peers),
        clock: Arc::clone(&clock),
        destination: destination.subscribe(),
        leadership: leadership.subscribe(),
    };
    TypeConfig::spawn(courier.run());
    {
        let following = crate::destination::follow(
            id,
            raft.clone(),
            Arc::clone(&peers),
            leadership.subscribe(),
            Arc::clone(&destination),
            Arc::clone(&snapshots),
        );
        let (stopped, requests, hub, reads) =
            (Arc::clone(&stopped), Arc::clone(&requests), Arc::clone(&hub), Arc::clone(&reads));
        TypeConfig::spawn(async move {
            let reason = following.await;
            stop(&stopped, &requests, &hub, &reads, &reason);
        });
    }
    {
        let (raft, snapshots, log) = (raft.clone(), Arc::clone(&snapshots), Arc::clone(&log));
        let (stopped, requests, hub, reads) =
            (Arc::clone(&stopped), Arc::clone(&requests), Arc::clone(&hub), Arc::clone(&reads));
        TypeConfig::spawn(async move {
            let what = damaged(&snapshots, &log, &stopped).await;
            if let Some(what) = what {
                stop(&stopped, &requests, &hub, &reads, &what);
                // Whoever is asked now would be answered from that state, or counts on that log.
                if let Err(error) = raft.shutdown().await {
                    tracing::error!(%error, "ending agreement over damaged data");
                }
            }
        });
    }
    {
        let watch = DiskWatch {
            id,
            disk: Arc::clone(&disk),
            log: Arc::clone(&log),
            raft: raft.clone(),
            peers: Arc::clone(&peers),
            membership,
            slow: Duration::from_millis(options.timing.heartbeat_ms),
            election: Duration::from_millis(options.timing.election_max_ms),
            stalled: options.disk_stalled,
        };
        let (stopped, requests, hub, reads) =
            (Arc::clone(&stopped), Arc::clone(&requests), Arc::clone(&hub), Arc::clone(&reads));
        TypeConfig::spawn(async move {
            let reason = watch.run().await;
            stop(&stopped, &requests, &hub, &reads, &reason);
        });
    }
    let scanned = Arc::default();
    let scanned_bytes = Arc::default();
    let scan = Scan {
        applied: Arc::clone(&applied),
        audit,
        snapshots: Arc::clone(&snapshots),
        log: Arc::clone(&log),
        pace: options.scan,
        last: Arc::clone(&scanned),
        read: Arc::clone(&scanned_bytes),
    };
    TypeConfig::spawn(scan.run());
    let alarms = Arc::default();
    let about = Arc::default();
    if let Some((listener, tls)) = listening {
        TypeConfig::spawn(transport::stand_when_reset(
            raft.clone(),
            Arc::clone(&peers),
            lease,
            Arc::clone(&disk),
            reset,
        ));
        let touch = Touch {
            id,
            peers: Arc::clone(&peers),
            applied: Arc::clone(&applied),
            snapshots: Arc::clone(&snapshots),
            alarms: Arc::clone(&alarms),
        };
        TypeConfig::spawn(transport::keep_in_touch(touch));
        let service = Service {
            admission: Admission { id: options.id, cluster: options.cluster.clone(), epoch: options.epoch },
            raft: raft.clone(),
            peers: Arc::clone(&peers),
            proposer: Arc::clone(&proposer),
            answers: Arc::clone(&answers),
            services: Arc::clone(&services),
            reads: Arc::clone(&reads),
            applied: Arc::clone(&applied),
            disk: Arc::clone(&disk),
            about: Arc::clone(&about),
            snapshots,
            leadership: leadership.subscribe(),
        };
        TypeConfig::spawn(async move {
            if let Err(error) = transport::listen(listener, tls, Arc::new(service), apart).await {
                tracing::error!(%error, "the peer service has ended");
            }
        });
    }
    {
        // Until this has succeeded once the replica is not ready.
        let reads = Arc::clone(&reads);
        TypeConfig::spawn(async move {
            loop {
                match reads.linearize(Duration::from_secs(60)).await {
                    Err(ReadError::NoLeader) => {}
                    Err(ReadError::Overloaded { .. }) => TypeConfig::sleep(OVERLOADED_PAUSE).await,
                    _ => return,
                }
            }
        });
    }
    Ok(Inner {
        raft,
        store,
        log,
        applied,
        hub,
        clock,
        requests,
        proposer,
        #[cfg(test)]
        answers,
        reads,
        services,
        peers,
        disk,
        about,
        scanned,
        scanned_bytes,
        repaired,
        alarms,
        space,
        tls,
        retention,
        leadership: leadership.subscribe(),
        destination: destination.subscribe(),
        stopped,
        threads: parking_lot::Mutex::new(Some(threads)),
        control,
        options,
    })
}

/// Before the first read of all is tried again where too many others wait.
const OVERLOADED_PAUSE: Duration = Duration::from_millis(100);

/// How often it is looked whether the data was found damaged.
const DAMAGE_LOOK: Duration = Duration::from_millis(250);

/// Waits until the state or the log is found damaged, and says what is; `None` when the replica stops for another reason.
async fn damaged(
    snapshots: &Arc<dyn SnapshotHome>,
    log: &Arc<dyn LogEngine>,
    stopped: &watch::Sender<Option<String>>,
) -> Option<String> {
    loop {
        if let Some(what) = snapshots.damage() {
            return Some(format!("the state is damaged: {what}"));
        }
        if let Some(what) = log.damage() {
            return Some(format!("the log is damaged: {what}"));
        }
        if stopped.borrow().is_some() {
            return None;
        }
        TypeConfig::sleep(DAMAGE_LOOK).await;
    }
}
