//! One world from its seed to its verdict: founding, faults under load, healing, and work again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quilt_proto::{Op, ReplicaId, Txn};
use quilt_raft_simulated::model::{Dice, Host, Net, Weather, World, now_ns, sleep};
use quilt_raft_simulated::{Consistency, Replica, Status};

use crate::campaign::Verdict;
use crate::client::{Client, Seen, Trade, key, look};
use crate::disk::Habit;
use crate::fault::{Faults, Strike, supervise};
use crate::ledger::Ledger;
use crate::node::{Node, on};
use crate::operator::Operator;
use crate::pace::Pace;
use crate::plan::Plan;
use crate::sight::Sight;
use crate::watcher::Watcher;

/// The cluster all keys are in.
pub(crate) const CLUSTER: &str = "sim";
/// After everything is healed, the control plane works and agrees within this.
const AGREES_WITHIN: Duration = Duration::from_secs(60);
/// How often the world is looked at for a broken rule.
const LOOK: Duration = Duration::from_millis(500);
/// A client that thinks looks up as often as this.
const THINK_STEP: Duration = Duration::from_secs(5);
/// The slowest client has its answer within this.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// How long and how loud.
#[derive(Clone, Debug)]
pub struct Options {
    /// Virtual seconds under faults of a busy world; of others, as many times more as their pace says.
    pub seconds: u64,
    /// Another pace than the seed's.
    pub pace: Option<Pace>,
    /// No fault but this.
    pub only: Option<Strike>,
    /// Where every line of the trace goes.
    pub trace: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { seconds: 60, pace: None, only: None, trace: None }
    }
}

/// Everything in one world.
pub(crate) struct Scene {
    pub(crate) plan: Plan,
    pub(crate) dice: Dice,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) net: Arc<Net>,
    pub(crate) only: Option<Strike>,
    nodes: Mutex<BTreeMap<u64, Arc<Node>>>,
    retired: Mutex<BTreeSet<u64>>,
    ground: Host,
    numbers: AtomicU64,
    breaking: AtomicBool,
    loading: AtomicBool,
    watching: AtomicBool,
}

impl Scene {
    fn new(seed: u64, options: &Options, ledger: Arc<Ledger>) -> Arc<Self> {
        let plan = Plan::of(seed, options.pace);
        let dice = Dice::new(seed).child(3);
        let net = Net::new(dice.child(1), plan.weather);
        Arc::new(Self {
            plan,
            dice,
            ledger,
            net,
            only: options.only,
            nodes: Mutex::default(),
            retired: Mutex::default(),
            ground: Host::new(0),
            numbers: AtomicU64::new(1),
            breaking: AtomicBool::new(true),
            loading: AtomicBool::new(true),
            watching: AtomicBool::new(true),
        })
    }

    pub(crate) fn is_breaking(&self) -> bool {
        self.breaking.load(Ordering::Relaxed)
    }

    pub(crate) fn is_loading(&self) -> bool {
        self.loading.load(Ordering::Relaxed)
    }

    pub(crate) fn is_watching(&self) -> bool {
        self.watching.load(Ordering::Relaxed)
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Starts a task that belongs to no machine.
    pub(crate) fn spawn<F>(&self, task: F) -> impl Future<Output = Option<F::Output>> + Send + use<F>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let handle = self.ground.spawn(task);
        async move { handle.await.ok() }
    }

    /// Machines that were not removed for good.
    pub(crate) fn nodes(&self) -> Vec<Arc<Node>> {
        let retired = self.retired.lock();
        self.nodes.lock().values().filter(|node| !retired.contains(&node.id)).cloned().collect()
    }

    /// All machines there ever were.
    pub(crate) fn all_nodes(&self) -> Vec<Arc<Node>> {
        self.nodes.lock().values().cloned().collect()
    }

    pub(crate) fn add_node(&self) -> Arc<Node> {
        let id = self.nodes.lock().len() as u64 + 1;
        let node = Node::new(id, self);
        self.nodes.lock().insert(id, Arc::clone(&node));
        node
    }

    pub(crate) fn retire(&self, id: u64) {
        self.retired.lock().insert(id);
    }

    /// The machine that leads, by its own word.
    pub(crate) fn leader(&self) -> Option<Arc<Node>> {
        self.nodes().into_iter().find(|node| node.leads())
    }

    /// Waits, and not much longer once there is to be no load any more.
    pub(crate) async fn think(&self, span: Duration) {
        let mut left = span;
        while self.is_loading() && !left.is_zero() {
            let step = left.min(THINK_STEP);
            sleep(step).await;
            left -= step;
        }
    }

