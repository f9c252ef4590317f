//! A committed entry stays what it is: no replica applies another one at its index, and none removes it from its log.

use std::collections::BTreeMap;

use super::{Facts, Invariant};
use crate::sight::Sight;

#[derive(Default)]
pub(super) struct CommittedImmutable {
    terms: BTreeMap<u64, u64>,
}

impl Invariant for CommittedImmutable {
    fn name(&self) -> &'static str {
        "committed entries are immutable"
    }

    fn see(&mut self, sight: &Sight<'_>, facts: &Facts) -> Result<(), String> {
        match *sight {
            Sight::Applied { replica, mark, .. } | Sight::Installed { replica, mark } => {
                let known = *self.terms.entry(mark.index).or_insert(mark.term);
                if known != mark.term {
                    let (index, term) = (mark.index, mark.term);
                    return Err(format!(
                        "replica {replica} applies entry {index} of term {term}, another applied it of {known}"
                    ));
                }
            }
            Sight::Truncated { replica, after } => {
                let end = after.map_or(0, |after| after + 1);
                // What is cut and was applied somewhere, by the term it has here.
                let (index, term) = match self.terms.range(end..).next() {
                    Some((index, term)) => (*index, *term),
                    None => return Ok(()),
                };
                // The tracked log is cut already; a replica that has applied it must not have cut it.
                if facts.logs.of.get(&replica).is_some_and(|log| log.applied >= index) {
                    return Err(format!(
                        "replica {replica} cuts its log after {after:?} and has applied {index} of term {term}"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
