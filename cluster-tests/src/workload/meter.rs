//! [`Meter`]: how the load fares right now, measured from when each step was due, so that a cluster that stands still shows as latency
//! and never as load that is missing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How far back the figures look.
const SPAN: Duration = Duration::from_secs(2);

/// How long steps take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// Half of the steps that ended lately took no longer.
    pub p50: Duration,
    /// Ninety-nine of a hundred took no longer.
    pub p99: Duration,
    /// None took longer.
    pub max: Duration,
    /// How long the oldest step under way has been due.
    pub waiting: Duration,
    /// Steps under way.
    pub under_way: usize,
}

/// How many requests ended how, since the load began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// Steps that were due.
    pub due: u64,
    /// Requests answered with a success.
    pub acknowledged: u64,
    /// Requests refused.
    pub refused: u64,
    /// Requests without an answer.
    pub unknown: u64,
    /// Steps not begun because too many were under way.
    pub shed: u64,
}

#[derive(Debug, Default)]
struct Figures {
    /// Steps that ended lately: when, and how long they took.
    steps: VecDeque<(Instant, Duration)>,
    /// Acknowledgements lately.
    acknowledged: VecDeque<Instant>,
    under_way: BTreeMap<u64, Instant>,
    ended: Ended,
}

/// Measures a load.
#[derive(Debug, Default)]
pub(super) struct Meter {
    figures: Mutex<Figures>,
}

/// How one request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Acknowledged,
    Refused,
    Unknown,
}

impl Meter {
    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A step is due.
    pub(super) fn begin(&self, step: u64, due: Instant) {
        let mut figures = self.figures();
        figures.ended.due += 1;
        figures.under_way.insert(step, due);
    }

    /// A step has ended.
    pub(super) fn end(&self, step: u64) {
        let now = Instant::now();
        let mut figures = self.figures();
        if let Some(due) = figures.under_way.remove(&step) {
            figures.steps.push_back((now, now - due));
        }
        while figures.steps.front().is_some_and(|(at, _)| now - *at > SPAN) {
            figures.steps.pop_front();
        }
    }

    /// A step was due and not begun.
    pub(super) fn shed(&self) {
        let mut figures = self.figures();
        figures.ended.due += 1;
        figures.ended.shed += 1;
    }

    /// A request has ended.
    pub(super) fn request(&self, fate: Fate) {
        let now = Instant::now();
        let mut figures = self.figures();
        match fate {
            Fate::Acknowledged => {
                figures.ended.acknowledged += 1;
                figures.acknowledged.push_back(now);
            }
            Fate::Refused => figures.ended.refused += 1,
            Fate::Unknown => figures.ended.unknown += 1,
        }
        while figures.acknowledged.front().is_some_and(|at| now - *at > SPAN) {
            figures.acknowledged.pop_front();
        }
    }

    pub(super) fn under_way(&self) -> usize {
        self.figures().under_way.len()
    }

    /// Acknowledged requests a second, lately.
    pub(super) fn rate(&self) -> f64 {
        let now = Instant::now();
        let figures = self.figures();
        let lately = figures.acknowledged.iter().filter(|at| now - **at <= SPAN).count();
        f64::from(u32::try_from(lately).unwrap_or(u32::MAX)) / SPAN.as_secs_f64()
    }

    pub(super) fn latency(&self) -> Latency {
        let now = Instant::now();
        let figures = self.figures();
        let lately = figures.steps.iter().filter(|(at, _)| now - *at <= SPAN);
        let mut took: Vec<Duration> = lately.map(|(_, took)| *took).collect();
        took.sort_unstable();
        let at = |part: usize| took.get(took.len() * part / 100).or_else(|| took.last()).copied().unwrap_or_default();
        let waiting = figures.under_way.values().map(|due| now.saturating_duration_since(*due)).max();
        Latency {
            p50: at(50),
            p99: at(99),
            max: took.last().copied().unwrap_or_default(),
            waiting: waiting.unwrap_or_default(),
            under_way: figures.under_way.len(),
        }
    }

    pub(super) fn ended(&self) -> Ended {
        self.figures().ended
    }
}

#[cfg(test)]
mod tests {
    use super::{Fate, Meter};
    use std::time::{Duration, Instant};

    /// A step that does not end shows as waiting; one that ends late shows how late, from when it was due.
    #[test]
    fn a_stall_shows_as_latency() {
        let meter = Meter::default();
        let now = Instant::now();
        meter.begin(1, now);
        meter.begin(2, now.checked_sub(Duration::from_millis(300)).expect("the host runs longer"));
        assert!(meter.latency().waiting >= Duration::from_millis(300));
        meter.end(2);
        meter.request(Fate::Acknowledged);
        let latency = meter.latency();
        assert!(latency.max >= Duration::from_millis(300) && latency.under_way == 1, "{latency:?}");
        assert!(meter.rate() > 0.0);
        assert_eq!((meter.ended().due, meter.ended().acknowledged), (2, 1));
    }
}
