//! Exactly-once memory: sessions and the outcomes their owners may still ask for (architecture D10).
//!
//! A session is one incarnation of a replica. Outcomes are kept from the acknowledged prefix upwards, so memory is
//! proportional to what is in flight and needs no clock (Raft dissertation, section 6.3).

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use quilt_proto::Outcome;
use quilt_proto::state::Session;

use crate::machine::ApplyError;
use crate::pending::Pending;
use crate::row;
use crate::store::{Family, Step, Store};

/// One session in memory, equal to its rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Open {
    pub(crate) session: Session,
    pub(crate) outcomes: BTreeMap<u64, Outcome>,
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
pub(crate) struct Sessions(BTreeMap<u64, Open>);

impl Sessions {
    pub(crate) fn load<S: Store + ?Sized>(store: &S) -> Result<Self, ApplyError> {
        let mut rows = Vec::new();
        store.scan(Family::Sessions, &[], &[0xff; 17], &mut |key, value| {
            rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            Step::Next
        })?;
        let mut sessions = Self::default();
        for (key, value) in rows {
            match row::split_session(&key) {
                Some((id, None)) => sessions.0.entry(id).or_default().session = Session::decode(value)?,
                Some((id, Some(sequence))) => {
                    sessions.0.entry(id).or_default().outcomes.insert(sequence, Outcome::decode(value)?);
                }
                None => return Err(ApplyError::Broken("a session row has a malformed key")),
            }
        }
        Ok(sessions)
    }

    pub(crate) fn seen(&self, session: u64, sequence: u64) -> Seen<'_> {
        match self.0.get(&session) {
            Some(open) if sequence >= open.session.answered_below => {
                open.outcomes.get(&sequence).map_or(Seen::New, Seen::Answered)
            }
            _ => Seen::Gone,
        }
    }

    pub(crate) fn record<S: Store + ?Sized>(
        &mut self,
        pending: &mut Pending<'_, S>,
        session: u64,
        sequence: u64,
        outcome: &Outcome,
    ) {
        if let Some(open) = self.0.get_mut(&session) {
            let bytes = Bytes::from(outcome.encode_to_vec());
            pending.put_live(Family::Sessions, row::outcome(session, sequence), None, bytes);
            open.outcomes.insert(sequence, outcome.clone());
        }
    }

    /// Opens `session` for `replica` and closes the replica's earlier sessions. Repeating it changes nothing.
    pub(crate) fn register<S: Store + ?Sized>(&mut self, pending: &mut Pending<'_, S>, session: u64, replica: u64) {
        if self.0.contains_key(&session) {
            return;
        }
        let earlier: Vec<u64> =
            self.0.iter().filter(|(_, open)| open.session.replica == replica).map(|(id, _)| *id).collect();
        for id in earlier {
            if let Some(open) = self.0.remove(&id) {
                pending.delete_live(Family::Sessions, row::session(id), &open.session.encode_to_vec());
                for (sequence, outcome) in &open.outcomes {
                    pending.delete_live(Family::Sessions, row::outcome(id, *sequence), &outcome.encode_to_vec());
                }
            }
        }
        let row = Session { replica, answered_below: 0 };
        pending.put_live(Family::Sessions, row::session(session), None, row.encode_to_vec().into());
        self.0.insert(session, Open { session: row, outcomes: BTreeMap::new() });
    }

    /// Forgets outcomes below `answered_below`.
    pub(crate) fn acknowledge<S: Store + ?Sized>(
        &mut self,
        pending: &mut Pending<'_, S>,
        session: u64,
        answered_below: u64,
    ) {
        let Some(open) = self.0.get_mut(&session) else { return };
        if answered_below <= open.session.answered_below {
            return;
        }
        let old = open.session.encode_to_vec();
        open.session.answered_below = answered_below;
        pending.put_live(Family::Sessions, row::session(session), Some(&old), open.session.encode_to_vec().into());
        let kept = open.outcomes.split_off(&answered_below);
        for (sequence, outcome) in std::mem::replace(&mut open.outcomes, kept) {
            pending.delete_live(Family::Sessions, row::outcome(session, sequence), &outcome.encode_to_vec());
        }
    }

    /// The stored outcome of one request, for an owner that missed the entry itself (snapshot install).
    pub(crate) fn outcome(&self, session: u64, sequence: u64) -> Option<&Outcome> {
        self.0.get(&session).and_then(|open| open.outcomes.get(&sequence))
    }

    /// Whether `session` is open.
    pub(crate) fn is_open(&self, session: u64) -> bool {
        self.0.contains_key(&session)
    }
}
