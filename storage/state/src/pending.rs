//! [`Pending`]: the batch under construction, readable by the commands that follow in the same apply.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use quilt_proto::{Event, Record, Revision};

use crate::hash::StateHash;
use crate::machine::ApplyError;
use crate::recent::Recent;
use crate::row;
use crate::store::{Batch, Family, Step, Store};

/// Bytes of latest versions read ahead for one batch.
const PREFETCH_BYTES_MAX: usize = 16 << 20;

/// The latest version of a key, and what its row adds to the hash.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) record: Arc<Record>,
    hash: StateHash,
}

impl Head {
    /// A version to be stored, and its row. The record's bytes become those of the row: watchers hold them for a while,
    /// and as pieces of a log entry they would hold all of it.
    pub(crate) fn new(key: &[u8], record: &Record) -> Result<(Self, Bytes), ApplyError> {
        let row = Bytes::from(record.encode_to_vec());
        let head = Self::stored(key, row.clone())?.ok_or(ApplyError::Broken("a record encodes to nothing"))?;
        Ok((head, row))
    }

    /// A version as it is stored; `None` for a tombstone.
    pub(crate) fn stored(key: &[u8], row: Bytes) -> Result<Option<Self>, ApplyError> {
        if row.is_empty() {
            return Ok(None);
        }
        let hash = StateHash::of(Family::Versions, key, &row);
        Ok(Some(Self { record: Arc::new(Record::decode(row)?), hash }))
    }
}

/// Latest versions changed so far, rows to write, events to publish.
pub(crate) struct Pending<'a, S: ?Sized> {
    store: &'a S,
    recent: &'a Recent,
    /// Latest versions read or changed; `None` where there is none.
    pub(crate) heads: BTreeMap<Bytes, Option<Head>>,
    /// Rows to write.
    pub(crate) batch: Batch,
    /// Events in revision order.
    pub(crate) events: Vec<Arc<Event>>,
    /// Hash of live rows, the rows of this batch included.
    pub(crate) hash: StateHash,
    /// Keys that are there after this batch.
    pub(crate) live_keys: u64,
    /// For an audit, if there is one: each change of a latest version, by what it takes from the hash and what it adds.
    pub(crate) noted: Option<Vec<(Bytes, StateHash, StateHash)>>,
}

impl<'a, S: Store + ?Sized> Pending<'a, S> {
    pub(crate) const fn new(store: &'a S, recent: &'a Recent, hash: StateHash, live_keys: u64) -> Self {
        let batch = Batch { writes: Vec::new() };
        Self { store, recent, heads: BTreeMap::new(), batch, events: Vec::new(), hash, live_keys, noted: None }
    }

