//! What was broken in openraft and is mended there stays mended: each test leads replicas of ours to where it showed. All that
//! is known of this kind, and what each would do, is on the page `docs/reference/openraft.md`.

use std::net::TcpListener;

use futures::{Stream, StreamExt};
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::entry::RaftEntry as _;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::ProgressResponder;
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{ChangeMembers, OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use quilt_state::Machine;

use super::leaks::{DEADLINE, create, leader, trio};
use super::*;
use crate::history::Written;
use crate::log_store::LogStore;
use crate::read;
use crate::settings::{self, Timing};
use crate::snapshot::SnapshotHome;
use crate::state_machine::{self, Builder, Listeners, SnapshotData, StateMachine};
use crate::status::Role;
use crate::storage_suite::carry;
use crate::transport::Network;
use crate::transport::authority::Authority;
use crate::types::{Entry, LogId, Metrics, Node, SnapshotMeta, StoredMembership, Vote, log_id};

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// The only voter of a control plane of its own, which reaches nobody.
struct Alone {
    replica: Replica,
    log: Arc<dyn LogEngine>,
    snapshots: Arc<dyn SnapshotHome>,
}

impl Alone {
    async fn start(id: u64) -> Self {
        let alone = Self::open(id, Parts::memory()).await;
        alone.replica.admin().initialize(BTreeMap::from([(ReplicaId(id), String::new())])).await.expect("founded");
        alone.replica.ready().wait_for(|ready| *ready).await.expect("gets ready");
        alone
    }

    async fn open(id: u64, parts: Parts) -> Self {
        let (log, snapshots) = (Arc::clone(&parts.log), Arc::clone(&parts.snapshots));
        let options = Options { timing: Timing::relaxed(), ..Options::new(ReplicaId(id), "mended") };
        let replica = Replica::open(options, parts, None).await.expect("opens");
        Self { replica, log, snapshots }
    }

    /// It starts again with nothing but its log, and is elected again.
    async fn started_again(self) -> Self {
        self.replica.shutdown().await;
        let again = Self::open(self.replica.id().0, Parts { log: self.log, ..Parts::memory() }).await;
        again.replica.ready().wait_for(|ready| *ready).await.expect("gets ready");
        again
    }

    fn metrics(&self) -> Metrics {
        self.replica.raft().metrics().borrow_watched().clone()
    }

    /// The last entry of its log.
    fn last(&self) -> u64 {
        self.metrics().last_log_index.expect("founded")
    }

    /// Writes until its log has reached an entry, and all of it is applied.
    async fn write_up_to(&self, index: u64) {
        while self.last() < index {
            let name = format!("of-{}-{}", self.replica.id(), self.last());
            self.replica.propose(create(&name), DEADLINE).await.expect("applied");
        }
        until("all is applied", || self.replica.status().applied_index == self.last()).await;
    }

    /// Adds a learner that is never there.
    async fn add_learner(&self, id: u64) {
        self.replica.raft().add_learner(id, Node::new(""), false).await.expect("added");
    }

    /// What another replica has applied, as it arrives here by snapshot.
    fn receive(&self, from: &Self) -> Snapshot {
        let source = from.snapshots.build().expect("a state");
        let sink = carry(&*source, &*self.snapshots).expect("arrives");
        let meta = state_machine::meta(sink.position(), &sink.membership()).expect("is known");
        Snapshot { meta, snapshot: SnapshotData::Arrived(sink) }
    }
}

/// Waits until something is so.
async fn until(what: &str, so: impl Fn() -> bool + Sync) {
    let waiting = async {
        while !so() {
            TypeConfig::sleep(Duration::from_millis(5)).await;
        }
    };
    TypeConfig::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("in time: {what}"));
}

/// A leader that was deposed behind its back, and the one that came after it.
struct Deposed {
    deposed: Alone,
    next: Alone,
    /// What the deposed one was asked for before, and has in its log: a change of the members.
    asked: JoinHandle<bool>,
}

