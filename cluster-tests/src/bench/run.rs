//! A whole run: both sides started once, then case by case, slice of ours and slice of the peer's in turn.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::case::{self, Case, LeaderLoss, What};
use super::client::Freshness;
use super::load::{Spec, Told, Work};
use super::pairs::{Pair, Row};
use super::servers::Servers;
use super::syncs::{self, Counting, Method};
use super::{gap, probe, soak, usage};

/// Probes of a pair that differ by more than this make it worthless.
const PROBE_FACTOR: u32 = 2;
/// Not measured at the start of a slice: connections warm up, caches are as under load.
const WARM: Duration = Duration::from_millis(750);
/// What the servers still do after the last answer is theirs.
const SETTLE: Duration = Duration::from_millis(300);
/// Clients that write every key once.
const FILLERS: usize = 256;
/// Slices in which syncs are counted, of each side.
const SYNC_PAIRS: usize = 3;

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Parts of names of rows; all rows when there are none.
    pub patterns: Vec<String>,
    /// Pairs of slices for each case.
    pub pairs: usize,
    /// Measured time of a slice.
    pub slice: Duration,
    /// Keys clients choose from.
    pub keys: u64,
    /// Losses of a leader of each kind, on each side.
    pub losses: usize,
    /// Whether cases that take long are run without being asked for by name.
    pub long: bool,
    /// Requests due per second, for open loop.
    pub rate: Option<u64>,
    /// Where the servers keep their data.
    pub under: PathBuf,
    /// What is compared with, when there is anything.
    pub peer: Option<Peer>,
}

/// What is compared with, by its program.
#[derive(Clone, Debug)]
pub enum Peer {
    /// etcd.
    Etcd(PathBuf),
    /// Another build of quiltd: what a change is worth.
    Quiltd(PathBuf),
}

impl Peer {
    /// What it is called in the table.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Etcd(_) => "etcd",
            Self::Quiltd(_) => "other build",
        }
    }

    async fn start(&self, under: &Path) -> Result<Servers> {
        match self {
            Self::Etcd(program) => Servers::etcd(program, under).await,
            Self::Quiltd(program) => Servers::quiltd(Some(program), under).await,
        }
    }
}

impl Plan {
    /// The cases that give rows asked for.
    #[must_use]
    pub fn cases(&self) -> Vec<Case> {
        let wanted = |case: &&Case| match self.patterns.as_slice() {
            [] => self.long || !case.takes_long(),
            patterns => patterns.iter().any(|row| case.wanted(row)),
        };
        case::ALL.iter().filter(wanted).copied().collect()
    }

    /// Time a run takes, about.
    #[must_use]
    pub fn estimate(&self) -> Duration {
        let slice = self.slice + WARM + SETTLE + Duration::from_millis(500);
        let cases = self.cases().into_iter().map(|case| match case.what {
            What::Load(_) => 2 * slice * u32::try_from(self.pairs).unwrap_or(u32::MAX),
            What::Syncs => 2 * slice * u32::try_from(SYNC_PAIRS).unwrap_or(u32::MAX),
            What::Gap(_) => Duration::from_secs(8) * u32::try_from(self.losses).unwrap_or(u32::MAX),
            What::Soak => Duration::from_secs(600),
            What::ColdStart => Duration::from_secs(400),
            What::IdleWatch | What::Idle => Duration::from_secs(20),
        });
        cases.sum::<Duration>() + Duration::from_secs(60)
    }
}

/// Requests that failed.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    /// Of ours.
    pub ours: u64,
    /// Of the peer.
    pub peer: u64,
    /// What the first one said, whose ever it was.
    pub first: Option<String>,
}

impl Failures {
    fn note(&mut self, ours: &Told, peer: Option<&Told>) {
        self.ours += ours.errors;
        self.peer += peer.map_or(0, |peer| peer.errors);
        if self.first.is_none() {
            self.first = ours.error.clone().or_else(|| peer?.error.clone());
        }
    }
}

/// What came of one case.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Its rows.
    pub rows: Vec<Row>,
    /// Pairs that count, and pairs thrown away.
    pub pairs: usize,
    /// Because the disk was too different in their slices.
    pub discarded: usize,
    /// What failed in all of them.
    pub failures: Failures,
    /// Median of the disk's probes.
    pub probe: Option<Duration>,
    /// The host's processors' time that went to others, in percent of all of it.
    pub foreign_percent: Option<u64>,
    /// The same of what a virtual machine's host kept for others.
    pub stolen_percent: Option<u64>,
}

