//! [`Beats`]: heartbeats on their way to the leader's memory, gathered into one request per few milliseconds.
//!
//! A batch is driven by whoever waits for it, so a client that goes away never holds the others up. Must not know Node
//! objects: it carries names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use quilt_raft::{AskError, Replica};
use serde_json::{Value, json};

use super::asking::ask;

/// How long a batch stays open: far below a heartbeat's period, long enough to gather a thousand nodes' beats.
const OPEN_FOR: Duration = Duration::from_millis(10);
/// Most beats of one request.
const BEATS_MAX: usize = 10_000;
/// The leader's service.
const SERVICE: &str = "heartbeats";

type Sent = Shared<BoxFuture<'static, Result<(), AskError>>>;
type Nodes = Arc<Mutex<Vec<Value>>>;

/// Heartbeats of this replica's nodes.
#[derive(Default)]
pub(crate) struct Beats {
    open: Arc<Mutex<Option<(Nodes, Sent)>>>,
}

impl Beats {
    /// Tells the leader that `node` of `cluster` is alive.
    pub(crate) async fn beat(
        &self,
        replica: &Replica,
        cluster: &str,
        node: &str,
        deadline: Duration,
    ) -> Result<(), AskError> {
        let sent = {
            let mut open = self.open.lock();
            let full = open.as_ref().is_some_and(|(nodes, _)| nodes.lock().len() >= BEATS_MAX);
            let (nodes, sent) = match open.take() {
                Some(batch) if !full => batch,
                _ => self.batch(replica.clone(), deadline),
            };
            nodes.lock().push(json!({"cluster": cluster, "node": node}));
            *open = Some((nodes, sent.clone()));
            sent
        };
        sent.await
    }

    fn batch(&self, replica: Replica, deadline: Duration) -> (Nodes, Sent) {
        let nodes = Nodes::default();
        let (open, own) = (Arc::clone(&self.open), Arc::clone(&nodes));
        let sent = async move {
            tokio::time::sleep(OPEN_FOR).await;
            {
                let mut open = open.lock();
                if open.as_ref().is_some_and(|(nodes, _)| Arc::ptr_eq(nodes, &own)) {
                    *open = None;
                }
            }
            let beat = std::mem::take(&mut *own.lock());
            let request = json!({"beat": beat}).to_string();
            ask(&replica, SERVICE, request.into(), deadline).await.map(|_| ())
        };
        (nodes, sent.boxed().shared())
    }
}

/// The last heartbeats of nodes, by node name, in unix seconds. Nodes the leader has not heard from are left out.
pub(crate) async fn last_heartbeats(
    replica: &Replica,
    cluster: &str,
    nodes: &[String],
    deadline: Duration,
) -> Result<BTreeMap<String, u64>, AskError> {
    if nodes.is_empty() {
        return Ok(BTreeMap::new());
    }
    let asked: Vec<Value> = nodes.iter().map(|node| json!({"cluster": cluster, "node": node})).collect();
    let answer = ask(replica, SERVICE, json!({"last": asked}).to_string().into(), deadline).await?;
    let answer: Value = serde_json::from_slice(&answer).map_err(|error| AskError::Failed(error.to_string()))?;
    let last = answer["last"].as_array().into_iter().flatten();
    Ok(nodes.iter().cloned().zip(last).filter_map(|(node, at)| Some((node, at.as_u64()?))).collect())
}
