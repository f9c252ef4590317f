//! At most one leader a term, and no replica votes twice in one (Raft, figure 3).

use std::collections::BTreeMap;

use super::{Facts, Invariant};
use crate::sight::Sight;

#[derive(Default)]
pub(super) struct ElectionSafety {
    leaders: BTreeMap<u64, u64>,
    /// For whom a replica voted in a term. What it had not synced when it crashed it never answered, so it is forgotten.
    votes: BTreeMap<(u64, u64), u64>,
    /// The newest term in which a replica may have answered with its vote.
    answered: BTreeMap<u64, u64>,
}

impl ElectionSafety {
    fn leads(&mut self, replica: u64, term: u64, leader: u64) -> Result<(), String> {
        let known = *self.leaders.entry(term).or_insert(leader);
        if known == leader {
            return Ok(());
        }
        Err(format!("replica {replica} follows {leader} in term {term}, which {known} leads"))
    }
}

impl Invariant for ElectionSafety {
    fn name(&self) -> &'static str {
        "election safety"
    }

    fn see(&mut self, sight: &Sight<'_>, _: &Facts) -> Result<(), String> {
        match *sight {
            Sight::Voted { replica, term, candidate, leads: true } => self.leads(replica, term, candidate),
            Sight::Voted { replica, term, candidate, leads: false } => {
                let known = *self.votes.entry((replica, term)).or_insert(candidate);
                if known == candidate {
                    return Ok(());
                }
                Err(format!("replica {replica} votes for {candidate} in term {term} and has voted for {known}"))
            }
            Sight::Booted { replica, vote, .. } => {
                let found = vote.map_or(0, |(term, _, _)| term);
                let newest = found.max(self.answered.get(&replica).copied().unwrap_or(0));
                self.votes.retain(|(voter, term), _| *voter != replica || *term <= newest);
                Ok(())
            }
            Sight::Promised { replica, term, .. } => {
                let newest = self.answered.entry(replica).or_default();
                *newest = term.max(*newest);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
