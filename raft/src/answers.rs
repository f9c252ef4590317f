//! [`Answers`]: brings outcomes from the leader's apply to the forwarded batches that wait for them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quilt_proto::{Outcome, RequestId};
use quilt_state::RequestOutcome;
use tokio::sync::mpsc;

type Key = (u64, u64);

/// Forwarded requests waiting on this leader.
#[derive(Default)]
pub(crate) struct Answers {
    waiting: Mutex<HashMap<Key, mpsc::UnboundedSender<(u64, Outcome)>>>,
}

/// The outcomes of one forwarded batch. Forgets the rest when dropped.
pub(crate) struct Waiting {
    answers: Arc<Answers>,
    keys: Vec<Key>,
    outcomes: mpsc::UnboundedReceiver<(u64, Outcome)>,
}

const fn key(id: RequestId) -> Key {
    (id.session, id.sequence)
}

impl Answers {
    /// Waits for these requests. A later wait for the same request takes over: its owner has asked again.
    pub(crate) fn expect(self: &Arc<Self>, ids: impl Iterator<Item = RequestId>) -> Waiting {
        // As many messages as keys, so the channel needs no bound of its own.
        let (sender, outcomes) = mpsc::unbounded_channel();
        let keys: Vec<Key> = ids.map(key).collect();
        let mut waiting = self.waiting.lock();
        for key in &keys {
            waiting.insert(*key, sender.clone());
        }
        drop(waiting);
        Waiting { answers: Arc::clone(self), keys, outcomes }
    }

    /// Requests whose outcome somebody waits for.
    #[cfg(all(test, not(simulated)))]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.lock().len()
    }

    pub(crate) fn applied(&self, outcomes: &[RequestOutcome]) {
        let mut waiting = self.waiting.lock();
        if waiting.is_empty() {
            return;
        }
        for RequestOutcome { request_id, outcome, .. } in outcomes {
            if let Some(id) = request_id
                && let Some(sender) = waiting.remove(&key(*id))
            {
                // The batch may have given up.
                let _ = sender.send((id.sequence, outcome.clone()));
            }
        }
    }
}

impl Waiting {
    /// The next outcome of the batch; `None` when all are in or were taken over by a later wait.
    pub(crate) async fn next(&mut self) -> Option<(u64, Outcome)> {
        self.outcomes.recv().await
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.outcomes.close();
        let mut waiting = self.answers.waiting.lock();
        for key in &self.keys {
            if waiting.get(key).is_some_and(mpsc::UnboundedSender::is_closed) {
                waiting.remove(key);
            }
        }
    }
}
