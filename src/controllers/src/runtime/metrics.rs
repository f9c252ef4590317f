//! Counters of the controllers, read by whoever exports metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::reconcile::Controller;

/// What is counted per controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Looks at a key.
    Reconciles,
    /// Transactions applied.
    Applied,
    /// Transactions rejected because something had changed.
    Rejected,
    /// Looks or transactions that failed otherwise.
    Failed,
}

impl Counter {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Reconciles, Self::Applied, Self::Rejected, Self::Failed];

    /// Name as exported.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reconciles => "reconciles",
            Self::Applied => "applied",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
        }
    }
}

/// Counters of all controllers of this replica.
#[derive(Debug, Default)]
pub struct Metrics {
    counters: [[AtomicU64; Counter::ALL.len()]; Controller::ALL.len()],
    events_dropped: AtomicU64,
}

impl Metrics {
    fn cell(&self, controller: Controller, counter: Counter) -> &AtomicU64 {
        let row = Controller::ALL.iter().position(|known| *known == controller).unwrap_or_default();
        let column = Counter::ALL.iter().position(|known| *known == counter).unwrap_or_default();
        &self.counters[row][column]
    }

    pub(super) fn count(&self, controller: Controller, counter: Counter) {
        self.cell(controller, counter).fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self, events: u64) {
        self.events_dropped.fetch_add(events, Ordering::Relaxed);
    }

    /// The value of one counter.
    #[must_use]
    pub fn get(&self, controller: Controller, counter: Counter) -> u64 {
        self.cell(controller, counter).load(Ordering::Relaxed)
    }

    /// Every counter as (controller, counter, value).
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        Controller::ALL.into_iter().flat_map(move |controller| {
            Counter::ALL
                .into_iter()
                .map(move |counter| (controller.name(), counter.name(), self.get(controller, counter)))
        })
    }

    /// Events dropped because too many waited.
    #[must_use]
    pub fn events_dropped(&self) -> u64 {
        self.events_dropped.load(Ordering::Relaxed)
    }
}
