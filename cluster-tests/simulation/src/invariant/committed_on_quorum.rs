//! What is applied anywhere is durable on a majority of the voters.

use super::{Facts, Invariant};
use crate::sight::Sight;

#[derive(Default)]
pub(super) struct CommittedOnQuorum {
    committed: u64,
}

impl Invariant for CommittedOnQuorum {
    fn name(&self) -> &'static str {
        "committed on a quorum"
    }

    fn see(&mut self, sight: &Sight<'_>, facts: &Facts) -> Result<(), String> {
        let Sight::Applied { replica, mark, voters, .. } = sight else { return Ok(()) };
        if mark.index <= self.committed {
            return Ok(());
        }
        self.committed = mark.index;
        let holds = |voter: &u64| {
            let log = facts.logs.of.get(voter);
            // A state may be ahead of a log that lost its end.
            log.and_then(|log| log.durable).is_some_and(|(index, term)| index >= mark.index && term >= mark.term)
        };
        // While voters change, the log may be a step ahead of the state that names them: one majority is asked for.
        let majority = |set: &Vec<u64>| set.iter().filter(|voter| holds(voter)).count() > set.len() / 2;
        if voters.is_empty() || voters.iter().any(majority) {
            return Ok(());
        }
        Err(format!(
            "replica {replica} applies entry {} of term {}, which no majority of {voters:?} holds",
            mark.index, mark.term
        ))
    }
}
