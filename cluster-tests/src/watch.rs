//! A Kubernetes watch through one replica, its events collected as they come.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::Client;
use crate::wait::LIMIT;

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`.
    pub kind: String,
    /// The object.
    pub object: Value,
}

impl Event {
    /// The revision of the change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

#[derive(Debug, Default)]
struct Seen {
    events: Vec<Event>,
    /// Why no more will come.
    ended: Option<String>,
}

/// An open watch.
#[derive(Debug)]
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    more: watch::Receiver<()>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Opens a watch of `path` (a query may be part of it) from a revision on; it is open when this returns.
    ///
    /// # Errors
    /// When the replica refuses it.
    pub async fn open(client: &Client, path: &str, revision: &str) -> Result<Self> {
        let join = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{join}watch=true&resourceVersion={revision}&timeoutSeconds=3600");
        let mut response = client.request(Method::GET, &path).send().await.context("a watch is refused")?;
        ensure!(response.status().is_success(), "a watch is refused: {}", response.status());
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let (tell, more) = watch::channel(());
        let collecting = seen.clone();
        let task = tokio::spawn(async move {
            let mut rest = Vec::new();
            let ended = loop {
                match response.chunk().await {
                    Ok(Some(bytes)) => rest.extend_from_slice(&bytes),
                    Ok(None) => break "the replica closed it".to_owned(),
                    Err(error) => break format!("{error:?}"),
                }
                let mut seen = collecting.lock().unwrap_or_else(PoisonError::into_inner);
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    match serde_json::from_slice::<Value>(&line) {
                        Ok(event) => seen.events.push(Event {
                            kind: event["type"].as_str().unwrap_or_default().to_owned(),
                            object: event["object"].clone(),
                        }),
                        Err(error) => seen.ended = Some(format!("a line is no JSON: {error}")),
                    }
                }
                drop(seen);
                tell.send_replace(());
            };
            collecting.lock().unwrap_or_else(PoisonError::into_inner).ended = Some(ended);
            tell.send_replace(());
        });
        Ok(Self { seen, more, task })
    }

    /// All events so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).events.clone()
    }

    /// Waits until `look` finds something in all events so far.
    ///
    /// # Errors
    /// When the watch ends before, or the limit is reached.
    pub async fn until<T>(&mut self, what: &str, look: impl Fn(&[Event]) -> Option<T>) -> Result<T> {
        let waiting = async {
            loop {
                self.more.borrow_and_update();
                {
                    let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(found) = look(&seen.events) {
                        return Ok(found);
                    }
                    if let Some(ended) = &seen.ended {
                        bail!("the watch ended before {what}: {ended}");
                    }
                }
                let _ended = self.more.changed().await;
            }
        };
        match tokio::time::timeout(LIMIT, waiting).await {
            Ok(found) => found,
            Err(_elapsed) => bail!("the watch did not show within {LIMIT:?}: {what}"),
        }
    }

    /// Fails unless every event is later than the one before it, and none is an error.
    ///
    /// # Errors
    /// With the events that break the rule.
    pub fn check_order(&self) -> Result<()> {
        let events = self.events();
        for event in &events {
            ensure!(event.kind != "ERROR", "the watch shows an error: {}", event.object);
        }
        for pair in events.windows(2) {
            let (first, second) = (&pair[0], &pair[1]);
            ensure!(
                first.revision() < second.revision(),
                "the watch shows revision {} and then {}",
                first.revision(),
                second.revision()
            );
        }
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
