//! [`Machine`]: applies log entries in order and keeps the small facts that every entry needs in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use quilt_proto::state::MachineState;
use quilt_proto::{Entry, Event, Outcome, RequestId, Revision};

use crate::apply;
use crate::audit::Audit;
use crate::hash::StateHash;
use crate::horizon::Horizon;
use crate::pending::Pending;
use crate::recent::Recent;
use crate::row;
use crate::session::Sessions;
use crate::store::{Family, Step, Store, StoreError, Write};

/// Writes of one batch for which room is kept; more are rare.
const ROOM_WRITES_MAX: usize = 8_192;

/// Place of an entry in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Log index.
    pub index: u64,
    /// Term it was appended in.
    pub term: u64,
    /// Replica that led that term.
    pub leader: u64,
}

/// What an entry carries.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Nothing: a new leader's first entry.
    Blank,
    /// Commands.
    Entry(Entry),
    /// A membership of the agreement layer, opaque here, kept with the state it belongs to.
    Membership(Bytes),
}

/// One committed log entry.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its place.
    pub position: Position,
    /// Its content.
    pub payload: Payload,
}

impl Input {
    const fn entry(&self) -> Option<&Entry> {
        match &self.payload {
            Payload::Entry(entry) => Some(entry),
            Payload::Blank | Payload::Membership(_) => None,
        }
    }
}

/// The outcome of one transaction, addressed to the session that asked.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestOutcome {
    /// Log index of the entry that carried it.
    pub index: u64,
    /// Who asked; `None` for a transaction without request id.
    pub request_id: Option<RequestId>,
    /// What came of it.
    pub outcome: Outcome,
}

/// Everything one call of [`Machine::apply`] did. The rows are already written.
#[derive(Debug, Default)]
pub struct Applied {
    /// One element per transaction, in log order.
    pub outcomes: Vec<RequestOutcome>,
    /// Object changes in revision order.
    pub events: Vec<Arc<Event>>,
    /// Clusters dropped by these entries.
    pub dropped: Vec<String>,
}

/// Why the machine stops. There is no way on: an entry is never skipped.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored or replicated message cannot be read.
    #[error("stored message cannot be decoded: {0}")]
    Decode(#[from] prost::DecodeError),
    /// A rule of the machine itself does not hold.
    #[error("broken invariant: {0}")]
    Broken(&'static str),
    /// An entry does not follow the last applied one.
    #[error("log entry {got} does not follow the last applied entry {last}")]
    Order {
        /// Index of the last applied entry.
        last: u64,
        /// Index that was offered.
        got: u64,
    },
}

/// The facts every command may read and change. Equal to the rows of `Meta` and `Sessions`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Facts {
    pub(crate) revision: Revision,
    pub(crate) cluster_time_ms: u64,
    pub(crate) wall_ms: u64,
    pub(crate) sessions: Sessions,
    pub(crate) floors: Arc<BTreeMap<String, u64>>,
    pub(crate) dropped: Arc<BTreeSet<String>>,
}

/// The replicated state machine over a store.
#[derive(Debug)]
pub struct Machine<S: ?Sized> {
    facts: Facts,
    hash: StateHash,
    live_keys: u64,
    position: Option<Position>,
    membership: Bytes,
    recent: Recent,
    /// Room for the writes of the next batch: made anew each time, it would grow step by step.
    room: Vec<Write>,
    audit: Arc<Audit>,
    store: Arc<S>,
}

impl<S: Store + ?Sized> Machine<S> {
    /// Opens the machine over whatever the store holds.
    ///
    /// # Errors
    /// The store cannot be read or holds something that is not a machine's state.
    pub fn open(store: Arc<S>) -> Result<Self, ApplyError> {
        let row = match store.get(Family::Meta, row::MACHINE)? {
            Some(bytes) => MachineState::decode(bytes)?,
            None => MachineState::default(),
        };
        let (mut floors, mut dropped) = (BTreeMap::new(), BTreeSet::new());
        store.scan(Family::Meta, &[], &[0xff], &mut |key, value| {
            if let (Some(cluster), Ok(floor)) = (row::split_floor(key), value.try_into()) {
                floors.insert(cluster.to_owned(), u64::from_be_bytes(floor));
            } else if let Some(cluster) = row::split_dropped(key) {
                dropped.insert(cluster.to_owned());
            }
            Step::Next
        })?;
        let facts = Facts {
            revision: Revision::new(row.revision),
            cluster_time_ms: row.cluster_time_ms,
            wall_ms: row.wall_ms,
            sessions: Sessions::load(&*store)?,
            floors: Arc::new(floors),
            dropped: Arc::new(dropped),
        };
        let position = (row.applied_index != 0 || row.applied_term != 0 || !row.membership.is_empty())
            .then_some(Position { index: row.applied_index, term: row.applied_term, leader: row.applied_leader });
        let hash = StateHash::from_halves(row.hash_high, row.hash_low);
        let (recent, room, audit) = (Recent::default(), Vec::new(), Arc::default());
        let (live_keys, membership) = (row.live_keys, row.membership);
        Ok(Self { facts, hash, live_keys, position, membership, recent, room, audit, store })
    }

