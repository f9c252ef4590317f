//! The histograms in which openraft counts sizes of batches, in two kilobytes each and nothing besides.
//!
//! openraft asks for a crate of this name. The one on crates.io lays out 28 MiB of tables, for sixteen precisions of
//! which one is used, when the first histogram is made: half of an idle replica. This one computes a bucket where it
//! is asked for it. It has what openraft calls, and must not know what is counted.
#![forbid(unsafe_code)]

mod chart;

use std::fmt;
use std::marker::PhantomData;

pub use chart::{AsciiChart, Detailed};

/// Buckets for each power of two: values in one of them differ by a quarter at most.
const STEPS: usize = 4;
/// Binary digits of a bucket's number within its power of two.
const STEP_BITS: usize = STEPS.ilog2() as usize;
/// Values below [`STEPS`] have a bucket each, and every power of two from there on has [`STEPS`].
const BUCKETS: usize = STEPS + (u64::BITS as usize - STEP_BITS) * STEPS;

/// How often values of each size were met. `T` is what others attach to a histogram; nothing is attached here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: Vec<u64>,
    attached: PhantomData<T>,
}

/// Sizes below which a share of all values lies: `p0_1` one in a thousand, `p50` half of them, `p99_9` all but one in a
/// thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the shares")]
pub struct PercentileStats {
    /// Values counted.
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { samples, p50, p90, p99, p99_9, .. } = self;
        write!(f, "{samples} values, p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}")
    }
}

/// The bucket a value belongs to.
fn bucket(value: u64) -> usize {
    let Some(power) = value.checked_ilog2().map(|power| power as usize).filter(|power| *power >= STEP_BITS) else {
        return usize::try_from(value).unwrap_or(0); // below STEPS
    };
    // The digits behind the first one say which part of its power of two the value lies in.
    let step = usize::try_from(value >> (power - STEP_BITS)).unwrap_or(0) % STEPS;
    STEPS + (power - STEP_BITS) * STEPS + step
}

/// The least value of a bucket.
fn least(bucket: usize) -> u64 {
    match bucket.checked_sub(STEPS) {
        None => bucket as u64,
        Some(above) => ((STEPS + above % STEPS) as u64) << (above / STEPS),
    }
}

impl<T> Histogram<T> {
    /// One that has counted nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS], attached: PhantomData }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts a value that was met `count` times.
    pub fn record_n(&mut self, value: u64, count: u64) {
        if let Some(met) = self.counts.get_mut(bucket(value)) {
            *met = met.saturating_add(count);
        }
    }

    /// Values counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The shares people look at.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        let samples = self.total();
        let at = |permille| self.permille(samples, permille);
        PercentileStats {
            samples,
            p0_1: at(1),
            p1: at(10),
            p5: at(50),
            p10: at(100),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p99_9: at(999),
        }
    }

    /// The least value of the bucket in which so many thousandths of all values are reached; 0 without any.
    fn permille(&self, samples: u64, permille: u64) -> u64 {
        let wanted = samples.saturating_mul(permille).div_ceil(1_000).max(1);
        let mut met = 0_u64;
        let reached = self.counts.iter().position(|count| {
            met = met.saturating_add(*count);
            met >= wanted
        });
        reached.map_or(0, least)
    }
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value lies in the bucket that begins at or below it and is no wider than a quarter of it.
    #[test]
    fn a_bucket_holds_its_values() {
        let around = |value: u64| [value.saturating_sub(1), value, value.saturating_add(1)];
        for value in (0..64).map(|power| 1_u64 << power).flat_map(around).chain(0..1_000).chain([u64::MAX]) {
            let begins = least(bucket(value));
            assert!(begins <= value && value - begins <= value / 4, "{value} lies in the bucket from {begins}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert!((1..BUCKETS).all(|n| least(n - 1) < least(n) && bucket(least(n)) == n));
    }

    /// Shares are read off as they were counted; nothing counted is no share.
    #[test]
    fn shares_are_read_off() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats(), PercentileStats::default());
        histogram.record_n(1, 989);
        histogram.record_n(64, 10);
        histogram.record(1_024);
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p50, stats.p99, stats.p99_9), (1_000, 1, 64, 64));
        assert_eq!(histogram.permille(1_000, 1_000), 1_024);
    }
}