impl Deposed {
    /// The change takes a second voter to agree, which is not there. What the next leader has agreed on meanwhile ends behind
    /// it, and names other members, at an earlier entry than the change has.
    async fn begin() -> Self {
        let (deposed, next) = (Alone::start(1).await, Alone::start(2).await);
        next.add_learner(1).await;
        deposed.write_up_to(next.last() + 5).await;
        deposed.add_learner(2).await;
        let (raft, before) = (deposed.replica.raft().clone(), deposed.last());
        let asked = deposed.replica.on_runtime(async move {
            raft.change_membership(ChangeMembers::AddVoterIds([2].into()), true).await.is_ok()
        });
        until("the change is in the log", || deposed.last() > before).await;
        next.write_up_to(deposed.last() + 5).await;
        assert!(deposed.metrics().membership_config.log_id() > next.metrics().membership_config.log_id());
        Self { deposed, next, asked }
    }

    /// The next leader's snapshot takes the place of all that.
    async fn install(&self) -> (Vote, LogId) {
        let snapshot = self.deposed.receive(&self.next);
        let (vote, covered) =
            (Vote::new_committed(self.deposed.metrics().current_term + 1, 2), snapshot.meta.last_log_id);
        let raft = self.deposed.replica.raft();
        raft.install_full_snapshot(vote, snapshot).await.expect("installed");
        (vote, covered.expect("something"))
    }
}

/// openraft #1761: a leader is deposed with requests under way, and what they wrote is not cut off but covered by a snapshot that ends
/// behind its log. Its requests are answered, and it follows on: who waited for an entry that is gone was looked up in the log
/// with the next entry applied, and that ended the replica for good.
#[tokio::test]
async fn nobody_waits_for_what_a_snapshot_has_covered() {
    let scene = Deposed::begin().await;
    let (vote, covered) = scene.install().await;
    let next = log_id(vote.leader_id.term, covered.index + 1);
    let append = AppendEntriesRequest {
        vote,
        prev_log_id: Some(covered),
        entries: vec![Entry::new_blank(next)],
        leader_commit: Some(next),
    };
    let replica = &scene.deposed.replica;
    replica.raft().append_entries(append).await.expect("appended");
    until("the next entry is applied", || replica.status().applied_index == next.index).await;
    assert_eq!(replica.status().error, None);
    let asked = TypeConfig::timeout(DEADLINE, scene.asked).await.expect("nobody waits for ever");
    assert!(!asked.expect("no panic"), "it was never agreed on");
}

/// openraft #1808: a change of the members that was not agreed on goes with the entry that a snapshot covers, also where the members
/// that the snapshot names stand at an earlier entry. Who keeps it counts majorities among replicas that nobody else counts.
#[tokio::test]
async fn members_are_those_of_the_snapshot() {
    let scene = Deposed::begin().await;
    let voters = |alone: &Alone| alone.metrics().membership_config.voter_ids().collect::<Vec<_>>();
    assert_eq!((voters(&scene.deposed), voters(&scene.next)), (vec![1, 2], vec![2]));
    scene.install().await;
    let members = |alone: &Alone| alone.metrics().membership_config;
    until("its members are those of the snapshot", || members(&scene.deposed) == members(&scene.next)).await;
    let status = scene.deposed.replica.status();
    let members: Vec<_> = status.members.iter().map(|member| (member.id.0, member.voter)).collect();
    assert_eq!((members, status.membership_changing), (vec![(1, false), (2, true)], false));
    assert_eq!(status.role, Role::Learner, "it was a voter by what was never agreed on");
}

/// openraft #1892: a snapshot that ends at the last entry agreed on here, and says that another one was agreed on there, is of another
/// history. It is not adopted: the replica stops over it and keeps what it has.
#[tokio::test]
async fn a_snapshot_of_another_history_is_not_adopted() {
    let (here, other) = (Alone::start(1).await, Alone::start(2).await.started_again().await);
    // Once it has taken a write, a replica adds nothing of its own.
    for alone in [&here, &other] {
        alone.write_up_to(alone.last() + 1).await;
    }
    let end = here.last().max(other.last());
    here.write_up_to(end).await;
    other.write_up_to(end).await;
    let before = here.replica.status();
    let snapshot = here.receive(&other);
    let (ours, theirs) = (here.replica.applied().mark(), snapshot.meta.last_log_id.expect("something"));
    assert!(theirs.index == ours.index && *theirs.leader_id > ours.term, "{ours:?} {theirs}");

    let installed = here.replica.raft().install_full_snapshot(Vote::new_committed(3, 2), snapshot).await;
    let reason = TypeConfig::timeout(DEADLINE, here.replica.stopped()).await.expect("it stops");
    assert!(installed.is_err() && !reason.is_empty(), "{installed:?} {reason}");
    let after = here.replica.status();
    assert_eq!((after.revision, after.state_hash), (before.revision, before.state_hash));
}

