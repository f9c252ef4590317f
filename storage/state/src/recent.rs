//! [`Recent`]: latest versions that were looked at not long ago, so that changing them again reads nothing.
//!
//! A cache and nothing more: it answers what the store would answer, so no outcome depends on what it holds. A write looks a
//! key up here whatever else is in memory, and what that costs is not the comparing but the lines of memory it touches. So
//! there is one place for each key, by its hash, and where two keys meet the later one has it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::pending::Head;

/// Latest versions kept in memory unless said otherwise. Their bytes are shared with the watchers' newest events.
const BYTES_MAX: usize = 32 << 20;

/// What a kept version costs besides its bytes: its places, the record, and how its bytes are shared.
const OVERHEAD_BYTES: usize = 400;

/// Places for keys, a power of two and several times what the budget holds, so that few meet: 1 MiB in all, taken as they are
/// needed.
const PLACES: usize = 1 << 18;

/// Latest versions by key, within a budget of bytes. What came in longest ago is forgotten first: what was made together goes
/// together, which leaves no holes in memory.
#[derive(Debug)]
pub(crate) struct Recent {
    /// The number of the version whose key has the place. May be that of another key, or of none that is here.
    places: Vec<u32>,
    /// Versions by their numbers, in the order in which they came in; `None` where a key has a later one.
    versions: VecDeque<Option<Kept>>,
    /// The number of the first of them; numbers begin anew at the end of their range.
    first: u32,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Kept {
    key: Bytes,
    head: Head,
}

impl Kept {
    fn cost(&self) -> usize {
        self.key.len() + self.head.record.value.len() + self.head.record.sealed.len() + OVERHEAD_BYTES
    }
}

impl Default for Recent {
    fn default() -> Self {
        Self { places: vec![0; PLACES], versions: VecDeque::new(), first: 0, bytes: 0, bytes_max: BYTES_MAX }
    }
}

/// The place of a key.
fn place(key: &[u8]) -> usize {
    usize::try_from(xxh3_64(key) % PLACES as u64).unwrap_or(0)
}

impl Recent {
    /// Sets the budget.
    pub(crate) fn limit(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        self.evict();
    }

    /// The latest version of `key` if it is at hand. Nothing says nothing: the key may well exist.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Head> {
        self.versions.get(self.index(key)?)?.as_ref().map(|kept| &kept.head)
    }

    /// Where the version of `key` is among those that are here.
    fn index(&self, key: &[u8]) -> Option<usize> {
        let index = self.places.get(place(key))?.wrapping_sub(self.first) as usize;
        let kept = self.versions.get(index)?.as_ref()?;
        (kept.key == key).then_some(index)
    }

    /// Takes over what an applied batch looked at: `None` for a key that is absent now.
    pub(crate) fn keep(&mut self, heads: BTreeMap<Bytes, Option<Head>>) {
        for (key, head) in heads {
            let known = self.index(&key);
            let was = known.and_then(|index| self.versions.get_mut(index)?.take());
            self.bytes -= was.as_ref().map_or(0, Kept::cost);
            let Some(head) = head else { continue };
            // The batch's key may be a piece of a log entry, which would stay in memory as a whole.
            let key = was.map_or_else(|| Bytes::copy_from_slice(&key), |was| was.key);
            let kept = Kept { key, head };
            self.bytes += kept.cost();
            // What came in not long ago keeps its number: a key written over and over is no reason to forget others.
            let newer_half = self.versions.len() / 2;
            match known.filter(|index| *index >= newer_half).and_then(|index| self.versions.get_mut(index)) {
                Some(version) => *version = Some(kept),
                None => self.push(kept),
            }
        }
        self.evict();
    }

    fn push(&mut self, kept: Kept) {
        // As many as places, and those of one batch: far from the range of numbers.
        let number = self.first.wrapping_add(u32::try_from(self.versions.len()).unwrap_or(0));
        if let Some(place) = self.places.get_mut(place(&kept.key)) {
            *place = number;
        }
        self.versions.push_back(Some(kept));
    }

