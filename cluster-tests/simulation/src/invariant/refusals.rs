//! A refusal is true: the compare that failed did not hold at some revision between the request and its answer.

use std::collections::BTreeMap;

use super::{Facts, Invariant};
use crate::sight::{Ended, Sight, Wrote};

#[derive(Default)]
pub(super) struct Refusals {
    /// The newest revision anybody was told of.
    told: u64,
    /// What was told when a request began, and what it compares.
    requests: BTreeMap<u64, (u64, Vec<Wrote>)>,
}

/// Whether a key was ever at another revision than expected, from one revision to another.
fn differed(facts: &Facts, write: &Wrote, from: u64, to: u64) -> bool {
    let Some(expected) = write.expected else { return false };
    let held = facts.history.at(&write.key, from);
    let held = held.filter(|(_, changed)| changed.value.is_some()).map_or(0, |(revision, _)| revision);
    let mut later = facts.history.of(&write.key, from, to);
    held != expected || later.any(|(revision, changed)| expected != changed.value.as_ref().map_or(0, |_| revision))
}

impl Invariant for Refusals {
    fn name(&self) -> &'static str {
        "refusals are true"
    }

    fn see(&mut self, sight: &Sight<'_>, facts: &Facts) -> Result<(), String> {
        match sight {
            Sight::Asked { request, writes } => {
                let compares: Vec<_> = writes.iter().filter(|write| write.expected.is_some()).cloned().collect();
                if !compares.is_empty() {
                    self.requests.insert(*request, (self.told, compares));
                }
                Ok(())
            }
            Sight::Answered { request, ended } => {
                if let Ended::Applied(_, last) = ended {
                    self.told = self.told.max(*last);
                }
                let Some((floor, compares)) = self.requests.remove(request) else { return Ok(()) };
                let newest = facts.history.newest;
                if *ended == Ended::Rejected && !compares.iter().any(|write| differed(facts, write, floor, newest)) {
                    return Err(format!(
                        "request {request} is refused, and all it compares held from {floor} to {newest}: {compares:?}"
                    ));
                }
                Ok(())
            }
            Sight::ReadEnded { read: Some(_), revision, .. } => {
                self.told = self.told.max(*revision);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
