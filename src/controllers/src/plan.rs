//! [`Plan`]: what a reconcile wants done. One plan is one transaction: every write stands on the version it was
//! decided on, so a plan made from an old view is rejected as a whole and never half done.

use std::fmt;

use bytes::Bytes;
pub use quilt_objects::event::{About, Notice, NoticeKind};
use quilt_proto::{Compare, Key, Op, Put, Revision, Txn};
use serde_json::Value;

use crate::fields;
use crate::moment::Moment;
use crate::view::{Loaded, complete};

/// Most objects one plan writes; what is left over is planned next. Keeps a transaction far below the machine's limits
/// (5,000 operations, 1 MiB).
pub const WRITES_MAX: usize = 200;

/// Writes with preconditions, events to tell, and when to look again.
#[derive(Debug, Default)]
pub struct Plan {
    /// Changes, all or none.
    pub writes: Vec<Write>,
    /// Versions the plan relies on without changing them.
    pub relies_on: Vec<(Key, Revision)>,
    /// What to tell people once the writes are done.
    pub notices: Vec<Notice>,
    /// Look at this key again at that time even if nothing changes.
    pub look_again_at: Option<Moment>,
    /// More remains than fits into one plan: come back as soon as the writes are seen.
    pub more: bool,
}

/// One change of one object.
#[derive(Debug)]
pub enum Write {
    /// Makes an object that must not exist.
    Create {
        /// Where.
        key: Key,
        /// The object.
        value: Value,
    },
    /// Replaces the version `at`.
    Update {
        /// Where.
        key: Key,
        /// The version replaced.
        at: Revision,
        /// The object.
        value: Value,
        /// Its sealed part, carried along.
        sealed: Bytes,
    },
    /// Removes the version `at`.
    Delete {
        /// Where.
        key: Key,
        /// The version removed.
        at: Revision,
    },
    /// Takes what is to belong to an object of the same plan (a service address), if nobody has it.
    Claim {
        /// Where.
        key: Key,
        /// Whose it is to be.
        holder: Value,
    },
    /// Gives back what belonged to an object of the same plan (a service address), whatever is there.
    Free {
        /// Where.
        key: Key,
    },
}

impl Plan {
    /// Nothing to do.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Makes `value`, whose name and namespace are those of `key`, with the defaults that a client's object would get.
    pub fn create(&mut self, key: Key, mut value: Value) {
        complete(&key, &mut value);
        self.writes.push(Write::Create { key, value });
    }

    /// Writes a loaded object back, changed.
    pub fn update(&mut self, loaded: Loaded) {
        let Loaded { key, revision, value, sealed } = loaded;
        self.writes.push(Write::Update { key, at: revision, value, sealed });
    }

    /// Removes the version `at` of `key`.
    pub fn delete(&mut self, key: &Key, at: Revision) {
        self.writes.push(Write::Delete { key: key.clone(), at });
    }

    /// The plan holds only while `key` is at `revision`.
    pub fn rely_on(&mut self, key: &Key, revision: Revision) {
        self.relies_on.push((key.clone(), revision));
    }

    /// Tells people.
    pub fn tell(&mut self, about: About, kind: NoticeKind, reason: &'static str, message: String) {
        self.notices.push(Notice { about, kind, reason, message });
    }

    /// Look again no later than `at`.
    pub fn look_again(&mut self, at: Moment) {
        self.look_again_at = Some(self.look_again_at.map_or(at, |known| known.min(at)));
    }

    /// Whether the plan makes objects under generated names. Such a plan must also write its owner: should its fate
    /// stay unknown, the owner's new version is what keeps a second one from making them again.
    #[must_use]
    pub fn makes_something(&self) -> bool {
        self.writes.iter().any(|write| matches!(write, Write::Create { .. }))
    }

    /// Whether the plan has taken all it may; sets [`Plan::more`] if so.
    pub fn is_full(&mut self) -> bool {
        let full = self.writes.len() >= WRITES_MAX;
        self.more |= full;
        full
    }

    /// The plan as one transaction.
    #[must_use]
    pub fn txn(&self) -> Txn {
        let mut compares: Vec<Compare> = self.relies_on.iter().map(|(key, at)| Compare::at(key, *at)).collect();
        let mut ops = Vec::with_capacity(self.writes.len());
        for write in &self.writes {
            match write {
                Write::Create { key, value } => {
                    compares.push(Compare::absent(key));
                    ops.push(put(key, value, Bytes::new(), 0));
                }
                Write::Update { key, at, value, sealed } => {
                    compares.push(Compare::at(key, *at));
                    ops.push(put(key, value, sealed.clone(), 0));
                }
                Write::Delete { key, at } => {
                    compares.push(Compare::at(key, *at));
                    ops.push(Op::delete(key));
                }
                Write::Claim { key, holder } => {
                    compares.push(Compare::absent(key));
                    ops.push(Op::put(key, holder.to_string()));
                }
                Write::Free { key } => ops.push(Op::delete(key)),
            }
        }
        #[cfg(test)]
        crate::reconcile::tests::museum::forget(&mut compares);
        Txn::new(compares, ops)
    }
}

/// The operation that stores `value` at `key`, with the tags by which watchers of a node's Pods are woken.
#[must_use]
pub fn put(key: &Key, value: &Value, sealed: Bytes, ttl_ms: u64) -> Op {
    let encoded = quilt_objects::canonical::encode(value);
    let parts = key.parts();
    let node = fields::text(value, "/spec/nodeName");
    let bound = parts.group.is_empty() && parts.resource == "pods" && !node.is_empty();
    let tags = if bound { vec![Bytes::from(format!("n={node}"))] } else { Vec::new() };
    Op::from(Put { key: key.bytes().clone(), value: encoded.bytes, splice_at: encoded.splice_at, sealed, ttl_ms, tags })
}

/// Plans print like diffs, one line a write, for golden tests and debug logs.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |key: &Key| {
            let parts = key.parts();
            let group = if parts.group.is_empty() { String::new() } else { format!("{}/", parts.group) };
            format!("{group}{} {}/{}", parts.resource, parts.namespace, parts.name)
        };
        for write in &self.writes {
            match write {
                Write::Create { key, .. } | Write::Claim { key, .. } => writeln!(f, "+ {}", place(key))?,
                Write::Update { key, at, value, .. } => {
                    let going = if value.pointer("/metadata/deletionTimestamp").is_some() { " (going)" } else { "" };
                    writeln!(f, "~ {} @{at}{going}", place(key))?;
                }
                Write::Delete { key, at } => writeln!(f, "- {} @{at}", place(key))?,
                Write::Free { key } => writeln!(f, "- {}", place(key))?,
            }
        }
        for notice in &self.notices {
            writeln!(f, "! {} {}: {}", notice.about.name, notice.reason, notice.message)?;
        }
        if let Some(at) = self.look_again_at {
            writeln!(f, "? {}", at.rfc3339())?;
        }
        Ok(())
    }
}

impl Write {
    /// The key this write is about.
    #[must_use]
    pub const fn key(&self) -> &Key {
        match self {
            Self::Create { key, .. }
            | Self::Update { key, .. }
            | Self::Delete { key, .. }
            | Self::Claim { key, .. }
            | Self::Free { key } => key,
        }
    }
}
