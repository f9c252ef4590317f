//! [`Judging`]: the verdict over a run whose history is closed part by part, so that what was judged need not be kept.

use std::path::PathBuf;

use anyhow::Result;

use crate::history::{self, History};
use crate::oracle::{self, Verdict};

/// Parts judged so far.
#[derive(Debug)]
pub(super) struct Judging {
    /// Where parts with violations are kept.
    directory: PathBuf,
    parts: u64,
    verdict: Verdict,
}

impl Judging {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, parts: 0, verdict: Verdict::default() }
    }

    /// Judges a part, and keeps it if something was broken.
    ///
    /// # Errors
    /// When the judge itself ends.
    pub(super) async fn take(&mut self, history: History) -> Result<()> {
        self.parts += 1;
        let name = if self.parts == 1 { "history.jsonl".to_owned() } else { format!("history-{}.jsonl", self.parts) };
        let path = self.directory.join(name);
        let verdict = tokio::task::spawn_blocking(move || {
            let verdict = oracle::check(&history);
            if !verdict.passed() {
                // Looked through later, if somebody wants to.
                let _cannot_be_kept = history::save(&history, &path);
            }
            verdict
        });
        self.verdict.merge(verdict.await?);
        Ok(())
    }

    /// Whether nothing was broken so far.
    pub(super) fn passed(&self) -> bool {
        self.verdict.passed()
    }

    /// How many parts there were, and what was found in all.
    pub(super) fn finish(self) -> (u64, Verdict) {
        (self.parts, self.verdict)
    }
}
