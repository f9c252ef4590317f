//! [`Judging`]: the verdict over a run whose history is closed part by part, so that what was judged need not be kept: on disk there are
//! the parts in which something was broken, and the last one, for what others than the oracle find.

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
    /// The file of the last part if nothing was broken in it.
    whole: Option<PathBuf>,
    verdict: Verdict,
}

impl Judging {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, parts: 0, whole: None, verdict: Verdict::default() }
    }

    /// Judges a part, and keeps it until the next one, or for good if something was broken.
    ///
    /// # Errors
    /// When the judge itself ends.
    pub(super) async fn take(&mut self, history: History) -> Result<()> {
        self.parts += 1;
        let name = if self.parts == 1 { "history.jsonl".to_owned() } else { format!("history-{}.jsonl", self.parts) };
        let path = self.directory.join(name);
        let place = path.clone();
        let verdict = tokio::task::spawn_blocking(move || {
            // Looked through later, if somebody wants to.
            let _cannot_be_kept = history::save(&history, &place);
            oracle::check(&history)
        });
        let verdict = verdict.await?;
        if let Some(before) = self.whole.take() {
            let _cannot_be_removed = std::fs::remove_file(before);
        }
        self.whole = verdict.passed().then_some(path);
        self.verdict.merge(verdict);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Collection, Writers};

    /// The last part is there for whoever looks through a failed run, also when the oracle found nothing in it; one before it that was
    /// right is not.
    #[tokio::test]
    async fn the_last_part_is_kept() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let mut judging = Judging::new(directory.path().to_owned());
        let history = || {
            let collection = Collection { path: "/api/v1/namespaces/x/configmaps".into(), writers: Writers::Ours };
            History { collections: vec![collection], ..History::default() }
        };
        judging.take(history()).await?;
        assert!(directory.path().join("history.jsonl").exists());
        judging.take(history()).await?;
        assert!(directory.path().join("history-2.jsonl").exists() && !directory.path().join("history.jsonl").exists());
        assert!(judging.passed());
        assert_eq!(judging.finish().0, 2);
        Ok(())
    }
}
