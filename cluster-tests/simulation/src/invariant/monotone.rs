//! Terms, revisions, cluster time and what is applied never go back while a replica runs; and no restart finds an older
//! vote than the one before had found.

use std::collections::BTreeMap;

use super::Invariant;
use crate::sight::{Mark, Sight};

#[derive(Default)]
pub(super) struct Monotone {
    applied: BTreeMap<u64, Mark>,
    terms: BTreeMap<u64, u64>,
    found: BTreeMap<u64, u64>,
}

fn not_behind(replica: u64, now: &Mark, before: &Mark) -> Result<(), String> {
    let follows = now.index > before.index
        && now.term >= before.term
        && now.revision >= before.revision
        && now.cluster_ms >= before.cluster_ms;
    if follows { Ok(()) } else { Err(format!("replica {replica} goes from {before:?} to {now:?}")) }
}

impl Invariant for Monotone {
    fn name(&self) -> &'static str {
        "monotone"
    }

    fn see(&mut self, sight: &Sight<'_>) -> Result<(), String> {
        match *sight {
            Sight::Booted { replica, vote, mark, .. } => {
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
