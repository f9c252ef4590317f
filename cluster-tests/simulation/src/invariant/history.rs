//! What has happened to every key, by revision, as the first replica to apply it showed it. Others are compared with it
//! by `state_machine_safety`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::sight::{Changed, Sight};

#[derive(Default)]
pub(super) struct History {
    pub(super) changes: BTreeMap<u64, Changed>,
    /// By key, the revisions at which it changed.
    by_key: BTreeMap<Bytes, BTreeSet<u64>>,
    /// When a revision was first reached anywhere.
    reached_ms: BTreeMap<u64, u64>,
    /// The newest revision applied anywhere.
    pub(super) newest: u64,
    now_ms: u64,
}

impl History {
    /// Takes what is new.
    pub(super) fn see(&mut self, now_ms: u64, sight: &Sight<'_>) {
        self.now_ms = now_ms;
        let Sight::Applied { mark, changes, .. } = sight else { return };
        for (revision, changed) in *changes {
            if !self.changes.contains_key(revision) {
                self.by_key.entry(changed.key.clone()).or_default().insert(*revision);
                self.changes.insert(*revision, changed.clone());
            }
        }
        if mark.revision > self.newest {
            self.newest = mark.revision;
            self.reached_ms.insert(mark.revision, now_ms);
        }
    }

    /// The last change of a key at or before a revision.
    pub(super) fn at(&self, key: &[u8], revision: u64) -> Option<(u64, &Changed)> {
        let revisions = self.by_key.get(key)?;
        let last = *revisions.range(..=revision).next_back()?;
        Some((last, self.changes.get(&last)?))
    }

    /// The changes of a key behind a revision, up to another.
    pub(super) fn of(&self, key: &[u8], after: u64, upto: u64) -> impl Iterator<Item = (u64, &Changed)> {
        let revisions = self.by_key.get(key).into_iter();
        let within = revisions.flat_map(move |revisions| revisions.range(after + 1..(upto + 1).max(after + 1)));
        within.filter_map(|revision| Some((*revision, self.changes.get(revision)?)))
    }

    /// How long ago a revision was first reached.
    pub(super) fn age_ms(&self, revision: u64) -> Option<u64> {
        self.reached_ms.range(revision..).next().map(|(_, reached)| self.now_ms - reached)
    }

    /// Whether a revision is the last of its transaction.
    pub(super) fn is_boundary(&self, revision: u64) -> bool {
        self.changes.get(&revision).is_none_or(|changed| changed.txn_end == revision)
    }
}
