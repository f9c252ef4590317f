//! Cluster time passes no faster than time, whatever wall clocks do; and a key lives as long as it was lent for.

use std::collections::BTreeMap;

use super::{Facts, Invariant};
use crate::sight::{Mark, Sight};

/// How fast cluster time may be, in parts of a thousand: a monotonic clock that is a tenth too fast, drawn forward by a
/// twentieth towards the wall clock.
const FASTEST_PERMILLE: u64 = 1_156;
/// What rounding and the first steps may add.
const MARGIN_MS: u64 = 2_000;
/// The longest step. A replica that was cut off for 200 s with a clock a tenth too fast has told its readers of 20 s more,
/// and leads on from there.
const STEP_MS_MAX: u64 = 30_000;

#[derive(Default)]
pub(super) struct ClusterTime {
    /// Cluster time when it was first seen, and when that was.
    first: Option<(u64, u64)>,
    /// The newest, when that was stamped, and how much faster than time it has been lately.
    newest: Option<(u64, u64, u64)>,
    /// When an entry was first seen in a log, by index and term, of those that nobody has applied.
    stamped_ms: BTreeMap<(u64, u64), u64>,
}

impl ClusterTime {
    /// However long it has been right: what it passes too fast is not saved up for one step.
    fn steps(&mut self, mark: &Mark) -> Result<(), String> {
        let Some(stamped_ms) = self.stamped_ms.get(&(mark.index, mark.term)).copied() else { return Ok(()) };
        self.stamped_ms = self.stamped_ms.split_off(&(mark.index, mark.term));
        let (before, at, ahead) = self.newest.unwrap_or((mark.cluster_ms, stamped_ms, 0));
        if mark.cluster_ms == 0 || mark.cluster_ms <= before {
            return Ok(());
        }
        let (passed, truly) = (mark.cluster_ms - before, stamped_ms.saturating_sub(at));
        let ahead = (ahead + passed).saturating_sub(truly * FASTEST_PERMILLE / 1_000);
        self.newest = Some((mark.cluster_ms, stamped_ms, ahead));
        if ahead > STEP_MS_MAX {
            return Err(format!("cluster time takes a step of {ahead} ms, to {mark:?}"));
        }
        Ok(())
    }

    fn passes(&mut self, mark: &Mark, now_ms: u64) -> Result<(), String> {
        if mark.cluster_ms == 0 {
            return Ok(());
        }
        let (began, at) = *self.first.get_or_insert((mark.cluster_ms, now_ms));
        let (passed, truly) = (mark.cluster_ms.saturating_sub(began), now_ms - at);
        if passed > truly * FASTEST_PERMILLE / 1_000 + MARGIN_MS {
            return Err(format!("{passed} ms of cluster time have passed in {truly} ms, at {mark:?}"));
        }
        Ok(())
    }
}

impl Invariant for ClusterTime {
    fn name(&self) -> &'static str {
        "cluster time is time"
    }

    fn see(&mut self, sight: &Sight<'_>, facts: &Facts) -> Result<(), String> {
        if let Sight::Appended { records, .. } = sight {
            for record in *records {
                self.stamped_ms.entry((record.index, record.term)).or_insert(facts.now_ms);
            }
        }
        let Sight::Applied { replica, mark, changes, .. } = sight else { return Ok(()) };
        self.passes(mark, facts.now_ms)?;
        self.steps(mark)?;
        for (revision, changed) in changes.iter().filter(|(_, changed)| changed.value.is_none()) {
            let lent = facts.history.changes.get(&changed.previous).map_or(0, |before| before.expires_ms);
            if mark.cluster_ms < lent {
                let now = mark.cluster_ms;
                return Err(format!(
                    "replica {replica} deletes at {revision}, at {now}, a key that was lent until {lent}"
                ));
            }
        }
        Ok(())
    }
}
