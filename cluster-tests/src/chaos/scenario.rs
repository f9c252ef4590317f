//! [`SCENARIOS`]: everything chaos can do, as data. A scenario is a list of phases; in each, faults begin one behind the other, are in
//! force together for a while and end together. When, whom and how long comes from the seed.

use std::ops::Range;

use crate::fault::{Change, Clock, DiskTrouble, Fault, Files, Order, Over, Steps, Tail, Trouble, Way, When, Whom};
use crate::oracle::Promise::{self, G1, G2, G3, G4, G5, G6, G7, G10, G11, G13, G15, G16, G17, G20, G21};

/// What clients do meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// `ConfigMaps`: compare-and-set, patches, lists, watches.
    Objects,
    /// Workloads under Idempotency-Keys, join tokens with more joiners than uses, and such as end within a minute.
    Quilt,
    /// Both of these.
    Both,
    /// A Deployment that never rests, on two nodes, and a little of the first.
    Rollout,
    /// All of it at once, on two nodes.
    All,
}

/// Faults in force together.
#[derive(Debug, Clone)]
pub struct Phase {
    /// Which, in the order in which they begin.
    pub faults: &'static [Fault],
    /// How long they are in force, in milliseconds.
    pub hold_ms: Range<u64>,
    /// How long there is calm afterwards.
    pub calm_ms: Range<u64>,
}

impl Phase {
    /// Whether an operator has to begin a new epoch after it.
    #[must_use]
    pub fn renews(&self) -> bool {
        self.faults.iter().any(|fault| fault.renews())
    }
}

/// One scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub shows: &'static str,
    /// What clients do.
    pub work: Work,
    /// What is done to the control plane.
    pub phases: &'static [Phase],
    /// The promises that are judged in it beyond [`ALWAYS`].
    pub promises: &'static [Promise],
    /// Further arguments of `quiltd server`.
    pub arguments: &'static [&'static str],
}

/// Promises that clients of every kind of work judge.
pub const ALWAYS: &[Promise] = &[G1, G2, G3, G4, G5, G20, G21];

