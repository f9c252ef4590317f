//! Events (kind Event): what components tell people about objects. [`Recorder`] is their queue: late rather than in the
//! way, bounded, and dropped when there is too much to tell (architecture D16).

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use quilt_proto::{Key, Op, Put, Txn};
use serde_json::{Value, json};

use crate::canonical;
use crate::place;
use crate::registry::registry;

/// Notices waiting to be told; later ones are dropped.
pub const WAITING_MAX: usize = 1_000;
/// Bytes of Events in one transaction: what a write of weight may have to wait for.
pub const BATCH_BYTES_MAX: usize = 32 << 10;
/// Bytes of Events one component may write about a cluster at once, and per second after that: some 20 Events a second.
const BURST_BYTES: u64 = 256 << 10;
const BYTES_PER_SECOND: u64 = 16 << 10;
/// Events remembered so that a repetition counts up instead of making another.
const REMEMBERED_MAX: usize = 2_000;
/// How long an Event lives.
const TTL_MS: u64 = 3_600_000;
/// Longest message; what is longer is cut.
const MESSAGE_BYTES_MAX: usize = 1_024;

/// Something to tell people about an object: becomes a v1 Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The object it is about.
    pub about: About,
    /// Normal or Warning.
    pub kind: NoticeKind,
    /// Short CamelCase reason.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// Reasons that nodes give for what they tell of their Pods, as kubelets do.
const REASONS_OF_NODES: [&str; 6] = ["Created", "Started", "Killing", "BackOff", "Unhealthy", "Failed"];

impl Notice {
    /// What a node tells of a Pod: `{"namespace", "name", "uid", "type", "reason", "message"}`, all of them text.
    ///
    /// # Errors
    /// The field that is missing, or says what nodes do not say.
    pub fn of_node(told: &Value) -> Result<Self, &'static str> {
        let text = |field: &'static str| place::text(told, &[field]).filter(|text| !text.is_empty()).ok_or(field);
        let reason = text("reason")?;
        Ok(Self {
            about: About::pod(text("namespace")?, text("name")?, text("uid")?),
            kind: match text("type")? {
                "Normal" => NoticeKind::Normal,
                "Warning" => NoticeKind::Warning,
                _ => return Err("type"),
            },
            reason: REASONS_OF_NODES.into_iter().find(|known| *known == reason).ok_or("reason")?,
            message: text("message")?.to_owned(),
        })
    }
}

/// Whether a notice tells of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// Things go their way.
    Normal,
    /// Somebody may want to look.
    Warning,
}

impl NoticeKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// The object a notice is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Group and version, such as `apps/v1`.
    pub api_version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
}

impl About {
    /// About the object `value` of the given kind.
    #[must_use]
    pub fn of(api_version: &'static str, kind: &'static str, value: &Value) -> Self {
        let of = |field| place::text_or_empty(value, &["metadata", field]).to_owned();
        Self { api_version, kind, namespace: of("namespace"), name: of("name"), uid: of("uid") }
    }

    /// About a Pod.
    #[must_use]
    pub fn pod(namespace: &str, name: &str, uid: &str) -> Self {
        let (namespace, name, uid) = (namespace.to_owned(), name.to_owned(), uid.to_owned());
        Self { api_version: "v1", kind: "Pod", namespace, name, uid }
    }
}

/// An Event that was written: its repetitions count up.
#[derive(Clone, Debug)]
struct Told {
    key: Key,
    uid: String,
    first: String,
    count: u64,
}

/// What one component has to tell about the objects of one cluster.
#[derive(Debug)]
pub struct Recorder {
    cluster: String,
    component: &'static str,
    waiting: VecDeque<Notice>,
    told: HashMap<(String, &'static str, String), Told>,
    /// Bytes that may be written, as of `counted_ms`; below zero after a last Event that was larger than what was left.
    allowance: i64,
    counted_ms: Option<u64>,
    dropped: u64,
}

impl Recorder {
    /// A recorder for `component`, the name Events are reported under.
    #[must_use]
    pub fn new(cluster: &str, component: &'static str) -> Self {
        Self {
            cluster: cluster.to_owned(),
            component,
            waiting: VecDeque::new(),
            told: HashMap::new(),
            allowance: i64::try_from(BURST_BYTES).unwrap_or(i64::MAX),
            counted_ms: None,
            dropped: 0,
        }
    }

