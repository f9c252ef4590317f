//! A token with k uses admits no more than k.

use std::collections::BTreeMap;

use super::{Facts, Invariant};
use crate::claim::{Says, says};
use crate::sight::Sight;

#[derive(Default)]
pub(super) struct Tokens {
    /// Everything up to here was looked at.
    seen: u64,
    /// By serial number: how many a token admits.
    admits: BTreeMap<String, u64>,
    /// By serial number: how many were admitted.
    admitted: BTreeMap<String, u64>,
}

impl Invariant for Tokens {
    fn name(&self) -> &'static str {
        "a token admits as many as it says"
    }

    fn see(&mut self, sight: &Sight<'_>, _: &Facts) -> Result<(), String> {
        let Sight::Applied { changes, .. } = sight else { return Ok(()) };
        for (revision, changed) in changes.iter().filter(|(revision, _)| *revision > self.seen) {
            match changed.value.as_ref().and_then(|value| says(value)) {
                Some(Says::Token(serial, of, _)) => drop(self.admits.insert(serial.to_owned(), of)),
                Some(Says::Admitted(serial)) => {
                    let admitted = self.admitted.entry(serial.to_owned()).or_default();
                    *admitted += 1;
                    let most = self.admits.get(serial).copied().unwrap_or(0);
                    if *admitted > most {
                        return Err(format!(
                            "token {serial} admits {most}, and revision {revision} is number {admitted}"
                        ));
                    }
                }
                _ => {}
            }
        }
        self.seen = changes.last().map_or(self.seen, |last| self.seen.max(last.0));
        Ok(())
    }
}
