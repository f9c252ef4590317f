//! What came of all runs: a table for people, JSON for programs, a picture of each run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::run::{Outcome, RunReport};
use super::timeline;
use crate::oracle::Promise;

/// What the host withheld is told from here on.
const WITHHELD_TOLD_MS: u64 = 500;
/// Version of the JSON; fields are only added.
const VERSION: u32 = 1;

/// All runs of one command.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    version: u32,
    /// What `quiltd version` said of the binary.
    pub binary: String,
    /// How many replicas.
    pub replicas: u16,
    /// The result of all.
    pub outcome: Outcome,
    /// Scenarios that could not be run, and why: they prove nothing.
    pub not_run: Vec<String>,
    /// Every run.
    pub runs: Vec<RunReport>,
}

impl Report {
    /// Nothing run so far.
    #[must_use]
    pub fn new(binary: String, replicas: u16) -> Self {
        Self { version: VERSION, binary, replicas, outcome: Outcome::Pass, not_run: Vec::new(), runs: Vec::new() }
    }

    /// Adds a run, and writes its picture into `directory`. Of runs that passed no samples are kept: hours of them must fit.
    ///
    /// # Errors
    /// When the picture cannot be written.
    pub fn add(&mut self, mut run: RunReport, directory: &Path) -> Result<()> {
        let picture = directory.join(format!("{}-{}.svg", run.scenario, run.seed));
        std::fs::write(&picture, timeline::draw(&run)).with_context(|| format!("writing {}", picture.display()))?;
        if run.outcome == Outcome::Pass {
            run.samples.clear();
        }
        self.outcome = self.outcome.max(run.outcome);
        self.runs.push(run);
        Ok(())
    }

    /// Writes the JSON.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, directory: &Path) -> Result<()> {
        let path = directory.join("report.json");
        std::fs::write(&path, serde_json::to_vec_pretty(self)?).with_context(|| format!("writing {}", path.display()))
    }

    /// Promise by fault: how many runs passed, failed or were void.
    #[must_use]
    pub fn table(&self) -> String {
        let mut cells: BTreeMap<(Promise, &str), [u64; 3]> = BTreeMap::new();
        for run in &self.runs {
            let broken: BTreeSet<Promise> = run.violations.iter().map(|violation| violation.promise).collect();
            let promises: BTreeSet<Promise> = run.judged.iter().copied().chain(broken.iter().copied()).collect();
            for promise in promises {
                let place = match (broken.contains(&promise), run.outcome) {
                    (true, _) => 1,
                    (false, Outcome::Void) => 2,
                    (false, _) => 0,
                };
                for kind in &run.kinds {
                    cells.entry((promise, *kind)).or_default()[place] += 1;
                }
            }
        }
        let kinds: BTreeSet<&str> = cells.keys().map(|(_, kind)| *kind).collect();
        let promises: BTreeSet<Promise> = cells.keys().map(|(promise, _)| *promise).collect();
        let mut table = format!("{:<8}", "promise");
        for kind in &kinds {
            let _infallible = write!(table, "{kind:>14}");
        }
        table.push('\n');
        for promise in promises {
            let _infallible = write!(table, "{:<8}", promise.to_string());
            for kind in &kinds {
                let cell = cells.get(&(promise, *kind)).map_or_else(|| "-".to_owned(), words);
                let _infallible = write!(table, "{cell:>14}");
            }
            table.push('\n');
        }
        table
    }
}

fn words([passed, failed, void]: &[u64; 3]) -> String {
    let parts = [("ok", passed), ("FAIL", failed), ("void", void)];
    let told: Vec<String> =
        parts.iter().filter(|(_, count)| **count > 0).map(|(word, count)| format!("{count} {word}")).collect();
    told.join(" ")
}

/// A run in a few lines.
#[must_use]
pub fn told(run: &RunReport, repeat: &str) -> String {
    let word = match run.outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "FAIL",
        Outcome::Void => "void",
    };
    let counts = &run.counts;
    let mut text = format!(
        "{word}  {} seed {}  {}.{} s, {} requests, {} events, {} of unknown outcome",
        run.scenario,
        run.seed,
        run.took_ms / 1_000,
        run.took_ms % 1_000 / 100,
        counts.operations,
        counts.events,
        counts.unknown
    );
    if let (Some(writes), Some(equal)) = (run.settled.writes_ms, run.settled.equal_ms) {
        let _infallible = write!(text, ", writes after {writes} ms, equal after {equal} ms");
    }
    if run.settled.withheld_ms > WITHHELD_TOLD_MS {
        let _infallible = write!(text, " (the host withheld {} ms)", run.settled.withheld_ms);
    }
    if run.parts > 1 {
        let _infallible = write!(text, ", judged in {} parts, {} MiB", run.parts, run.memory_mib);
    }
    text.push('\n');
    if let Some((harness, replicas)) = run.memory.quarters() {
        let list = |quarters: Vec<u64>| quarters.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let (harness, replicas) = (list(harness), list(replicas));
        let _infallible = writeln!(
            text,
            "    memory, quarter by quarter: {harness} MiB of the harness, {replicas} MiB of the largest replica"
        );
    }
    if run.outcome != Outcome::Pass {
        for violation in &run.violations {
            let _infallible = writeln!(text, "    {violation}");
        }
        for why in &run.void {
            let _infallible = writeln!(text, "    void: {why}");
        }
        if let Some(kept) = &run.kept {
            let _infallible = writeln!(text, "    kept: {}", kept.display());
        }
        let _infallible = writeln!(text, "    again: {repeat}");
    }
    text
}