impl Measured {
    /// Rows that were counted, not timed: nothing is thrown away.
    const fn counted(rows: Vec<Row>, pairs: usize) -> Self {
        Self {
            rows,
            pairs,
            discarded: 0,
            failures: Failures { ours: 0, peer: 0, first: None },
            probe: None,
            foreign_percent: None,
            stolen_percent: None,
        }
    }
}

/// A run's results.
#[derive(Clone, Debug)]
pub struct Results {
    /// In the order they were run.
    pub cases: Vec<(Case, Measured)>,
    /// What it was compared with.
    pub peer: Option<Peer>,
    /// How syncs were counted.
    pub syncs: Option<Method>,
    /// Whether any pairs are missing because of an error.
    pub keys: u64,
}

/// Both sides.
struct Sides {
    ours: Servers,
    peer: Option<Servers>,
}

impl Sides {
    fn each(&self) -> impl Iterator<Item = &Servers> {
        std::iter::once(&self.ours).chain(&self.peer)
    }
}

/// Runs the plan. `say` is told how far it is.
///
/// # Errors
/// When servers do not behave; a failed request alone is only counted.
pub async fn run(plan: &Plan, say: &mut dyn FnMut(&str)) -> Result<Results> {
    let cases = plan.cases();
    ensure!(!cases.is_empty(), "no row has such a name");
    say("starting three replicas of quiltd");
    let ours = Servers::quiltd(None, &plan.under).await?;
    let peer = match &plan.peer {
        Some(peer) => {
            say(&format!("starting what it is compared with: {}", peer.name()));
            Some(peer.start(&plan.under).await?)
        }
        None => None,
    };
    let mut sides = Sides { ours, peer };
    for servers in sides.each() {
        servers.settled().await?;
    }
    let syncs = syncs::method();
    let mut measured = Vec::new();
    let mut filled = false;
    for case in cases {
        let reads = matches!(case.what, What::Load(Work::Get(Freshness::Linear | Freshness::Stale)));
        if reads && !filled {
            say("writing every key once");
            for servers in sides.each() {
                fill(plan, servers, case.value_bytes).await?;
            }
            filled = true;
        }
        say(&case.rows().first().cloned().unwrap_or_default());
        let result = match case.what {
            What::Load(work) => load(plan, &sides, &case, work, say).await?,
            What::Syncs => match syncs {
                Some(method) => count_syncs(plan, &sides, &case, method).await?,
                None => {
                    say("  neither perf nor strace may count here: no such row");
                    continue;
                }
            },
            What::Gap(loss) => gaps(plan, &mut sides, &case, loss, say).await?,
            What::Soak => soaked(plan, &sides, &case).await?,
            What::ColdStart => cold_starts(plan, &mut sides, &case).await?,
            What::IdleWatch => idle_watches(plan, &sides, &case).await?,
            What::Idle => idle(&sides, &case).await?,
        };
        measured.push((case, result));
    }
    measured.extend(memory(&sides)?);
    sides.ours.passed();
    if let Some(peer) = sides.peer {
        peer.passed();
    }
    Ok(Results { cases: measured, peer: plan.peer.clone(), syncs, keys: plan.keys })
}

