//! A control plane of several replicas in one process, each with its own directory, port and certificate.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quilt_proto::{Compare, Key, Op, ReplicaId, Revision, Txn};
use quilt_raft::{Decision, OpenError, Options, Parts, Replica, ScanPace, Status, Timing, TransportOptions};
use quilt_storage::{Home, Identity};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::authority::Authority;
use crate::braked::{Brake, BrakedLog};

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn key(name: &str) -> Key {
    Key::new("default", "", "configmaps", "default", name).expect("valid key")
}

pub(crate) fn put(name: &str) -> Op {
    Op::put(&key(name), "{}")
}

/// Creates a key that must not exist: applied twice, the second shows as rejected.
pub(crate) fn create(name: &str) -> Txn {
    Txn::new(vec![Compare::absent(&key(name))], vec![put(name)])
}

/// A value that does not compress away; another one for each seed.
pub(crate) fn noise(seed: u32, bytes: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(bytes)
    .collect()
}

#[allow(clippy::needless_pass_by_value, reason = "the shape of what a proposal gives")]
pub(crate) fn last(decision: Decision) -> Revision {
    match decision {
        Decision::Applied { last, .. } => last,
        Decision::Rejected { .. } => panic!("{decision:?}"),
    }
}

struct Node {
    dir: TempDir,
    brake: Arc<Brake>,
    address: SocketAddr,
    running: Option<(Replica, Home)>,
}

pub(crate) struct Cluster {
    authority: Authority,
    timing: Timing,
    /// After which a disk counts as stalled.
    stalled: Duration,
    nodes: BTreeMap<u64, Node>,
}

impl Cluster {
    /// Starts replicas and founds a control plane of them.
    pub(crate) async fn start(size: u64) -> Self {
        Self::start_with(size, Timing::relaxed()).await
    }

    /// The same with other heartbeats and elections.
    pub(crate) async fn start_with(size: u64, timing: Timing) -> Self {
        Self::unfounded(size, timing).await.founded().await
    }

    /// The same, with disks that have stalled after so long.
    pub(crate) async fn start_with_stalls(size: u64, timing: Timing, stalled: Duration) -> Self {
        Self::with(size, timing, stalled).await.founded().await
    }

    async fn founded(self) -> Self {
        let cluster = self;
        cluster.get(1).admin().initialize(cluster.members()).await.expect("founded");
        for id in cluster.ids() {
            cluster.until(id, |status| status.ready).await;
        }
        cluster
    }

    /// Starts replicas that hold nothing yet.
    pub(crate) async fn unfounded(size: u64, timing: Timing) -> Self {
        Self::with(size, timing, Options::new(ReplicaId(1), "").disk_stalled).await
    }

    async fn with(size: u64, timing: Timing, stalled: Duration) -> Self {
        let mut cluster = Self { authority: Authority::new(), timing, stalled, nodes: BTreeMap::new() };
        for _ in 0..size {
            cluster.add().await;
        }
        cluster
    }

    /// All replicas with their addresses.
    pub(crate) fn members(&self) -> BTreeMap<ReplicaId, String> {
        self.nodes.iter().map(|(id, node)| (ReplicaId(*id), node.address.to_string())).collect()
    }

    /// Starts another replica with an empty directory.
    pub(crate) async fn add(&mut self) -> (u64, String) {
        let id = self.nodes.len() as u64 + 1;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let dir = tempfile::tempdir().expect("a directory");
        self.nodes.insert(id, Node { dir, brake: Arc::default(), address, running: None });
        self.open(id, listener).await;
        (id, address.to_string())
    }

    async fn open(&mut self, id: u64, listener: TcpListener) {
        self.try_open(id, listener).await.expect("opens");
    }

    async fn try_open(&mut self, id: u64, listener: TcpListener) -> Result<(), OpenError> {
        let opened = self.opening(id, listener).await?;
        self.nodes.get_mut(&id).expect("known").running = Some(opened);
        Ok(())
    }

    fn opening(
        &self,
        id: u64,
        listener: TcpListener,
    ) -> impl Future<Output = Result<(Replica, Home), OpenError>> + Send + use<> {
        let (timing, disk_stalled) = (self.timing, self.stalled);
        let identity = self.authority.identity(ReplicaId(id));
        let (data, brake) = (self.data(id), Arc::clone(&self.nodes[&id].brake));
        async move {
            let whose = Identity { cluster: "test".into(), replica: id };
            let home = Home::open(&data, whose).expect("the directory opens");
            // Whole scans all the time: each compares what apply has written with its hash.
            let scan = ScanPace {
                page_bytes: 64 << 10,
                page_pause: Duration::from_millis(2),
                pause: Duration::from_millis(200),
            };
            let options = Options { timing, scan, disk_stalled, ..Options::new(ReplicaId(id), "test") };
            let transport = TransportOptions { listener, identity };
            let log = Arc::new(BrakedLog::new(home.log.clone(), brake));
            let parts = Parts { log, ..Parts::of(&home) };
            let replica = Replica::open(options, parts, Some(transport)).await?;
            Ok((replica, home))
        }
    }

