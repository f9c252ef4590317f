//! Exactly-once memory: sessions and the outcomes their owners may still ask for (architecture D10).
//!
//! A session is one incarnation of a replica. Outcomes are kept from the acknowledged prefix upwards, so memory is
//! proportional to what is in flight and needs no clock (Raft dissertation, section 6.3).
//!
//! Outcomes of neighbouring sequences share a row, and rows are written once for all entries applied together: an
//! outcome of its own row, written and soon deleted, would cost the store as much as the object it is about. What a row
//! holds depends only on the entries up to there, not on which of them were applied together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use quilt_proto::Outcome;
use quilt_proto::state::{NumberedOutcome, Outcomes, Session};

use crate::hash::StateHash;
use crate::machine::ApplyError;
use crate::pending::Pending;
use crate::row;
use crate::store::{Family, Step, Store};

/// Sequences whose outcomes share a row. Never changed: it is on disk.
const CHUNK: u64 = 64;

/// Outcomes of one row.
#[derive(Clone, Debug, Default, PartialEq)]
struct Chunk {
    outcomes: BTreeMap<u64, Outcome>,
    /// Hash of the row as it is stored.
    stored: Option<StateHash>,
}

/// One session in memory; equal to its rows once they are written.
#[derive(Clone, Debug, Default, PartialEq)]
struct Open {
    session: Session,
    /// Hash of the row as it is stored.
    stored: Option<StateHash>,
    chunks: BTreeMap<u64, Chunk>,
}

/// What the table says about a request id.
pub(crate) enum Seen<'a> {
    /// Not yet answered.
    New,
    /// Answered before, with this.
    Answered(&'a Outcome),
    /// Its session is closed, or the owner has acknowledged it: the owner is not asking any more.
    Gone,
}

/// All open sessions.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sessions {
    open: BTreeMap<u64, Open>,
    /// Replicas that have a session: those that have ever been at work.
    replicas: Arc<BTreeSet<u64>>,
    /// Rows that differ from what is stored: of a session (`None`) and of its chunks.
    changed: BTreeSet<(u64, Option<u64>)>,
}

impl Sessions {
    pub(crate) fn load<S: Store + ?Sized>(store: &S) -> Result<Self, ApplyError> {
        let mut rows = Vec::new();
        store.scan(Family::Sessions, &[], &[0xff; 17], &mut |key, value| {
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            Step::Next
        })?;
        let mut sessions = Self::default();
        for (key, value) in rows {
            let stored = Some(StateHash::of(Family::Sessions, &key, &value));
            match row::split_session(&key) {
                Some((id, None)) => {
                    let open = sessions.open.entry(id).or_default();
                    (open.session, open.stored) = (Session::decode(value)?, stored);
                }
                Some((id, Some(chunk))) => {
                    let outcomes = Outcomes::decode(value)?.outcomes.into_iter();
                    let outcomes =
                        outcomes.map(|numbered| (numbered.sequence, numbered.outcome.unwrap_or_default())).collect();
                    let open = sessions.open.entry(id).or_default();
                    open.chunks.insert(chunk, Chunk { outcomes, stored });
                }
                None => return Err(ApplyError::Broken("a session row has a malformed key")),
            }
        }
        sessions.replicas = Arc::new(sessions.open.values().map(|open| open.session.replica).collect());
        Ok(sessions)
    }

    pub(crate) const fn replicas(&self) -> &Arc<BTreeSet<u64>> {
        &self.replicas
    }

    pub(crate) fn seen(&self, session: u64, sequence: u64) -> Seen<'_> {
        match self.open.get(&session) {
            Some(open) if sequence >= open.session.answered_below => {
                open.outcome(sequence).map_or(Seen::New, Seen::Answered)
            }
            _ => Seen::Gone,
        }
    }

    pub(crate) fn record(&mut self, session: u64, sequence: u64, outcome: &Outcome) {
        if let Some(open) = self.open.get_mut(&session) {
            let chunk = sequence / CHUNK;
            open.chunks.entry(chunk).or_default().outcomes.insert(sequence, outcome.clone());
            self.changed.insert((session, Some(chunk)));
        }
    }

    /// Opens `session` for `replica` and closes the replica's earlier sessions. Repeating it changes nothing.
    pub(crate) fn register<S: Store + ?Sized>(&mut self, pending: &mut Pending<'_, S>, session: u64, replica: u64) {
        if self.open.contains_key(&session) {
            return;
        }
        let earlier: Vec<u64> =
            self.open.iter().filter(|(_, open)| open.session.replica == replica).map(|(id, _)| *id).collect();
        for id in earlier {
            if let Some(open) = self.open.remove(&id) {
                pending.delete_live(Family::Sessions, row::session(id), open.stored);
                for (chunk, Chunk { stored, .. }) in open.chunks {
                    pending.delete_live(Family::Sessions, row::outcomes(id, chunk), stored);
                }
            }
        }
        if !self.replicas.contains(&replica) {
            Arc::make_mut(&mut self.replicas).insert(replica);
        }
        let row = Session { replica, answered_below: 0 };
        self.open.insert(session, Open { session: row, ..Open::default() });
        self.changed.insert((session, None));
    }

    /// Forgets outcomes below `answered_below`, row by row: one that holds later ones too stays as it is.
    pub(crate) fn acknowledge<S: Store + ?Sized>(
        &mut self,
        pending: &mut Pending<'_, S>,
        session: u64,
        answered_below: u64,
    ) {
        let Some(open) = self.open.get_mut(&session) else { return };
        if answered_below <= open.session.answered_below {
            return;
        }
        open.session.answered_below = answered_below;
        self.changed.insert((session, None));
        let kept = open.chunks.split_off(&(answered_below / CHUNK));
        for (chunk, Chunk { stored, .. }) in std::mem::replace(&mut open.chunks, kept) {
            pending.delete_live(Family::Sessions, row::outcomes(session, chunk), stored);
        }
    }

    /// Writes every row that has changed.
    pub(crate) fn write<S: Store + ?Sized>(&mut self, pending: &mut Pending<'_, S>) {
        for (session, chunk) in std::mem::take(&mut self.changed) {
            // What was closed or forgotten meanwhile has been deleted.
            let Some(open) = self.open.get_mut(&session) else { continue };
            match chunk {
                None => {
                    let value = open.session.encode_to_vec();
                    pending.put_live(Family::Sessions, row::session(session), &mut open.stored, value.into());
                }
                Some(number) => {
                    let Some(chunk) = open.chunks.get_mut(&number) else { continue };
                    let numbered = |(sequence, outcome): (&u64, &Outcome)| NumberedOutcome {
                        sequence: *sequence,
                        outcome: Some(outcome.clone()),
                    };
                    let value = Outcomes { outcomes: chunk.outcomes.iter().map(numbered).collect() }.encode_to_vec();
                    let key = row::outcomes(session, number);
                    pending.put_live(Family::Sessions, key, &mut chunk.stored, value.into());
                }
            }
        }
    }

    /// The stored outcome of one request, for an owner that missed the entry itself (snapshot install).
    pub(crate) fn outcome(&self, session: u64, sequence: u64) -> Option<&Outcome> {
        self.open.get(&session).and_then(|open| open.outcome(sequence))
    }

    /// Whether `session` is open.
    pub(crate) fn is_open(&self, session: u64) -> bool {
        self.open.contains_key(&session)
    }
}

impl Open {
    fn outcome(&self, sequence: u64) -> Option<&Outcome> {
        self.chunks.get(&(sequence / CHUNK))?.outcomes.get(&sequence)
    }
}
