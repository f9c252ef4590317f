//! [`Sight`]: one thing that happened, as the invariants see it. Values only.

use bytes::Bytes;
use quilt_proto::Event;
use quilt_proto::state::ChangeKind;
use quilt_storage::{Bounds, LogRecord};

/// What happened to one key at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    /// The key, encoded.
    pub(crate) key: Bytes,
    /// Its new value; `None` when it was deleted.
    pub(crate) value: Option<Bytes>,
    /// Cluster time at which it expires; 0 = never.
    pub(crate) expires_ms: u64,
    /// Created, updated or deleted.
    pub(crate) kind: ChangeKind,
    /// Revision of the version this one replaced; 0 = none.
    pub(crate) previous: u64,
    /// Last revision of its transaction.
    pub(crate) txn_end: u64,
}

/// The state right behind one apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Index of the last entry.
    pub(crate) index: u64,
    /// Its term.
    pub(crate) term: u64,
    /// The newest revision.
    pub(crate) revision: u64,
    /// Cluster time.
    pub(crate) cluster_ms: u64,
    /// Hash of live rows.
    pub(crate) hash: (u64, u64),
}

/// How a client's transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Done; the first and last revision.
    Applied(u64, u64),
    /// A compare failed.
    Rejected,
    /// Proven without effect.
    NotApplied,
    /// Nobody can tell, or the replica that was asked is gone.
    Unknown,
}

impl Ended {
    /// As numbers: which way, and the revisions.
    pub(crate) const fn numbers(&self) -> (u64, u64, u64) {
        match self {
            Self::Applied(first, last) => (1, *first, *last),
            Self::Rejected => (2, 0, 0),
            Self::NotApplied => (3, 0, 0),
            Self::Unknown => (4, 0, 0),
        }
    }
}

/// One write of a client's transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrote {
    /// The key, encoded.
    pub(crate) key: Bytes,
    /// The value, of which there is no second; `None` for a delete.
    pub(crate) value: Option<Bytes>,
    /// The revision the key had to be at; 0 = absent; `None` = any.
    pub(crate) expected: Option<u64>,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub(crate) enum Sight<'a> {
    /// A replica starts from what its disk holds.
    Booted {
        /// Which.
        replica: u64,
        /// The vote found: term, candidate, whether it leads.
        vote: Option<(u64, u64, bool)>,
        /// The ends of the log found.
        bounds: Bounds,
        /// Index and term of its entries.
        log: &'a [(u64, u64)],
        /// The state found.
        mark: Option<Mark>,
    },
    /// A replica saves a vote.
    Voted {
        /// Which.
        replica: u64,
        /// Of which term.
        term: u64,
        /// For whom.
        candidate: u64,
        /// Whether that one leads.
        leads: bool,
    },
    /// A replica may answer with a vote: its log says that it is durable.
    Promised {
        /// Which.
        replica: u64,
        /// Of which term.
        term: u64,
        /// For whom.
        candidate: u64,
    },
    /// A replica appends to its log.
    Appended {
        /// Which.
        replica: u64,
        /// Index and term of the entry before.
        before: Option<(u64, u64)>,
        /// The entries.
        records: &'a [LogRecord],
    },
    /// A replica removes the end of its log.
    Truncated {
        /// Which.
        replica: u64,
        /// The last index that stays.
        after: Option<u64>,
    },
    /// A replica lets go of the beginning of its log.
    Purged {
        /// Which.
        replica: u64,
        /// The last index that goes.
        upto: u64,
        /// Where the newest snapshot ends.
        covered: Option<u64>,
    },
    /// Entries became durable on a replica.
    Synced {
        /// Which.
        replica: u64,
        /// Index and term of the last entry that is durable.
        last: Option<(u64, u64)>,
    },
    /// A replica has applied entries, with this the state behind the last of them.
    Applied {
        /// Which.
        replica: u64,
        /// The state behind.
        mark: Mark,
        /// The changes, by revision.
        changes: &'a [(u64, Changed)],
        /// The voters in force: one set, or two during a change of them.
        voters: &'a [Vec<u64>],
    },
    /// A replica has put a snapshot in the place of its state.
    Installed {
        /// Which.
        replica: u64,
        /// The state it holds.
        mark: Mark,
    },
    /// A client begins a transaction.
    Asked {
        /// Its number.
        request: u64,
        /// What it writes.
        writes: &'a [Wrote],
    },
    /// A client has its answer.
    Answered {
        /// Its number.
        request: u64,
        /// The answer.
        ended: Ended,
    },
    /// A linearizable read begins.
    ReadBegan {
        /// Its number.
        read: u64,
    },
    /// A read has its answer.
    ReadEnded {
        /// Its number; `None` for one that may be stale.
        read: Option<u64>,
        /// The replica asked.
        replica: u64,
        /// The revision of the view.
        revision: u64,
        /// What was read: keys and the values found.
        found: &'a [(Bytes, Option<Bytes>)],
        /// The same, asked for at that revision.
        written: &'a [(Bytes, Option<Bytes>)],
    },
    /// A watch gives events.
    Delivered {
        /// The prefix watched.
        prefix: &'a [u8],
        /// The replica asked.
        replica: u64,
        /// Where the watch stood.
        from: u64,
        /// The events.
        events: &'a [std::sync::Arc<Event>],
        /// Up to where everything is delivered now.
        upto: u64,
    },
    /// A watch says how far it has come without events.
    Idle {
        /// The prefix watched.
        prefix: &'a [u8],
        /// The replica asked.
        replica: u64,
        /// Behind the last delivery.
        from: u64,
        /// The bookmark.
        upto: u64,
    },
    /// An operator lets go of history.
    Compacting {
        /// Up to this revision.
        floor: u64,
    },
    /// A watch was refused because history is gone.
    Refused {
        /// The replica asked.
        replica: u64,
        /// Where it wanted to begin.
        from: u64,
        /// The floor named.
        floor: u64,
    },
}
