//! The additive hash of live rows (architecture D6): equal on all replicas at the same revision, whatever the order
//! in which rows came to be.

use xxhash_rust::xxh3::Xxh3;

use crate::store::Family;

/// A sum of 128-bit row hashes; adding and removing a row are inverse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateHash(u128);

impl StateHash {
    /// From its two stored halves.
    #[must_use]
    pub fn from_halves(high: u64, low: u64) -> Self {
        Self((u128::from(high) << 64) | u128::from(low))
    }

    /// High and low half, for storing.
    #[must_use]
    pub fn halves(self) -> (u64, u64) {
        let bytes = self.0.to_be_bytes();
        let (high, low) = bytes.split_at(8);
        let half = |part: &[u8]| part.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
        (half(high), half(low))
    }

    /// Adds a row.
    pub fn add(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_add(row(family, key, value));
    }

    /// The hash of one row alone.
    pub(crate) fn of(family: Family, key: &[u8], value: &[u8]) -> Self {
        Self(row(family, key, value))
    }

    /// Puts a row's hash in the place of the one it had before, if it had one.
    pub(crate) fn replace(&mut self, old: Option<Self>, new: Self) {
        self.0 = self.0.wrapping_sub(old.unwrap_or_default().0).wrapping_add(new.0);
    }

    /// Takes a row away by its hash.
    pub(crate) fn subtract(&mut self, old: Self) {
        self.0 = self.0.wrapping_sub(old.0);
    }
}

fn row(family: Family, key: &[u8], value: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(family.name().as_bytes());
    // The length keeps key and value apart: ("ab", "c") and ("a", "bc") are different rows.
    hash.update(&u64::try_from(key.len()).unwrap_or(u64::MAX).to_be_bytes());
    hash.update(key);
    hash.update(value);
    hash.digest128()
}

impl std::fmt::Display for StateHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
