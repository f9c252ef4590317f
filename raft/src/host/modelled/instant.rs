//! [`Moment`]: a point on the monotonic clock of one host, which may run fast or slow.

use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

use super::host::Host;
use super::world::now_ns;

/// Clocks have run this long already when the simulation begins, so that a lease can be subtracted from the present.
const HEAD_START_NS: u64 = 86_400 * 1_000_000_000;

/// A point on a host's monotonic clock, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Moment {
    /// Nanoseconds, from no particular point.
    #[must_use]
    pub const fn as_ns(self) -> u64 {
        self.0
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, more: Duration) -> Self {
        Self(self.0.saturating_add(ns(more)))
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, more: Duration) {
        *self = *self + more;
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, less: Duration) -> Self {
        Self(self.0.saturating_sub(ns(less)))
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, less: Duration) {
        *self = *self - less;
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl openraft_rt::Instant for Moment {
    fn now() -> Self {
        let true_ns = now_ns();
        let here = Host::current().map_or(true_ns, |host| host.local_ns(true_ns));
        Self(HEAD_START_NS.saturating_add(here))
    }
}
