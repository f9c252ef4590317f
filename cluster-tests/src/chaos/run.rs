//! One run of one scenario: start, work, break, heal, settle, judge.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::judge;
pub use super::judge::Outcome;
use super::memory::Memory;
use super::progress::{Board, Sample, Sampler};
use super::scenario::{Phase, Scenario, Work};
use super::settle;
pub use super::settle::Settled;
use super::soak::{self, Soak};
use super::verdict::Judging;
use crate::fault::{Active, Blame, Fault, Proof, Service};
use crate::oracle::{Counts, Promise, Violation};
use crate::random::Random;
use crate::rig::{self, Forgotten, Rig};
use crate::workload::{self, Endpoint, Kind, Load, Mix, Targets};

/// Between two looks at the processes.
const LOOK: Duration = Duration::from_millis(50);

/// A replica that a fault has failed ends within this.
const LINGER: Duration = Duration::from_secs(20);

/// Clients, each with a way of its own to every replica.
const CLIENTS: u16 = 6;

/// Why upgrades cannot be run.
pub(super) const NO_PREVIOUS: &str = "no build from before was given: --previous PATH";

/// What is demanded of a run.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// After the faults a write is acknowledged within this.
    pub writes: Duration,
    /// A write that takes longer than this is not waited for.
    pub give_up: Duration,
    /// All replicas serve, and are equal once there is no load, within this.
    pub equal: Duration,
    /// Acknowledged requests before and after the faults without which a run is void.
    pub requests: u64,
    /// A part of the history is closed and judged, at the next calm, when it has so many requests.
    pub part: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            writes: Duration::from_secs(2),
            give_up: Duration::from_secs(30),
            equal: Duration::from_secs(30),
            requests: 50,
            part: 10_000,
        }
    }
}

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Replicas.
    pub replicas: u16,
    /// The binary under test.
    pub binary: PathBuf,
    /// The build before it; without one, runs that need it are void.
    pub previous: Option<PathBuf>,
    /// The layer under replicas; without one, runs that need it are void.
    pub shim: Option<PathBuf>,
    /// Steps a second that clients begin.
    pub rate: f64,
    /// Faults last so many times as long, and calm too.
    pub stretch: u64,
    /// What is demanded.
    pub limits: Limits,
    /// Phases by chance in place of the scenario's own.
    pub soak: Option<Arc<Soak>>,
}

/// What a fault did.
#[derive(Debug, Clone, Serialize)]
pub struct FaultReport {
    /// What it was.
    pub fault: String,
    /// Of which kind.
    pub kind: &'static str,
    /// When it began, in milliseconds since the run did.
    pub began_ms: u64,
    /// When it had ended.
    pub ended_ms: u64,
    /// How it was seen to take effect.
    pub took: Vec<String>,
    /// Why it cannot be said to have.
    pub missing: Vec<String>,
}

/// What came of a run.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// The scenario's name.
    pub scenario: &'static str,
    /// What it was made from.
    pub seed: u64,
    /// The result.
    pub outcome: Outcome,
    /// The promises that were judged.
    pub judged: Vec<Promise>,
    /// The kinds of faults.
    pub kinds: Vec<&'static str>,
    /// Every fault.
    pub faults: Vec<FaultReport>,
    /// What was broken.
    pub violations: Vec<Violation>,
    /// Why the run proves nothing.
    pub void: Vec<String>,
    /// How much was looked at.
    pub counts: Counts,
    /// How soon all was well again.
    pub settled: Settled,
    /// Load, latency and leader over time.
    pub samples: Vec<Sample>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Parts in which its history was judged.
    pub parts: u64,
    /// Memory of the harness at most, in MiB.
    pub memory_mib: u64,
    /// Memory of all processes, minute by minute.
    pub memory: Memory,
    /// Where logs and data directories are, if they were kept.
    pub kept: Option<PathBuf>,
}

/// A fault in force, and when it began.
struct InForce {
    fault: Fault,
    began_ms: u64,
    active: Active,
}

/// A run under way.
struct Run<'a> {
    scenario: &'a Scenario,
    setting: &'a Setting,
    begun: Instant,
    random: Random,
    board: Arc<Mutex<Board>>,
    faults: Vec<FaultReport>,
    violations: Vec<Violation>,
    void: Vec<String>,
    /// Until when a replica may end for the sake of a fault that is over.
    lingering: BTreeMap<u16, Instant>,
    /// An operator has begun a new epoch: the part that saw the one before is closed, so that the next is judged whole.
    renewed: bool,
}