/// Runs one slice in a process of its own.
pub(super) async fn slice(spec: &Spec) -> Result<Told> {
    let program = std::env::current_exe().context("this program does not know its own path")?;
    let mut child = Command::new(program)
        .arg("load")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("the load cannot be started")?;
    let mut input = child.stdin.take().context("a pipe")?;
    input.write_all(&serde_json::to_vec(spec)?).await?;
    drop(input);
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        bail!("the load has failed: {}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("the load said nothing that can be read")
}

pub(super) async fn spec(plan: &Plan, servers: &Servers, case: &Case, work: Work, number: usize) -> Result<Spec> {
    let leader = servers.settled().await?;
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Ok(Spec {
        dial: servers.dial()?,
        work,
        clients: case.clients,
        value_bytes: case.value_bytes,
        keys: plan.keys,
        rate: plan.rate.filter(|_| work != Work::Fill),
        warm_ms: millis(WARM),
        measure_ms: millis(plan.slice),
        settle_ms: millis(SETTLE),
        // A lone client meets each server in turn, and in a pair of slices the leader on both sides or on none.
        first_server: leader + number,
        seed: 0x9e37_79b9 + number as u64,
        pids: servers.pids(),
    })
}

async fn fill(plan: &Plan, servers: &Servers, value_bytes: usize) -> Result<()> {
    let case = Case { what: What::Load(Work::Fill), clients: FILLERS, value_bytes };
    let told = slice(&spec(plan, servers, &case, Work::Fill, 0).await?).await?;
    ensure!(told.done == plan.keys, "only {} of {} keys were written: {:?}", told.done, plan.keys, told.error);
    Ok(())
}

/// Slices of one case, ours and the peer's in turn.
async fn load(plan: &Plan, sides: &Sides, case: &Case, work: Work, say: &mut dyn FnMut(&str)) -> Result<Measured> {
    let mut kept: Vec<(Told, Option<Told>)> = Vec::new();
    let mut probes = Vec::new();
    let (mut foreign, mut stolen) = (Vec::new(), Vec::new());
    let (mut discarded, mut failures) = (0, Failures::default());
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    for number in 0..plan.pairs {
        let mut told = Vec::new();
        let mut pair_probes = Vec::new();
        for servers in sides.each() {
            pair_probes.push(probe::sync_time(&plan.under)?);
            let one = slice(&spec(plan, servers, case, work, number).await?).await?;
            let time = one.elapsed_us + u64::try_from(SETTLE.as_micros()).unwrap_or(0);
            foreign.push(one.foreign_cpu_us * 100 / (time * processors).max(1));
            stolen.push(one.stolen_cpu_us * 100 / (time * processors).max(1));
            told.push(one);
        }
        let (least, most) = (pair_probes.iter().min().copied(), pair_probes.iter().max().copied());
        probes.extend(pair_probes);
        let even = least.zip(most).is_none_or(|(least, most)| most <= least * PROBE_FACTOR);
        let mut told = told.into_iter();
        let pair = (told.next().context("a slice of ours")?, told.next());
        failures.note(&pair.0, pair.1.as_ref());
        say(&progress(case, number, &pair, even));
        if even {
            kept.push(pair);
        } else {
            discarded += 1;
        }
    }
    let rows = case.quantities().iter().filter_map(|quantity| {
        let pairs: Vec<Pair> =
            kept.iter().filter_map(|(ours, peer)| case::pair(quantity, case, ours, peer.as_ref())).collect();
        Row::of(format!("{}/{}", quantity.name, case.size()), quantity.unit, &pairs)
    });
    Ok(Measured {
        rows: rows.collect(),
        pairs: kept.len(),
        discarded,
        failures,
        probe: middle(probes),
        foreign_percent: middle(foreign),
        stolen_percent: middle(stolen),
    })
}

fn progress(case: &Case, number: usize, pair: &(Told, Option<Told>), even: bool) -> String {
    let leading = case.quantities().first();
    let value = |told: &Told| leading.and_then(|quantity| (quantity.of)(told, case)).unwrap_or_default();
    let peer = pair.1.as_ref().map_or_else(|| "absent".to_owned(), |peer| format!("{:.0}", value(peer)));
    let note = if even { "" } else { ", thrown away: the disk changed" };
    format!("  {:>2}: {:.0} against {peer}{note}", number + 1, value(&pair.0))
}

fn middle<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort();
    values.get(values.len() / 2).copied()
}

/// Syncs per put and server, in slices of their own.
async fn count_syncs(plan: &Plan, sides: &Sides, case: &Case, method: Method) -> Result<Measured> {
    let mut pairs = Vec::new();
    let mut failures = Failures::default();
    for number in 0..SYNC_PAIRS {
        let mut slices = Vec::new();
        for servers in sides.each() {
            // Everything the load writes is counted, so everything that is counted must be measured.
            let mut spec = spec(plan, servers, case, Work::Put, number).await?;
            spec.warm_ms = 0;
            let counting = Counting::start(method, &spec.pids)?;
            let told = slice(&spec).await?;
            let calls = counting.stop()?;
            slices.push((told, calls));
        }
        let ours = slices.first().context("a slice of ours")?;
        let peer = slices.get(1);
        failures.note(&ours.0, peer.map(|(told, _)| told));
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let syncs = |(told, calls): &(Told, u64)| *calls as f64 / 3.0 / told.done.max(1) as f64;
        pairs.push(Pair { ours: syncs(ours), peer: peer.map(syncs) });
    }
    let row = Row::of(format!("fsyncs-per-commit/{}", case.size()), "syncs", &pairs);
    Ok(Measured { failures, ..Measured::counted(row.into_iter().collect(), pairs.len()) })
}

