//! The logs of all replicas as they stand, for the rules that compare them. Knows indexes and terms only.

use std::collections::BTreeMap;

use crate::sight::Sight;

#[derive(Default)]
pub(super) struct One {
    /// Term by index.
    pub(super) entries: BTreeMap<u64, u64>,
    /// The last entry its state holds.
    pub(super) applied: u64,
    /// Index and term of the last durable entry.
    pub(super) durable: Option<(u64, u64)>,
}

#[derive(Default)]
pub(super) struct Logs {
    pub(super) of: BTreeMap<u64, One>,
}

impl Logs {
    pub(super) fn see(&mut self, sight: &Sight<'_>) {
        match sight {
            Sight::Booted { replica, bounds, log, mark, .. } => {
                let durable = bounds.last.map(|last| (last.index, last.term));
                let applied = mark.map_or(0, |mark| mark.index);
                let one = One { entries: log.iter().copied().collect(), applied, durable };
                self.of.insert(*replica, one);
            }
            Sight::Appended { replica, records, .. } => {
                let one = self.of.entry(*replica).or_default();
                one.entries.extend(records.iter().map(|record| (record.index, record.term)));
            }
            Sight::Truncated { replica, after } => {
                let one = self.of.entry(*replica).or_default();
                one.entries.split_off(&after.map_or(0, |after| after + 1));
            }
            Sight::Synced { replica, last } => self.of.entry(*replica).or_default().durable = *last,
            Sight::Applied { replica, mark, .. } | Sight::Installed { replica, mark } => {
                self.of.entry(*replica).or_default().applied = mark.index;
            }
            _ => {}
        }
    }
}
