//! [`Audit`]: recomputes the hash of live rows piece by piece while entries are applied, and compares it with the one that
//! apply keeps.
//!
//! The hash is a sum, so the rows need not be read at one moment: what changes behind the reader is added to and taken
//! from its sum as apply changes it. A piece is read between two applies, never during one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use prost::Message;
use quilt_proto::Revision;
use quilt_proto::state::MachineState;

use crate::hash::StateHash;
use crate::machine::ApplyError;
use crate::row;
use crate::store::{Family, Step, Store};

/// How far one audit of a state has come. Shared by the machine and whoever reads.
#[derive(Debug, Default)]
pub struct Audit {
    reader: Mutex<Reader>,
}

#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// The last row of `Versions` that was read; nothing between two audits.
    at: Option<Bytes>,
    sum: StateHash,
    rows: u64,
    /// Counts states that took the place of another: an audit of one says nothing about the next.
    states: u64,
    /// The state that this audit is about.
    state: u64,
}

/// What an audit found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audited {
    /// Rows that were read, of those the hash is about.
    pub rows: u64,
    /// Revision at which it came to its end.
    pub revision: Revision,
    /// Log entry at which it did.
    pub applied_index: u64,
    /// The hash that apply keeps.
    pub kept: StateHash,
    /// The hash of the rows.
    pub found: StateHash,
}

/// What one step of an audit came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stride {
    /// Rows are left.
    More,
    /// All rows were read.
    Done(Audited),
    /// Another state has come in the place of the one that was being read: begin anew.
    Replaced,
}

impl Audit {
    pub(crate) fn reader(&self) -> MutexGuard<'_, Reader> {
        // A panic while it was held has stopped the machine anyway.
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another state is behind the machine from here on.
    pub(crate) fn replaced(&self) {
        self.reader().states += 1;
    }

    /// Reads on, about so many bytes. The first call, and the one after the last, begins an audit.
    ///
    /// # Errors
    /// The store cannot be read, or a row is malformed.
    pub fn step<S: Store + ?Sized>(&self, store: &S, bytes_max: usize) -> Result<Stride, ApplyError> {
        let mut reader = self.reader();
        if reader.at.is_some() && reader.state != reader.states {
            reader.begin();
            return Ok(Stride::Replaced);
        }
        if reader.at.is_none() {
            reader.begin();
            reader.at = Some(Bytes::new());
        }
        if reader.versions(store, bytes_max)? {
            return Ok(Stride::More);
        }
        let audited = reader.end(store)?;
        reader.begin();
        Ok(Stride::Done(audited))
    }
}

impl Reader {
    fn begin(&mut self) {
        let states = self.states;
        *self = Self { states, state: states, ..Self::default() };
    }

    /// Whether apply has to tell what it changes.
    pub(crate) const fn is_reading(&self) -> bool {
        self.at.is_some()
    }

    /// Apply has changed a key's latest version: what is behind the reader changes its sum.
    pub(crate) fn changed(&mut self, key: &[u8], old: StateHash, new: StateHash) {
        let passed = self.at.as_ref().and_then(|at| row::split_version(at)).is_some_and(|(at, _)| key <= at);
        if passed {
            self.sum.replace(Some(old), new);
        }
    }

    /// Reads on in `Versions`; says whether more is there.
    fn versions<S: Store + ?Sized>(&mut self, store: &S, bytes_max: usize) -> Result<bool, ApplyError> {
        let last = self.at.take().unwrap_or_default();
        let mut from = last.to_vec();
        from.push(0);
        let from = if last.is_empty() { &[][..] } else { &from[..] };
        let mut current = row::split_version(&last).map(|(key, _)| Bytes::copy_from_slice(key));
        let (mut at, mut bytes, mut more) = (last, 0, false);
        let mut malformed = false;
        store.read_through(Family::Versions, from, &END, &mut |row_key, value| {
            let Some((key, _)) = row::split_version(row_key) else {
                malformed = true;
                return Step::Stop;
            };
            at = Bytes::copy_from_slice(row_key);
            // The newest version of a key comes first; of a key that is gone it is empty.
            if current.as_deref() != Some(key) {
                current = Some(Bytes::copy_from_slice(key));
                if !value.is_empty() {
                    self.sum.add(Family::Versions, key, value);
                    self.rows += 1;
                }
            }
            bytes += row_key.len() + value.len();
            more = bytes >= bytes_max;
            if more { Step::Stop } else { Step::Next }
        })?;
        if malformed {
            return Err(ApplyError::Broken("a version row has a malformed key"));
        }
        self.at = Some(at);
        Ok(more)
    }

    /// The rows that are few and change with nearly every entry are read at the end, with the hash they belong to.
    fn end<S: Store + ?Sized>(&mut self, store: &S) -> Result<Audited, ApplyError> {
        store.read_through(Family::Sessions, &[], &END, &mut |key, value| {
            self.sum.add(Family::Sessions, key, value);
            self.rows += 1;
            Step::Next
        })?;
        let machine = match store.get(Family::Meta, row::MACHINE)? {
            Some(bytes) => MachineState::decode(bytes)?,
            None => MachineState::default(),
        };
        Ok(Audited {
            rows: self.rows,
            revision: Revision::new(machine.revision),
            applied_index: machine.applied_index,
            kept: StateHash::from_halves(machine.hash_high, machine.hash_low),
            found: self.sum,
        })
    }
}

/// Behind every row of every family: keys are text and numbers, and no number is this long.
const END: [u8; 64] = [0xff; 64];

/// Reads all rows of a store that nobody writes to, those that no hash is about as well.
///
/// # Errors
/// As [`Audit::step`].
pub fn audit<S: Store + ?Sized>(store: &S) -> Result<Audited, ApplyError> {
    for family in [Family::Changes, Family::Expiry, Family::Meta] {
        store.read_through(family, &[], &END, &mut |_, _| Step::Next)?;
    }
    let audit = Audit::default();
    loop {
        match audit.step(store, usize::MAX)? {
            Stride::Done(audited) => return Ok(audited),
            Stride::More | Stride::Replaced => {}
        }
    }
}

impl Audited {
    /// Whether the rows are those that apply has written.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.kept == self.found
    }
}
