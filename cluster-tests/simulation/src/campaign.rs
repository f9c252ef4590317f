//! Many seeds, one after the other, and what came of them.

use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::ledger::Violation;
use crate::world::{Options, simulate};

/// What came of one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// The first rule that was broken.
    pub violation: Option<Violation>,
    /// Of everything that happened. The same for the same seed and options.
    pub trace_hash: u64,
    /// How much happened.
    pub lines: u64,
    /// Virtual time.
    pub simulated: Duration,
    /// Transactions acknowledged.
    pub applied: u64,
    /// Transactions told to have no effect.
    pub unapplied: u64,
    /// Transactions of which nobody could tell.
    pub unknown: u64,
    /// Reads answered.
    pub reads: u64,
    /// Events delivered to watches.
    pub events: u64,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, violation, trace_hash, simulated, applied, unapplied, unknown, reads, events, .. } = self;
        let outcome = if violation.is_some() { "FAIL" } else { "pass" };
        let seconds = simulated.as_secs_f64();
        write!(
            f,
            "seed {seed:>6}  {outcome}  {trace_hash:016x}  {seconds:7.1} s  {applied} written, {unapplied} not, {unknown} \
             unknown, {reads} read, {events} events"
        )?;
        match violation {
            Some(Violation { invariant, at_ms, what }) => write!(f, "\n    at {at_ms} ms: {invariant}: {what}"),
            None => Ok(()),
        }
    }
}

/// What came of a campaign.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Of each seed.
    pub verdicts: Vec<Verdict>,
    /// What it took.
    pub real: Duration,
}

impl Report {
    /// Seeds in which a rule was broken.
    pub fn failed(&self) -> impl Iterator<Item = &Verdict> {
        self.verdicts.iter().filter(|verdict| verdict.violation.is_some())
    }

    /// All virtual time.
    #[must_use]
    pub fn simulated(&self) -> Duration {
        self.verdicts.iter().map(|verdict| verdict.simulated).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (simulated, real) = (self.simulated().as_secs_f64(), self.real.as_secs_f64());
        let failed: Vec<u64> = self.failed().map(|verdict| verdict.seed).collect();
        let sum = |of: fn(&Verdict) -> u64| self.verdicts.iter().map(of).sum::<u64>();
        write!(
            f,
            "{} seeds, {} failed {failed:?}; {:.2} simulated hours in {real:.0} s: {:.0} simulated seconds a second; {} \
             written, {} unknown, {} read, {} events checked",
            self.verdicts.len(),
            failed.len(),
            simulated / 3600.0,
            simulated / real.max(0.001),
            sum(|verdict| verdict.applied),
            sum(|verdict| verdict.unknown),
            sum(|verdict| verdict.reads),
            sum(|verdict| verdict.events),
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
            violation: Some(Violation { invariant: "nothing panics", at_ms: 0, what }),
            trace_hash: 0,
            lines: 0,
            simulated: Duration::ZERO,
            applied: 0,
            unapplied: 0,
            unknown: 0,
            reads: 0,
            events: 0,
        }
    })
}

/// Runs seeds one after the other; `each` is told of every one as it ends.
pub fn run(seeds: Range<u64>, options: &Options, mut each: impl FnMut(&Verdict)) -> Report {
    let began = Instant::now();
    let mut report = Report::default();
    for seed in seeds {
        let verdict = one(seed, options);
        each(&verdict);
        report.verdicts.push(verdict);
    }
    report.real = began.elapsed();
    report
}