async fn gaps(
    plan: &Plan,
    sides: &mut Sides,
    case: &Case,
    loss: LeaderLoss,
    say: &mut dyn FnMut(&str),
) -> Result<Measured> {
    let mut pairs = Vec::new();
    for number in 0..plan.losses {
        let ours = gap::gap(&mut sides.ours, loss, case.value_bytes).await?;
        let peer = match &mut sides.peer {
            Some(peer) => Some(gap::gap(peer, loss, case.value_bytes).await?),
            None => None,
        };
        say(&format!(
            "  {:>2}: {ours:.0?} against {}",
            number + 1,
            peer.map_or_else(|| "absent".to_owned(), |gap| format!("{gap:.0?}"))
        ));
        let millis = |gap: Duration| gap.as_secs_f64() * 1_000.0;
        pairs.push(Pair { ours: millis(ours), peer: peer.map(millis) });
    }
    let most = |of: &dyn Fn(&Pair) -> Option<f64>| pairs.iter().filter_map(of).max_by(f64::total_cmp);
    let worst = most(&|pair| Some(pair.ours)).map(|ours| Pair { ours, peer: most(&|pair| pair.peer) });
    let [median, longest] = loss.rows().map(|name| format!("{name}/{}", case.size()));
    let rows = [Row::of(median, "ms", &pairs), Row::of(longest, "ms", worst.as_slice())];
    Ok(Measured::counted(rows.into_iter().flatten().collect(), pairs.len()))
}

async fn soaked(plan: &Plan, sides: &Sides, case: &Case) -> Result<Measured> {
    let ours = soak::soak(plan, &sides.ours, case).await?;
    let peer = match &sides.peer {
        Some(peer) => Some(soak::soak(plan, peer, case).await?),
        None => None,
    };
    let row = |name: &str, unit, of: fn(&soak::Soaked) -> f64| {
        Row::of(format!("{name}/{}", case.size()), unit, &[Pair { ours: of(&ours), peer: peer.as_ref().map(of) }])
    };
    let rows = [
        row("rss-after-1M-puts", "MiB", |soaked| soaked.resident),
        row("rss-after-1.5M-puts", "MiB", |soaked| soaked.resident_later),
        row("elections", "terms", |soaked| soaked.elections),
    ];
    Ok(Measured::counted(rows.into_iter().flatten().collect(), 1))
}

async fn cold_starts(plan: &Plan, sides: &mut Sides, case: &Case) -> Result<Measured> {
    let ours = soak::cold_start(plan, &mut sides.ours, case).await?;
    let peer = match &mut sides.peer {
        Some(peer) => Some(soak::cold_start(plan, peer, case).await?),
        None => None,
    };
    let row = Row::of(format!("cold-start-1GB/{}", case.size()), "ms", &[Pair { ours, peer }]);
    Ok(Measured::counted(row.into_iter().collect(), 1))
}

async fn idle_watches(plan: &Plan, sides: &Sides, case: &Case) -> Result<Measured> {
    let ours = soak::idle_watch(plan, &sides.ours, case).await?;
    let peer = match &sides.peer {
        Some(peer) => Some(soak::idle_watch(plan, peer, case).await?),
        None => None,
    };
    let row = Row::of(format!("kib-per-idle-watch/{}", case.size()), "KiB", &[Pair { ours, peer }]);
    Ok(Measured::counted(row.into_iter().collect(), 1))
}

/// Both sides at once: neither has anything to do.
async fn idle(sides: &Sides, case: &Case) -> Result<Measured> {
    let each = futures::future::try_join_all(sides.each().map(soak::idle)).await?;
    let row = |name: &str, unit, of: fn(&soak::Idle) -> f64| {
        let pair = each.first().map(|ours| Pair { ours: of(ours), peer: each.get(1).map(of) });
        Row::of(format!("{name}/{}", case.size()), unit, pair.as_slice())
    };
    let rows = [row("idle-cpu", "% of a core", |idle| idle.cpu), row("idle-rss", "MiB", |idle| idle.resident)];
    Ok(Measured::counted(rows.into_iter().flatten().collect(), 1))
}

/// The most memory a server has had in the whole run. A restart after a kill begins anew.
fn memory(sides: &Sides) -> Result<Option<(Case, Measured)>> {
    let mib = |servers: &Servers| -> Result<f64> {
        let kib = u32::try_from(usage::peak_rss_kib(&servers.pids())?).unwrap_or(u32::MAX);
        Ok(f64::from(kib) / 1_024.0)
    };
    let pair = Pair { ours: mib(&sides.ours)?, peer: sides.peer.as_ref().map(mib).transpose()? };
    let case = Case { what: What::Load(Work::Put), clients: 0, value_bytes: 0 };
    Ok(Row::of("rss-peak".to_owned(), "MiB", &[pair]).map(|row| (case, Measured::counted(vec![row], 1))))
}

/// A directory for the run's data below `under`.
///
/// # Errors
/// When it cannot be made.
pub fn directory(under: &Path) -> Result<tempfile::TempDir> {
    std::fs::create_dir_all(under).with_context(|| format!("{} cannot be made", under.display()))?;
    Ok(tempfile::Builder::new().prefix("quiltd-bench-").tempdir_in(under)?)
}