    /// Waits, and no longer once a rule was broken. Whether none was.
    async fn pass(&self, span: Duration) -> bool {
        let end = now_ns() + u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        while now_ns() < end {
            sleep(LOOK).await;
            if !self.is_fine() {
                return false;
            }
        }
        true
    }

    fn is_fine(&self) -> bool {
        for panic in World::panics() {
            self.ledger.accuse("nothing panics", panic);
        }
        self.ledger.is_clean()
    }

    /// Waits for something; a rule is broken when it does not come in time. `None` then, or when another was broken.
    async fn within<T>(
        &self,
        rule: &'static str,
        span: Duration,
        mut look: impl AsyncFnMut() -> Result<T, String>,
    ) -> Option<T> {
        let end = now_ns() + u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        loop {
            if !self.is_fine() {
                return None;
            }
            match look().await {
                Ok(found) => return Some(found),
                Err(why) if now_ns() >= end => {
                    self.ledger.accuse(rule, why);
                    return None;
                }
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn live(self: &Arc<Self>, seconds: u64) -> Option<()> {
        self.found().await?;
        let mut clients = Vec::new();
        for number in 0..self.plan.clients {
            let (scene, dice) = (Arc::clone(self), self.dice.child(1_000 + number));
            clients.push(Box::pin(self.spawn(Client { scene, number, dice, made: 0, trade: Trade::Things }.run())));
        }
        for number in self.plan.clients..self.plan.clients + self.plan.claimants {
            let (scene, dice) = (Arc::clone(self), self.dice.child(1_000 + number));
            clients.push(Box::pin(self.spawn(Client { scene, number, dice, made: 0, trade: Trade::Claims }.run())));
        }
        for number in 0..self.plan.watchers {
            let (scene, dice) = (Arc::clone(self), self.dice.child(2_000 + number));
            drop(self.spawn(Watcher { scene, dice }.run()));
        }
        drop(self.spawn(supervise(Arc::clone(self))));
        drop(self.spawn(Faults { scene: Arc::clone(self), dice: self.dice.child(3_000) }.run()));
        drop(self.spawn(Operator { scene: Arc::clone(self), dice: self.dice.child(3_001) }.run()));
        if !self.pass(Duration::from_secs(seconds * self.plan.pace.stretch())).await {
            return None;
        }

        self.ledger.note("heal everything");
        self.breaking.store(false, Ordering::Relaxed);
        // What was under way ends: restarts, resumes, the end of a cut.
        if !self.pass(Duration::from_secs(12)).await {
            return None;
        }
        self.heal();
        // Under load at first, then in silence.
        if !self.pass(Duration::from_secs(5)).await {
            return None;
        }
        self.loading.store(false, Ordering::Relaxed);
        let mut answered = Box::pin(futures::future::join_all(clients));
        let waited = async {
            let mut left = ANSWERED_WITHIN;
            loop {
                let step = Duration::from_millis(500);
                let (done, late) = (&mut answered, Box::pin(sleep(step)));
                match futures::future::select(done, late).await {
                    futures::future::Either::Left(_) => return true,
                    futures::future::Either::Right(_) if left.is_zero() || !self.is_fine() => return false,
                    futures::future::Either::Right(_) => left = left.saturating_sub(step),
                }
            }
        };
        if !waited.await {
            self.ledger.accuse("every request is answered", "a client still waits");
            return None;
        }
        self.agree().await?;
        self.watching.store(false, Ordering::Relaxed);
        self.ledger.close();
        self.is_fine().then_some(())
    }

    async fn found(self: &Arc<Self>) -> Option<()> {
        for _ in 0..self.plan.replicas {
            self.add_node().start(self);
        }
        let nodes = self.nodes();
        let members: BTreeMap<_, _> = nodes.iter().map(|node| (ReplicaId(node.id), node.address.clone())).collect();
        let first = Arc::clone(nodes.first()?);
        let found = async || first.replica().ok_or_else(|| "replica 1 does not open".to_owned());
        let (host, replica) = self.within("a control plane is founded", AGREES_WITHIN, found).await?;
        let founded = on(&host, async move { replica.admin().initialize(members).await }).await;
        if !matches!(founded, Some(Ok(()))) {
            self.ledger.accuse("a control plane is founded", format!("{founded:?}"));
            return None;
        }
        let ready = async || {
            let waiting =
                nodes.iter().find(|node| !node.replica().is_some_and(|(_, replica)| *replica.ready().borrow()));
            waiting.map_or(Ok(()), |node| Err(format!("replica {} is not ready", node.id)))
        };
        self.within("a control plane is founded", AGREES_WITHIN, ready).await
    }

    fn heal(self: &Arc<Self>) {
        self.net.heal_all();
        self.net.set_weather(Weather::calm());
        for node in self.nodes() {
            node.disk.set_habit(Habit { sync_us: (50, 500), fail_next: false });
            if let Some(host) = node.host() {
                host.resume();
            }
            node.start(self);
        }
        self.net.looked_at();
    }

    /// The members as the leader has them, each with its status, once there is one leader whom all follow.
    async fn members(&self) -> Result<Vec<(Host, Replica, Status)>, String> {
        let leader = self.leader().and_then(|node| node.replica()).ok_or("nobody leads")?;
        let leads = status(&leader.0, &leader.1).await?;
        if leads.membership_changing {
            return Err("the membership is still changing".into());
        }
        let mut members = Vec::new();
        for member in &leads.members {
            let node = self.all_nodes().into_iter().find(|node| node.id == member.id.0);
            let (host, replica) =
                node.and_then(|node| node.replica()).ok_or_else(|| format!("replica {} is not up", member.id))?;
            let its = status(&host, &replica).await?;
            if its.leader != Some(leader.1.id()) {
                return Err(format!("replica {} follows {:?}, not {}", member.id, its.leader, leader.1.id()));
            }
            members.push((host, replica, its));
        }
        Ok(members)
    }

    /// Everything works again: one leader, writes through all, and all the same.
    async fn agree(self: &Arc<Self>) -> Option<()> {
        let members =
            self.within("one leads after everything is healed", AGREES_WITHIN, async || self.members().await).await?;
        for (host, replica, _) in members {
            let id = replica.id();
            let writing = on(&host, async move {
                let key = quilt_proto::Key::new(CLUSTER, "", "things", "last", "word").expect("plain words make a key");
                replica.propose(Txn::new(vec![], vec![Op::delete(&key)]), Duration::from_secs(10)).await
            });
            let written = writing.await;
            if !matches!(written, Some(Ok(_))) {
                self.ledger.accuse("writes are taken after everything is healed", format!("replica {id}: {written:?}"));
                return None;
            }
        }
        let same = async || {
            let members = self.members().await?;
            let marks: Vec<_> = members
                .iter()
                .map(|(_, _, status)| (status.applied_index, status.revision, status.state_hash.clone()))
                .collect();
            if marks.windows(2).all(|pair| pair[0] == pair[1]) { Ok(members) } else { Err(format!("{marks:?}")) }
        };
        let members = self.within("all replicas agree after everything is healed", AGREES_WITHIN, same).await?;
        for (host, replica, _) in members {
            let keys = (0..self.plan.keys).map(key).collect();
            let read = self.next_number();
            self.ledger.see(&Sight::ReadBegan { read });
            let seen = look(&host, &replica, Consistency::Linearizable, keys).await;
            let Some(Seen { revision, found, written }) = seen else {
                self.ledger
                    .accuse("reads are answered after everything is healed", format!("replica {}", replica.id()));
                return None;
            };
            let replica = replica.id().0;
            self.ledger.see(&Sight::ReadEnded {
                read: Some(read),
                replica,
                revision,
                found: &found,
                written: &written,
            });
        }
        self.is_fine().then_some(())
    }
}

/// How a replica says it is, asked on its own host: by the host's clocks.
async fn status(host: &Host, replica: &Replica) -> Result<Status, String> {
    let asked = replica.clone();
    let answer = on(host, async move { asked.status() }).await;
    answer.ok_or_else(|| format!("replica {} is not there", replica.id()))
}

/// Runs the world of one seed.
#[must_use]
pub fn simulate(seed: u64, options: &Options) -> Verdict {
    let dump = options.trace.as_ref().and_then(|path| std::fs::File::create(path).ok());
    let ledger = Arc::new(Ledger::new(dump));
    let mut world = World::new(seed);
    let scene = Scene::new(seed, options, Arc::clone(&ledger));
    ledger.note(&format!("{:?}", scene.plan));
    let simulated_ns = world.run(async {
        scene.live(options.seconds).await;
        now_ns()
    });
    for node in scene.all_nodes() {
        if let Some(host) = node.host() {
            host.kill();
        }
    }
    scene.ground.kill();
    let (trace_hash, lines) = ledger.trace();
    Verdict {
        seed,
        pace: scene.plan.pace,
        violation: ledger.violation(),
        trace_hash,
        lines,
        simulated: Duration::from_nanos(simulated_ns),
        tally: ledger.tally(),
    }
}