    /// Goes on with the audits of a machine whose state this one's takes the place of.
    #[must_use]
    pub fn with_audit(mut self, audit: Arc<Audit>) -> Self {
        audit.replaced();
        self.audit = audit;
        self
    }

    /// Compares the rows with the hash, piece by piece, whenever somebody reads.
    #[must_use]
    pub const fn audit(&self) -> &Arc<Audit> {
        &self.audit
    }

    /// Keeps at most so many bytes of latest versions in memory. Changes how fast the machine is and nothing it does.
    #[must_use]
    pub fn with_recent_bytes(mut self, bytes_max: usize) -> Self {
        self.recent.limit(bytes_max);
        self
    }

    /// Applies committed entries, in order, as one atomic batch.
    ///
    /// # Errors
    /// The replica must stop; nothing of this call was written, and the machine must not be used again.
    pub fn apply(&mut self, inputs: &[Input]) -> Result<Applied, ApplyError> {
        let store = Arc::clone(&self.store);
        let audit = Arc::clone(&self.audit);
        // Held until the rows are written: a reader sees what its sum is of.
        let mut reader = audit.reader();
        let mut pending = Pending::new(&*store, &self.recent, self.hash, self.live_keys);
        pending.batch.writes = std::mem::take(&mut self.room);
        pending.noted = reader.is_reading().then(Vec::new);
        let mut applied = Applied::default();
        pending.prefetch(inputs.iter().filter_map(Input::entry).flat_map(apply::keys).collect())?;
        for input in inputs {
            if let Some(last) = self.position
                && input.position.index != last.index + 1
            {
                return Err(ApplyError::Order { last: last.index, got: input.position.index });
            }
            self.position = Some(input.position);
            match &input.payload {
                Payload::Blank => {}
                Payload::Membership(bytes) => self.membership = bytes.clone(),
                Payload::Entry(entry) => {
                    apply::entry(&mut self.facts, &mut pending, &mut applied, input.position.index, entry)?;
                }
            }
        }
        self.facts.sessions.write(&mut pending);
        let Pending { mut batch, events, hash, live_keys, heads, noted, .. } = pending;
        for (key, old, new) in noted.unwrap_or_default() {
            reader.changed(&key, old, new);
        }
        self.hash = hash;
        self.live_keys = live_keys;
        batch.put(Family::Meta, row::MACHINE, self.row().encode_to_vec());
        store.write(&batch)?;
        drop(reader);
        self.recent.keep(heads);
        batch.writes.clear();
        batch.writes.shrink_to(ROOM_WRITES_MAX);
        self.room = batch.writes;
        applied.events = events;
        Ok(applied)
    }

    fn row(&self) -> MachineState {
        let (hash_high, hash_low) = self.hash.halves();
        let position = self.position.unwrap_or_default();
        MachineState {
            revision: self.facts.revision.get(),
            cluster_time_ms: self.facts.cluster_time_ms,
            wall_ms: self.facts.wall_ms,
            hash_high,
            hash_low,
            applied_index: position.index,
            applied_term: position.term,
            applied_leader: position.leader,
            membership: self.membership.clone(),
            live_keys: self.live_keys,
        }
    }

    /// Position of the last applied entry; `None` before the first.
    #[must_use]
    pub const fn position(&self) -> Option<Position> {
        self.position
    }

    /// The membership last applied, as it was given; empty before the first.
    #[must_use]
    pub const fn membership(&self) -> &Bytes {
        &self.membership
    }

    /// Hash of live rows.
    #[must_use]
    pub const fn hash(&self) -> StateHash {
        self.hash
    }

    /// Keys that are there, expired ones that were not swept yet included.
    #[must_use]
    pub const fn live_keys(&self) -> u64 {
        self.live_keys
    }

    /// What readers must know besides the rows.
    #[must_use]
    pub fn horizon(&self) -> Horizon {
        Horizon {
            revision: self.facts.revision,
            cluster_time_ms: self.facts.cluster_time_ms,
            wall_ms: self.facts.wall_ms,
            applied_index: self.position.unwrap_or_default().index,
            floors: Arc::clone(&self.facts.floors),
            dropped: Arc::clone(&self.facts.dropped),
            replicas: Arc::clone(self.facts.sessions.replicas()),
        }
    }

    /// The recorded outcome of a request, for an owner that did not see its entry applied.
    #[must_use]
    pub fn outcome(&self, request_id: RequestId) -> Option<Outcome> {
        self.facts.sessions.outcome(request_id.session, request_id.sequence).cloned()
    }

    /// Whether a session is registered and not closed.
    #[must_use]
    pub fn session_is_open(&self, session: u64) -> bool {
        self.facts.sessions.is_open(session)
    }

    /// The store the machine writes to.
    #[must_use]
    pub const fn store(&self) -> &Arc<S> {
        &self.store
    }
}

/// The machine's position as it would be found after a crash now: the log must be kept from there on.
///
/// # Errors
/// The store cannot be read, or its row is malformed.
pub fn persisted_position<S: Store + ?Sized>(store: &S) -> Result<Option<Position>, ApplyError> {
    match store.persisted(Family::Meta, row::MACHINE)? {
        Some(bytes) => {
            let row = MachineState::decode(bytes)?;
            Ok(Some(Position { index: row.applied_index, term: row.applied_term, leader: row.applied_leader }))
        }
        None => Ok(None),
    }
}