    fn evict(&mut self) {
        let full = |recent: &Self| recent.bytes > recent.bytes_max || recent.versions.len() > PLACES;
        while let Some(first) = self.versions.front()
            && (first.is_none() || full(self))
        {
            self.bytes -= first.as_ref().map_or(0, Kept::cost);
            self.versions.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use quilt_proto::Record;

    use super::*;

    fn head(revision: u64, bytes: usize) -> Option<Head> {
        let record = Record { mod_revision: revision, value: vec![b'x'; bytes].into(), ..Record::default() };
        Some(Head::new(b"k", &record).expect("whole").0)
    }

    fn keep(recent: &mut Recent, key: &str, head: Option<Head>) {
        recent.keep([(Bytes::copy_from_slice(key.as_bytes()), head)].into());
    }

    /// What is there now, and what it costs by the books.
    fn held(recent: &Recent) -> (usize, usize) {
        let kept = recent.versions.iter().flatten();
        (kept.clone().count(), kept.map(Kept::cost).sum())
    }

    /// The budget holds whatever is written, the oldest goes first, and rewriting one key for ever costs no memory.
    #[test]
    fn the_budget_holds() {
        let mut recent = Recent::default();
        recent.limit(3_500);
        keep(&mut recent, "a", head(1, 1_000));
        keep(&mut recent, "b", head(2, 1_000));
        keep(&mut recent, "c", head(3, 1_000));
        assert!(recent.get(b"a").is_none(), "the oldest went");
        assert!(recent.get(b"b").is_some() && recent.get(b"c").is_some());
        keep(&mut recent, "b", head(4, 1_000));
        keep(&mut recent, "d", head(5, 1_000));
        assert!(recent.get(b"c").is_none(), "b was written after c");
        assert_eq!(recent.get(b"b").expect("kept").record.mod_revision, 4);
        keep(&mut recent, "b", None);
        assert!(recent.get(b"b").is_none(), "gone");
        for revision in 6..10_000 {
            keep(&mut recent, "d", head(revision, 10));
        }
        assert_eq!(recent.get(b"d").expect("kept").record.mod_revision, 9_999);
        assert!(recent.bytes < 500, "{} bytes", recent.bytes);
        assert_eq!((held(&recent).0, recent.versions.len()), (1, 1));
        keep(&mut recent, "e", head(10_000, 5_000));
        assert_eq!((held(&recent), recent.bytes, recent.versions.len()), ((0, 0), 0, 0), "too large to be kept at all");
    }

    /// The books say what is there after every change, and the budget holds.
    #[test]
    fn the_books_are_right() {
        let mut recent = Recent::default();
        recent.limit(10_000);
        for revision in 1..5_000_u64 {
            let key = format!("k{}", revision * revision % 97);
            let size = usize::try_from(revision % 700).expect("small");
            keep(&mut recent, &key, if revision % 11 == 0 { None } else { head(revision, size) });
            assert!(recent.bytes <= 10_000 && held(&recent).1 == recent.bytes, "{} bytes", recent.bytes);
        }
        assert!(held(&recent).0 > 5, "most of the budget is used");
        recent.limit(0);
        assert_eq!((held(&recent), recent.bytes), ((0, 0), 0));
    }

    /// The latest version is what is given, of no other key, and none once the key is absent.
    #[test]
    fn a_key_has_its_latest_version() {
        let mut recent = Recent::default();
        keep(&mut recent, "a", head(1, 10));
        keep(&mut recent, "b", head(2, 10));
        keep(&mut recent, "a", head(3, 10));
        assert_eq!(recent.get(b"a").expect("kept").record.mod_revision, 3);
        assert_eq!(recent.get(b"b").expect("kept").record.mod_revision, 2);
        keep(&mut recent, "a", None);
        assert!(recent.get(b"a").is_none());
        // Two keys of one place: the later one has it, and the earlier one is not mistaken for it.
        let other =
            (0..).map(|n| format!("k{n}")).find(|key| place(key.as_bytes()) == place(b"b")).expect("one of many");
        keep(&mut recent, &other, head(4, 10));
        assert!(recent.get(b"b").is_none());
        assert_eq!(recent.get(other.as_bytes()).expect("kept").record.mod_revision, 4);
        keep(&mut recent, "b", None);
        assert!(recent.get(other.as_bytes()).is_some(), "the end of one is not the end of the other");
        assert_eq!(held(&recent), (2, recent.bytes), "the earlier one's version is forgotten in its turn");
    }

    /// Numbers begin anew at the end of their range, and nothing is taken for something else.
    #[test]
    fn numbers_begin_anew() {
        let mut recent = Recent { first: u32::MAX - 50, ..Recent::default() };
        recent.limit(20_000);
        for revision in 1..1_000_u64 {
            let key = format!("k{}", revision % 30);
            keep(&mut recent, &key, head(revision, 100));
            assert_eq!(recent.get(key.as_bytes()).expect("kept").record.mod_revision, revision);
        }
        assert!(recent.first < 10_000, "it was reached");
        assert_eq!(held(&recent), (30, recent.bytes));
    }

    /// What is written again and again stays, whatever else passes through.
    #[test]
    fn what_is_used_stays() {
        let mut recent = Recent::default();
        recent.limit(50_000);
        let hot: Vec<String> = (0..20).map(|n| format!("hot{n}")).collect();
        let mut missing = 0;
        for revision in 1..20_000_u64 {
            keep(&mut recent, &format!("cold{revision}"), head(revision, 100));
            let key = &hot[usize::try_from(revision).expect("small") % hot.len()];
            missing += u64::from(recent.get(key.as_bytes()).is_none());
            keep(&mut recent, key, head(revision, 100));
        }
        assert!(missing < 200, "{missing} times a key in use was gone");
    }
}