/// openraft #1828: a learner is added that cannot be reached, and the log is cut to its end before it can. Then there is no entry to
/// try on it, and nothing is written that would give one: it gets a snapshot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_catches_up_with_a_log_that_is_cut_to_its_end() {
    let authority = Authority::new();
    let begin = |id: u64| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let options = Options { timing: Timing::relaxed(), ..Options::new(ReplicaId(id), "mended") };
        let transport = TransportOptions { listener, identity: authority.identity(ReplicaId(id)) };
        (address, options, transport)
    };
    let (address, options, transport) = begin(1);
    let first = Replica::open(options, Parts::memory(), Some(transport)).await.expect("opens");
    first.admin().initialize(BTreeMap::from([(ReplicaId(1), address)])).await.expect("founded");
    first.ready().wait_for(|ready| *ready).await.expect("gets ready");
    first.propose(create("a"), DEADLINE).await.expect("applied");

    // Nobody answers there yet.
    let (address, options, transport) = begin(2);
    first.admin().add_learner(ReplicaId(2), address).await.expect("it need not run yet");
    let is_cut = || {
        let status = first.status();
        status.purged_index == Some(status.last_log_index)
    };
    let cut = async {
        while !is_cut() {
            first.admin().cut_log(0).await.expect("cut");
            TypeConfig::sleep(Duration::from_millis(20)).await;
        }
    };
    TypeConfig::timeout(DEADLINE, cut).await.expect("cut to its end in time");

    let learner = Replica::open(options, Parts::memory(), Some(transport)).await.expect("opens");
    let holds_all = || {
        let (learner, first) = (learner.status(), first.status());
        learner.snapshot_index.is_some() && learner.applied_index >= first.applied_index
    };
    until("the learner holds everything, by snapshot", holds_all).await;
    for replica in [learner, first] {
        replica.shutdown().await;
    }
}

/// openraft #1747: a leader that was asked to hand over to a replica that has just gone confirms no read any more. With each it would tell
/// its followers that it is there, and for as long as anybody reads nobody would lead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_do_not_keep_a_leader_that_hands_over() {
    let mut replicas = trio().await;
    let old = replicas.remove(leader(&replicas).await);
    let term = old.status().term;
    let gone = replicas.pop().expect("two followers");
    gone.shutdown().await;
    // An operator's request is refused where it is known that nobody is there; it may go a moment later.
    old.raft().trigger().transfer_leader(gone.id().0).await.expect("runs");
    let reading = {
        let old = old.clone();
        TypeConfig::spawn(async move {
            loop {
                let confirmed = read::confirm(old.raft()).await.is_ok();
                if confirmed && old.status().term == term {
                    return "a read of a leader that has handed over was confirmed";
                }
                TypeConfig::sleep(Duration::from_millis(10)).await;
            }
        })
    };
    let other = &replicas[0];
    until("another one leads", || [&old, other].iter().any(|it| it.status().term > term && it.is_led())).await;
    let written = other.propose(create("a"), DEADLINE).await;
    assert!(written.is_ok(), "{written:?}");
    assert!(!reading.is_finished(), "a read was confirmed");
    reading.abort();
    for replica in [&old, other] {
        replica.shutdown().await;
    }
}

