//! The only place that reads the wall clock, and the two forms in which times leave the agent.

use jiff::Timestamp;

/// The time now.
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// As Kubernetes objects write times: whole seconds, UTC.
pub(crate) fn to_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// As container output is stamped: nanoseconds, UTC, always the same length, so that text order is time order.
pub(crate) fn to_nanoseconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.9fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::{to_nanoseconds, to_seconds};

    /// Both forms have a fixed width, also for a time on a whole second.
    #[test]
    fn forms_have_a_fixed_width() {
        let time = jiff::Timestamp::from_second(1_767_866_400).expect("in range");
        assert_eq!(to_seconds(time), "2026-01-08T10:00:00Z");
        assert_eq!(to_nanoseconds(time), "2026-01-08T10:00:00.000000000Z");
    }
}
