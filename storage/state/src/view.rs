//! [`View`]: the read side. Rows at one revision, and what changed since another.
//!
//! A view holds nothing open. It reads the multi-version rows at its revision; the caller gives it the horizon in
//! force, and asks for a fresh one after a long pause, since compaction may have passed its revision meanwhile.
//!
//! What it shows depends on its revision, and for the newest state on one moment of cluster time besides: there a key
//! whose time has come is absent before anybody has deleted it. A revision by itself is what was written up to it
//! (docs/decisions/0032).

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use quilt_proto::state::{Change, ChangeKind};
use quilt_proto::{Event, EventKind, Key, KeyPrefix, Record, Revision};

use crate::horizon::Horizon;
use crate::row;
use crate::store::{Family, Step, Store, StoreError};

/// Why a view cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// History at that revision is gone.
    #[error("revision {revision} is below the history floor {floor}")]
    Compacted {
        /// Asked for.
        revision: Revision,
        /// Oldest that can be read.
        floor: Revision,
    },
    /// The cluster was deleted.
    #[error("cluster was deleted")]
    Dropped,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A row cannot be read: corruption, never skipped.
    #[error("row of key {key} is corrupt: {reason}")]
    Corrupt {
        /// Which key, readable.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// One page of a scan.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Live records in key order.
    pub records: Vec<(Key, Record)>,
    /// Whether more may follow behind the last record.
    pub more: bool,
}

/// Bounds of one page; the first record is always given.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Most records.
    pub records: usize,
    /// Most bytes of record values.
    pub bytes: usize,
}

/// Which keys that expire a view shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiring {
    /// Until the revision that deletes them: what a revision is, to everybody and for ever.
    UntilDeleted,
    /// Until cluster time, in milliseconds, has reached their end, deleted or not: what the newest state is.
    UntilDueAt(u64),
}

/// The state at one revision.
#[derive(Clone, Debug)]
pub struct View<'a, S: ?Sized> {
    store: &'a S,
    horizon: &'a Horizon,
    revision: Revision,
    expiring: Expiring,
}

impl<'a, S: Store + ?Sized> View<'a, S> {
    /// The state at `revision`, which must not lie ahead of the horizon.
    #[must_use]
    pub const fn new(store: &'a S, horizon: &'a Horizon, revision: Revision, expiring: Expiring) -> Self {
        Self { store, horizon, revision, expiring }
    }

    /// The newest state, without what is due by now.
    #[must_use]
    pub const fn newest(store: &'a S, horizon: &'a Horizon) -> Self {
        Self::new(store, horizon, horizon.revision, Expiring::UntilDueAt(horizon.cluster_time_ms))
    }

    fn check(&self, cluster: &str) -> Result<(), ViewError> {
        if self.horizon.dropped.contains(cluster) {
            return Err(ViewError::Dropped);
        }
        let floor = self.horizon.floor(cluster);
        // Revision 0 is the empty state before everything; it can be read while nothing was compacted.
        if self.revision < floor {
            return Err(ViewError::Compacted { revision: self.revision, floor });
        }
        Ok(())
    }

    /// The record of `key`; `None` when absent or deleted, or due in a view that leaves out what is.
    ///
    /// # Errors
    /// See [`ViewError`].
    pub fn get(&self, key: &Key) -> Result<Option<Record>, ViewError> {
        self.check(key.parts().cluster)?;
        let mut found = None;
        self.store.first_version(&[row::version(key.bytes(), self.revision)], &mut |_, value| {
            found = Some(Bytes::copy_from_slice(value));
            Step::Stop
        })?;
        match found {
            Some(bytes) => self.live(key.bytes(), bytes),
            None => Ok(None),
        }
    }

