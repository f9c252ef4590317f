//! The command: which scenarios, with which seeds, for how long, and what the exit code says.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use super::coverage;
use super::progress::Board;
use super::report::{Report, told};
use super::run::{Limits, NO_PREVIOUS, Outcome, Setting, run};
use super::scenario::{SCENARIOS, Scenario, named};
use super::soak::{SOAK, Soak};
use crate::{binary, museum};

/// Breaks a real control plane in named ways while clients work on it, and judges what they saw.
///
/// Exit codes: 0 every promise held, 1 a promise was broken, 2 usage, 3 nothing was broken and a run proves nothing (void).
#[derive(Debug, Parser)]
#[command(
    name = "chaos",
    after_help = "Examples:\n  ./scripts/chaos --list\n  ./scripts/chaos --scenario kill-leader --seed 7\n  ./scripts/chaos --minutes 60 --binary /usr/local/bin/quiltd"
)]
pub struct Args {
    /// A scenario by its name, several with commas, or all.
    #[arg(long, default_value = "all", value_name = "NAME", value_delimiter = ',')]
    scenario: Vec<String>,
    /// What everything by chance is made from; runs repeated with --minutes go on with the next ones.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Go on with new seeds for so long; without it every scenario runs once. With --simulate: how long a busy world is under faults.
    #[arg(long, value_name = "M", value_parser = minutes)]
    minutes: Option<f64>,
    /// One control plane for all of --minutes, under faults of the scenarios by chance, one behind the other.
    #[arg(long, requires = "minutes", conflicts_with_all = ["simulate", "museum"])]
    soak: bool,
    /// How many replicas: 3 or 5.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = replicas)]
    replicas: u16,
    /// The quiltd to test; by default the one built from this clone.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// The quiltd of the release before, for upgrades; without it they are not run.
    #[arg(long, value_name = "PATH")]
    previous: Option<PathBuf>,
    /// Faults and calm last so many times as long as in CI.
    #[arg(long, default_value_t = 1, value_name = "K", value_parser = clap::value_parser!(u64).range(1..=60))]
    stretch: u64,
    /// Requests a second that clients begin.
    #[arg(long, default_value_t = 150, value_name = "N", value_parser = clap::value_parser!(u32).range(10..=10_000))]
    rate: u32,
    /// Where the report and what is kept of failing runs go; a new directory for temporary files by default.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Show all scenarios, and end.
    #[arg(long)]
    list: bool,
    /// Simulate instead: seeds A..B in one process on virtual time.
    #[arg(long, requires = "seeds", conflicts_with = "museum")]
    simulate: bool,
    /// The seeds to simulate. Those that once broke a rule are run before them.
    #[arg(long, value_name = "A..B")]
    seeds: Option<String>,
    /// Simulate all worlds at this pace; by default each seed has its own.
    #[arg(long, value_name = "PACE", requires = "simulate", value_parser = ["busy", "usual", "quiet"])]
    pace: Option<String>,
    /// Write all that happens in the world of one simulated seed to a file.
    #[arg(long, value_name = "FILE", requires = "simulate")]
    trace: Option<PathBuf>,
    /// Run the museum of planted bugs instead: each must be convicted.
    #[arg(long)]
    museum: bool,
}

/// Exit code of a mistake in the command.
const USAGE: u8 = 2;

fn replicas(text: &str) -> Result<u16, String> {
    match text {
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("3 and 5 can be run".into()),
    }
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes = text.parse().ok().filter(|minutes: &f64| (0.01..=100_000.0).contains(minutes));
    minutes.ok_or_else(|| "a number of minutes, as 60 or 0.5".into())
}

/// Runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        print(&listing());
        return ExitCode::SUCCESS;
    }
    if args.simulate {
        return simulate(&args);
    }
    if args.museum {
        return exhibits(&args);
    }
    let chosen = match chosen(&args.scenario) {
        Ok(chosen) => chosen,
        Err(error) => {
            tell(&format!("{error:#}\n"));
            return ExitCode::from(USAGE);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.context("threads").and_then(|runtime| runtime.block_on(campaign(&args, &chosen)));
    match done {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(error) => {
            tell(&format!("{error:#}\n"));
            ExitCode::from(Outcome::Void.code())
        }
    }
}

/// The whole museum: the judge's mistakes, what is planted into the simulation, and what is planted into the crates.
fn exhibits(args: &Args) -> ExitCode {
    let trials = museum::checker();
    let mut all = trials.iter().all(|trial| trial.convicted.is_some());
    for trial in trials {
        print(&format!("{trial}\n"));
    }
    match museum::product(|line| print(&format!("{line}\n"))) {
        Ok(convicted) => all &= convicted,
        Err(error) => {
            tell(&format!("{error:#}\n"));
            return ExitCode::from(Outcome::Void.code());
        }
    }
    let simulated = simulate(args);
    if all { simulated } else { ExitCode::FAILURE }
}

/// The simulation is a program of its own: it is linked with what it simulates, this one is not.
fn simulate(args: &Args) -> ExitCode {
    let program = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join("simulate")));
    let Some(program) = program.filter(|path| path.is_file()) else {
        tell("the simulation is not built: cargo build --profile ci --bin simulate\n");
        return ExitCode::from(Outcome::Void.code());
    };
    let mut command = Command::new(program);
    command.args(simulated(args));
    match command.status() {
        Ok(status) => ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)),
        Err(error) => {
            tell(&format!("the simulation cannot be started: {error}\n"));
            ExitCode::from(Outcome::Void.code())
        }
    }
}

