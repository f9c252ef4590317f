//! [`Facts`]: what several rules look at, kept once for all of them: the history of keys, and the logs. Judges nothing.

use super::history::History;
use super::logs::Logs;
use crate::sight::Sight;

#[derive(Default)]
pub(crate) struct Facts {
    pub(super) history: History,
    pub(super) logs: Logs,
    /// Virtual milliseconds since the beginning.
    pub(super) now_ms: u64,
}

impl Facts {
    /// Takes what is new, before any rule sees it.
    pub(crate) fn see(&mut self, now_ms: u64, sight: &Sight<'_>) {
        self.now_ms = now_ms;
        self.history.see(now_ms, sight);
        self.logs.see(sight);
    }
}
