//! What happens to containers, told as Events of their Pods, as a kubelet does. Late rather than in the way: gathered for
//! a moment, bounded, and dropped when there is too much of it.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::client::Pause;
use crate::pod::Pod;
use crate::session::{Session, SessionError};

/// Events that wait to be told.
const WAITING_MAX: usize = 1_000;
/// What happens within this time is told together.
const GATHER: Duration = Duration::from_millis(20);
/// Most Events of one request; the control plane takes as many.
const BATCH_MAX: usize = 100;
/// The same is not told again sooner: a probe may fail every second for days.
const REPEAT_AFTER: Duration = Duration::from_secs(30);
/// Events remembered so as not to repeat them too soon.
const REMEMBERED_MAX: usize = 2_000;

/// Whether an Event tells of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    Normal,
    Warning,
}

/// Where to tell. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Teller {
    to: mpsc::Sender<Value>,
}

impl Teller {
    /// A teller, and what it is told.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Value>) {
        let (to, waiting) = mpsc::channel(WAITING_MAX);
        (Self { to }, waiting)
    }

    /// Tells of `pod`, when there is room.
    pub(crate) fn tell(&self, pod: &Pod, weight: Weight, reason: &'static str, message: &str) {
        let kind = match weight {
            Weight::Normal => "Normal",
            Weight::Warning => "Warning",
        };
        let _dropped = self.to.try_send(json!({
            "namespace": pod.namespace, "name": pod.name, "uid": pod.uid,
            "type": kind, "reason": reason, "message": message,
        }));
    }
}

/// Tells the control plane, for as long as there is something to tell.
pub(crate) async fn run(session: Session, mut waiting: mpsc::Receiver<Value>) {
    let mut said = Said::default();
    let mut pause = Pause::default();
    while let Some(first) = waiting.recv().await {
        sleep(GATHER).await;
        let mut events = vec![first];
        while events.len() < BATCH_MAX
            && let Ok(next) = waiting.try_recv()
        {
            events.push(next);
        }
        events.retain(|event| said.is_news(event, Instant::now()));
        if events.is_empty() {
            continue;
        }
        let body = json!({ "events": events });
        loop {
            match session.tell(body.clone()).await {
                Ok(()) => pause.reset(),
                Err(SessionError::Removed) => return,
                Err(SessionError::Refused { status, message }) => debug!(status, %message, "events refused"),
                Err(SessionError::Unavailable(reason)) => {
                    debug!(%reason, "events wait for the control plane");
                    pause.wait().await;
                    continue;
                }
            }
            break;
        }
    }
}

/// What was told lately.
#[derive(Debug, Default)]
struct Said {
    when: HashMap<String, Instant>,
}

impl Said {
    fn is_news(&mut self, event: &Value, now: Instant) -> bool {
        // Only trouble repeats itself; each start and each end is its own.
        if event["type"] == "Normal" {
            return true;
        }
        if self.when.len() >= REMEMBERED_MAX {
            self.when.retain(|_, then| now.duration_since(*then) < REPEAT_AFTER);
        }
        if self.when.len() >= REMEMBERED_MAX {
            self.when.clear();
        }
        let repeated = self.when.get(&event.to_string()).is_some_and(|then| now.duration_since(*then) < REPEAT_AFTER);
        if !repeated {
            self.when.insert(event.to_string(), now);
        }
        !repeated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same trouble is told again after a while and not before; other trouble, and what is no trouble, at once.
    #[test]
    fn trouble_is_not_repeated_too_soon() {
        let mut said = Said::default();
        let start = Instant::now();
        let event = |kind: &str, message: &str| json!({"type": kind, "uid": "u", "message": message});
        assert!(said.is_news(&event("Warning", "a"), start));
        assert!(!said.is_news(&event("Warning", "a"), start + Duration::from_secs(29)));
        assert!(said.is_news(&event("Warning", "b"), start));
        assert!(said.is_news(&event("Warning", "a"), start + Duration::from_secs(30)));
        assert!(said.is_news(&event("Normal", "a"), start) && said.is_news(&event("Normal", "a"), start));
        for at in 0..2 * REMEMBERED_MAX {
            said.is_news(&event("Warning", &at.to_string()), start);
        }
        assert!(said.when.len() <= REMEMBERED_MAX);
    }
}
