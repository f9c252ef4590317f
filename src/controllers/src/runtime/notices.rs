//! Events (kind Event) about what controllers did: told late, bounded, and dropped rather than in the way of real work
//! (architecture D16).

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use quilt_objects::registry::registry;
use quilt_proto::{Key, Op, Txn};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::entropy::Entropy;
use crate::moment::Moment;
use crate::plan::{Notice, NoticeKind, put};

/// Notices waiting to be told; later ones are dropped.
const WAITING_MAX: usize = 1_000;
/// Events in one transaction.
const BATCH: usize = 50;
/// Events a cluster may get at once, and per second after that.
const BURST: u32 = 500;
const PER_SECOND: u32 = 20;
/// Events remembered so that a repetition counts up instead of making another.
const REMEMBERED_MAX: usize = 2_000;
/// How long an Event lives.
const TTL: Duration = Duration::from_secs(3600);

/// The notices of one cluster.
#[derive(Debug)]
pub(super) struct Notices {
    cluster: String,
    waiting: VecDeque<Notice>,
    told: HashMap<(String, &'static str, String), Told>,
    tokens: u32,
    filled: Instant,
    dropped: u64,
}

#[derive(Clone, Debug)]
struct Told {
    key: Key,
    uid: String,
    first: Moment,
    count: u64,
}

impl Notices {
    pub(super) fn new(cluster: &str, now: Instant) -> Self {
        Self {
            cluster: cluster.to_owned(),
            waiting: VecDeque::new(),
            told: HashMap::new(),
            tokens: BURST,
            filled: now,
            dropped: 0,
        }
    }

    /// Tells `notices` when there is room; drops them when too many wait.
    pub(super) fn add(&mut self, notices: Vec<Notice>) {
        for notice in notices {
            if self.waiting.len() >= WAITING_MAX {
                self.dropped += 1;
            } else {
                self.waiting.push_back(notice);
            }
        }
    }

    /// Notices dropped so far.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether [`Notices::batch`] has something now; else when to ask again.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        let seconds = u32::try_from(now.duration_since(self.filled).as_secs()).unwrap_or(u32::MAX);
        if seconds > 0 {
            self.tokens = self.tokens.saturating_add(seconds.saturating_mul(PER_SECOND)).min(BURST);
            self.filled = now;
        }
        !self.waiting.is_empty() && self.tokens > 0
    }

    /// Whether anything waits at all.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The next Events as one transaction.
    pub(super) fn batch(&mut self, now: Moment, entropy: &mut Entropy) -> Txn {
        let mut ops = Vec::new();
        while ops.len() < BATCH && self.tokens > 0 {
            let Some(notice) = self.waiting.pop_front() else { break };
            self.tokens -= 1;
            ops.extend(self.tell(&notice, now, entropy));
        }
        Txn::new(Vec::new(), ops)
    }

    fn tell(&mut self, notice: &Notice, now: Moment, entropy: &mut Entropy) -> Option<Op> {
        let namespace = match notice.about.namespace.as_str() {
            "" => "default",
            namespace => namespace,
        };
        if self.told.len() >= REMEMBERED_MAX {
            self.told.clear();
        }
        let same = (notice.about.uid.clone(), notice.reason, notice.message.clone());
        let told = if let Some(told) = self.told.get_mut(&same) {
            told.count += 1;
            told.clone()
        } else {
            let group = registry().resource("", "v1", "events").map_or("", |kind| &*kind.storage_group);
            let name = format!("{}.{}", notice.about.name, entropy.hex());
            let key = Key::new(&self.cluster, group, "events", namespace, &name).ok()?;
            let told = Told { key, uid: entropy.uid(), first: now, count: 1 };
            self.told.insert(same, told.clone());
            told
        };
        let value = event(notice, namespace, &told, now);
        Some(put(&told.key, &value, Bytes::new(), u64::try_from(TTL.as_millis()).unwrap_or(u64::MAX)))
    }
}

fn event(notice: &Notice, namespace: &str, told: &Told, now: Moment) -> Value {
    let about = &notice.about;
    json!({
        "metadata": {
            "name": told.key.parts().name, "namespace": namespace, "uid": told.uid,
            "creationTimestamp": told.first.rfc3339(),
        },
        "involvedObject": {
            "apiVersion": about.api_version, "kind": about.kind, "name": about.name,
            "namespace": about.namespace, "uid": about.uid,
        },
        "reason": notice.reason, "message": notice.message,
        "type": match notice.kind { NoticeKind::Normal => "Normal", NoticeKind::Warning => "Warning" },
        "count": told.count, "firstTimestamp": told.first.rfc3339(), "lastTimestamp": now.rfc3339(),
        "eventTime": null, "source": { "component": "quilt-controllers" },
        "reportingComponent": "quilt-controllers", "reportingInstance": "",
    })
}
