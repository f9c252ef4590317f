//! [`Histogram`]: latencies of any number of operations in a few kilobytes, exact to under two percent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Each power of two is cut into this many buckets.
const PARTS_BITS: u32 = 6;
const PARTS: u64 = 1 << PARTS_BITS;

/// Counts of durations by their size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

fn bucket(nanos: u64) -> usize {
    let bits = u64::BITS - nanos.leading_zeros();
    let shift = bits.saturating_sub(PARTS_BITS + 1);
    let index = u64::from(shift) * PARTS + (nanos >> shift);
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The largest duration of a bucket.
fn upper(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let shift = (bucket / PARTS).saturating_sub(1);
    let part = bucket - shift * PARTS;
    ((part + 1) << shift) - 1
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let bucket = bucket(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
    }

    /// Adds what another one has counted.
    pub fn add(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    /// How many were counted.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The duration below which this share of a thousand lies; `None` when nothing was counted.
    #[must_use]
    pub fn permille(&self, permille: u64) -> Option<Duration> {
        let wanted = (self.total * permille).div_ceil(1_000).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(Duration::from_nanos(upper(found)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every duration lies in its bucket, and no bucket is wider than two percent of what is in it.
    #[test]
    fn buckets_are_narrow() {
        for nanos in (0..64).map(|bits| 1_u64 << bits).flat_map(|power| [power - 1, power, power + power / 3]) {
            let upper = upper(bucket(nanos));
            assert!(upper >= nanos, "{nanos}");
            assert!(upper - nanos <= nanos / 50, "{nanos} in a bucket up to {upper}");
        }
    }

    /// Quantiles of known durations, and of two histograms added.
    #[test]
    fn quantiles_are_found() {
        let (mut low, mut high) = (Histogram::default(), Histogram::default());
        assert_eq!(low.permille(500), None);
        for millis in 1..=1_000 {
            let into = if millis % 2 == 0 { &mut low } else { &mut high };
            into.record(Duration::from_millis(millis));
        }
        low.add(&high);
        assert_eq!(low.total(), 1_000);
        for (permille, millis) in [(500, 500), (990, 990), (999, 999)] {
            let found = low.permille(permille).expect("counted").as_millis();
            assert!((millis..=millis + millis / 50).contains(&found), "{permille}: {found}");
        }
    }
}
