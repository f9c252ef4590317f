//! A leader holds every entry that was committed before its term (Raft, figure 3).

use super::{Facts, Invariant};
use crate::sight::Sight;

#[derive(Default)]
pub(super) struct LeaderCompleteness {
    /// The last entry known to be committed: index and term.
    committed: (u64, u64),
}

impl Invariant for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "leader completeness"
    }

    fn see(&mut self, sight: &Sight<'_>, facts: &Facts) -> Result<(), String> {
        match *sight {
            Sight::Applied { mark, .. } => self.committed = self.committed.max((mark.index, mark.term)),
            Sight::Voted { replica, term, candidate, leads: true } if replica == candidate => {
                let (index, of) = self.committed;
                let log = facts.logs.of.get(&replica);
                let holds = match log.and_then(|log| log.entries.get(&index)) {
                    Some(held) => *held == of,
                    None => log.map_or(0, |log| log.applied) >= index,
                };
                if of < term && !holds {
                    let held = log.and_then(|log| log.entries.last_key_value());
                    return Err(format!(
                        "replica {replica} leads term {term} without entry {index} of term {of}; its last is {held:?}"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
