//! Events (kind Event) about scheduling: bounded, told late, never in the way of a binding (architecture D16).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use quilt_objects::registry::registry;
use quilt_proto::{Key, Op, Txn};
use serde_json::json;
use tokio::time::Instant;

use crate::bind::put;
use crate::pod::Pod;

/// Notices waiting to be told; later ones are dropped.
const WAITING_MAX: usize = 2_000;
/// Events in one transaction.
const BATCH: usize = 100;
/// Events a cluster may get at once, and per second after that.
const BURST: u32 = 500;
const PER_SECOND: u32 = 20;
/// Events remembered so that a repetition counts up instead of making another.
const REMEMBERED_MAX: usize = 2_000;
/// How long an Event lives.
const TTL: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct Notices {
    cluster: String,
    waiting: VecDeque<Notice>,
    told: HashMap<(String, &'static str, String), Told>,
    tokens: u32,
    filled: Instant,
}

#[derive(Debug)]
struct Notice {
    namespace: String,
    name: String,
    uid: String,
    reason: &'static str,
    kind: &'static str,
    message: String,
}

#[derive(Clone, Debug)]
struct Told {
    key: Key,
    uid: String,
    first: String,
    count: u64,
}

impl Notices {
    pub(super) fn new(cluster: &str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            waiting: VecDeque::new(),
            told: HashMap::new(),
            tokens: BURST,
            filled: Instant::now(),
        }
    }

    /// The Pod got a node.
    pub(super) fn scheduled(&mut self, pod: &Pod, node: &str) {
        let Some(key) = &pod.key else { return };
        let parts = key.parts();
        let message = format!("Successfully assigned {}/{} to {node}", parts.namespace, parts.name);
        self.add(pod, "Scheduled", "Normal", message);
    }

    /// No node takes the Pod.
    pub(super) fn failed(&mut self, pod: &Pod, message: String) {
        self.add(pod, "FailedScheduling", "Warning", message);
    }

    fn add(&mut self, pod: &Pod, reason: &'static str, kind: &'static str, message: String) {
        let Some(key) = &pod.key else { return };
        if self.waiting.len() < WAITING_MAX {
            let parts = key.parts();
            self.waiting.push_back(Notice {
                namespace: parts.namespace.to_owned(),
                name: parts.name.to_owned(),
                uid: pod.uid.clone(),
                reason,
                kind,
                message,
            });
        }
    }

    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let seconds = u32::try_from(now.duration_since(self.filled).as_secs()).unwrap_or(u32::MAX);
        if seconds > 0 {
            self.tokens = self.tokens.saturating_add(seconds.saturating_mul(PER_SECOND)).min(BURST);
            self.filled = now;
        }
        !self.waiting.is_empty() && self.tokens > 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next Events as one transaction.
    pub(super) fn batch(&mut self, now: &str) -> Txn {
        let mut ops = Vec::new();
        while ops.len() < BATCH && self.tokens > 0 {
            let Some(notice) = self.waiting.pop_front() else { break };
            self.tokens -= 1;
            ops.extend(self.tell(&notice, now));
        }
        Txn::new(Vec::new(), ops)
    }

    fn tell(&mut self, notice: &Notice, now: &str) -> Option<Op> {
        if self.told.len() >= REMEMBERED_MAX {
            self.told.clear();
        }
        let same = (notice.uid.clone(), notice.reason, notice.message.clone());
        let told = if let Some(told) = self.told.get_mut(&same) {
            told.count += 1;
            told.clone()
        } else {
            let group = registry().resource("", "v1", "events").map_or("", |kind| &*kind.storage_group);
            let ending = uuid::Uuid::new_v4().simple().to_string();
            let name = format!("{}.{}", notice.name, &ending[..16]);
            let key = Key::new(&self.cluster, group, "events", &notice.namespace, &name).ok()?;
            let uid = uuid::Uuid::new_v4().to_string();
            let told = Told { key, uid, first: now.to_owned(), count: 1 };
            self.told.insert(same, told.clone());
            told
        };
        let value = json!({
            "metadata": {
                "name": told.key.parts().name, "namespace": notice.namespace, "uid": told.uid,
                "creationTimestamp": told.first,
            },
            "involvedObject": {
                "apiVersion": "v1", "kind": "Pod", "name": notice.name, "namespace": notice.namespace,
                "uid": notice.uid,
            },
            "reason": notice.reason, "message": notice.message, "type": notice.kind, "count": told.count,
            "firstTimestamp": told.first, "lastTimestamp": now, "eventTime": null,
            "source": { "component": "default-scheduler" },
            "reportingComponent": "default-scheduler", "reportingInstance": "",
        });
        Some(put(&told.key, &value, "", u64::try_from(TTL.as_millis()).unwrap_or(u64::MAX)))
    }
}
