//! [`Queue`]: which key is looked at next. Each piece of work is in it once, is never handled twice at the same time,
//! backs off after failures, and waits until the view has reached its own last write.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use quilt_proto::Revision;
use tokio::time::Instant;

use crate::route::Work;

const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Work by when it may be done.
#[derive(Debug, Default)]
pub(super) struct Queue {
    ready: VecDeque<Work>,
    queued: HashSet<Work>,
    /// Being handled; `true` when it has to be handled again.
    busy: HashMap<Work, bool>,
    /// The revision of a key's own last write.
    written: HashMap<Work, Revision>,
    /// Ready, but the view has not reached their own last write.
    behind: BTreeMap<(Revision, u64), Work>,
    later: BTreeMap<(Instant, u64), Work>,
    due: HashMap<Work, (Instant, u64)>,
    failures: HashMap<Work, u32>,
    /// Before the view has reached this, it may still bring work.
    barrier: Revision,
    sequence: u64,
}

impl Queue {
    /// Work to be done as soon as may be.
    pub(super) fn push(&mut self, work: Work) {
        if let Some(again) = self.busy.get_mut(&work) {
            *again = true;
            return;
        }
        if self.queued.insert(work.clone()) {
            self.ready.push_back(work);
        }
    }

    /// Work to be done at `at` if nothing brings it up before; the earliest time counts.
    pub(super) fn push_at(&mut self, work: Work, at: Instant) {
        if let Some(known) = self.due.get(&work) {
            if known.0 <= at {
                return;
            }
            self.later.remove(known);
        }
        self.sequence += 1;
        self.later.insert((at, self.sequence), work.clone());
        self.due.insert(work, (at, self.sequence));
    }

    /// The next work that may be done now. It is busy until it is given back.
    pub(super) fn pop(&mut self, now: Instant, reached: Revision) -> Option<Work> {
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let work = entry.remove();
            self.due.remove(&work);
            self.push(work);
        }
        while let Some(entry) = self.behind.first_entry() {
            if entry.key().0 > reached {
                break;
            }
            let work = entry.remove();
            self.ready.push_back(work);
        }
        while let Some(work) = self.ready.pop_front() {
            match self.written.get(&work) {
                Some(written) if *written > reached => {
                    self.sequence += 1;
                    self.behind.insert((*written, self.sequence), work);
                }
                _ => {
                    self.written.remove(&work);
                    self.queued.remove(&work);
                    self.busy.insert(work.clone(), false);
                    return Some(work);
                }
            }
        }
        None
    }

    fn give_back(&mut self, work: &Work) {
        if self.busy.remove(work) == Some(true) {
            self.push(work.clone());
        }
    }

    /// Handled, nothing written.
    pub(super) fn done(&mut self, work: &Work) {
        self.failures.remove(work);
        self.give_back(work);
    }

    /// Handled; its writes end at `revision`, which the view must reach before it is handled again.
    pub(super) fn wrote(&mut self, work: &Work, revision: Revision) {
        self.failures.remove(work);
        self.written.insert(work.clone(), revision);
        self.raise_barrier(revision);
        self.give_back(work);
    }

    /// What happened up to `revision` may make work: the queue is not quiet before the view has reached it.
    pub(super) fn raise_barrier(&mut self, revision: Revision) {
        self.barrier = self.barrier.max(revision);
    }

    /// Not handled: again after a pause that doubles with every failure.
    pub(super) fn failed(&mut self, work: &Work, now: Instant) {
        let failures = self.failures.entry(work.clone()).or_default();
        let pause = RETRY_MIN.saturating_mul(1 << (*failures).min(13)).min(RETRY_MAX);
        *failures += 1;
        self.busy.remove(work);
        self.push_at(work.clone(), now + pause);
    }

    /// When the next delayed work is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.later.first_key_value().map(|((at, _), _)| *at)
    }

    /// Something may be ready now.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Nothing is ready, busy or behind, nothing waits after a failure, and the view, at `reached`, knows all that was
    /// written: a write makes work for other keys, and only the view brings it.
    pub(super) fn is_quiet(&self, reached: Revision) -> bool {
        let idle = self.ready.is_empty() && self.busy.is_empty() && self.behind.is_empty() && self.failures.is_empty();
        idle && self.barrier <= reached
    }

    /// Pieces of work not yet done, delayed ones aside.
    pub(super) fn depth(&self) -> usize {
        self.ready.len() + self.busy.len() + self.behind.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::Controller;
    use quilt_proto::Key;

    fn work(name: &str) -> Work {
        (Controller::Node, Key::new("c", "", "nodes", "", name).expect("valid"))
    }

    /// Work is handled once however often it is asked for, and again when asked for while it is handled.
    #[test]
    fn work_is_never_doubled_and_never_lost() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(work("a"));
        queue.push(work("a"));
        assert_eq!(queue.pop(now, Revision::ZERO), Some(work("a")));
        assert_eq!(queue.pop(now, Revision::ZERO), None);
        queue.push(work("a"));
        assert_eq!(queue.pop(now, Revision::ZERO), None, "not while it is handled");
        queue.done(&work("a"));
        assert_eq!(queue.pop(now, Revision::ZERO), Some(work("a")), "but after");
    }

    /// A key waits until the view has reached its own last write; other keys do not wait for it.
    #[test]
    fn a_key_reads_its_own_writes() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(work("a"));
        assert!(queue.pop(now, Revision::new(4)).is_some());
        queue.wrote(&work("a"), Revision::new(9));
        queue.push(work("a"));
        queue.push(work("b"));
        assert_eq!(queue.pop(now, Revision::new(8)), Some(work("b")));
        assert_eq!(queue.pop(now, Revision::new(8)), None);
        assert_eq!(queue.pop(now, Revision::new(9)), Some(work("a")));
    }

    /// What was written may make work until the view has reached it; so may what happened before somebody asked.
    #[test]
    fn a_queue_is_quiet_when_the_view_knows_all_that_was_written() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        assert!(queue.is_quiet(Revision::ZERO));
        queue.push(work("a"));
        assert!(!queue.is_quiet(Revision::new(4)), "ready");
        assert!(queue.pop(now, Revision::new(4)).is_some());
        assert!(!queue.is_quiet(Revision::new(4)), "busy");
        queue.wrote(&work("a"), Revision::new(9));
        assert!(!queue.is_quiet(Revision::new(8)), "its own write may concern others");
        assert!(queue.is_quiet(Revision::new(9)));
        queue.raise_barrier(Revision::new(11));
        assert!(!queue.is_quiet(Revision::new(10)));
        queue.raise_barrier(Revision::new(3));
        assert!(!queue.is_quiet(Revision::new(10)), "a lower one takes nothing back");
        assert!(queue.is_quiet(Revision::new(11)));
    }

    /// Failures back off, and an earlier wish replaces a later one.
    #[test]
    fn failures_back_off() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.push(work("a"));
        assert!(queue.pop(now, Revision::ZERO).is_some());
        queue.failed(&work("a"), now);
        assert_eq!(queue.pop(now, Revision::ZERO), None);
        assert_eq!(queue.next_due(), Some(now + RETRY_MIN));
        assert_eq!(queue.pop(now + RETRY_MIN, Revision::ZERO), Some(work("a")));
        queue.done(&work("a"));
        queue.push_at(work("a"), now + RETRY_MAX);
        queue.push_at(work("a"), now + RETRY_MIN);
        assert_eq!(queue.next_due(), Some(now + RETRY_MIN));
    }
}
