//! [`Queue`]: Pods that wait for a node. Those that may fit now come first by priority, then by age; those no node
//! took sleep until something changes that could help them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use quilt_proto::{Key, Revision};
use tokio::time::Instant;

const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// A Pod no node took is looked at again after this time even if nothing seems to have changed.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Urgent first: higher priority, then older, then by key.
type Rank = (std::cmp::Reverse<i64>, Revision, Key);

#[derive(Debug, Default)]
pub(super) struct Queue {
    ready: BTreeMap<Rank, ()>,
    sleeping: BTreeMap<(Instant, Key), Rank>,
    places: HashMap<Key, Place>,
    failures: HashMap<Key, u32>,
}

#[derive(Debug)]
enum Place {
    Ready(Rank),
    Sleeping(Instant),
}

impl Queue {
    /// A Pod that may fit now.
    pub(super) fn push(&mut self, key: &Key, priority: i64, created: Revision) {
        self.take_out(key);
        let rank = (std::cmp::Reverse(priority), created, key.clone());
        self.ready.insert(rank.clone(), ());
        self.places.insert(key.clone(), Place::Ready(rank));
    }

    /// The Pod needs no node any more.
    pub(super) fn remove(&mut self, key: &Key) {
        self.take_out(key);
        self.failures.remove(key);
    }

    fn take_out(&mut self, key: &Key) {
        match self.places.remove(key) {
            Some(Place::Ready(rank)) => {
                self.ready.remove(&rank);
            }
            Some(Place::Sleeping(until)) => {
                self.sleeping.remove(&(until, key.clone()));
            }
            None => {}
        }
    }

    /// The next Pods, at most `limit`; they are out of the queue.
    pub(super) fn pop(&mut self, limit: usize, now: Instant) -> Vec<Key> {
        while let Some(entry) = self.sleeping.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let rank = entry.remove();
            self.places.insert(rank.2.clone(), Place::Ready(rank.clone()));
            self.ready.insert(rank, ());
        }
        let mut keys = Vec::new();
        while keys.len() < limit {
            let Some(((_, _, key), ())) = self.ready.pop_first() else { break };
            self.places.remove(&key);
            keys.push(key);
        }
        keys
    }

    /// No node took the Pod: it sleeps until [`Queue::wake`].
    pub(super) fn sleep(&mut self, key: &Key, priority: i64, created: Revision, now: Instant) {
        self.sleep_until(key, priority, created, now + SLEEP_MAX);
    }

    /// Binding it failed: again soon, later each time.
    pub(super) fn retry(&mut self, key: &Key, priority: i64, created: Revision, now: Instant) {
        let failures = self.failures.entry(key.clone()).or_default();
        let pause = RETRY_MIN.saturating_mul(1 << (*failures).min(12)).min(RETRY_MAX);
        *failures += 1;
        self.sleep_until(key, priority, created, now + pause);
    }

    fn sleep_until(&mut self, key: &Key, priority: i64, created: Revision, until: Instant) {
        self.take_out(key);
        self.sleeping.insert((until, key.clone()), (std::cmp::Reverse(priority), created, key.clone()));
        self.places.insert(key.clone(), Place::Sleeping(until));
    }

    /// Something changed that may help: everyone is looked at again.
    pub(super) fn wake(&mut self) {
        for (_, rank) in std::mem::take(&mut self.sleeping) {
            self.places.insert(rank.2.clone(), Place::Ready(rank.clone()));
            self.ready.insert(rank, ());
        }
    }

    /// When the next sleeper wakes by itself.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.sleeping.first_key_value().map(|((until, _), _)| *until)
    }

    /// Nobody waits who may fit now.
    pub(super) fn is_quiet(&self) -> bool {
        self.ready.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Priority goes before age; sleepers come back when woken or when their time is over.
    #[test]
    fn the_most_urgent_comes_first_and_sleepers_wake() {
        let key = |name: &str| Key::new("c", "", "pods", "default", name).expect("valid");
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(&key("late"), 0, Revision::new(9));
        queue.push(&key("early"), 0, Revision::new(3));
        queue.push(&key("vip"), 10, Revision::new(20));
        assert_eq!(queue.pop(2, now), [key("vip"), key("early")]);
        queue.sleep(&key("early"), 0, Revision::new(3), now);
        assert_eq!(queue.pop(9, now), [key("late")]);
        assert!(queue.pop(9, now).is_empty());
        queue.wake();
        assert_eq!(queue.pop(9, now), [key("early")]);
        queue.retry(&key("early"), 0, Revision::new(3), now);
        assert!(queue.pop(9, now).is_empty());
        assert_eq!(queue.pop(9, now + RETRY_MIN), [key("early")]);
    }
}
