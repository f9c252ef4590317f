//! Many seeds, one after the other, and what came of them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::ledger::Violation;
use crate::pace::Pace;
use crate::seeds::Kept;
use crate::tally::Tally;
use crate::world::{Options, simulate};

/// What came of one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// How densely things happened.
    pub pace: Pace,
    /// The first rule that was broken.
    pub violation: Option<Violation>,
    /// Of everything that happened. The same for the same seed and options.
    pub trace_hash: u64,
    /// How much happened.
    pub lines: u64,
    /// Virtual time.
    pub simulated: Duration,
    /// What it was filled with.
    pub tally: Tally,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, pace, violation, trace_hash, simulated, tally, .. } = self;
        let outcome = if violation.is_some() { "FAIL" } else { "pass" };
        let seconds = simulated.as_secs_f64();
        write!(f, "seed {seed:>6}  {pace:<5}  {outcome}  {trace_hash:016x}  {seconds:7.1} s  {tally}")?;
        match violation {
            Some(Violation { invariant, at_ms, what }) => write!(f, "\n    at {at_ms} ms: {invariant}: {what}"),
            None => Ok(()),
        }
    }
}

/// Worlds of one pace, added up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// How many.
    pub worlds: u64,
    /// Virtual time.
    pub simulated: Duration,
    /// What it was filled with.
    pub tally: Tally,
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worlds, simulated, tally } = self;
        write!(f, "{worlds:>6} worlds  {:8.2} h  {tally}", simulated.as_secs_f64() / 3600.0)
    }
}

/// What came of a campaign. Does not grow with the number of worlds, as long as they keep the rules.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// All worlds, by pace.
    pub sums: BTreeMap<Pace, Sum>,
    /// The worlds in which a rule was broken.
    pub failed: Vec<Verdict>,
    /// What it took.
    pub real: Duration,
}

impl Report {
    /// Adds one world.
    pub fn add(&mut self, verdict: Verdict) {
        let sum = self.sums.entry(verdict.pace).or_default();
        sum.worlds += 1;
        sum.simulated += verdict.simulated;
        sum.tally += verdict.tally;
        if verdict.violation.is_some() {
            self.failed.push(verdict);
        }
    }

    /// All paces together.
    #[must_use]
    pub fn all(&self) -> Sum {
        self.sums.values().fold(Sum::default(), |mut all, sum| {
            all.worlds += sum.worlds;
            all.simulated += sum.simulated;
            all.tally += sum.tally;
            all
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (pace, sum) in &self.sums {
            writeln!(f, "{pace:<5} {sum}")?;
        }
        let all = self.all();
        let (simulated, real) = (all.simulated.as_secs_f64(), self.real.as_secs_f64());
        let failed: Vec<u64> = self.failed.iter().map(|verdict| verdict.seed).collect();
        writeln!(f, "all   {all}")?;
        write!(
            f,
            "{} failed {failed:?}; {:.2} simulated days in {real:.0} s: {:.0} simulated seconds a second",
            failed.len(),
            simulated / 86_400.0,
            simulated / real.max(0.001),
        )
    }
}

/// The world of one seed, whatever it does.
pub(crate) fn one(seed: u64, options: &Options) -> Verdict {
    catch_unwind(AssertUnwindSafe(|| simulate(seed, options))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let what = text.unwrap_or_default();
        Verdict {
            seed,
            pace: options.pace.unwrap_or_else(|| Pace::of(seed)),
            violation: Some(Violation { invariant: "nothing panics", at_ms: 0, what }),
            trace_hash: 0,
            lines: 0,
            simulated: Duration::ZERO,
            tally: Tally::default(),
        }
    })
}

/// Runs what is kept, each as it was found; `each` is told of every one as it ends.
pub fn replay(kept: &[Kept], mut each: impl FnMut(&Verdict)) -> Report {
    let began = Instant::now();
    let mut report = Report::default();
    for Kept { seed, seconds, pace, .. } in kept {
        let verdict = one(*seed, &Options { seconds: *seconds, pace: *pace, ..Options::default() });
        each(&verdict);
        report.add(verdict);
    }
    report.real = began.elapsed();
    report
}

/// Runs seeds one after the other; `each` is told of every one as it ends.
pub fn run(seeds: Range<u64>, options: &Options, mut each: impl FnMut(&Verdict)) -> Report {
    let began = Instant::now();
    let mut report = Report::default();
    for seed in seeds {
        let verdict = one(seed, options);
        each(&verdict);
        report.add(verdict);
    }
    report.real = began.elapsed();
    report
}