    /// Begins to start a replica that may not come up before others do. See [`Cluster::came_back`].
    pub(crate) fn begin_restart(&self, id: u64) -> JoinHandle<Result<(Replica, Home), OpenError>> {
        let listener = TcpListener::bind(self.nodes[&id].address).expect("its port is free again");
        tokio::spawn(self.opening(id, listener))
    }

    /// Waits until a replica that was begun to be started has come up.
    pub(crate) async fn came_back(&mut self, id: u64, starting: JoinHandle<Result<(Replica, Home), OpenError>>) {
        let opened = tokio::time::timeout(DEADLINE, starting).await.expect("comes up in time").expect("no panic");
        self.nodes.get_mut(&id).expect("known").running = Some(opened.expect("opens"));
    }

    /// Where a replica keeps its data.
    pub(crate) fn data(&self, id: u64) -> PathBuf {
        self.nodes[&id].dir.path().join("data")
    }

    /// What slows a replica's disk down.
    pub(crate) fn brake(&self, id: u64) -> &Brake {
        &self.nodes[&id].brake
    }

    /// The data of a replica that runs.
    pub(crate) fn home(&self, id: u64) -> &Home {
        &self.nodes[&id].running.as_ref().expect("running").1
    }

    /// Starts a replica that does not run; gives back why it does not start.
    pub(crate) async fn try_restart(&mut self, id: u64) -> Result<(), OpenError> {
        let address = self.nodes[&id].address;
        self.try_open(id, TcpListener::bind(address).expect("its port is free again")).await
    }

    /// Waits until a replica has stopped by itself, ends it, and says why it did.
    pub(crate) async fn stopped(&mut self, id: u64) -> String {
        let why = tokio::time::timeout(DEADLINE, self.get(id).stopped()).await.expect("stops in time");
        self.shut_down(id).await;
        why
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn get(&self, id: u64) -> &Replica {
        &self.nodes[&id].running.as_ref().expect("running").0
    }

    fn running(&self) -> impl Iterator<Item = (u64, &Replica)> {
        self.nodes.iter().filter_map(|(id, node)| Some((*id, &node.running.as_ref()?.0)))
    }

    pub(crate) async fn shut_down(&mut self, id: u64) {
        let (replica, home) = self.nodes.get_mut(&id).expect("known").running.take().expect("running");
        replica.shutdown().await;
        drop(replica);
        drop(home);
    }

    /// Ends a replica the way a killed process ends: nothing is flushed, nobody is told, its sockets close. There must be
    /// no other clone of the replica.
    pub(crate) fn kill(&mut self, id: u64) {
        drop(self.nodes.get_mut(&id).expect("known").running.take().expect("running"));
    }

    /// Has two replicas that do not run start at each other's address, as after a mix-up of names; nobody else is told.
    pub(crate) fn swap_addresses(&mut self, one: u64, other: u64) {
        let (here, there) = (self.nodes[&one].address, self.nodes[&other].address);
        self.nodes.get_mut(&one).expect("known").address = there;
        self.nodes.get_mut(&other).expect("known").address = here;
    }

    /// Takes everything a replica that does not run has kept.
    pub(crate) fn empty(&self, id: u64) {
        std::fs::remove_dir_all(self.nodes[&id].dir.path().join("data")).expect("its directory is there");
    }

    /// Where its peers reach a replica.
    pub(crate) fn address(&self, id: u64) -> SocketAddr {
        self.nodes[&id].address
    }

    /// Starts a replica that does not run behind whoever stands at its address now.
    pub(crate) async fn restart_at(&mut self, id: u64, listener: TcpListener) {
        self.open(id, listener).await;
    }

    pub(crate) async fn restart(&mut self, id: u64) {
        let address = self.nodes[&id].address;
        let listener = TcpListener::bind(address).expect("its port is free again");
        self.open(id, listener).await;
    }

    /// The replica that leads, once one does.
    pub(crate) async fn leader(&self) -> u64 {
        let found = async {
            loop {
                for (id, replica) in self.running() {
                    if replica.leadership().borrow().held().is_some() {
                        return id;
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(DEADLINE, found).await.expect("a leader in time")
    }

    pub(crate) async fn until(&self, id: u64, wanted: impl Fn(&Status) -> bool) {
        let reached = async {
            while !wanted(&self.get(id).status()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(DEADLINE, reached).await.is_err() {
            panic!("replica {id} did not get there: {:#?}", self.get(id).status());
        }
    }

    pub(crate) async fn wait_for_revision(&self, revision: u64) {
        for (id, _) in self.running() {
            self.until(id, |status| status.revision >= revision).await;
        }
    }

    /// Waits until all running replicas are at one index with one hash; returns the revision there.
    pub(crate) async fn same_state(&self) -> u64 {
        let same = async {
            loop {
                let states: Vec<_> = self
                    .running()
                    .map(|(_, replica)| replica.status())
                    .map(|status| (status.applied_index, status.revision, status.state_hash))
                    .collect();
                if states.windows(2).all(|pair| pair[0].0 == pair[1].0) {
                    assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "states differ: {states:?}");
                    return states[0].1;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(DEADLINE, same).await.expect("equal in time")
    }

    pub(crate) async fn stop(mut self) {
        for id in self.ids() {
            if self.nodes[&id].running.is_some() {
                self.shut_down(id).await;
            }
        }
    }
}