    /// The first `limit` rows with `from <= key < to` as they stand after this batch, and whether there are more.
    ///
    /// What a command sees must not depend on which entries happen to share its batch.
    pub(crate) fn rows(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<(Vec<(Bytes, Bytes)>, bool), ApplyError> {
        let changed: BTreeMap<&Bytes, &Option<Bytes>> = self
            .batch
            .writes
            .iter()
            .filter(|write| write.family == family && from <= &*write.key && &*write.key < to)
            .map(|write| (&write.key, &write.value))
            .collect();
        let mut rows = Vec::new();
        self.store.scan(family, from, to, &mut |key, value| {
            let key = Bytes::copy_from_slice(key);
            if !changed.contains_key(&key) {
                rows.push((key, Bytes::copy_from_slice(value)));
            }
            if rows.len() > limit { Step::Stop } else { Step::Next }
        })?;
        rows.extend(changed.into_iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))));
        rows.sort();
        let more = rows.len() > limit;
        rows.truncate(limit);
        Ok((rows, more))
    }

    /// Visits the newest row of `Versions` of each key with `from <= key < to`, tombstones included, as they stand after
    /// this batch, until the visitor stops.
    pub(crate) fn newest_versions(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Step,
    ) -> Result<(), ApplyError> {
        let mut changed: BTreeMap<&[u8], Option<&Bytes>> = BTreeMap::new();
        for write in &self.batch.writes {
            if write.family == Family::Versions && from <= &*write.key && &*write.key < to {
                changed.insert(&write.key, write.value.as_ref());
            }
        }
        let mut added = changed.iter().filter_map(|(row, value)| Some((*row, (*value)?))).peekable();
        let mut newest = Newest { current: None, over: false, malformed: false };
        self.store.scan(Family::Versions, from, to, &mut |row, value| {
            while !newest.over
                && let Some((row, value)) = added.next_if(|(added, _)| *added <= row)
            {
                newest.offer(row, value, visit);
            }
            // One that this batch puts was offered just now, one that it deletes is none.
            if !newest.over && !changed.contains_key(row) {
                newest.offer(row, value, visit);
            }
            match (newest.over, row::split_version(row)) {
                (false, Some((key, _))) if newest.current.as_deref() == Some(key) => Step::Seek(row::versions_end(key)),
                (false, _) => Step::Next,
                (true, _) => Step::Stop,
            }
        })?;
        while !newest.over
            && let Some((row, value)) = added.next()
        {
            newest.offer(row, value, visit);
        }
        if newest.malformed { Err(ApplyError::Broken("a version row has a malformed key")) } else { Ok(()) }
    }

    /// Gets the latest versions of keys that the coming commands name: those at hand, and the others by one reading, since one
    /// by one each would cost a cursor of the store. What is not got here is read when it is asked for.
    pub(crate) fn prefetch(&mut self, mut keys: Vec<&Bytes>) -> Result<(), ApplyError> {
        keys.retain(|key| match self.recent.get(key) {
            Some(head) => {
                self.heads.insert(Bytes::clone(key), Some(head.clone()));
                false
            }
            None => true,
        });
        keys.sort_unstable();
        keys.dedup();
        let places: Vec<Bytes> = keys.iter().map(|key| row::newest_version(key)).collect();
        let mut found: Vec<(usize, Bytes)> = Vec::with_capacity(keys.len());
        let mut bytes = 0;
        let mut complete = keys.len();
        self.store.first_version(&places, &mut |place, value| {
            bytes += value.len();
            found.push((place, Bytes::copy_from_slice(value)));
            if bytes < PREFETCH_BYTES_MAX {
                Step::Next
            } else {
                complete = place + 1;
                Step::Stop
            }
        })?;
        let mut found = found.into_iter().peekable();
        for (place, key) in keys.into_iter().enumerate().take(complete) {
            let row = found.next_if(|(at, _)| *at == place).map(|(_, row)| row);
            self.heads.insert(key.clone(), row.map_or(Ok(None), |row| Head::stored(key, row))?);
        }
        Ok(())
    }

    /// The latest version of `key`, expired or not; `None` when absent or deleted.
    pub(crate) fn head(&self, key: &[u8]) -> Result<Option<Head>, ApplyError> {
        if let Some(head) = self.heads.get(key) {
            return Ok(head.clone());
        }
        match self.recent.get(key) {
            Some(head) => Ok(Some(head.clone())),
            None => head_in(self.store, key),
        }
    }

    /// Replaces the latest version of `key` (`None`: a tombstone at `revision`), keeping hash and expiry rows in step.
    /// Gives the record back as it is kept.
    pub(crate) fn set_head(
        &mut self,
        key: &Bytes,
        revision: Revision,
        previous: Option<&Head>,
        record: Option<&Record>,
    ) -> Result<Option<Arc<Record>>, ApplyError> {
        if let Some(previous) = previous {
            self.take_out(key, previous);
        }
        let (head, row) = match record {
            Some(record) => Head::new(key, record).map(|(head, row)| (Some(head), row))?,
            None => (None, Bytes::new()),
        };
        if let Some(head) = &head {
            self.hash.replace(None, head.hash);
            self.note(key, StateHash::default(), head.hash);
            self.live_keys += 1;
            if head.record.expires_at_ms != 0 {
                self.batch.put(Family::Expiry, row::expiry(head.record.expires_at_ms, key), Bytes::new());
            }
        }
        self.batch.put(Family::Versions, row::version(key, revision), row);
        let kept = head.as_ref().map(|head| Arc::clone(&head.record));
        self.heads.insert(key.clone(), head);
        Ok(kept)
    }

    /// Takes the latest version of `key`, stored as `row`, out of hash, count and expiry rows. Its row is the caller's.
    pub(crate) fn forget_head(&mut self, key: &[u8], row: Bytes) -> Result<(), ApplyError> {
        if let Some(head) = Head::stored(key, row)? {
            self.take_out(key, &head);
        }
        self.heads.insert(Bytes::copy_from_slice(key), None);
        Ok(())
    }

    /// Takes a latest version out of hash, count and expiry rows.
    fn take_out(&mut self, key: &[u8], head: &Head) {
        self.hash.subtract(head.hash);
        self.note(key, head.hash, StateHash::default());
        self.live_keys = self.live_keys.saturating_sub(1);
        if head.record.expires_at_ms != 0 {
            self.batch.delete(Family::Expiry, row::expiry(head.record.expires_at_ms, key));
        }
    }

    fn note(&mut self, key: &[u8], old: StateHash, new: StateHash) {
        if let Some(noted) = &mut self.noted {
            noted.push((Bytes::copy_from_slice(key), old, new));
        }
    }

    /// Sets a row that counts towards the hash, and notes its hash in `stored`, where that of its former value is.
    pub(crate) fn put_live(&mut self, family: Family, key: Bytes, stored: &mut Option<StateHash>, value: Bytes) {
        let hash = StateHash::of(family, &key, &value);
        self.hash.replace(stored.replace(hash), hash);
        self.batch.put(family, key, value);
    }

    /// Deletes a row that counts towards the hash; nothing is to be deleted when it was never stored.
    pub(crate) fn delete_live(&mut self, family: Family, key: Bytes, stored: Option<StateHash>) {
        if let Some(stored) = stored {
            self.hash.subtract(stored);
            self.batch.delete(family, key);
        }
    }
}

/// Tells the newest row of a key from its older ones, which follow it.
struct Newest {
    current: Option<Vec<u8>>,
    over: bool,
    malformed: bool,
}

impl Newest {
    fn offer(&mut self, row: &[u8], value: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) {
        let Some((key, _)) = row::split_version(row) else {
            (self.over, self.malformed) = (true, true);
            return;
        };
        if self.current.as_deref() != Some(key) {
            self.current = Some(key.to_vec());
            self.over = visit(key, value) == Step::Stop;
        }
    }
}

/// The latest version of `key` in `store`.
fn head_in<S: Store + ?Sized>(store: &S, key: &[u8]) -> Result<Option<Head>, ApplyError> {
    let mut row = None;
    store.first_version(&[row::newest_version(key)], &mut |_, value| {
        row = Some(Bytes::copy_from_slice(value));
        Step::Stop
    })?;
    row.map_or(Ok(None), |row| Head::stored(key, row))
}
