//! Terms, revisions, cluster time and what is applied never go back while a replica runs; and no restart finds an older
//! vote than the one before had found, or than what was answered with; and no log is of a later term than its vote.

use std::collections::BTreeMap;

use super::{Facts, Invariant};
use crate::sight::{Mark, Sight};

#[derive(Default)]
pub(super) struct Monotone {
    applied: BTreeMap<u64, Mark>,
    terms: BTreeMap<u64, u64>,
    found: BTreeMap<u64, u64>,
    /// The newest vote a replica may have answered with: its term, and for whom.
    promised: BTreeMap<u64, (u64, u64)>,
}

fn not_behind(replica: u64, now: &Mark, before: &Mark) -> Result<(), String> {
    let follows = now.index > before.index
        && now.term >= before.term
        && now.revision >= before.revision
        && now.cluster_ms >= before.cluster_ms;
    if follows { Ok(()) } else { Err(format!("replica {replica} goes from {before:?} to {now:?}")) }
}

impl Monotone {
    /// What a replica may have answered a candidate is there after a restart. Of the same term it may also hold the vote of
    /// another that leads: a majority voted for that one, and whoever hears of it follows.
    fn promises_kept(&self, replica: u64, vote: Option<(u64, u64, bool)>) -> Result<(), String> {
        let Some(promised) = self.promised.get(&replica) else { return Ok(()) };
        let (found, leads) = vote.map_or(((0, 0), false), |(term, candidate, leads)| ((term, candidate), leads));
        if found.0 < promised.0 || found.0 == promised.0 && found.1 != promised.1 && !leads {
            return Err(format!("replica {replica} starts with vote {found:?} and had answered with {promised:?}"));
        }
        Ok(())
    }
}

impl Invariant for Monotone {
    fn name(&self) -> &'static str {
        "monotone"
    }

    fn see(&mut self, sight: &Sight<'_>, _: &Facts) -> Result<(), String> {
        match *sight {
            Sight::Booted { replica, vote, mark, bounds, .. } => {
                match mark {
                    Some(mark) => drop(self.applied.insert(replica, mark)),
                    None => drop(self.applied.remove(&replica)),
                }
                let term = vote.map_or(0, |(term, _, _)| term);
                self.terms.insert(replica, term);
                let before = self.found.insert(replica, term).unwrap_or(0);
                if term < before {
                    return Err(format!("replica {replica} starts in term {term}, and had started in {before}"));
                }
                self.promises_kept(replica, vote)?;
                let last = bounds.last.map_or(0, |last| last.term);
                if last > term {
                    return Err(format!("replica {replica} starts in term {term} with a log of term {last}"));
                }
                Ok(())
            }
            Sight::Promised { replica, term, candidate } => {
                let newest = self.promised.entry(replica).or_default();
                if term >= newest.0 {
                    *newest = (term, candidate);
                }
                Ok(())
            }
            Sight::Voted { replica, term, .. } => {
                let before = self.terms.insert(replica, term).unwrap_or(0);
                if term < before {
                    Err(format!("replica {replica} votes in term {term} after {before}"))
                } else {
                    Ok(())
                }
            }
            Sight::Applied { replica, ref mark, .. } | Sight::Installed { replica, ref mark } => {
                match self.applied.insert(replica, *mark) {
                    Some(before) => not_behind(replica, mark, &before),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