/// A state machine, a log and a network as a replica has them, in memory and without peers.
fn machine() -> (StateMachine, LogStore, Network) {
    let Parts { store, log, snapshots } = Parts::memory();
    let machine: Machine<dyn Store> = Machine::open(Arc::clone(&store)).expect("an empty state opens");
    let applied = Arc::new(Applied::new(store, machine.horizon(), 0, (0, 0)));
    let listeners = Listeners {
        hub: Arc::new(Hub::new(Arc::clone(&applied), 1 << 20)),
        requests: Arc::new(Requests::new(applied.mark())),
        answers: Arc::default(),
        clock: Arc::new(Clock::new(0)),
        applied: Arc::clone(&applied),
        written: Arc::<Written>::default(),
    };
    let network = Network {
        id: 1,
        peers: Arc::default(),
        applied,
        disk: Arc::default(),
        snapshots: Arc::clone(&snapshots),
        on_their_way: Arc::default(),
    };
    (StateMachine::new(machine, snapshots, listeners), LogStore::new(log, Arc::default()), network)
}

/// Peers of which a test says how much of the log each has stored; they vote for whoever asks.
#[derive(Clone)]
struct Scripted {
    stored: Arc<BTreeMap<u64, watch::Sender<u64>>>,
}

impl RaftNetworkFactory<TypeConfig> for Scripted {
    type Network = ScriptedPeer;

    async fn new_client(&mut self, target: u64, _node: &Node) -> ScriptedPeer {
        ScriptedPeer { stored: self.stored[&target].subscribe() }
    }
}

struct ScriptedPeer {
    stored: watch::Receiver<u64>,
}

impl RaftNetworkV2<TypeConfig> for ScriptedPeer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let end = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id).map_or(0, |id| id.index);
        let stored = self.stored.wait_for(|stored| *stored >= end).await;
        stored.map_err(|gone| Unreachable::new(&gone))?;
        Ok(AppendEntriesResponse::Success)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(VoteResponse::new(rpc.vote, rpc.last_log_id, true))
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.vote(rpc, option).await
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: Snapshot,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(Unreachable::from_string("nobody needs one").into())
    }
}

/// openraft #1802: two of seven voters have stored what is not agreed on yet, and the one that was second in that stores more. Then the
/// leader's list of who has stored what is no longer in order, and must be put in order: read as if it were, the next answer has
/// an entry count as stored by four which three have.
#[tokio::test]
async fn what_three_of_seven_have_stored_is_not_agreed_on() {
    let everything = (2..=7).map(|id| (id, watch::Sender::new(u64::MAX)));
    let peers = Scripted { stored: Arc::new(everything.collect()) };
    let (machine, log, _) = machine();
    let config = Arc::new(settings::config("mended", Timing::relaxed()).expect("valid"));
    let raft = Raft::new(1, config, peers.clone(), log, machine).await.expect("opens");
    raft.initialize((1..=7).map(|id| (id, Node::new(""))).collect::<BTreeMap<_, _>>()).await.expect("founded");
    let leads = |now: &Metrics| {
        let stored = |matched: &Option<LogId>| matched.map(|id| id.index) == now.last_log_index;
        now.last_applied.map(|id| id.index) == now.last_log_index
            && now.replication.as_ref().is_some_and(|peers| peers.len() >= 6 && peers.values().all(stored))
    };
    let metrics = raft.wait(Some(DEADLINE)).metrics(leads, "all have stored everything").await.expect("it leads");
    let base = metrics.last_log_index.expect("founded");

    for stored in peers.stored.values() {
        stored.send_replace(base);
    }
    let mut waiting = Vec::new();
    for (write, who) in [(1, 2), (1, 3), (2, 3), (2, 4)] {
        while waiting.len() < write {
            let (responder, result) = ProgressResponder::complete_only();
            let entry = crate::codec::encode_entry(&quilt_proto::Entry::default());
            raft.write(entry).responder(responder).await.expect("taken");
            waiting.push(result);
        }
        let index = base + write as u64;
        let written = |now: &Metrics| now.last_log_index == Some(index);
        raft.wait(Some(DEADLINE)).metrics(written, "it is in the log").await.expect("written");
        peers.stored[&who].send_replace(index);
        let stored = |now: &Metrics| {
            let matched = now.replication.as_ref().and_then(|peers| peers[&who]);
            matched.map(|id| id.index) == Some(index)
        };
        raft.wait(Some(DEADLINE)).metrics(stored, "the leader knows of it").await.expect("stored");
    }
    let committed = || raft.metrics().borrow_watched().cluster_committed.map(|id| id.index);
    assert_eq!(committed(), Some(base + 1), "four have stored this, and three of them one more");
    peers.stored[&5].send_replace(base + 2);
    let agreed = TypeConfig::timeout(DEADLINE, waiting.pop().expect("the last one")).await;
    assert!(matches!(agreed, Ok(Ok(Ok(_)))), "the fourth has stored it");
    raft.shutdown().await.expect("ends");
}