impl Scenario {
    /// All promises that are judged in it.
    #[must_use]
    pub fn judged(&self) -> Vec<Promise> {
        let mut all: Vec<Promise> = ALWAYS.iter().chain(self.promises).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The kinds of its faults; `none` when it has none.
    #[must_use]
    pub fn kinds(&self) -> Vec<&'static str> {
        let mut kinds: Vec<&str> = self.faults().map(|fault| fault.kind()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        if kinds.is_empty() { vec!["none"] } else { kinds }
    }

    /// Whether it needs the layer between replicas and their disks and clocks.
    #[must_use]
    pub fn needs_layer(&self) -> bool {
        self.faults().any(Fault::needs_layer)
    }

    /// Whether it needs a build from before the one under test.
    #[must_use]
    pub fn needs_previous(&self) -> bool {
        self.faults().any(Fault::needs_previous)
    }

    /// Whether clients have tokens in it that end before it does.
    #[must_use]
    pub fn outlives_tokens(&self) -> bool {
        let lasts: u64 = self.phases.iter().map(|phase| phase.hold_ms.start).sum();
        self.work == Quilt && lasts >= TOKENS_END_MS
    }

    fn faults(&self) -> impl Iterator<Item = Fault> {
        self.phases.iter().flat_map(|phase| phase.faults).copied()
    }
}

/// The scenario of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

const fn phase(faults: &'static [Fault], hold_ms: Range<u64>) -> Phase {
    Phase { faults, hold_ms, calm_ms: 500..1_000 }
}

const fn on(
    name: &'static str,
    shows: &'static str,
    work: Work,
    phases: &'static [Phase],
    promises: &'static [Promise],
) -> Scenario {
    Scenario { name, shows, work, phases, promises, arguments: &[] }
}

use Work::{Both, Objects, Quilt, Rollout};

/// A token of a minute has ended by then for certain, whatever clocks do.
const TOKENS_END_MS: u64 = 74_000;

const DAY: i64 = 86_400;

/// Not among the others: a disk that says that it has synced what it has not, and a power cut. Acknowledged writes are lost, and a harness
/// that does not say so is of no use.
pub const LYING_DISK: Scenario = on(
    "lying-disk",
    "The harness sees a loss.",
    Objects,
    &[Phase {
        faults: &[Fault::Disk(Whom::All, DiskTrouble::LyingSync), Fault::PowerCut(Whom::All, Tail::Dropped)],
        hold_ms: 100..300,
        calm_ms: 500..1_000,
    }],
    &[],
);

/// Everything chaos can do.
#[rustfmt::skip]
pub const SCENARIOS: &[Scenario] = &[
    on("calm", "Without any fault everything holds: what fails here fails everywhere.", Objects,
        &[phase(&[], 1_500..2_000)], &[]),
    on("kill-leader", "Another replica leads at once, and nothing acknowledged is lost.", Objects,
        &[phase(&[Fault::Kill(Whom::Leader)], 500..1_500), phase(&[Fault::Kill(Whom::Leader)], 100..500)], &[]),
    on("kill-follower", "Clients of the others notice nothing.", Objects,
        &[phase(&[Fault::Kill(Whom::Follower)], 500..1_500), phase(&[Fault::Kill(Whom::Follower)], 100..500)], &[]),
    on("kill-majority", "Nothing is answered that might be stale, and all goes on when they are back.", Objects,
        &[phase(&[Fault::Kill(Whom::Majority)], 800..1_500)], &[]),
    on("kill-all", "All processes die in the same instant; everything acknowledged is there again.", Objects,
        &[phase(&[Fault::Kill(Whom::All)], 200..500), phase(&[Fault::Kill(Whom::All)], 100..300)], &[]),
    on("kill-leader-quilt", "A request with a key takes effect once and a token admits no more than it says, through leader kills.", Quilt,
        &[phase(&[Fault::Kill(Whom::Leader)], 500..1_500), phase(&[Fault::Kill(Whom::Leader)], 100..500)], &[G6]),
    on("kill-leader-rollout", "Controllers and scheduler go on where the last leader's stopped.", Rollout,
        &[phase(&[Fault::Kill(Whom::Leader)], 500..1_500), phase(&[Fault::Kill(Whom::Leader)], 500..1_000)], &[G7]),
    on("power-cut-all", "All replicas lose power at once, and with it whatever they had not synced.", Objects,
        &[phase(&[Fault::PowerCut(Whom::All, Tail::Dropped)], 100..300), phase(&[Fault::PowerCut(Whom::All, Tail::Dropped)], 100..300)], &[]),
    on("power-cut-torn", "The last writes are torn by the loss of power; what is whole before them is kept.", Objects,
        &[phase(&[Fault::PowerCut(Whom::All, Tail::Torn)], 100..300), phase(&[Fault::PowerCut(Whom::All, Tail::Torn)], 100..300)], &[]),
    on("power-cut-leader", "The leader loses power, and with it its un-synced log.", Objects,
        &[phase(&[Fault::PowerCut(Whom::Leader, Tail::Dropped)], 300..800), phase(&[Fault::PowerCut(Whom::Leader, Tail::Torn)], 300..800)], &[]),
    on("power-cut-quilt", "Tokens and keys of requests survive the loss of power.", Quilt,
        &[phase(&[Fault::PowerCut(Whom::Majority, Tail::Dropped)], 200..500)], &[G6]),
    on("pause-leader", "A leader that stood still does not believe that it still leads.", Objects,
        &[phase(&[Fault::Pause(Whom::Leader)], 1_000..1_500), phase(&[Fault::Pause(Whom::Leader)], 400..800)], &[]),
    on("pause-follower", "A follower that stood still shows nothing from before.", Objects,
        &[phase(&[Fault::Pause(Whom::Follower)], 1_000..2_000)], &[]),
    on("pause-majority", "A replica that is left alone acknowledges nothing.", Objects,
        &[phase(&[Fault::Pause(Whom::Majority)], 1_000..2_000)], &[]),
    on("pause-leader-rollout", "A scheduler that stood still places nothing a second time.", Rollout,
        &[phase(&[Fault::Pause(Whom::Leader)], 1_000..1_500), phase(&[Fault::Pause(Whom::Leader)], 500..1_000)], &[G7]),
    on("restart-leader", "The leader is stopped in order and started again.", Objects,
        &[phase(&[Fault::Restart(Order::Stop(Whom::Leader))], 300..800)], &[]),
    on("restart-rolling", "Every replica is restarted in turn; watches go on without a relist.", Objects,
        &[phase(&[Fault::Restart(Order::Rolling)], 100..300)], &[]),
    on("restart-all", "All replicas are stopped in order and started again; history for watches is on disk.", Objects,
        &[phase(&[Fault::Restart(Order::Stop(Whom::All))], 100..300)], &[]),
    on("cut-leader", "A leader that nobody reaches acknowledges nothing and shows nothing old.", Objects,
        &[phase(&[Fault::Cut(Way::Around(Whom::Leader))], 1_500..2_500)], &[G17]),
    on("cut-follower", "A follower that reaches nobody does not push the others' term up.", Objects,
        &[phase(&[Fault::Cut(Way::Around(Whom::Follower))], 1_500..2_500)], &[G17]),
    on("cut-to-leader", "A leader that is heard and hears nobody gives up leading.", Objects,
        &[phase(&[Fault::Cut(Way::To(Whom::Leader))], 1_500..2_500)], &[G17]),
    on("cut-from-leader", "A leader that hears and is heard by nobody is replaced.", Objects,
        &[phase(&[Fault::Cut(Way::From(Whom::Leader))], 1_500..2_500)], &[G17]),
    on("cut-bridge", "Two replicas do not reach each other and the third reaches both: somebody leads.", Objects,
        &[phase(&[Fault::Cut(Way::Bridge)], 1_500..2_500)], &[G17]),
    on("cut-masks", "One-way cuts by chance, one set behind the other.", Objects,
        &[phase(&[Fault::Cut(Way::Mask)], 700..1_200), phase(&[Fault::Cut(Way::Mask)], 700..1_200), phase(&[Fault::Cut(Way::Mask)], 700..1_200)], &[G17]),
    on("cut-leader-rollout", "Controllers of a leader that is cut off change nothing.", Rollout,
        &[phase(&[Fault::Cut(Way::Around(Whom::Leader))], 1_500..2_500)], &[G7, G17]),
    on("links-slow", "Late bytes cost throughput, not safety.", Objects,
        &[phase(&[Fault::Links(Over::Peers, Trouble::Delay { ms: 10, jitter_ms: 30 })], 2_000..3_000)], &[]),
    on("links-narrow", "Narrow links cost throughput, not safety.", Objects,
        &[phase(&[Fault::Links(Over::Peers, Trouble::Narrow { bytes_per_second: 60_000 })], 2_000..3_000)], &[]),
    on("links-reset", "Connections between replicas are reset again and again.", Objects,
        &[phase(&[Fault::Links(Over::Peers, Trouble::Resets)], 2_000..3_000)], &[]),
    on("links-half-closed", "One direction of connections between replicas ends.", Objects,
        &[phase(&[Fault::Links(Over::Peers, Trouble::HalfCloses)], 1_500..2_500)], &[]),
    on("links-corrupt", "Bytes between replicas are changed: refused, and nobody is expelled for it.", Objects,
        &[phase(&[Fault::Links(Over::Peers, Trouble::Corruption)], 2_000..3_000)], &[G13]),
    on("links-of-leader", "Only the leader's links are bad.", Objects,
        &[phase(&[Fault::Links(Over::PeersOf(Whom::Leader), Trouble::Delay { ms: 80, jitter_ms: 120 })], 2_000..3_000)], &[]),
    on("clients-reset", "Clients lose their connections in the middle of requests: done once or not at all.", Objects,
        &[phase(&[Fault::Links(Over::Clients, Trouble::Resets)], 2_000..3_000)], &[]),
    on("clients-reset-quilt", "The same with requests that are sent again under their key.", Quilt,
        &[phase(&[Fault::Links(Over::Clients, Trouble::Resets)], 2_000..3_000)], &[G6]),
    on("clients-half-closed", "One direction of clients' connections ends while answers and events are on their way.", Objects,
        &[phase(&[Fault::Links(Over::Clients, Trouble::HalfCloses)], 1_500..2_500)], &[]),
    on("clients-stalled", "Answers and events stand still on their way and arrive late.", Objects,
        &[phase(&[Fault::Links(Over::Clients, Trouble::Stall)], 1_000..2_000)], &[]),
    on("clients-narrow", "Clients read slowly: their watches lose nothing.", Objects,
        &[phase(&[Fault::Links(Over::Clients, Trouble::Narrow { bytes_per_second: 30_000 })], 2_000..3_000)], &[]),
    on("clients-corrupt", "Bytes between clients and replicas are changed: refused.", Objects,
        &[phase(&[Fault::Links(Over::Clients, Trouble::Corruption)], 2_000..3_000)], &[G13]),
    on("sync-fails-on-leader", "A sync fails: the leader stops, and what it had not synced is gone from its disk.", Objects,
        &[phase(&[Fault::Disk(Whom::Leader, DiskTrouble::FailedSync(20))], 800..1_200)], &[]),
    on("sync-fails-on-follower", "A sync fails: the follower stops and recovers from its log.", Objects,
        &[phase(&[Fault::Disk(Whom::Follower, DiskTrouble::FailedSync(20))], 800..1_200)], &[]),
    on("disk-full", "A replica's disk is full, and has space again.", Objects,
        &[phase(&[Fault::Disk(Whom::Any, DiskTrouble::Full(20_000))], 1_000..2_000)], &[]),
    on("disk-slow-leader", "Writes go on while every sync of the leader takes long.", Objects,
        &[phase(&[Fault::Disk(Whom::Leader, DiskTrouble::SlowSync(50))], 2_000..3_000)], &[G16]),
    on("disk-stalls-leader", "A leader whose disk stands still harms nobody for longer than it does.", Objects,
        &[phase(&[Fault::Disk(Whom::Leader, DiskTrouble::SlowSync(2_000))], 4_000..5_000)], &[G16]),
    on("disk-sick-leader", "A leader whose disk is sick hands over, once, and the others serve as if nothing were wrong.", Objects,
        &[phase(&[Fault::SickLeader(1_000)], 12_000..15_000)], &[G16]),
    on("disk-slow-follower", "A follower with a slow disk holds nobody up.", Objects,
        &[phase(&[Fault::Disk(Whom::Follower, DiskTrouble::SlowSync(500))], 2_000..3_000)], &[G16]),
    on("clock-jumps", "The leader's clock jumps a day ahead, then a replica's a day back: tokens end at their time all the same.", Both,
        &[phase(&[Fault::Clock(Whom::Leader, Clock::Jump(DAY))], 1_000..1_500), phase(&[Fault::Clock(Whom::Any, Clock::Jump(-DAY))], 1_000..1_500)], &[G15]),
    on("clock-drifts", "The leader's clocks are a tenth too fast, then a replica's too slow.", Both,
        &[phase(&[Fault::Clock(Whom::Leader, Clock::Drift(10))], 1_000..1_500), phase(&[Fault::Clock(Whom::Any, Clock::Drift(-10))], 1_000..1_500)], &[G15]),
    on("clock-frozen", "The leader's clock stands still while tokens are used.", Quilt,
        &[phase(&[Fault::Clock(Whom::Leader, Clock::Frozen)], 1_500..2_500)], &[G6, G15]),
    on("clock-expiry", "The leader's clock stands still for longer than tokens are good for: behind their end none lets anybody in.", Quilt,
        &[phase(&[Fault::Clock(Whom::Leader, Clock::Frozen)], TOKENS_END_MS..TOKENS_END_MS + 2_000)], &[G6, G15]),
    on("rot-in-state", "A byte changes in every table of a follower's state: noticed, never shown.", Objects,
        &[phase(&[Fault::Rot(Whom::Follower, Files::State, When::Stopped)], 1_500..2_500)], &[G13]),
    on("rot-in-log", "A byte changes in every file of a follower's log: noticed, made good by itself, and nothing acknowledged is lost.", Objects,
        &[phase(&[Fault::Rot(Whom::Follower, Files::Log, When::Stopped)], 1_500..2_500)], &[G13]),
    on("rot-in-logs", "Bytes change in the logs of all replicas, of one in every file, of the others in a table: each makes its own good.", Objects,
        &[phase(&[Fault::Rot(Whom::All, Files::Logs, When::Stopped)], 1_500..2_500)], &[G13]),
    on("rot-in-logs-of-two", "The ends of too many logs are lost at once: nobody pretends, and the operator goes on with the one that is whole.", Objects,
        &[phase(&[Fault::Rot(Whom::Majority, Files::Log, When::Stopped)], 1_500..2_500)], &[G13]),
    on("rot-in-states", "Bytes change in the states of a majority, of each at other places: mended from whoever has a good one.", Objects,
        &[phase(&[Fault::Rot(Whom::Majority, Files::State, When::Stopped)], 1_500..2_500)], &[G13]),
    on("rot-while-it-runs", "Bytes of a state change under a replica that runs: never shown, and mended.", Objects,
        &[phase(&[Fault::Rot(Whom::Any, Files::State, When::Running)], 2_000..4_000)], &[G13]),
    on("rot-everywhere", "Bytes change in the states of all replicas while they run, of each at other places: none is ever shown.", Objects,
        &[phase(&[Fault::Rot(Whom::All, Files::State, When::Running)], 2_000..4_000)], &[G13]),
    on("upgrade-rolling", "Every replica in turn changes over from the build before: no request fails that is sent once more.", Objects,
        &[phase(&[Fault::Upgrade(Steps::Rolling)], 500..1_000)], &[G10]),
    on("upgrade-kill", "The same, and the leader is killed in the middle.", Objects,
        &[phase(&[Fault::Upgrade(Steps::Killed)], 500..1_000)], &[G10]),
    on("upgrade-rollback", "Half an upgrade is taken back: the build before goes on with what the new one wrote.", Objects,
        &[phase(&[Fault::Upgrade(Steps::Rollback)], 2_000..3_000)], &[G10]),
    on("upgrade-rollout", "Controllers and scheduler of both builds lead in turn.", Rollout,
        &[phase(&[Fault::Upgrade(Steps::Rolling)], 500..1_000)], &[G7, G10]),
    on("members-transfer", "Leadership goes round under load.", Objects,
        &[phase(&[Fault::Members(Change::Transfer)], 300..600)], &[G11]),
    on("members-replaced", "A dead replica is removed and a new one joins.", Objects,
        &[phase(&[Fault::Members(Change::Replace)], 300..600)], &[G11]),
    on("members-grow", "A replica joins and is removed again.", Objects,
        &[phase(&[Fault::Members(Change::GrowAndShrink)], 300..600)], &[G11]),
    on("members-demoted", "A replica loses its vote and gets it back.", Objects,
        &[phase(&[Fault::Members(Change::DemoteAndPromote)], 500..1_000)], &[G11]),
    on("members-abandoned", "The leader is killed in the middle of a membership change, which is settled afterwards.", Objects,
        &[phase(&[Fault::Members(Change::Abandon)], 500..1_000)], &[G11]),
    Scenario {
        name: "absence",
        shows: "A follower was away until its part of the log was cut off: brought up by a snapshot, its watches lose nothing.",
        work: Objects,
        phases: &[phase(&[Fault::Absence], 1_000..2_000)],
        promises: &[],
        arguments: &["--log-keep=64KiB"],
    },
    on("backups", "Backups are taken one after the other while everything changes.", Objects,
        &[phase(&[Fault::Backups], 2_000..3_000)], &[]),
    on("pause-and-kill", "The leader stands still, another one is killed, and both come back.", Objects,
        &[phase(&[Fault::Pause(Whom::Leader), Fault::Kill(Whom::Any)], 500..1_000)], &[G17]),
    on("cut-and-jump", "The leader is cut off while its clock jumps.", Both,
        &[phase(&[Fault::Clock(Whom::Leader, Clock::Jump(DAY)), Fault::Cut(Way::Around(Whom::Leader))], 1_000..2_000)], &[G15, G17]),
    on("slow-and-power-cut", "All lose power while links are slow and syncs too.", Objects,
        &[phase(&[
            Fault::Links(Over::Peers, Trouble::Delay { ms: 5, jitter_ms: 30 }),
            Fault::Disk(Whom::Leader, DiskTrouble::SlowSync(30)),
            Fault::PowerCut(Whom::All, Tail::Torn),
        ], 300..600)], &[]),
    on("rolling-under-loss", "Every replica is restarted in turn while connections of clients are reset.", Objects,
        &[phase(&[Fault::Links(Over::Clients, Trouble::Resets), Fault::Restart(Order::Rolling)], 100..300)], &[]),
];
