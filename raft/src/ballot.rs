//! [`Ballot`]: compares the states of replicas by the hashes they say they had at one log entry. When a majority agrees
//! on one, whoever has another is damaged: nothing but a wrong bit can make two states of the same entries differ.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Every so many log entries all replicas take note of their hash, so that busy ones have something to compare.
pub(crate) const MILESTONE: u64 = 1_024;

/// Log entries that are compared at once.
const ENTRIES_KEPT: usize = 32;

/// A hash of live rows, as two halves.
pub(crate) type Hash = (u64, u64);

/// What replicas said, by log entry.
#[derive(Debug, Default)]
pub(crate) struct Ballot {
    said: Mutex<BTreeMap<u64, BTreeMap<u64, Hash>>>,
}

/// A replica that differs from what a majority agrees on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Odd {
    pub(crate) replica: u64,
    pub(crate) index: u64,
}

impl Ballot {
    /// A replica says what its hash was at a log entry.
    pub(crate) fn say(&self, replica: u64, index: u64, hash: Hash) {
        if index == 0 {
            return;
        }
        let mut said = self.said.lock();
        said.entry(index).or_default().insert(replica, hash);
        while said.len() > ENTRIES_KEPT {
            said.pop_first();
        }
    }

    /// Whether a replica has said something of a log entry.
    pub(crate) fn knows(&self, index: u64) -> bool {
        self.said.lock().contains_key(&index)
    }

    /// What a replica has said counts no more: it has another state.
    pub(crate) fn forget(&self, replica: u64) {
        for said in self.said.lock().values_mut() {
            said.remove(&replica);
        }
    }

    /// Those who differ from the majority of so many members, and log entries at which two differ and no majority says who
    /// is right.
    pub(crate) fn judge(&self, members: usize) -> (Vec<Odd>, Vec<u64>) {
        let (mut odd, mut split) = (Vec::new(), Vec::new());
        for (index, said) in self.said.lock().iter() {
            let mut counts: BTreeMap<Hash, usize> = BTreeMap::new();
            for hash in said.values() {
                *counts.entry(*hash).or_default() += 1;
            }
            if counts.len() < 2 {
                continue;
            }
            match counts.iter().find(|(_, count)| **count > members / 2) {
                Some((agreed, _)) => {
                    let differing = said.iter().filter(|(_, hash)| *hash != agreed);
                    odd.extend(differing.map(|(replica, _)| Odd { replica: *replica, index: *index }));
                }
                None => split.push(*index),
            }
        }
        (odd, split)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of three that differs is named; two that differ while the third has said nothing are a split; equal ones are
    /// neither, whichever entry they are at.
    #[test]
    fn the_odd_one_out_is_named() {
        let ballot = Ballot::default();
        for (replica, index, hash) in
            [(1, 10, 7), (2, 10, 7), (1, 20, 8), (2, 20, 8), (3, 20, 9), (1, 30, 1), (3, 30, 2)]
        {
            ballot.say(replica, index, (0, hash));
        }
        assert_eq!(ballot.judge(3), (vec![Odd { replica: 3, index: 20 }], vec![30]));
        ballot.forget(3);
        assert_eq!(ballot.judge(3), (vec![], vec![]));
        for index in 100..200 {
            ballot.say(1, index, (0, 0));
        }
        assert!(!ballot.knows(20) && ballot.knows(199), "what was said long ago is let go");
    }
}
