//! Two entries with the same index and term are the same entry, and follow the same entry (Raft, figure 3).

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::Invariant;
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

    fn see(&mut self, sight: &Sight<'_>) -> Result<(), String> {
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
