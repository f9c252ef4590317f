//! A pod is placed once: no version that says where it is follows another that does, and none is placed that is not there.

use super::{Facts, Invariant};
use crate::claim::{Says, says};
use crate::sight::Sight;

#[derive(Default)]
pub(super) struct Bindings {
    /// Everything up to here was looked at.
    seen: u64,
}

impl Invariant for Bindings {
    fn name(&self) -> &'static str {
        "a pod is bound once"
    }

    fn see(&mut self, sight: &Sight<'_>, facts: &Facts) -> Result<(), String> {
        let Sight::Applied { changes, .. } = sight else { return Ok(()) };
        for (revision, changed) in changes.iter().filter(|(revision, _)| *revision > self.seen) {
            let Some(Says::Placed(place)) = changed.value.as_ref().and_then(|value| says(value)) else { continue };
            let before = facts.history.changes.get(&changed.previous).and_then(|before| before.value.as_ref());
            match before.and_then(|value| says(value)) {
                Some(Says::Waiting) => {}
                other => return Err(format!("revision {revision} places a pod on {place} that is {other:?} already")),
            }
        }
        self.seen = changes.last().map_or(self.seen, |last| self.seen.max(last.0));
        Ok(())
    }
}
