//! Cluster time and wall time.
//!
//! Cluster time is the monotone clock every expiry counts by: it goes on from the last applied entry's stamp with this
//! process's own monotonic time, so a jump of a wall clock never expires anything. On the leader, wall time may pull it
//! forward, but slowly.

use std::time::Duration;

use openraft::Instant as _;
use openraft::type_config::TypeConfigExt;
use parking_lot::Mutex;
use quilt_proto::ReplicaId;

use crate::host::{exhibit, wall_ms};
use crate::types::TypeConfig;

type Instant = openraft::alias::InstantOf<TypeConfig>;

/// Wall time may speed cluster time up by this share, one part in twenty, and never slow it down.
const SLEW_SHARE: u64 = 20;

/// One stamp makes up for no more time than this. A leader that has stamped nothing for an hour, or that has followed for
/// one, would else take three minutes in one step, and with them whatever was lent for less.
const SLEW_OVER_MS_MAX: u64 = 1_000;

/// Clocks further apart than this are worth an alarm.
const APART_MS_MAX: u64 = 10_000;

/// How a wall clock stands to cluster time where they are too far apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Apart {
    /// The wall clock is ahead by so many milliseconds.
    Ahead(u64),
    /// The wall clock is behind by so many milliseconds.
    Behind(u64),
}

impl Apart {
    fn of(wall_ms: u64, cluster_ms: u64) -> Option<Self> {
        match wall_ms.abs_diff(cluster_ms) {
            0..=APART_MS_MAX => None,
            apart if wall_ms > cluster_ms => Some(Self::Ahead(apart)),
            apart => Some(Self::Behind(apart)),
        }
    }

    /// What an operator is told of the clock of replica `id`.
    pub(crate) fn alarm(self, id: ReplicaId) -> String {
        match self {
            Self::Ahead(ms) => format!(
                "the clock of replica {id} is {} s ahead of cluster time, which follows a leader's clock by 3 s a minute: unless all \
                 replicas stood still for so long, check that clock",
                ms / 1_000
            ),
            Self::Behind(ms) => format!(
                "the clock of replica {id} is {} s behind cluster time, which never goes back: check that clock",
                ms / 1_000
            ),
        }
    }
}

struct Base {
    /// Cluster time at `at`.
    cluster_ms: u64,
    at: Instant,
    /// What was last stamped or told, so that the clock never goes back.
    told_ms: u64,
    /// What was last stamped here.
    stamped_ms: u64,
    /// Whether the log says that the clocks are apart.
    told_apart: bool,
}

impl Base {
    /// Cluster time at `now`, as far as this replica can tell.
    fn estimate(&self, now: Instant) -> u64 {
        self.cluster_ms.saturating_add(millis(now.saturating_duration_since(self.at)))
    }
}

/// This replica's estimate of cluster time.
pub(crate) struct Clock {
    base: Mutex<Base>,
}

