//! [`Node`]: one machine of the world through all its starts and ends.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quilt_proto::ReplicaId;
use quilt_raft_simulated::model::{Dice, Host};
use quilt_raft_simulated::{Listener, Options, PeerIdentity, Replica, TransportOptions};

use crate::disk::{Disk, End, Habit};
use crate::world::Scene;

struct Up {
    host: Host,
    replica: Option<Replica>,
    failed: bool,
}

/// One machine.
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) address: String,
    pub(crate) disk: Disk,
    dice: Mutex<Dice>,
    up: Mutex<Option<Up>>,
}

/// Runs something on a host; `None` when the host ends first.
pub(crate) async fn on<T: Send + 'static>(host: &Host, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    host.spawn(work).await.ok()
}

impl Node {
    pub(crate) fn new(id: u64, scene: &Scene) -> Arc<Self> {
        let dice = scene.dice.child(100 + id);
        let disk = Disk::new(id, dice.child(1), Arc::clone(&scene.ledger));
        disk.set_habit(Habit { sync_us: scene.plan.sync_us, fail_next: false });
        let (dice, up) = (Mutex::new(dice), Mutex::default());
        Arc::new(Self { id, address: format!("replica-{id}:1"), disk, dice, up })
    }

    /// Whether its replica has stopped by itself.
    pub(crate) fn has_failed(&self) -> bool {
        self.up.lock().as_ref().is_some_and(|up| up.failed)
    }

    pub(crate) fn host(&self) -> Option<Host> {
        self.up.lock().as_ref().map(|up| up.host.clone())
    }

    /// The replica, when it is open, and the host to call it on.
    pub(crate) fn replica(&self) -> Option<(Host, Replica)> {
        let up = self.up.lock();
        let up = up.as_ref().filter(|up| !up.failed)?;
        Some((up.host.clone(), up.replica.clone()?))
    }

    /// Whether it leads, by its own word.
    pub(crate) fn leads(&self) -> bool {
        self.replica().is_some_and(|(_, replica)| replica.leadership().borrow().held().is_some())
    }

    /// Starts it from its disk.
    pub(crate) fn start(self: &Arc<Self>, scene: &Arc<Scene>) {
        let mut up = self.up.lock();
        if up.is_some() {
            return;
        }
        let host = Host::new(self.id);
        {
            let mut dice = self.dice.lock();
            let drift = i64::try_from(dice.between(0, 2 * scene.plan.drift_ppm_max)).unwrap_or(0);
            host.set_drift_ppm(drift - i64::try_from(scene.plan.drift_ppm_max).unwrap_or(0));
            host.set_wall_offset_ms(i64::try_from(dice.between(0, 4_000)).unwrap_or(0) - 2_000);
        }
        scene.ledger.note(&format!("start {}", self.id));
        let parts = self.disk.boot(&host);
        *up = Some(Up { host: host.clone(), replica: None, failed: false });
        drop(up);
        let (node, scene) = (Arc::clone(self), Arc::clone(scene));
        let here = host.clone();
        drop(host.spawn(async move {
            let plan = &scene.plan;
            let options = Options {
                timing: plan.timing,
                log_keep_bytes: plan.log_keep_bytes,
                event_ring_bytes: plan.event_ring_bytes,
                history_window: Duration::from_secs(75),
                ..Options::new(ReplicaId(node.id), "simulated")
            };
            let net = Arc::clone(&scene.net);
            let listener = Listener { net: Arc::clone(&net), address: node.address.clone() };
            let transport = TransportOptions { listener, identity: PeerIdentity { net } };
            let why = match Replica::open(options, parts, Some(transport)).await {
                Ok(replica) => {
                    if let Some(up) = node.up.lock().as_mut().filter(|up| up.host == here) {
                        up.replica = Some(replica.clone());
                    }
                    replica.stopped().await
                }
                Err(error) => {
                    scene.ledger.accuse("a replica starts again", format!("replica {}: {error}", node.id));
                    return;
                }
            };
            scene.ledger.note(&format!("stopped {}: {why}", node.id));
            if !why.contains("modelled disk") {
                scene.ledger.accuse("a replica stops only when its disk fails", format!("replica {}: {why}", node.id));
            }
            if let Some(up) = node.up.lock().as_mut().filter(|up| up.host == here) {
                up.failed = true;
            }
        }));
    }

    /// Ends it.
    pub(crate) fn crash(&self, end: End, scene: &Scene) {
        let Some(up) = self.up.lock().take() else { return };
        scene.ledger.count(|tally| tally.crashes += 1);
        scene.ledger.note(&format!("crash {} {end:?}", self.id));
        self.disk.crash(end);
        up.host.kill();
        match end {
            End::Process => scene.net.process_ended(&up.host),
            End::Power => scene.net.machine_gone(&up.host),
        }
    }
}