    /// Tells `notice` when there is room; drops it when too many wait.
    pub fn add(&mut self, mut notice: Notice) {
        if self.waiting.len() >= WAITING_MAX {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        let end = notice.message.floor_char_boundary(MESSAGE_BYTES_MAX);
        notice.message.truncate(end);
        self.waiting.push_back(notice);
    }

    /// Notices dropped so far.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// When there is something to write: a time of the same clock as `now_ms`, any that only goes forward.
    pub fn due_ms(&mut self, now_ms: u64) -> Option<u64> {
        if self.waiting.is_empty() {
            return None;
        }
        self.count_up(now_ms);
        let owed = u64::try_from(1_i64.saturating_sub(self.allowance)).unwrap_or(0);
        Some(now_ms.saturating_add(owed.saturating_mul(1_000).div_ceil(BYTES_PER_SECOND)))
    }

    fn count_up(&mut self, now_ms: u64) {
        let earned = now_ms.saturating_sub(self.counted_ms.unwrap_or(now_ms)).saturating_mul(BYTES_PER_SECOND) / 1_000;
        // Time too short to earn a byte is not thrown away.
        if earned > 0 || self.counted_ms.is_none() {
            self.counted_ms = Some(now_ms);
            let burst = i64::try_from(BURST_BYTES).unwrap_or(i64::MAX);
            self.allowance = self.allowance.saturating_add_unsigned(earned).min(burst);
        }
    }

    /// The next Events as one transaction, if any are due. `wall_ms` is the time they tell; `draw` gives 128 random bits.
    pub fn batch(&mut self, now_ms: u64, wall_ms: u64, draw: &mut dyn FnMut() -> u128) -> Option<Txn> {
        if self.due_ms(now_ms)? > now_ms {
            return None;
        }
        let now = rfc3339(wall_ms);
        let (mut ops, mut bytes) = (Vec::new(), 0_usize);
        while self.allowance > 0
            && bytes < BATCH_BYTES_MAX
            && let Some(notice) = self.waiting.pop_front()
        {
            let Some((op, size)) = self.tell(&notice, &now, draw) else { continue };
            bytes = bytes.saturating_add(size);
            self.allowance = self.allowance.saturating_sub(i64::try_from(size).unwrap_or(i64::MAX));
            ops.push(op);
        }
        (!ops.is_empty()).then(|| Txn::new(Vec::new(), ops))
    }

    fn tell(&mut self, notice: &Notice, now: &str, draw: &mut dyn FnMut() -> u128) -> Option<(Op, usize)> {
        let namespace = match notice.about.namespace.as_str() {
            "" => "default",
            namespace => namespace,
        };
        if self.told.len() >= REMEMBERED_MAX {
            self.told.clear();
        }
        let same = (notice.about.uid.clone(), notice.reason, notice.message.clone());
        let told = match self.told.get_mut(&same) {
            Some(told) => {
                told.count = told.count.saturating_add(1);
                told.clone()
            }
            None => {
                let group = registry().resource("", "v1", "events").map_or("", |kind| &*kind.storage_group);
                let name = format!("{}.{:016x}", notice.about.name, draw() & u128::from(u64::MAX));
                let key = Key::new(&self.cluster, group, "events", namespace, &name).ok()?;
                let told = Told { key, uid: uid(draw()), first: now.to_owned(), count: 1 };
                self.told.insert(same, told.clone());
                told
            }
        };
        let encoded = canonical::encode(&event(notice, namespace, &told, now, self.component));
        let size = encoded.bytes.len();
        let put = Put {
            key: told.key.bytes().clone(),
            value: encoded.bytes,
            splice_at: encoded.splice_at,
            sealed: Bytes::new(),
            ttl_ms: TTL_MS,
            tags: Vec::new(),
        };
        Some((Op::from(put), size))
    }
}

/// The Event as stored.
fn event(notice: &Notice, namespace: &str, told: &Told, now: &str, component: &str) -> Value {
    let about = &notice.about;
    json!({
        "metadata": {
            "name": told.key.parts().name, "namespace": namespace, "uid": told.uid, "creationTimestamp": told.first,
        },
        "involvedObject": {
            "apiVersion": about.api_version, "kind": about.kind, "name": about.name,
            "namespace": about.namespace, "uid": about.uid,
        },
        "reason": notice.reason, "message": notice.message, "type": notice.kind.name(), "count": told.count,
        "firstTimestamp": told.first, "lastTimestamp": now, "eventTime": null,
        "source": { "component": component }, "reportingComponent": component, "reportingInstance": "",
    })
}

/// A version 4 UUID as text.
fn uid(bits: u128) -> String {
    let part = |shift: u32, mask: u128| (bits >> shift) & mask;
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        part(96, 0xffff_ffff),
        part(80, 0xffff),
        part(64, 0xfff),
        part(48, 0x3fff) | 0x8000,
        part(0, 0xffff_ffff_ffff)
    )
}

/// As Kubernetes writes times: whole seconds, UTC.
fn rfc3339(wall_ms: u64) -> String {
    let seconds = i64::try_from(wall_ms / 1_000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map(|at| at.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_767_866_400_000;

    fn notice(pod: &str, message: &str) -> Notice {
        let about = About::pod("", pod, "u-1");
        Notice { about, kind: NoticeKind::Warning, reason: "FailedScheduling", message: message.to_owned() }
    }

    fn values(txn: &Txn) -> Vec<Value> {
        let values = txn.ops.iter().map(|op| match &op.kind {
            Some(quilt_proto::op::Kind::Put(put)) => serde_json::from_slice(&put.value).expect("json"),
            _ => panic!("an Event is put"),
        });
        values.collect()
    }

    /// A repetition counts up in the same Event; another message makes another.
    #[test]
    fn repetitions_count_up() {
        let mut recorder = Recorder::new("c", "default-scheduler");
        let mut bits = 0_u128;
        let mut draw = || {
            bits += 1;
            bits << 64 | bits
        };
        for message in ["no node", "no node", "too small"] {
            recorder.add(notice("a", message));
        }
        assert_eq!(recorder.due_ms(5), Some(5));
        let told = values(&recorder.batch(5, NOW, &mut draw).expect("due"));
        assert_eq!(told.len(), 3);
        assert_eq!(told[0]["metadata"]["name"], told[1]["metadata"]["name"]);
        assert_eq!((&told[0]["count"], &told[1]["count"], &told[2]["count"]), (&json!(1), &json!(2), &json!(1)));
        assert_ne!(told[0]["metadata"]["name"], told[2]["metadata"]["name"]);
        assert_eq!(told[2]["metadata"]["namespace"], "default");
        assert_eq!(told[2]["lastTimestamp"], "2026-01-08T10:00:00Z");
        let uid = told[0]["metadata"]["uid"].as_str().expect("text");
        assert_eq!((uid.len(), uid.split('-').count()), (36, 5), "{uid}");
        assert_eq!(recorder.due_ms(5), None);
    }

    /// What a node tells is taken whole or not at all, and only in the words that nodes have.
    #[test]
    fn nodes_tell_of_pods() {
        let told =
            json!({"namespace": "d", "name": "p", "uid": "u", "type": "Warning", "reason": "BackOff", "message": "m"});
        let notice = Notice::of_node(&told).expect("a notice");
        assert_eq!(
            (notice.about, notice.kind, notice.reason),
            (About::pod("d", "p", "u"), NoticeKind::Warning, "BackOff")
        );
        for (field, value) in [
            ("uid", json!("")),
            ("name", json!(1)),
            ("type", json!("Bad")),
            ("reason", json!("Scheduled")),
            ("message", json!(null)),
        ] {
            let mut wrong = told.clone();
            wrong[field] = value;
            assert_eq!(Notice::of_node(&wrong), Err(field));
        }
    }

    /// More than the budget waits for its time, one transaction stays small, and what is too much is dropped and counted.
    #[test]
    fn too_much_to_tell_is_late_and_then_dropped() {
        let mut recorder = Recorder::new("c", "default-scheduler");
        let mut draw = || 7;
        for at in 0..WAITING_MAX + 3 {
            recorder.add(notice(&format!("p{at}"), &"é".repeat(2_000)));
        }
        assert_eq!(recorder.dropped(), 3);
        let mut written = 0;
        while let Some(txn) = recorder.batch(5, NOW, &mut draw) {
            let bytes: usize = values(&txn).iter().map(|value| value.to_string().len()).sum();
            assert!(bytes < BATCH_BYTES_MAX + 2 * MESSAGE_BYTES_MAX, "{bytes}");
            written += bytes as u64;
        }
        assert!((BURST_BYTES - 1..BURST_BYTES + 4_096).contains(&written), "{written}");
        let due = recorder.due_ms(5).expect("much waits");
        assert!((6..1_005).contains(&due), "{due}");
        assert!(recorder.batch(due - 1, NOW, &mut draw).is_none());
        assert!(recorder.batch(due, NOW, &mut draw).is_some());
    }
}
