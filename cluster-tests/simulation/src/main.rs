//! `simulate`: runs seeds and says what came of each. Knows nothing of what is simulated.
#![forbid(unsafe_code)]

use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use simulation::{Options, Pace, museum, run};

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
    let options = Options { seconds, pace: args.pace, only: None, trace: args.trace };
    let report = run(args.seeds, &options, |verdict| {
        if !args.quiet || verdict.violation.is_some() {
            // Whoever reads may have gone; the exit code still tells.
            let _ = writeln!(out, "{verdict}");
        }
    });
    writeln!(out, "{report}")?;
    if let Some(first) = report.failed.first() {
        let (seed, pace) = (first.seed, first.pace);
        writeln!(out, "again: simulate --seeds {seed} --pace {pace} --minutes {} --trace FILE", args.minutes)?;
    }
    Ok(if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
