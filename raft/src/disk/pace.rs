//! [`Pace`]: how long syncs of the log take, the one under way included. Counts and adds; what is slow is not known here.
//!
//! The log's writer does one thing at a time, so the time in which something waits for it, divided by its syncs, is what
//! a sync takes: queueing behind an earlier one counts once, and so does a group of a thousand entries.

use std::time::Duration;

use openraft::type_config::TypeConfigExt;
use parking_lot::Mutex;

use super::Instant;
use crate::types::TypeConfig;

/// How often the pace is looked at.
pub(super) const SLOT: Duration = Duration::from_millis(500);

/// Writes on their way to the log's disk.
#[derive(Default)]
pub(crate) struct Pace {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Writes handed over and not durable.
    waiting: u64,
    /// Since when something waits, or since when the last write was durable while others waited.
    since: Option<Instant>,
    /// What the syncs that ended since the last look took together.
    busy: Duration,
    /// The last look, and the syncs counted by then.
    looked: Option<(Instant, u64)>,
}

/// What was seen between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slot {
    /// What a sync took, if there was any, or how long the one under way has taken by now.
    pub(super) sync: Option<Duration>,
    /// How long nothing has become durable although something waits.
    pub(super) stuck: Duration,
}

impl Pace {
    /// A write is handed to the log.
    pub(crate) fn begin(&self) {
        self.begin_at(TypeConfig::now());
    }

    /// A write is durable, or has failed.
    pub(crate) fn end(&self) {
        self.end_at(TypeConfig::now());
    }

    fn begin_at(&self, now: Instant) {
        let mut state = self.state.lock();
        if state.waiting == 0 {
            state.since = Some(now);
        }
        state.waiting += 1;
    }

    fn end_at(&self, now: Instant) {
        let mut state = self.state.lock();
        if let Some(since) = state.since {
            state.busy += now - since;
        }
        state.waiting = state.waiting.saturating_sub(1);
        state.since = (state.waiting > 0).then_some(now);
    }

    /// What was seen since the last look; `syncs` is the log's own count of them by now.
    pub(super) fn look(&self, now: Instant, syncs: u64) -> Slot {
        let mut state = self.state.lock();
        let before = state.looked.replace((now, syncs));
        let stuck = state.since.map_or(Duration::ZERO, |since| now - since);
        let asleep = before.is_none_or(|(at, _)| now - at > SLOT * 3);
        if asleep {
            // This process did not run, so what was on its way may have been done long ago.
            state.busy = Duration::ZERO;
            state.since = state.since.map(|_| now);
            return Slot::default();
        }
        let busy = std::mem::take(&mut state.busy);
        let syncs = syncs.saturating_sub(before.map_or(0, |(_, syncs)| syncs));
        let sync = if busy.is_zero() {
            stuck
        } else {
            // One may be counted a moment before its writes are told.
            (busy / u32::try_from(syncs.max(1)).unwrap_or(u32::MAX)).max(stuck)
        };
        Slot { sync: Some(sync).filter(|sync| !sync.is_zero()), stuck }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Ten syncs of 20 ms one after the other, each with a group of three writes that waited for the one before, take
    /// 20 ms each; a quiet half second says nothing.
    #[test]
    fn queueing_and_groups_count_once() {
        let (pace, begun) = (Pace::default(), TypeConfig::now());
        pace.look(begun, 0);
        let mut now = begun;
        (0..3).for_each(|_| pace.begin_at(now));
        for _ in 0..10 {
            now += MS * 20;
            (0..3).for_each(|_| pace.begin_at(now));
            (0..3).for_each(|_| pace.end_at(now));
        }
        (0..3).for_each(|_| pace.end_at(now));
        let slot = pace.look(begun + SLOT, 10);
        assert_eq!(slot, Slot { sync: Some(MS * 20), stuck: Duration::ZERO });
        assert_eq!(pace.look(begun + SLOT * 2, 10), Slot::default());
    }

    /// One that is stuck shows while it is, for as long as it is by then, and once more when it is done.
    #[test]
    fn a_sync_under_way_shows() {
        let (pace, begun) = (Pace::default(), TypeConfig::now());
        pace.look(begun, 0);
        pace.begin_at(begun);
        for half_seconds in 1..20 {
            let slot = pace.look(begun + SLOT * half_seconds, 0);
            assert_eq!(slot, Slot { sync: Some(SLOT * half_seconds), stuck: SLOT * half_seconds });
        }
        pace.end_at(begun + SLOT * 19 + MS * 100);
        let slot = pace.look(begun + SLOT * 20, 1);
        assert_eq!(slot, Slot { sync: Some(SLOT * 19 + MS * 100), stuck: Duration::ZERO });
    }

    /// A process that stood still for a minute does not take that for its disk's doing.
    #[test]
    fn a_pause_of_the_process_is_no_stall() {
        let (pace, begun) = (Pace::default(), TypeConfig::now());
        pace.look(begun, 0);
        pace.begin_at(begun + MS);
        let woken = begun + Duration::from_secs(60);
        assert_eq!(pace.look(woken, 0), Slot::default());
        assert_eq!(pace.look(woken + SLOT, 0).stuck, SLOT, "it counts from when the process went on");
        pace.end_at(woken + SLOT + MS);
        assert_eq!(pace.look(woken + SLOT * 2, 1).sync, Some(SLOT + MS));
    }
}
