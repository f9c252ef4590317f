//! `simulate`: runs seeds and says what came of each. Knows nothing of what is simulated.
#![forbid(unsafe_code)]

use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use simulation::{Options, Pace, Report, museum, replay, run, seeds};

/// Runs whole control planes in virtual time, from seeds.
#[derive(Parser)]
#[command(name = "simulate")]
struct Args {
    /// Which seeds, the last one not included.
    #[arg(long, default_value = "1..11", value_parser = range)]
    seeds: Range<u64>,
    /// Virtual minutes under faults of a busy world; usual ones go on for 10 times as long, quiet ones for 60 times.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// All worlds at this pace: busy, usual or quiet; by default each seed has its own.
    #[arg(long)]
    pace: Option<Pace>,
    /// Writes every line of the trace of one seed to a file.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Writes the replicas' own log to a file; RUST_LOG's syntax in `--log-filter`.
    #[arg(long)]
    log: Option<PathBuf>,
    /// What of it.
    #[arg(long, default_value = "quilt_raft_simulated=debug")]
    log_filter: String,
    /// Says only which seeds fail, and the sum.
    #[arg(long)]
    quiet: bool,
    /// Where seeds are kept that once broke a rule: they are run first, unless one is traced, and those found now are added.
    #[arg(long)]
    kept: Option<PathBuf>,
    /// Runs the bug museum instead: fails if a planted bug survives.
    #[arg(long)]
    museum: bool,
    /// Looks for a seed of `--seeds` that convicts each planted bug whose name contains this.
    #[arg(long)]
    convict: Option<String>,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").unwrap_or((text, ""));
    let from: u64 = from.parse().map_err(|_| format!("{text:?} is no range such as 1..50"))?;
    let to =
        if to.is_empty() { from + 1 } else { to.parse().map_err(|_| format!("{text:?} is no range such as 1..50"))? };
    Ok(from..to)
}

/// Virtual time in the replicas' log.
struct Virtual;

impl tracing_subscriber::fmt::time::FormatTime for Virtual {
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(w, "{:>12}", simulation::now_us())
    }
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(path) = &args.log {
        let file = std::fs::File::create(path).with_context(|| format!("creating {}", path.display()))?;
        tracing_subscriber::fmt()
            .with_timer(Virtual)
            .with_ansi(false)
            .with_writer(std::sync::Mutex::new(file))
            .with_env_filter(args.log_filter.as_str())
            .init();
    }
    // Virtual seconds are whole; a part of one is none.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let seconds = (args.minutes * 60.0).max(1.0) as u64;
    let mut out = std::io::stdout().lock();
    if args.museum {
        let all = museum::run(museum::PIECES, |trial| drop(writeln!(out, "{trial}")));
        return Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if let Some(name) = &args.convict {
        for piece in museum::PIECES.iter().filter(|piece| piece.name.contains(name.as_str())) {
            let mut piece = *piece;
            piece.seconds = seconds;
            piece.pace = args.pace.unwrap_or(piece.pace);
            for seed in args.seeds.clone() {
                let trial = museum::try_one(piece, Some(seed));
                if trial.is_convicted() || seed + 1 == args.seeds.end {
                    writeln!(out, "{trial}")?;
                }
                if let Some(violation) = &trial.verdict.violation {
                    writeln!(out, "    at {} ms: {}", violation.at_ms, violation.what)?;
                    break;
                }
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut each = |verdict: &simulation::Verdict| {
        if !args.quiet || verdict.violation.is_some() {
            // Whoever reads may have gone; the exit code still tells.
            let _ = writeln!(out, "{verdict}");
        }
    };
    let known = match &args.kept {
        Some(dir) if args.trace.is_none() => seeds::kept(dir)?,
        _ => Vec::new(),
    };
    let first = replay(&known, &mut each);
    let options = Options { seconds, pace: args.pace, only: None, trace: args.trace };
    let report = run(args.seeds, &options, &mut each);
    if !known.is_empty() {
        writeln!(out, "kept seeds, run first:\n{first}\n")?;
    }
    writeln!(out, "{report}")?;
    if let Some(dir) = &args.kept {
        for verdict in &report.failed {
            if let Some(path) = seeds::keep(dir, verdict, seconds)? {
                writeln!(out, "kept: {}", path.display())?;
            }
        }
    }
    let broken = first.failed.first().map(|verdict| {
        let same = known.iter().find(|kept| kept.seed == verdict.seed).map_or(seconds, |kept| kept.seconds);
        (verdict, same)
    });
    if let Some((verdict, seconds)) = broken.or_else(|| report.failed.first().map(|verdict| (verdict, seconds))) {
        writeln!(out, "{}", again(verdict.seed, verdict.pace, seconds))?;
    }
    let held = [&first, &report].into_iter().all(|report: &Report| report.failed.is_empty());
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The command that does a world again.
#[expect(clippy::cast_precision_loss, reason = "far fewer seconds than a double can hold")]
fn again(seed: u64, pace: Pace, seconds: u64) -> String {
    let minutes = seconds as f64 / 60.0;
    format!("again: ./scripts/chaos --simulate --seeds {seed} --pace {pace} --minutes {minutes} --trace trace.log")
}