/// Runs a scenario in `directory`, which is made, and removed if nothing was found. When the harness cannot do its part, the run is void
/// and says why.
pub async fn run(
    scenario: &'static Scenario,
    setting: &Setting,
    seed: u64,
    directory: PathBuf,
    board: Arc<Mutex<Board>>,
) -> RunReport {
    let mut run = Run {
        scenario,
        setting,
        begun: Instant::now(),
        random: Random::of(seed, scenario.name),
        board,
        faults: Vec::new(),
        violations: Vec::new(),
        void: Vec::new(),
        lingering: BTreeMap::new(),
        renewed: false,
    };
    let mut report = RunReport {
        scenario: scenario.name,
        seed,
        outcome: Outcome::Void,
        judged: scenario.judged(),
        kinds: scenario.kinds(),
        faults: Vec::new(),
        violations: Vec::new(),
        void: Vec::new(),
        counts: Counts::default(),
        settled: Settled::default(),
        samples: Vec::new(),
        took_ms: 0,
        parts: 0,
        memory_mib: 0,
        memory: Memory::default(),
        kept: None,
    };
    if let Err(error) = run.through(&mut report, seed, directory.clone()).await {
        run.void.push(format!("{error:#}"));
    }
    report.took_ms = run.now_ms();
    if setting.soak.is_some() {
        // What it stands for was not known before.
        report.kinds = judge::kinds(&run.faults);
        report.judged.retain(|promise| judge::unshown(*promise, &report.counts, &report.kinds).is_none());
    }
    report.faults = run.faults;
    report.outcome = judge::outcome(&run.violations, &run.void);
    report.violations = run.violations;
    report.void = run.void;
    if report.outcome == Outcome::Pass {
        let _left_behind = std::fs::remove_dir_all(&directory);
    } else {
        // What could not even be begun leaves nothing.
        report.kept = directory.exists().then_some(directory);
    }
    report
}