/// Whole milliseconds of `duration`, as entries and messages carry them.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whole microseconds of a duration.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Clock {
    /// A clock that goes on from the applied cluster time.
    pub(crate) fn new(applied_ms: u64) -> Self {
        let base = Base {
            cluster_ms: applied_ms,
            at: TypeConfig::now(),
            told_ms: applied_ms,
            stamped_ms: 0,
            told_apart: false,
        };
        Self { base: Mutex::new(base) }
    }

    /// An entry stamped `applied_ms` has been applied here.
    ///
    /// Another leader's time is taken as it is, also where this clock was ahead of it: what two hosts have drifted apart in a
    /// month must not be one step when the other one leads. What was stamped here only says how long ago that was.
    pub(crate) fn applied(&self, applied_ms: u64) {
        let mut base = self.base.lock();
        let now = TypeConfig::now();
        let estimate = base.estimate(now);
        if applied_ms > estimate || applied_ms > base.stamped_ms {
            base.cluster_ms = applied_ms;
            base.at = now;
        }
        base.told_ms = base.told_ms.max(applied_ms);
    }

    /// The best local estimate.
    ///
    /// Before anything was ever stamped this is wall time, where the first stamp will start: who measures a duration
    /// across that stamp must not see fifty years. It is not held on to: the stamp comes from the leader's host, and a
    /// clock ahead of that one here must not carry cluster time with it.
    pub(crate) fn now_ms(&self) -> u64 {
        let mut base = self.base.lock();
        if base.cluster_ms == 0 {
            return base.told_ms.max(wall_ms());
        }
        let estimate = base.estimate(TypeConfig::now());
        base.told_ms = base.told_ms.max(estimate);
        base.told_ms
    }

    /// How this host's wall clock stands to cluster time now, if they are too far apart. Also where this replica follows: it
    /// may lead next.
    pub(crate) fn apart(&self) -> Option<Apart> {
        let base = self.base.lock();
        // Before the first stamp there is nothing to be apart from.
        if base.cluster_ms == 0 { None } else { Apart::of(wall_ms(), base.estimate(TypeConfig::now())) }
    }

    /// The leader's stamp for a new entry: cluster time, and wall time beside it.
    pub(crate) fn stamp(&self) -> (u64, u64) {
        let wall = wall_ms();
        if exhibit!(WallClockStamps) {
            return (wall, wall);
        }
        let mut base = self.base.lock();
        let now = TypeConfig::now();
        let elapsed = millis(now.saturating_duration_since(base.at));
        let mut estimate = base.cluster_ms.saturating_add(elapsed);
        if base.cluster_ms == 0 {
            // The very first stamp of a new control plane: start at wall time, so that both read alike.
            estimate = wall.max(1);
        } else {
            let apart = Apart::of(wall, estimate);
            if let Some(apart) = apart
                && !base.told_apart
            {
                tracing::warn!(?apart, "the wall clock and cluster time are apart, in milliseconds");
            }
            base.told_apart = apart.is_some();
            estimate += wall.saturating_sub(estimate).min(elapsed.min(SLEW_OVER_MS_MAX) / SLEW_SHARE);
        }
        // Re-basing throws away the part of a millisecond that has passed; so only once enough has passed to slew by.
        if base.cluster_ms == 0 || elapsed >= SLEW_SHARE {
            base.cluster_ms = estimate;
            base.at = now;
        }
        base.told_ms = base.told_ms.max(estimate);
        base.stamped_ms = base.told_ms;
        (base.told_ms, wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time read before the very first stamp and one read after it are as far apart as they were taken; and where
    /// another host stamps first, its clock counts.
    #[test]
    fn the_first_stamp_is_no_jump() {
        let clock = Clock::new(0);
        let before = clock.now_ms();
        let (first, _) = clock.stamp();
        assert!(first.saturating_sub(before) < 60_000, "{before} and then {first}");
        assert!(clock.now_ms() >= first);

        let follower = Clock::new(0);
        let ahead = follower.now_ms();
        let stamped = ahead - 3_600_000;
        follower.applied(stamped);
        assert!((stamped..ahead - 3_000_000).contains(&follower.now_ms()));
    }

    /// A follower whose wall clock is ahead has not saved up anything when it leads, and one whose clock runs faster than
    /// the leader's is not ahead of it.
    #[test]
    fn an_election_is_no_jump() {
        let hour_ms = 3_600_000;
        let clock = Clock::new(1_000);
        let followed = Duration::from_secs(30);
        clock.base.lock().at -= followed;
        let (stamp, _) = clock.stamp();
        assert!((31_000..32_000).contains(&stamp), "30 s have passed since the last entry, not {stamp}");

        let fast = Clock::new(1_000);
        fast.base.lock().at -= Duration::from_millis(hour_ms);
        fast.applied(hour_ms);
        let (stamp, _) = fast.stamp();
        assert!((hour_ms..hour_ms + 900).contains(&stamp), "the leader's time goes on: {stamp}");
    }

    /// What a leader stamps itself and applies a moment later does not hold its time back.
    #[test]
    fn own_entries_do_not_slow_time_down() {
        let clock = Clock::new(1_000);
        let (stamp, _) = clock.stamp();
        clock.base.lock().at -= Duration::from_secs(5);
        clock.applied(stamp);
        assert!(clock.stamp().0 >= stamp + 5_000);
    }

    /// Clocks that are more than ten seconds apart are told for as long as they are, on either side and whether or not anything
    /// is stamped; before the first stamp there is nothing to tell.
    #[test]
    fn clocks_apart_are_told_while_they_are() {
        assert_eq!(Clock::new(0).apart(), None);
        let wall = wall_ms();
        let clock = Clock::new(wall);
        assert_eq!(clock.apart(), None);
        clock.base.lock().cluster_ms = wall - 30_000;
        assert!(matches!(clock.apart(), Some(Apart::Ahead(29_000..=60_000))), "{:?}", clock.apart());
        clock.stamp();
        assert!(matches!(clock.apart(), Some(Apart::Ahead(_))), "a stamp makes up for next to nothing");
        clock.base.lock().cluster_ms = wall_ms();
        assert_eq!(clock.apart(), None);
        clock.base.lock().cluster_ms = wall_ms() + 60_000;
        assert!(matches!(clock.apart(), Some(Apart::Behind(30_000..=61_000))), "{:?}", clock.apart());
        clock.base.lock().cluster_ms = wall_ms();
        assert_eq!(clock.apart(), None);
    }

    /// Ten seconds are not apart yet; what is said has the replica and the seconds in it.
    #[test]
    fn apart_is_more_than_ten_seconds() {
        assert_eq!(Apart::of(20_000, 10_000), None);
        assert_eq!(Apart::of(10_000, 20_000), None);
        assert_eq!(Apart::of(20_001, 10_000), Some(Apart::Ahead(10_001)));
        assert_eq!(Apart::of(10_000, 20_001), Some(Apart::Behind(10_001)));
        let told = Apart::Ahead(37_900).alarm(ReplicaId(3));
        assert!(told.starts_with("the clock of replica 3 is 37 s ahead of cluster time"), "{told}");
        let told = Apart::Behind(37_900).alarm(ReplicaId(3));
        assert!(told.starts_with("the clock of replica 3 is 37 s behind cluster time"), "{told}");
    }

    /// Stamps never go back, and an applied stamp from ahead moves the clock there.
    #[test]
    fn cluster_time_is_monotone_and_follows_the_log() {
        let clock = Clock::new(1_000);
        let (first, _) = clock.stamp();
        assert!((1_000..60_000).contains(&first), "a wall clock far ahead does not pull at once: {first}");
        clock.applied(5_000_000_000_000);
        assert!(clock.now_ms() >= 5_000_000_000_000);
        clock.applied(7);
        assert!(clock.stamp().0 >= 5_000_000_000_000);
    }
}
