//! Which history may go: what is older than the window, and before that what a cluster holds beyond its share when all of
//! it together is larger than the budget (architecture D11). Knows nothing of how it goes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quilt_proto::{Event, Revision};

use crate::clock::millis;
use crate::host::exhibit;

/// How often the newest revision is noted; what goes is exact to this.
const SAMPLE_EVERY_MS: u64 = 5_000;
/// No watch is cut off from history younger than this, whatever is asked for and however much it is.
pub(crate) const WINDOW_MIN: Duration = Duration::from_secs(75);
/// What a version and its change weigh beside key and value.
const ROW_OVERHEAD_BYTES: u64 = 64;

/// Bytes of history by cluster.
pub(crate) type Bytes = BTreeMap<String, u64>;

/// Counts what is written into history, on every replica.
#[derive(Default)]
pub(crate) struct Written {
    since_last: Mutex<Bytes>,
}

impl Written {
    pub(crate) fn note(&self, events: &[Arc<Event>]) {
        let mut since_last = self.since_last.lock();
        for event in events {
            let record = event.record.as_ref().map_or(0, |record| record.value.len() + record.sealed.len());
            let bytes = ROW_OVERHEAD_BYTES + (event.key.bytes().len() + record) as u64;
            let cluster = event.key.parts().cluster;
            match since_last.get_mut(cluster) {
                Some(sum) => *sum += bytes,
                None => drop(since_last.insert(cluster.to_owned(), bytes)),
            }
        }
    }

    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.since_last.lock())
    }
}

/// What was the newest revision when, and what has been written since the sample before.
struct Sample {
    at_ms: u64,
    revision: Revision,
    written: Bytes,
}

/// The window as one leader sees it. A new leader begins without samples, so history is kept longer after a fail-over,
/// never shorter.
pub(crate) struct Window {
    samples: VecDeque<Sample>,
    length_ms: u64,
    budget_bytes: u64,
}

/// Up to where history may go.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Floors {
    /// Of every cluster: by age.
    pub(crate) all: Option<Revision>,
    /// Of single ones, that hold more than their share.
    pub(crate) of: BTreeMap<String, Revision>,
}

impl Window {
    pub(crate) fn new(length: Duration, budget_bytes: u64) -> Self {
        Self { samples: VecDeque::new(), length_ms: millis(length.max(WINDOW_MIN)), budget_bytes }
    }

    /// Notes the present and says what may go.
    pub(crate) fn look(&mut self, now_ms: u64, newest: Revision, written: &Written) -> Floors {
        if self.samples.back().is_none_or(|last| now_ms >= last.at_ms + SAMPLE_EVERY_MS) {
            self.samples.push_back(Sample { at_ms: now_ms, revision: newest, written: written.take() });
        }
        let mut floors = Floors::default();
        while let Some(oldest) = self.samples.front()
            && (now_ms >= oldest.at_ms + self.length_ms || exhibit!(WindowIgnored))
        {
            floors.all = Some(oldest.revision);
            self.samples.pop_front();
        }
        floors.of = self.over_budget(now_ms);
        floors
    }

    /// Lets go of the oldest of the clusters that hold more than their share, until they hold that or what is left is too
    /// young.
    fn over_budget(&mut self, now_ms: u64) -> BTreeMap<String, Revision> {
        let mut held = Bytes::new();
        for (cluster, bytes) in self.samples.iter().flat_map(|sample| &sample.written) {
            *held.entry(cluster.clone()).or_default() += bytes;
        }
        let mut floors = BTreeMap::new();
        if held.values().sum::<u64>() <= self.budget_bytes {
            return floors;
        }
        let share = self.budget_bytes / (held.len() as u64).max(1);
        for (cluster, mut bytes) in held {
            for sample in &mut self.samples {
                if bytes <= share || now_ms < sample.at_ms + millis(WINDOW_MIN) {
                    break;
                }
                if let Some(gone) = sample.written.remove(&cluster) {
                    bytes -= gone;
                    floors.insert(cluster.clone(), sample.revision);
                }
            }
        }
        floors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u64 = SAMPLE_EVERY_MS;

    fn wrote(cluster: &str, bytes: u64) -> Written {
        Written { since_last: Mutex::new(Bytes::from([(cluster.to_owned(), bytes)])) }
    }

    fn window(length_secs: u64, budget_bytes: u64) -> Window {
        Window::new(Duration::from_secs(length_secs), budget_bytes)
    }

    /// Age alone: nothing goes before the window has passed, then sample by sample; a shorter window than the least is
    /// none.
    #[test]
    fn what_is_old_goes() {
        let mut window = window(10, u64::MAX);
        let mut first = None;
        for n in 0..20 {
            let floors = window.look(n * STEP, Revision::new(n), &Written::default());
            assert_eq!(floors.of, BTreeMap::new());
            if first.is_none() && floors.all.is_some() {
                first = Some((n * STEP, floors.all));
            }
        }
        assert_eq!(first, Some((75_000, Some(Revision::new(0)))));
    }

    /// Over the budget, the cluster that holds more than its share loses its oldest, and only that; nothing that is
    /// younger than the least window goes, however much it is.
    #[test]
    fn what_is_too_much_goes_from_whom_it_is() {
        let mut window = window(600, 1_000);
        for n in 0..15 {
            let written = if n == 3 { wrote("small", 400) } else { wrote("large", 100) };
            let floors = window.look(n * STEP, Revision::new(n), &written);
            assert_eq!(floors, Floors::default(), "too young at {n}");
        }
        // 1,400 bytes of the large one, 400 of the small one; its share is 500; only the first sample is old enough.
        let floors = window.look(15 * STEP, Revision::new(15), &Written::default());
        assert_eq!(floors.of, BTreeMap::from([("large".to_owned(), Revision::new(0))]));
        let again = window.look(15 * STEP + 1, Revision::new(15), &Written::default());
        assert_eq!(again, Floors::default(), "nothing goes twice");
        let floors = window.look(40 * STEP, Revision::new(40), &Written::default());
        assert_eq!(floors.of.get("large"), Some(&Revision::new(9)), "until it has its share only");
        assert!(!floors.of.contains_key("small"));
    }
}