/// What the simulation is told.
fn simulated(args: &Args) -> Vec<OsString> {
    let Some(seeds) = args.seeds.as_ref().filter(|_| args.simulate) else { return vec!["--museum".into()] };
    let mut told: Vec<OsString> = vec!["--seeds".into(), seeds.into()];
    for (flag, value) in [("--pace", args.pace.clone()), ("--minutes", args.minutes.map(|minutes| minutes.to_string()))]
    {
        told.extend(value.into_iter().flat_map(|value| [flag.into(), value.into()]));
    }
    if let Some(trace) = &args.trace {
        told.extend(["--trace".into(), trace.into()]);
    }
    // Kept in the clone that this was built from.
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    if kept.is_dir() {
        told.extend(["--kept".into(), kept.into()]);
    }
    told
}

fn chosen(names: &[String]) -> Result<Vec<&'static Scenario>> {
    if names.iter().any(|name| name == "all") {
        return Ok(SCENARIOS.iter().collect());
    }
    names
        .iter()
        .map(|name| named(name).with_context(|| format!("no scenario is called \"{name}\"; --list shows them all")))
        .collect()
}

fn listing() -> String {
    let width = SCENARIOS.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for scenario in SCENARIOS {
        let _infallible = writeln!(text, "{:<width$}  {}", scenario.name, scenario.shows);
    }
    for missing in coverage::missing() {
        let _infallible = writeln!(text, "MISSING: {missing}");
    }
    text
}

async fn campaign(args: &Args, chosen: &[&'static Scenario]) -> Result<Outcome> {
    let binary = match &args.binary {
        Some(path) => path.canonicalize().with_context(|| format!("--binary {}", path.display()))?,
        None => binary::quiltd()?,
    };
    let about = version(&binary)?;
    let previous = match &args.previous {
        Some(path) => Some(path.canonicalize().with_context(|| format!("--previous {}", path.display()))?),
        None => None,
    };
    if let Some(previous) = &previous {
        tell(&format!("upgrades are from {}: {}\n", previous.display(), version(previous)?));
    }
    let shim = match binary::shim() {
        Ok(shim) => Some(shim),
        Err(error) => {
            tell(&format!("WARNING: no faults of disks and clocks, runs with them are void: {error:#}\n"));
            None
        }
    };
    let name = format!("quiltd-chaos-{}", std::process::id());
    let out = args.out.clone().unwrap_or_else(|| std::env::temp_dir().join(name));
    std::fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    let out = out.canonicalize()?;
    let total = args.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let (mut chosen, mut soak) = (chosen.to_vec(), None);
    let mut not_run = Vec::new();
    if previous.is_none() && !args.scenario.iter().any(|name| named(name).is_some_and(Scenario::needs_previous)) {
        let left = chosen.extract_if(.., |scenario| scenario.needs_previous());
        not_run.extend(left.map(|scenario| format!("{}: {NO_PREVIOUS}", scenario.name)));
    }
    if let Some(lasts) = total.filter(|_| args.soak) {
        // Disks and clocks that cannot be broken would make each such phase idle.
        chosen.retain(|scenario| shim.is_some() || !scenario.needs_layer());
        let phases = Soak::of(&chosen, lasts).context("these scenarios have no fault for a soak")?;
        (chosen, soak) = (vec![&SOAK], Some(Arc::new(phases)));
    }
    let setting = Setting {
        replicas: args.replicas,
        binary,
        previous,
        shim,
        rate: f64::from(args.rate),
        stretch: args.stretch,
        limits: Limits::default(),
        soak,
    };
    let begun = Instant::now();
    let board = Arc::new(Mutex::new(Board { begun: Some(begun), total, ..Board::default() }));
    let mut report = Report::new(about, args.replicas);
    report.not_run = not_run;
    tell(&format!("{}, {} replicas, report in {}\n", report.binary, args.replicas, out.display()));
    'all: for round in 0.. {
        for (number, scenario) in (1..).zip(&chosen) {
            if total.is_some_and(|total| begun.elapsed() >= total) {
                break 'all;
            }
            let seed = args.seed + round;
            board.lock().unwrap_or_else(PoisonError::into_inner).title =
                format!("{number}/{} {} seed {seed}", chosen.len(), scenario.name);
            let place = out.join(format!("{}-{seed}", scenario.name));
            ensure!(!place.exists(), "{} is there from an earlier run: give another --out", place.display());
            let done = run(scenario, &setting, seed, place, Arc::clone(&board)).await;
            clear_line();
            tell(&told(&done, &repeat(args, done.scenario, done.seed)));
            report.add(done, &out)?;
            report.save(&out)?;
        }
        if total.is_none() || args.soak {
            break;
        }
    }
    print(&report.table());
    for left in &report.not_run {
        print(&format!("NOT RUN  {left}\n"));
    }
    print(&summary(&report, begun.elapsed()));
    Ok(report.outcome)
}

