//! An acknowledged transaction is in the history, at the revisions that were told, and its compares held there.

use std::collections::BTreeMap;

use super::{Facts, Invariant};
use crate::sight::{Ended, Sight, Wrote};

#[derive(Default)]
pub(super) struct Acknowledged {
    requests: BTreeMap<u64, Vec<Wrote>>,
}

impl Invariant for Acknowledged {
    fn name(&self) -> &'static str {
        "acknowledged writes survive"
    }

    fn see(&mut self, sight: &Sight<'_>, facts: &Facts) -> Result<(), String> {
        match sight {
            Sight::Asked { request, writes } => {
                self.requests.insert(*request, writes.to_vec());
                Ok(())
            }
            Sight::Answered { request, ended } => {
                let writes = self.requests.remove(request).unwrap_or_default();
                let Ended::Applied(first, last) = *ended else { return Ok(()) };
                if last + 1 - first != writes.len() as u64 {
                    return Err(format!("request {request} of {} writes took {first} to {last}", writes.len()));
                }
                for (revision, write) in (first..).zip(&writes) {
                    check(facts, *request, first, revision, write)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn check(facts: &Facts, request: u64, first: u64, revision: u64, write: &Wrote) -> Result<(), String> {
    let Wrote { key, value, expected } = write;
    let before = facts.history.at(key, first - 1);
    match (facts.history.changes.get(&revision), value) {
        (Some(found), _) if found.key == *key && found.value == *value => {}
        // Deleting what is not there takes a revision and changes nothing.
        (None, None) if before.is_none_or(|(_, changed)| changed.value.is_none()) => {}
        (found, _) => {
            return Err(format!("request {request} was acknowledged at revision {revision}, where there is {found:?}"));
        }
    }
    let held = before.filter(|(_, changed)| changed.value.is_some()).map_or(0, |(revision, _)| revision);
    if expected.is_some_and(|expected| expected != held) {
        return Err(format!("request {request} compared {key:?} with {expected:?} and was applied over {held}"));
    }
    Ok(())
}
