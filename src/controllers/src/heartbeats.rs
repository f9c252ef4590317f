//! [`Heartbeats`]: last signs of life of nodes, in the leader's memory (architecture D15).
//!
//! A heartbeat is no write. The table answers only while this replica leads; a new leader starts with an empty one and
//! counts silence from its own election, so no live node is ever called silent because of a leader change.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Most nodes of all clusters that are remembered; later ones are refused until others are forgotten.
const NODES_MAX: usize = 200_000;

/// The table of last heartbeats.
#[derive(Debug, Default)]
pub struct Heartbeats {
    reign: Mutex<Option<Reign>>,
}

#[derive(Debug)]
struct Reign {
    since_cluster_ms: u64,
    beats: HashMap<(String, String), Beat>,
}

#[derive(Clone, Copy, Debug)]
struct Beat {
    cluster_ms: u64,
    wall_ms: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Node {
    cluster: String,
    node: String,
}

#[derive(Debug, Default, Deserialize)]
struct Request {
    #[serde(default)]
    beat: Vec<Node>,
    #[serde(default)]
    last: Vec<Node>,
}

/// A request to the table cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum HeartbeatError {
    /// This replica does not lead; the asker finds the new leader.
    #[error("this replica does not lead")]
    NotLeading,
    /// The request is not the JSON it should be.
    #[error("the request is malformed")]
    Malformed(#[source] serde_json::Error),
    /// [`NODES_MAX`] is reached.
    #[error("more than {NODES_MAX} nodes send heartbeats")]
    Full,
}

impl Heartbeats {
    /// This replica leads since `cluster_ms`: every node has its full grace from here.
    pub fn gained(&self, cluster_ms: u64) {
        *self.reign.lock() = Some(Reign { since_cluster_ms: cluster_ms, beats: HashMap::new() });
    }

    /// This replica no longer leads.
    pub fn lost(&self) {
        *self.reign.lock() = None;
    }

    /// A sign of life of `node`.
    ///
    /// # Errors
    /// This replica does not lead, or the table is full.
    pub fn beat(&self, cluster: &str, node: &str, cluster_ms: u64, wall_ms: u64) -> Result<(), HeartbeatError> {
        let mut reign = self.reign.lock();
        let beats = &mut reign.as_mut().ok_or(HeartbeatError::NotLeading)?.beats;
        let key = (cluster.to_owned(), node.to_owned());
        if beats.len() >= NODES_MAX && !beats.contains_key(&key) {
            return Err(HeartbeatError::Full);
        }
        beats.insert(key, Beat { cluster_ms, wall_ms });
        Ok(())
    }

    /// Cluster time since which `node` is silent: its last heartbeat, or the start of this leadership. `None` while
    /// this replica does not lead.
    #[must_use]
    pub fn silent_since(&self, cluster: &str, node: &str) -> Option<u64> {
        let reign = self.reign.lock();
        let reign = reign.as_ref()?;
        let beat = reign.beats.get(&(cluster.to_owned(), node.to_owned()));
        Some(beat.map_or(reign.since_cluster_ms, |beat| beat.cluster_ms.max(reign.since_cluster_ms)))
    }

    /// Wall time of the last heartbeat seen in this leadership, in seconds since the Unix epoch.
    #[must_use]
    pub fn last_secs(&self, cluster: &str, node: &str) -> Option<u64> {
        let reign = self.reign.lock();
        let beat = reign.as_ref()?.beats.get(&(cluster.to_owned(), node.to_owned()));
        beat.map(|beat| beat.wall_ms / 1000)
    }

    /// Forgets a node that was removed.
    pub fn forget(&self, cluster: &str, node: &str) {
        if let Some(reign) = self.reign.lock().as_mut() {
            reign.beats.remove(&(cluster.to_owned(), node.to_owned()));
        }
    }

    /// Forgets all nodes of a cluster that was removed.
    pub fn forget_cluster(&self, cluster: &str) {
        if let Some(reign) = self.reign.lock().as_mut() {
            reign.beats.retain(|(of, _), _| of != cluster);
        }
    }

    /// Answers a request of another replica: `{"beat":[{"cluster","node"}]}` gives `{}`,
    /// `{"last":[{"cluster","node"}]}` gives `{"last":[unix seconds or null]}`.
    ///
    /// # Errors
    /// As [`HeartbeatError`] says.
    pub fn answer(&self, request: &[u8], cluster_ms: u64, wall_ms: u64) -> Result<Bytes, HeartbeatError> {
        if self.reign.lock().is_none() {
            return Err(HeartbeatError::NotLeading);
        }
        let request: Request = serde_json::from_slice(request).map_err(HeartbeatError::Malformed)?;
        for Node { cluster, node } in &request.beat {
            self.beat(cluster, node, cluster_ms, wall_ms)?;
        }
        if request.last.is_empty() {
            return Ok(Bytes::from_static(b"{}"));
        }
        let last: Vec<_> = request.last.iter().map(|at| self.last_secs(&at.cluster, &at.node)).collect();
        Ok(serde_json::json!({ "last": last }).to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table answers only between gained and lost, and a new leadership starts every node's grace again.
    #[test]
    fn a_table_lives_as_long_as_its_leadership() {
        let table = Heartbeats::default();
        let beat = br#"{"beat":[{"cluster":"c","node":"n"}]}"#;
        assert!(matches!(table.answer(beat, 5, 5), Err(HeartbeatError::NotLeading)));
        table.gained(1_000);
        assert_eq!(table.silent_since("c", "n"), Some(1_000));
        assert_eq!(table.answer(beat, 9_000, 1_767_866_400_000).expect("leads").as_ref(), b"{}");
        assert_eq!(table.silent_since("c", "n"), Some(9_000));
        let last = table.answer(br#"{"last":[{"cluster":"c","node":"n"},{"cluster":"c","node":"x"}]}"#, 0, 0);
        assert_eq!(last.expect("leads").as_ref(), br#"{"last":[1767866400,null]}"#);
        assert!(matches!(table.answer(b"[", 0, 0), Err(HeartbeatError::Malformed(_))));
        table.lost();
        assert_eq!(table.silent_since("c", "n"), None);
        table.gained(20_000);
        assert_eq!(table.silent_since("c", "n"), Some(20_000));
    }
}