impl Run<'_> {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn show(&self, phase: &str, in_force: &[InForce]) {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        phase.clone_into(&mut board.phase);
        board.faults = in_force.iter().map(|one| one.fault.to_string()).collect();
    }

    async fn through(&mut self, report: &mut RunReport, seed: u64, directory: PathBuf) -> Result<()> {
        let layer = !self.scenario.needs_layer() || self.setting.shim.is_some();
        ensure!(layer, "the layer between replicas and their disks and clocks is not there");
        let previous = !self.scenario.needs_previous() || self.setting.previous.is_some();
        ensure!(previous, "{NO_PREVIOUS}");
        self.show("starting", &[]);
        let plan = rig::Plan {
            replicas: self.setting.replicas,
            binary: self.setting.binary.clone(),
            previous: self.setting.previous.clone().filter(|_| self.scenario.needs_previous()),
            shim: self.setting.shim.clone(),
            directory,
            agents: if matches!(self.scenario.work, Work::Rollout | Work::All) { 2 } else { 0 },
            forgotten: if self.setting.soak.is_some() { Forgotten::Removed } else { Forgotten::Kept },
            arguments: self.scenario.arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            seed,
        };
        let mut rig = Rig::start(plan).await?;
        rig.make_ways(CLIENTS).await?;
        if self.scenario.needs_layer() {
            for id in rig.ids() {
                rig.layer(id)?.check_loaded(rig.at(id)?.pid()?)?;
            }
        }
        let load = Arc::new(workload::start(targets(&rig), self.mix(), seed).await.context("the load")?);
        let sampler = Sampler::start(&rig, Arc::clone(&load), Arc::clone(&self.board), self.begun)?;
        let mut found = Vec::new();
        let mut judging = Judging::new(rig.directory().to_owned());
        self.show("warming up", &[]);
        self.flow(&mut rig, &load, 0).await;
        let before = load.ended().acknowledged;
        match self.setting.soak.clone() {
            None => self.all_phases(&mut rig, &load, &mut judging).await?,
            Some(soak) => self.soak(&soak, &mut rig, &load, &mut judging, &mut found).await?,
        }
        self.show("settling", &[]);
        report.settled = settle::recover(&mut rig, self.setting.limits, &mut found).await?;
        let healed = load.ended().acknowledged;
        self.flow(&mut rig, &load, healed).await;
        let after = load.ended().acknowledged - healed;
        self.show("ending the load", &[]);
        (report.samples, report.memory) = sampler.stop().await;
        let load = Arc::into_inner(load).context("the sampler has let go of the load")?;
        let history = load.stop().await;
        settle::equal(&rig, self.setting.limits, &mut report.settled, &mut found).await;
        self.look_after(&mut rig, &[]);
        judging.take(history).await?;
        let (parts, verdict) = judging.finish();
        report.parts = parts;
        report.memory_mib = report.samples.iter().map(|sample| sample.memory_mib).max().unwrap_or_default();
        self.violations.extend(verdict.violations.into_values().flatten());
        self.violations.append(&mut found);
        report.counts = verdict.counts;
        self.void.extend(judge::doubts(self.setting.limits, before, after, &report.counts));
        self.void.extend(judge::undivided(self.scenario.work, &report.counts));
        self.void.extend(judge::unended(self.scenario, &report.counts));
        if self.setting.soak.is_none() {
            let took = judge::kinds(&self.faults);
            self.void.extend(report.judged.iter().filter_map(|one| judge::unshown(*one, &report.counts, &took)));
        }
        Ok(())
    }

    /// Closes the part of the history that is full, or saw an epoch end, and judges it while the load goes on.
    async fn cut(&mut self, rig: &mut Rig, load: &Load, judging: &mut Judging) -> Result<()> {
        if !self.renewed && load.recorded() < self.setting.limits.part {
            return Ok(());
        }
        self.renewed = false;
        self.show("judging a part", &[]);
        let judged = async {
            match load.cut().await {
                Ok(history) => judging.take(history).await,
                // The part goes on, and is cut after the next phase.
                Err(_) => Ok(()),
            }
        };
        tokio::pin!(judged);
        loop {
            tokio::select! {
                done = &mut judged => return done,
                () = tokio::time::sleep(LOOK) => self.look_after(rig, &[]),
            }
        }
    }

    fn mix(&self) -> Mix {
        let rate = self.setting.rate;
        let mut mix = match self.scenario.work {
            Work::Objects => Mix::kubernetes(rate),
            Work::Quilt => Mix::quilt(rate),
            Work::Both => {
                Mix { parts: vec![(Kind::Kubernetes, rate / 2.0), (Kind::Quilt, rate / 2.0)], ..Mix::quilt(rate) }
            }
            Work::Rollout => {
                Mix { parts: vec![(Kind::Rollout, 4.0), (Kind::Kubernetes, rate / 2.0)], ..Mix::kubernetes(rate) }
            }
            Work::All => Mix::full(rate),
        };
        mix.clients = CLIENTS;
        mix
    }

    /// Phase by phase.
    async fn all_phases(&mut self, rig: &mut Rig, load: &Load, judging: &mut Judging) -> Result<()> {
        for phase in self.scenario.phases {
            self.phase(rig, load, phase).await;
            self.cut(rig, load, judging).await?;
        }
        Ok(())
    }

    /// Phases by chance, each settled before the next one, until the time is over or a promise is broken.
    async fn soak(
        &mut self,
        soak: &Soak,
        rig: &mut Rig,
        load: &Load,
        judging: &mut Judging,
        found: &mut Vec<Violation>,
    ) -> Result<()> {
        let mut passing = Vec::new();
        while self.begun.elapsed() < soak.lasts && self.violations.is_empty() && found.is_empty() && judging.passed() {
            let phase = soak.next(rig, &mut self.random);
            let void = std::mem::take(&mut self.void);
            self.phase(rig, load, phase).await;
            // One fault of hundreds that had nothing to take effect on proves less, but does not take away what the others prove.
            passing.append(&mut self.void);
            self.void = void;
            settle::recover(rig, self.setting.limits, found).await?;
            self.look_after(rig, &[]);
            self.cut(rig, load, judging).await?;
        }
        self.void.extend(soak::doubts(self.faults.len(), &passing));
        Ok(())
    }

    async fn phase(&mut self, rig: &mut Rig, load: &Load, phase: &Phase) {
        let mut in_force: Vec<InForce> = Vec::new();
        let mut service = None;
        for fault in phase.faults {
            self.show(&format!("beginning: {fault}"), &in_force);
            let began_ms = self.now_ms();
            match fault.begin(rig, &mut self.random).await {
                Ok(active) => in_force.push(InForce { fault: *fault, began_ms, active }),
                Err(error) => {
                    self.blame(&format!("{fault} could not be begun"), &error);
                    let (kind, missing) = (fault.kind(), vec![format!("{error:#}")]);
                    let (fault, ended_ms) = (fault.to_string(), self.now_ms());
                    self.faults.push(FaultReport { fault, kind, began_ms, ended_ms, took: Vec::new(), missing });
                }
            }
            if phase.faults.len() == 1 {
                service = self.serve(rig, &in_force);
            }
            let pause = self.random.within(0..200);
            self.hold(rig, pause, &in_force).await;
        }
        let hold = self.random.within(phase.hold_ms.clone()) * self.setting.stretch;
        self.show("broken", &in_force);
        self.hold(rig, hold, &in_force).await;
        let mut served = match service {
            Some(service) => service.end(rig).await,
            None => Proof::default(),
        };
        self.violations.append(&mut served.broken);
        self.void.append(&mut served.missing);
        while let Some(InForce { fault, began_ms, active }) = in_force.pop() {
            self.show(&format!("ending: {fault}"), &in_force);
            let until = Instant::now() + LINGER;
            self.lingering.extend(active.lingers().into_iter().map(|id| (id, until)));
            let Proof { mut took, missing, broken, renewed } = match active.end(rig).await {
                Ok(proof) => {
                    self.void.extend(proof.missing.iter().map(|why| format!("{fault} did not take effect: {why}")));
                    proof
                }
                Err(error) => {
                    self.blame(&format!("{fault} could not be ended"), &error);
                    Proof { missing: vec![format!("{error:#}")], ..Proof::default() }
                }
            };
            took.append(&mut served.took);
            self.violations.extend(broken);
            if let Some(renewed) = renewed {
                load.epoch(renewed.begun, renewed.revision);
                self.renewed = true;
            }
            let (ended_ms, kind, fault) = (self.now_ms(), fault.kind(), fault.to_string());
            self.faults.push(FaultReport { fault, kind, began_ms, ended_ms, took, missing });
        }
        self.show("calm", &[]);
        let calm = self.random.within(phase.calm_ms.clone()) * self.setting.stretch;
        self.hold(rig, calm, &[]).await;
    }

    /// Asks the majority that a fault spares for as long as it is the only one.
    fn serve(&mut self, rig: &Rig, in_force: &[InForce]) -> Option<Service> {
        let [InForce { fault, active, .. }] = in_force else { return None };
        let (now, running, spared) = (Instant::now(), rig.running(), active.spared(rig));
        let lingers = self.lingering.values().any(|until| now < *until);
        if lingers || spared.is_empty() || !spared.iter().all(|id| running.contains(id)) {
            return None;
        }
        match Service::begin(rig, &spared, fault.to_serve()) {
            Ok(service) => Some(service),
            Err(error) => {
                self.void.push(format!("the majority that {fault} spares could not be asked: {error:#}"));
                None
            }
        }
    }

    /// What could not be done for the product's sake is a broken promise; for another reason it makes the run void.
    fn blame(&mut self, what: &str, error: &anyhow::Error) {
        match Blame::of(what, error) {
            Blame::Product(violation) => self.violations.push(violation),
            Blame::Harness(why) => self.void.push(why),
        }
    }

    /// Lets time pass, and looks after the processes.
    async fn hold(&mut self, rig: &mut Rig, ms: u64, in_force: &[InForce]) {
        let until = Instant::now() + Duration::from_millis(ms);
        loop {
            self.look_after(rig, in_force);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LOOK)).await;
        }
    }

    /// Replicas that have ended by themselves, and that no fault allows to: a broken promise. They are started again.
    fn look_after(&mut self, rig: &mut Rig, in_force: &[InForce]) {
        for id in rig.ids() {
            if in_force.iter().any(|one| one.active.may_end(id)) {
                continue;
            }
            let lingers = self.lingering.get(&id).is_some_and(|until| Instant::now() < *until);
            let ended = rig.at_mut(id).and_then(rig::Seat::ended);
            if let Ok(Some(ended)) = ended {
                if !lingers {
                    let told = format!("replica {id} ended by itself: {}: {}", ended.status, ended.last_words);
                    self.violations.push(Violation::new(Promise::G20, "no replica stops by itself", told).through(id));
                }
                rig.network().owners().remove(id);
                if let Err(error) = rig.launch(id) {
                    self.void.push(format!("replica {id} cannot be started again: {error:#}"));
                }
            }
        }
    }

    /// Waits until the load has done enough for a verdict, for as long as that may take on a busy host.
    async fn flow(&mut self, rig: &mut Rig, load: &Load, from: u64) {
        let wanted = from + self.setting.limits.requests * 3;
        let begun = Instant::now();
        while load.ended().acknowledged < wanted && begun.elapsed() < self.setting.limits.give_up {
            self.hold(rig, 100, &[]).await;
        }
    }
}

fn targets(rig: &Rig) -> Targets {
    let ways = |client: u16| {
        let ways = rig.ways(client).into_iter();
        ways.map(|(replica, base)| Endpoint { replica, base }).collect()
    };
    Targets {
        authority: rig.authority().to_owned(),
        admin_token: rig.admin_key().to_owned(),
        api_key: rig.api_key().to_owned(),
        routes: (0..rig.clients()).map(ways).collect(),
    }
}
