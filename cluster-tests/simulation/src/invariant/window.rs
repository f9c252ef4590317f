//! History is kept for as long as was promised, unless an operator asked for less: no watch is refused before.

use super::{Facts, Invariant};
use crate::sight::Sight;

/// What was promised is 75 s by the monotonic clock of the leader's host, which may be a tenth too fast.
const WINDOW_MS: u64 = 75_000 * 1_000 / 1_101;

#[derive(Default)]
pub(super) struct Window {
    /// Up to where an operator let go of history.
    asked: u64,
}

impl Invariant for Window {
    fn name(&self) -> &'static str {
        "history is kept for its window"
    }

    fn see(&mut self, sight: &Sight<'_>, facts: &Facts) -> Result<(), String> {
        match *sight {
            Sight::Compacting { floor } => {
                self.asked = self.asked.max(floor);
                Ok(())
            }
            Sight::Refused { replica, from, floor } if floor > self.asked => match facts.history.age_ms(floor) {
                Some(age) if age < WINDOW_MS => Err(format!(
                    "replica {replica} refuses a watch from {from}: history begins at {floor}, which is {age} ms old"
                )),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}
