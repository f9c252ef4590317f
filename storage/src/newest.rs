//! [`Newest`]: where the newest version of a key stands, for keys written not long ago.
//!
//! Versions of a key lie in as many files as there were flushes while it changed, and a cursor that looks for the
//! newest must open a block of each. Who knows the newest row's key reads that row alone, and the first file that may
//! have it is the one that does. A table of fixed size remembers it; it never answers by itself: the row that it names is
//! read, and when it is not there the cursor is asked. Knows row keys by their [`stem`] and their last eight bytes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quilt_state::store::stem;
use xxhash_rust::xxh3::xxh3_64;

/// Places for stems, a power of two: with 100,000 keys in use, nine of ten are found. 8 bytes each, 4 MiB in all, taken
/// as they are needed.
const PLACES: usize = 1 << 19;

/// Places that come into being together: a page of memory.
const TOGETHER: usize = 512;

/// Bits of a place that hold the age; the others tell stems apart that share the place.
const AGE_BITS: u32 = 44;
const AGE_MAX: u64 = (1 << AGE_BITS) - 1;

/// The newest row of a stem, by the hash of the stem. A later stem takes the place of an earlier one.
///
/// What is written is as new as anything before it: its age, a version's revision, is the highest there is. So a place
/// holds the highest age of all stems that share it, and a row of that age, where one exists, is the newest of its stem.
pub(crate) struct Newest {
    pages: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

impl Default for Newest {
    fn default() -> Self {
        Self::with_places(PLACES)
    }
}

impl Newest {
    fn with_places(places: usize) -> Self {
        Self { pages: (0..places.div_ceil(TOGETHER)).map(|_| OnceLock::new()).collect() }
    }

    /// Takes down that `row` was written. Called after the write and before anybody is told of it.
    pub(crate) fn wrote(&self, row: &[u8]) {
        let Some((hash, age)) = split(row) else { return };
        let Some(page) = self.pages.get(self.page(hash)) else { return };
        let page = page.get_or_init(|| (0..TOGETHER).map(|_| AtomicU64::new(0)).collect());
        let Some(place) = page.get(index(hash)) else { return };
        // An age that does not fit is not known, and neither is what was before it.
        let named = if age <= AGE_MAX { (tag(hash) << AGE_BITS) | age } else { 0 };
        place.store(named, Ordering::Release);
    }

    /// The key of the newest row with the stem of `from`, if it is known and not before `from`. The row may be gone, or
    /// never have been: then nothing is known.
    pub(crate) fn at_or_behind(&self, from: &[u8]) -> Option<Bytes> {
        let (hash, age_max) = split(from)?;
        let place = self.pages.get(self.page(hash))?.get()?.get(index(hash))?.load(Ordering::Acquire);
        let age = place & AGE_MAX;
        if place >> AGE_BITS != tag(hash) || age == 0 || age > age_max {
            return None;
        }
        Some([stem(from), &(!age).to_be_bytes()].concat().into())
    }

    const fn page(&self, hash: u64) -> usize {
        // Truncation keeps the low bits, which is what is asked for.
        (hash as usize / TOGETHER) & (self.pages.len() - 1)
    }
}

/// Hash of the stem, and the age: newer rows have smaller last bytes.
fn split(row: &[u8]) -> Option<(u64, u64)> {
    let (stem, tail) = row.split_last_chunk::<8>()?;
    Some((xxh3_64(stem), !u64::from_be_bytes(*tail)))
}

const fn index(hash: u64) -> usize {
    hash as usize % TOGETHER
}

/// The bits of the hash that choose no place.
const fn tag(hash: u64) -> u64 {
    hash >> AGE_BITS
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn row(stem: u64, age: u64) -> Vec<u8> {
        [stem.to_be_bytes(), (!age).to_be_bytes()].concat()
    }

    /// However many stems share a place: a row that is named and was written is the newest of its stem, or the newest
    /// lies before the place that was asked for.
    #[test]
    fn what_is_named_and_there_is_the_newest() {
        let newest = Newest::with_places(TOGETHER);
        let mut written = BTreeSet::new();
        let mut hits = 0;
        for age in 1..20_000_u64 {
            // Some stems often, some seldom, several at one age.
            for stem in [age * age % 40, age * 7 % 4_001] {
                newest.wrote(&row(stem, age));
                written.insert(row(stem, age));
            }
            let stem = age * 13 % 4_001;
            for asked in [age, age.saturating_sub(30)] {
                let from = row(stem, asked);
                let Some(named) = newest.at_or_behind(&from) else { continue };
                if written.contains(&*named) {
                    let first = written.range(from..).next().expect("at least the one that is named");
                    assert_eq!(**first, *named);
                    hits += 1;
                }
            }
        }
        assert!(hits > 2_000, "only {hits} found");
    }

    /// Nothing is known of what was never written, of what is newer than asked for, and of an age beyond the bits.
    #[test]
    fn what_is_not_known() {
        let newest = Newest::default();
        assert_eq!(newest.at_or_behind(&row(1, u64::MAX)), None);
        newest.wrote(&row(1, 5));
        assert_eq!(newest.at_or_behind(&row(1, u64::MAX)).as_deref(), Some(&*row(1, 5)));
        assert_eq!(newest.at_or_behind(&row(1, 4)), None);
        newest.wrote(&row(1, AGE_MAX + 1));
        assert_eq!(newest.at_or_behind(&row(1, u64::MAX)), None, "the one before is the newest no more");
        assert_eq!(newest.at_or_behind(b"short"), None);
    }
}
