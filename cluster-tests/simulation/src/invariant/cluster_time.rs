//! Cluster time passes no faster than time, whatever wall clocks do; and a key lives as long as it was lent for.

use super::{Facts, Invariant};
use crate::sight::{Mark, Sight};

/// How fast cluster time may be, in parts of a thousand: a monotonic clock that is a tenth too fast, drawn forward by a
/// twentieth towards the wall clock.
const FASTEST_PERMILLE: u64 = 1_156;
/// What rounding and the first steps may add.
const MARGIN_MS: u64 = 2_000;

#[derive(Default)]
pub(super) struct ClusterTime {
    /// Cluster time when it was first seen, and when that was.
    first: Option<(u64, u64)>,
}

impl ClusterTime {
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
        let Sight::Applied { replica, mark, changes, .. } = sight else { return Ok(()) };
        self.passes(mark, facts.now_ms)?;
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