    fn live(&self, key: &[u8], bytes: Bytes) -> Result<Option<Record>, ViewError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let record = Record::decode(bytes).map_err(|error| corrupt(key, &error))?;
        let due = match self.expiring {
            Expiring::UntilDeleted => false,
            Expiring::UntilDueAt(now_ms) => record.expires_at_ms != 0 && record.expires_at_ms <= now_ms,
        };
        Ok((!due).then_some(record))
    }

    /// Live records under `prefix`, behind `after`, in key order.
    ///
    /// # Errors
    /// See [`ViewError`].
    pub fn scan(&self, prefix: &KeyPrefix, after: Option<&Key>, limit: Limit) -> Result<Page, ViewError> {
        let mut page = Page::default();
        let mut bytes = 0;
        page.more = self.visit(prefix, after, |key, record| {
            bytes += record.value.len();
            page.records.push((key, record));
            if page.records.len() >= limit.records || bytes >= limit.bytes {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok(page)
    }

    /// Visits live records under `prefix`, behind `after`, in key order. Returns whether the visitor broke off.
    ///
    /// # Errors
    /// See [`ViewError`].
    pub fn visit(
        &self,
        prefix: &KeyPrefix,
        after: Option<&Key>,
        mut visit: impl FnMut(Key, Record) -> ControlFlow<()>,
    ) -> Result<bool, ViewError> {
        self.check(prefix.cluster_part())?;
        let from = after.map_or_else(|| prefix.bytes().to_vec(), |key| row::versions_end(key.bytes()));
        let mut failure = None;
        let mut broke = false;
        self.store.scan(Family::Versions, &from, &prefix.end(), &mut |row_key, value| {
            let Some((key, revision)) = row::split_version(row_key) else {
                failure = Some(corrupt(row_key, &"malformed row key"));
                return Step::Stop;
            };
            if revision > self.revision {
                return Step::Seek(row::version(key, self.revision).to_vec());
            }
            match self.live(key, Bytes::copy_from_slice(value)) {
                Ok(None) => {}
                Ok(Some(record)) => match Key::from_bytes(Bytes::copy_from_slice(key)) {
                    Ok(parsed) => {
                        if visit(parsed, record).is_break() {
                            broke = true;
                            return Step::Stop;
                        }
                    }
                    Err(error) => failure = Some(corrupt(key, &error)),
                },
                Err(error) => failure = Some(error),
            }
            if failure.is_some() { Step::Stop } else { Step::Seek(row::versions_end(key)) }
        })?;
        failure.map_or(Ok(broke), Err)
    }

    /// Changes of a cluster with `after < revision <= view`, whole transactions only, about `limit` of them.
    ///
    /// Returns the events and the revision up to which they are complete.
    ///
    /// # Errors
    /// [`ViewError::Compacted`] when `after` lies below the floor; else see [`ViewError`].
    pub fn changes(&self, cluster: &str, after: Revision, limit: usize) -> Result<(Vec<Event>, Revision), ViewError> {
        if self.horizon.dropped.contains(cluster) {
            return Err(ViewError::Dropped);
        }
        let floor = self.horizon.floor(cluster);
        if after < floor {
            return Err(ViewError::Compacted { revision: after, floor });
        }
        let from = row::change(cluster, after.next());
        let to = row::change(cluster, self.revision.next());
        let mut rows: Vec<(Revision, Bytes)> = Vec::new();
        let mut complete = self.revision;
        let mut end_of_last = after;
        let mut failure = None;
        self.store.scan(Family::Changes, &from, &to, &mut |row_key, value| {
            let Some((_, revision)) = row::split_change(row_key) else {
                failure = Some(corrupt(row_key, &"malformed row key"));
                return Step::Stop;
            };
            // Break off only between transactions.
            if rows.len() >= limit && revision > end_of_last {
                complete = end_of_last;
                return Step::Stop;
            }
            match Change::decode(value) {
                Ok(change) => end_of_last = Revision::new(change.txn_end),
                Err(error) => {
                    failure = Some(corrupt(row_key, &error));
                    return Step::Stop;
                }
            }
            rows.push((revision, Bytes::copy_from_slice(value)));
            Step::Next
        })?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        let events = rows.into_iter().map(|(revision, bytes)| self.event(revision, bytes)).collect::<Result<_, _>>()?;
        Ok((events, complete))
    }

    fn event(&self, revision: Revision, bytes: Bytes) -> Result<Event, ViewError> {
        let change = Change::decode(bytes).map_err(|error| corrupt(&[], &error))?;
        let key = Key::from_bytes(change.key.clone()).map_err(|error| corrupt(&change.key, &error))?;
        let kind = match change.kind() {
            ChangeKind::Create => EventKind::Create,
            ChangeKind::Update => EventKind::Update,
            ChangeKind::Delete => EventKind::Delete,
            ChangeKind::Unspecified => return Err(corrupt(&change.key, &"a change of no kind")),
        };
        let version =
            |revision: Revision| match self.store.get(Family::Versions, &row::version(&change.key, revision))? {
                Some(bytes) if !bytes.is_empty() => {
                    Record::decode(bytes).map(Arc::new).map_err(|error| corrupt(&change.key, &error))
                }
                _ => Err(corrupt(&change.key, &format!("version {revision} named by history is missing"))),
            };
        let record = match kind {
            EventKind::Delete => None,
            EventKind::Create | EventKind::Update => Some(version(revision)?),
        };
        let previous = match change.previous_revision {
            0 => None,
            previous => Some(version(Revision::new(previous))?),
        };
        Ok(Event { revision, txn_end: Revision::new(change.txn_end), key, kind, record, previous })
    }
}

fn corrupt(key: &[u8], reason: &dyn std::fmt::Display) -> ViewError {
    ViewError::Corrupt { key: String::from_utf8_lossy(key).replace('\0', "/"), reason: reason.to_string() }
}
