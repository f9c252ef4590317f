//! How long a container that keeps ending waits before it is started again. Pure.

use std::time::Duration;

use crate::options::RestartBackoff;

/// The pauses of one container.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    rule: RestartBackoff,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(rule: RestartBackoff) -> Self {
        Self { rule, next: Duration::ZERO }
    }

    /// The pause after a run that lasted this long.
    pub(super) fn after(&mut self, run: Duration) -> Duration {
        if run >= self.rule.forgotten_after {
            self.next = Duration::ZERO;
        }
        let pause = self.next;
        self.next = if pause.is_zero() { self.rule.first } else { (pause * 2).min(self.rule.longest) };
        pause
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;
    use crate::options::RestartBackoff;

    /// Restarts follow at 0, 10, 20, … and at most 300 s; a run of ten minutes starts the row anew.
    #[test]
    fn pauses_double_to_a_limit_and_are_forgotten() {
        let mut backoff = Backoff::new(RestartBackoff::default());
        let short = Duration::from_secs(1);
        let row: Vec<u64> = (0..8).map(|_| backoff.after(short).as_secs()).collect();
        assert_eq!(row, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.after(Duration::from_secs(600)), Duration::ZERO);
        assert_eq!(backoff.after(short).as_secs(), 10);
    }
}
