//! Ratios of paired slices: their median, and an interval by resampling the pairs.

use serde::Serialize;

/// Share of resamples the interval holds, in permille.
const CONFIDENCE_PERMILLE: usize = 950;
const RESAMPLES: usize = 2_000;

/// One quantity measured in neighbouring slices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// Of quiltd.
    pub ours: f64,
    /// Of etcd, when there is one.
    pub peer: Option<f64>,
}

/// A line of the result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was measured.
    pub row: String,
    /// In which unit.
    pub unit: &'static str,
    /// Median of our slices.
    pub ours: f64,
    /// Median of the peer's.
    pub peer: Option<f64>,
    /// Median of the pairs' ratios, ours to the peer's.
    pub ratio: Option<f64>,
    /// 95 % interval of that median.
    pub ratio_low: Option<f64>,
    /// Its upper end.
    pub ratio_high: Option<f64>,
}

impl Row {
    /// Sums up the pairs of one quantity; `None` when there are none.
    #[must_use]
    pub fn of(row: String, unit: &'static str, pairs: &[Pair]) -> Option<Self> {
        let ours = median(&mut pairs.iter().map(|pair| pair.ours).collect::<Vec<_>>())?;
        let peer = median(&mut pairs.iter().filter_map(|pair| pair.peer).collect::<Vec<_>>());
        let ratios = pairs.iter().filter_map(|pair| pair.peer.filter(|peer| *peer > 0.0).map(|peer| pair.ours / peer));
        let ratios: Vec<f64> = ratios.collect();
        let ratio = median(&mut ratios.clone());
        let interval = interval(&ratios);
        let (ratio_low, ratio_high) = (interval.map(|(low, _)| low), interval.map(|(_, high)| high));
        Some(Self { row, unit, ours, peer, ratio, ratio_low, ratio_high })
    }
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// Bootstrap interval of the median: the same for the same ratios.
fn interval(ratios: &[f64]) -> Option<(f64, f64)> {
    if ratios.is_empty() {
        return None;
    }
    let mut random = Random::new(0x51_7c_c1_b7_27_22_0a_95);
    let count = ratios.len() as u64;
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            let mut drawn: Vec<f64> = (0..count).map(|_| ratios[random.below(count)]).collect();
            median(&mut drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let outside = RESAMPLES * (1_000 - CONFIDENCE_PERMILLE) / 2_000;
    Some((medians[outside], medians[RESAMPLES - 1 - outside]))
}

/// A small generator of random numbers: fast, and the same sequence for the same seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Any seed will do.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next number (xorshift, multiplied).
    pub const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`, which is not zero.
    ///
    /// # Panics
    /// When a number below `limit` is no index on this machine.
    pub fn below(&mut self, limit: u64) -> usize {
        usize::try_from((self.next() >> 16) % limit).expect("an index")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The median of the ratios is not the ratio of the medians, the interval holds it, and one wild pair does not
    /// move it.
    #[test]
    fn ratios_are_of_pairs() {
        let mut pairs: Vec<Pair> =
            (1..=20).map(|n| Pair { ours: f64::from(n) * 2.0, peer: Some(f64::from(n)) }).collect();
        pairs.push(Pair { ours: 1_000.0, peer: Some(1.0) });
        let row = Row::of("put".into(), "1/s", &pairs).expect("pairs");
        assert_eq!((row.ratio, row.ratio_low, row.ratio_high), (Some(2.0), Some(2.0), Some(2.0)));
    }

    /// Without a peer there is no ratio, and without slices no row.
    #[test]
    fn an_absent_peer_is_no_win() {
        let row = Row::of("put".into(), "1/s", &[Pair { ours: 5.0, peer: None }]).expect("a slice");
        assert_eq!((row.ours, row.peer, row.ratio, row.ratio_low), (5.0, None, None, None));
        assert_eq!(Row::of("put".into(), "1/s", &[]), None);
    }
}
