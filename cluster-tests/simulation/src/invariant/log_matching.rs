//! Two entries with the same index and term are the same entry, and follow the same entry (Raft, figure 3). What a restart
//! finds has no hole, and its terms do not go back.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::{Facts, Invariant};
use crate::sight::Sight;

#[derive(Default)]
pub(super) struct LogMatching {
    /// By index and term: what the entry says, and the term of the one before.
    entries: BTreeMap<(u64, u64), (u64, Option<u64>)>,
}

impl Invariant for LogMatching {
    fn name(&self) -> &'static str {
        "log matching"
    }

    fn see(&mut self, sight: &Sight<'_>, _: &Facts) -> Result<(), String> {
        if let Sight::Booted { replica, log, .. } = sight
            && let Some(odd) = log.windows(2).find(|pair| pair[1].0 != pair[0].0 + 1 || pair[1].1 < pair[0].1)
        {
            return Err(format!(
                "replica {replica} starts with a log in which {:?} is followed by {:?}",
                odd[0], odd[1]
            ));
        }
        if let Sight::Booted { replica, log, bounds, .. } = sight
            && let (Some(purged), Some(first)) = (bounds.purged, log.first())
            && first.0 > purged.index + 1
        {
            let last = purged.index;
            return Err(format!(
                "replica {replica} starts with a log that was let go of up to {last} and begins at {first:?}"
            ));
        }
        let Sight::Appended { replica, before, records } = sight else { return Ok(()) };
        let mut before = before.map(|(_, term)| term);
        for record in *records {
            let found = (xxh3_64(&record.payload), before);
            let known = *self.entries.entry((record.index, record.term)).or_insert(found);
            if known != found {
                let (index, term) = (record.index, record.term);
                return Err(format!(
                    "replica {replica} appends another entry {index} of term {term}: {found:?}, {known:?}"
                ));
            }
            before = Some(record.term);
        }
        Ok(())
    }
}