/// The real state machine, except that it answers nobody.
struct Mute(StateMachine);

impl RaftStateMachine<TypeConfig> for Mute {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), std::io::Error> {
        self.0.applied_state().await
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), std::io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, std::io::Error>> + Unpin + OptionalSend,
    {
        self.0.apply(entries.map(|entry| entry.map(|(entry, _responder)| (entry, None)))).await
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.0.get_snapshot_builder().await
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> Result<(), std::io::Error> {
        self.0.install_snapshot(meta, snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, std::io::Error> {
        self.0.get_current_snapshot().await
    }
}

/// openraft #1816: an answer that is lost on its way ends the wait for it, with an error; it was a wait for ever. A change of the members
/// waits as openraft does; a write, as the proposer asks for it, waits on a channel of its own.
#[tokio::test]
async fn an_answer_that_is_lost_ends_the_wait() {
    let (machine, log, network) = machine();
    let config = Arc::new(settings::config("mended", Timing::relaxed()).expect("valid"));
    let raft = openraft::Raft::<TypeConfig, Mute>::new(1, config, network, log, Mute(machine)).await.expect("opens");
    raft.initialize(BTreeMap::from([(1, Node::new(""))])).await.expect("founded");
    let leads = |now: &Metrics| now.current_leader == Some(1) && now.last_applied >= Some(log_id(1, 1));
    raft.wait(Some(DEADLINE)).metrics(leads, "it leads").await.expect("the only voter leads");

    let changed = TypeConfig::timeout(DEADLINE, raft.add_learner(2, Node::new(""), false)).await;
    assert!(matches!(&changed, Ok(Err(_))), "{changed:?}");
    let (responder, result) = ProgressResponder::complete_only();
    let entry = crate::codec::encode_entry(&quilt_proto::Entry::default());
    raft.write(entry).responder(responder).await.expect("taken");
    let written = TypeConfig::timeout(DEADLINE, result).await;
    assert!(matches!(written, Ok(Err(_))), "it ends without a result");
    assert!(raft.metrics().borrow_watched().running_state.is_ok(), "nobody stops over it");
    raft.shutdown().await.expect("ends");
}

/// The page names every fix that a test names, and only tests that are there.
#[test]
fn the_page_names_what_is_tested() {
    let read = |path: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        std::fs::read_to_string(path).expect("it is there")
    };
    let page = read("../docs/reference/openraft.md");
    let sources = [
        "src/replica/mended.rs",
        "src/read.rs",
        "src/storage_suite.rs",
        "tests/raft/cluster.rs",
        "tests/raft/memory.rs",
        "../cluster-tests/simulation/tests/simulation.rs",
    ];
    let sources = sources.map(read).concat();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && line.contains("alpha.")).collect();
    assert_eq!(rows.len(), 10, "fixes on the page");
    for row in &rows {
        let shown_by = row.rsplit('|').nth(1).unwrap_or_default();
        let tests: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
        let missing: Vec<_> = tests.iter().filter(|test| !sources.contains(&format!("fn {test}("))).collect();
        assert!(!tests.is_empty() && missing.is_empty(), "{missing:?} of {row}");
    }
    let named = sources.split("openraft #").skip(1);
    for number in named.filter_map(|rest| rest.get(..4)).filter(|number| number.bytes().all(|it| it.is_ascii_digit())) {
        assert!(rows.iter().any(|row| row.contains(&format!("[#{number}]"))), "#{number} is not on the page");
    }
}