fn summary(report: &Report, took: Duration) -> String {
    let count = |outcome| report.runs.iter().filter(|run| run.outcome == outcome).count();
    format!(
        "{} runs in {} s: {} passed, {} failed, {} void; {} MiB of memory for the harness at most\n",
        report.runs.len(),
        took.as_secs(),
        count(Outcome::Pass),
        count(Outcome::Fail),
        count(Outcome::Void),
        report.runs.iter().map(|run| run.memory_mib).max().unwrap_or_default()
    )
}

/// The command that does a run again.
fn repeat(args: &Args, scenario: &str, seed: u64) -> String {
    let scenario = if args.soak { args.scenario.join(",") } else { scenario.to_owned() };
    let mut command = format!("./scripts/chaos --scenario {scenario} --seed {seed} --replicas {}", args.replicas);
    if let (true, Some(minutes)) = (args.soak, args.minutes) {
        let _infallible = write!(command, " --soak --minutes {minutes}");
    }
    for (flag, now, usual) in [("--stretch", args.stretch, 1), ("--rate", u64::from(args.rate), 150)] {
        if now != usual {
            let _infallible = write!(command, " {flag} {now}");
        }
    }
    for (flag, path) in [("--binary", &args.binary), ("--previous", &args.previous)] {
        if let Some(path) = path {
            let _infallible = write!(command, " {flag} {}", path.display());
        }
    }
    command
}

fn version(binary: &Path) -> Result<String> {
    let told = Command::new(binary).arg("version").output();
    let told = told.with_context(|| format!("{} cannot be run", binary.display()))?;
    let words = String::from_utf8_lossy(&told.stderr);
    ensure!(told.status.success(), "{} version failed: {words}", binary.display());
    Ok(String::from_utf8_lossy(&told.stdout).lines().next().unwrap_or_default().to_owned())
}

fn clear_line() {
    use std::io::IsTerminal;
    if std::io::stderr().is_terminal() {
        tell("\r\x1b[2K");
    }
}

#[expect(clippy::print_stderr, reason = "a program for people at a terminal")]
fn tell(text: &str) {
    eprint!("{text}");
}

#[expect(clippy::print_stdout, reason = "the answer of a program for people at a terminal")]
fn print(text: &str) {
    print!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::try_parse_from(line.split_whitespace()).expect("a line of the command")
    }

    /// The command that repeats a run says everything it depends on, and nothing that is as usual.
    #[test]
    fn a_run_is_repeated_by_what_is_printed() {
        let line = |line: &str| {
            let args = args(line);
            repeat(&args, if args.soak { "soak" } else { "kill-all" }, args.seed)
        };
        let usual = "./scripts/chaos --scenario kill-all --seed 7 --replicas 3";
        assert_eq!(line("chaos --scenario all --seed 7"), usual);
        assert_eq!(line(&format!("{usual} --minutes 60")), usual);
        for long in [
            "./scripts/chaos --scenario kill-all --seed 7 --replicas 5 --stretch 20 --rate 50 --binary /x --previous /y",
            "./scripts/chaos --scenario kill-all,calm --seed 3 --replicas 3 --soak --minutes 21 --rate 80",
        ] {
            assert_eq!(line(long), long);
        }
    }

    /// Everything that a simulated world depends on reaches the simulation, and so does the place of kept seeds; the museum needs none.
    #[test]
    fn a_simulated_world_is_repeated_by_what_is_printed() {
        let line = "chaos --simulate --seeds 60107 --pace quiet --minutes 0.5 --trace trace.log";
        let told: Vec<String> =
            simulated(&args(line)).into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let (last, told) = told.split_last().expect("something is told");
        assert_eq!(told.join(" "), "--seeds 60107 --pace quiet --minutes 0.5 --trace trace.log --kept");
        assert!(last.ends_with("cluster-tests/seeds"), "{last}");
        assert_eq!(simulated(&args("chaos --museum")), ["--museum"]);
        assert!(Args::try_parse_from(["chaos", "--pace", "quiet"]).is_err());
        assert!(Args::try_parse_from(["chaos", "--minutes", "0"]).is_err());
    }
}
