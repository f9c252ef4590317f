//! [`Recent`]: latest versions that were looked at not long ago, so that changing them again reads nothing.
//!
//! A cache and nothing more: it answers what the store would answer, so no outcome depends on what it holds.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use quilt_proto::Revision;

use crate::pending::Head;

/// Latest versions kept in memory unless said otherwise. Their bytes are shared with the watchers' newest events.
const BYTES_MAX: usize = 32 << 20;

/// What a kept version costs besides its bytes: nodes of the map, the record, the queue.
const OVERHEAD_BYTES: usize = 384;

/// Latest versions by key, within a budget of bytes. What was looked at longest ago is forgotten first.
#[derive(Debug)]
pub(crate) struct Recent {
    heads: BTreeMap<Bytes, Head>,
    /// Keys in the order in which their versions came in; stale where the key has another version by now.
    order: VecDeque<(Bytes, Revision)>,
    bytes: usize,
    bytes_max: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Self { heads: BTreeMap::new(), order: VecDeque::new(), bytes: 0, bytes_max: BYTES_MAX }
    }
}

fn revision(head: &Head) -> Revision {
    Revision::new(head.record.mod_revision)
}

fn cost(key: &Bytes, head: &Head) -> usize {
    2 * key.len() + head.record.value.len() + head.record.sealed.len() + OVERHEAD_BYTES
}

impl Recent {
    /// Sets the budget.
    pub(crate) fn limit(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        self.evict();
    }

    /// The latest version of `key` if it is at hand. Nothing says nothing: the key may well exist.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Head> {
        self.heads.get(key)
    }

    /// Takes over what an applied batch looked at: `None` for a key that is absent now.
    pub(crate) fn keep(&mut self, heads: BTreeMap<Bytes, Option<Head>>) {
        for (key, head) in heads {
            match head {
                Some(head) => self.insert(&key, head),
                None => self.remove(&key),
            }
        }
        self.evict();
    }

    fn insert(&mut self, key: &Bytes, head: Head) {
        let (bytes, at) = (cost(key, &head), revision(&head));
        // The batch's key may be a piece of a log entry, which would stay in memory as a whole.
        match self.heads.entry(Bytes::copy_from_slice(key)) {
            Entry::Occupied(known) if revision(known.get()) == at => return,
            Entry::Occupied(mut known) => {
                self.order.push_back((known.key().clone(), at));
                self.bytes -= cost(key, &known.insert(head));
            }
            Entry::Vacant(place) => {
                self.order.push_back((place.key().clone(), at));
                place.insert(head);
            }
        }
        self.bytes += bytes;
    }

    fn remove(&mut self, key: &Bytes) {
        if let Some(head) = self.heads.remove(key) {
            self.bytes -= cost(key, &head);
        }
    }

    fn evict(&mut self) {
        while self.bytes > self.bytes_max
            && let Some((key, at)) = self.order.pop_front()
        {
            if self.get(&key).is_some_and(|head| revision(head) == at) {
                self.remove(&key);
            }
        }
        // A few keys written over and over leave stale places behind.
        if self.order.len() > 4 * self.heads.len() + 64 {
            let heads = &self.heads;
            self.order.retain(|(key, at)| heads.get(key).is_some_and(|head| revision(head) == *at));
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

    fn keep(recent: &mut Recent, key: &'static str, head: Option<Head>) {
        recent.keep([(Bytes::from_static(key.as_bytes()), head)].into());
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
        assert!(
            recent.order.len() < 100 && recent.bytes < 500,
            "{} places, {} bytes",
            recent.order.len(),
            recent.bytes
        );
        keep(&mut recent, "e", head(10_000, 5_000));
        assert_eq!((recent.heads.len(), recent.bytes, recent.order.len()), (0, 0, 0), "too large to be kept at all");
    }
}
