//! [`Pending`]: the batch under construction, readable by the commands that follow in the same apply.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use quilt_proto::{Event, Record, Revision};

use crate::hash::StateHash;
use crate::machine::ApplyError;
use crate::row;
use crate::store::{Batch, Family, Step, Store};

/// Latest versions changed so far, rows to write, events to publish.
pub(crate) struct Pending<'a, S: ?Sized> {
    store: &'a S,
    heads: BTreeMap<Bytes, Option<Arc<Record>>>,
    /// Rows to write.
    pub(crate) batch: Batch,
    /// Events in revision order.
    pub(crate) events: Vec<Arc<Event>>,
    /// Hash of live rows, the rows of this batch included.
    pub(crate) hash: StateHash,
}

impl<'a, S: Store + ?Sized> Pending<'a, S> {
    pub(crate) const fn new(store: &'a S, hash: StateHash) -> Self {
        Self { store, heads: BTreeMap::new(), batch: Batch { writes: Vec::new() }, events: Vec::new(), hash }
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

    /// The latest version of `key`, expired or not; `None` when absent or deleted.
    pub(crate) fn head(&self, key: &[u8]) -> Result<Option<Arc<Record>>, ApplyError> {
        match self.heads.get(key) {
            Some(head) => Ok(head.clone()),
            None => head_in(self.store, key),
        }
    }

    /// Replaces the latest version of `key` (`None`: a tombstone at `revision`), keeping hash and expiry rows in step.
    pub(crate) fn set_head(
        &mut self,
        key: &Bytes,
        revision: Revision,
        previous: Option<&Record>,
        record: Option<Arc<Record>>,
    ) {
        if let Some(previous) = previous {
            self.hash.remove(Family::Versions, key, &previous.encode_to_vec());
            if previous.expires_at_ms != 0 {
                self.batch.delete(Family::Expiry, row::expiry(previous.expires_at_ms, key));
            }
        }
        let value = record.as_ref().map(|record| Bytes::from(record.encode_to_vec())).unwrap_or_default();
        if let Some(record) = &record {
            self.hash.add(Family::Versions, key, &value);
            if record.expires_at_ms != 0 {
                self.batch.put(Family::Expiry, row::expiry(record.expires_at_ms, key), Bytes::new());
            }
        }
        self.batch.put(Family::Versions, row::version(key, revision), value);
        self.heads.insert(key.clone(), record);
    }

    /// Sets a row that counts towards the hash.
    pub(crate) fn put_live(&mut self, family: Family, key: Bytes, old: Option<&[u8]>, value: Bytes) {
        if let Some(old) = old {
            self.hash.remove(family, &key, old);
        }
        self.hash.add(family, &key, &value);
        self.batch.put(family, key, value);
    }

    /// Deletes a row that counts towards the hash.
    pub(crate) fn delete_live(&mut self, family: Family, key: Bytes, old: &[u8]) {
        self.hash.remove(family, &key, old);
        self.batch.delete(family, key);
    }
}

/// The latest version of `key` in `store`.
pub(crate) fn head_in<S: Store + ?Sized>(store: &S, key: &[u8]) -> Result<Option<Arc<Record>>, ApplyError> {
    let mut head = None;
    store.scan(Family::Versions, key, &row::versions_end(key), &mut |_, value| {
        head = Some(Bytes::copy_from_slice(value));
        Step::Stop
    })?;
    match head {
        Some(bytes) if !bytes.is_empty() => Ok(Some(Arc::new(Record::decode(bytes)?))),
        _ => Ok(None),
    }
}
