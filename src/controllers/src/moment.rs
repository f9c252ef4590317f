//! [`Moment`]: the time a reconcile sees. It is handed in; pure code never asks a clock.

use jiff::Timestamp;

/// A point in wall time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// `seconds` later.
    #[must_use]
    pub const fn plus_secs(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1000)))
    }

    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub const fn unix_secs(self) -> u64 {
        self.0 / 1000
    }

    /// As Kubernetes writes times: RFC 3339 in UTC, whole seconds.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let seconds = i64::try_from(self.unix_secs()).unwrap_or(i64::MAX);
        Timestamp::from_second(seconds).map_or_else(|_| String::from("1970-01-01T00:00:00Z"), |at| at.to_string())
    }

    /// Reads a Kubernetes time; `None` for text that is no time.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let at: Timestamp = text.parse().ok()?;
        u64::try_from(at.as_millisecond()).ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times come back as they were written, and fractions (`MicroTime`) are understood.
    #[test]
    fn times_round_trip() {
        let at = Moment(1_767_866_400_000);
        assert_eq!(at.rfc3339(), "2026-01-08T10:00:00Z");
        assert_eq!(Moment::parse(&at.rfc3339()), Some(at));
        assert_eq!(Moment::parse("2026-01-08T10:00:00.250000Z"), Some(Moment(at.0 + 250)));
        assert_eq!(Moment::parse("yesterday"), None);
    }
}
