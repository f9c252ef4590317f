//! Chance that can be repeated: everything a run does by chance comes from one seed. Not for secrets.

use std::ops::Range;

/// A stream of numbers (`SplitMix64`): the same seed gives the same numbers on every machine and in every release.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A stream of its own for a part of the run, so that what one part draws does not depend on what another does.
    #[must_use]
    pub fn of(seed: u64, part: &str) -> Self {
        // FNV-1a: short, and the same everywhere.
        let name = part
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let mut stream = Self::new(seed ^ name);
        stream.draw();
        stream
    }

    /// As [`Random::of`], for parts that are numbered.
    #[must_use]
    pub fn part(seed: u64, part: u64) -> Self {
        let mut stream = Self::new(seed ^ part.wrapping_mul(0xd134_2543_de82_ef95));
        stream.draw();
        stream
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in a range; the start of an empty one.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        let width = range.end.saturating_sub(range.start);
        if width == 0 { range.start } else { range.start + self.below(width) }
    }

    /// A number below `end`; 0 when that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end.max(1)
    }

    /// One of several.
    ///
    /// # Panics
    /// When there is none to choose.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let count = u64::try_from(of.len()).unwrap_or(u64::MAX);
        &of[usize::try_from(self.below(count)).unwrap_or(0)]
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A seed is a promise: these numbers never change, or old seeds would repeat nothing.
    #[test]
    fn a_seed_means_the_same_for_ever() {
        let mut random = Random::new(1);
        assert_eq!([random.draw(), random.draw()], [0x910a_2dec_8902_5cc1, 0xbeeb_8da1_658e_ec67]);
        let mut random = Random::of(1, "schedule");
        assert!((0..1_000).all(|_| (5..9).contains(&random.within(5..9))));
        assert_ne!(Random::of(1, "a").draw(), Random::of(1, "b").draw());
        assert_eq!(random.within(7..7), 7);
    }
}
