//! [`RocksStore`]: the state machine's store in a RocksDB database.
//!
//! There is no write-ahead log: a write is in memory until a flush, and a flush takes all families at one point. What
//! a crash removes is written again by replaying the raft log. The database behind the handle can be swapped for
//! another one, as a snapshot install does; no cursor outlives a call, so a swap waits for nobody. Knows no row.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use quilt_state::store::stem;
use quilt_state::{Batch, Family, Step, Store, StoreError, Write};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{ColumnFamily, DB, DBRawIterator, FlushOptions, ReadOptions, ReadTier, WriteBatch, WriteOptions};

use crate::damage::Health;
use crate::newest::Newest;

/// The durable store of one replica. Clones share it.
#[derive(Clone)]
pub struct RocksStore {
    current: Arc<RwLock<Current>>,
    health: Health,
}

/// One database, and what is remembered of its rows.
#[derive(Clone)]
struct Current {
    db: Arc<DB>,
    newest: Arc<Newest>,
}

impl Current {
    fn new(db: DB) -> Self {
        Self { db: Arc::new(db), newest: Arc::default() }
    }
}

impl std::fmt::Debug for RocksStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksStore").field("path", &self.db().path()).finish()
    }
}

impl RocksStore {
    pub(crate) fn new(db: DB, health: Health) -> Self {
        Self { current: Arc::new(RwLock::new(Current::new(db))), health }
    }

    /// What is known of damage.
    pub(crate) const fn health(&self) -> &Health {
        &self.health
    }

    fn failed(&self, family: Family, key: &[u8]) -> impl Fn(rocksdb::Error) -> StoreError {
        move |error| self.health.failed(Some(family), key, &error)
    }

    /// The database of this moment. Held for one call only.
    fn db(&self) -> Arc<DB> {
        Arc::clone(&self.current.read().db)
    }

    /// Where the database of this moment is.
    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.db().path().to_owned()
    }

    /// Puts another database in the place of this one and gives back the old.
    pub(crate) fn swap(&self, db: DB) -> Arc<DB> {
        std::mem::replace(&mut *self.current.write(), Current::new(db)).db
    }

    /// A copy of the state by hard links, in a directory that must not exist. Flushes first.
    pub(crate) fn checkpoint(&self, dir: &Path) -> Result<(), StoreError> {
        let db = self.db();
        let failed = |error: rocksdb::Error| self.health.failed(None, &[], &error);
        let checkpoint = Checkpoint::new(&db).map_err(failed)?;
        checkpoint.create_checkpoint(dir).map_err(failed)
    }

    fn visit(
        &self,
        mut options: ReadOptions,
        family: Family,
        range: std::ops::Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Step,
    ) -> Result<(), StoreError> {
        let (from, to) = (range.start, range.end);
        if from >= to {
            return Ok(());
        }
        let db = self.db();
        options.set_iterate_upper_bound(to);
        // A range may hold many stems: filters by stem must not be asked whether it is worth reading.
        options.set_total_order_seek(true);
        let mut cursor = db.raw_iterator_cf_opt(cf(&db, family)?, options);
        cursor.seek(from);
        // Told in an error: damage lies at or behind the last row that was read.
        let mut last = from.to_vec();
        while let Some((key, value)) = cursor.item() {
            last.clear();
            last.extend_from_slice(key);
            match visit(key, value) {
                Step::Next => cursor.next(),
                Step::Seek(key) => advance(&mut cursor, &key),
                Step::Stop => return Ok(()),
            }
        }
        // A cursor also becomes invalid when a block cannot be read or its checksum does not match.
        cursor.status().map_err(self.failed(family, &last))
    }

    /// A number RocksDB keeps about itself, summed over the families: for metrics.
    #[must_use]
    pub fn property(&self, name: &str) -> u64 {
        let db = self.db();
        Family::ALL
            .iter()
            .filter_map(|family| db.property_int_value_cf(cf(&db, *family).ok()?, name).ok().flatten())
            .sum()
    }
}

/// Rows passed one by one before a search is made: mostly what is wanted lies a few versions on, and the row behind costs a small part of
/// a search.
const STEPS_MAX: usize = 8;

/// Moves a cursor on to the first row at or after `key`, which lies ahead.
fn advance(cursor: &mut DBRawIterator<'_>, key: &[u8]) {
    for _ in 0..STEPS_MAX {
        cursor.next();
        // Not valid is also what damage makes it: whoever asked looks at the status.
        if cursor.key().is_none_or(|found| found >= key) {
            return;
        }
    }
    cursor.seek(key);
}

/// One row of a database of the state.
pub(crate) fn row(db: &DB, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
    let row = db.get_pinned_cf(cf(db, family)?, key).map_err(failed)?;
    Ok(row.map(|value| Bytes::copy_from_slice(&value)))
}

pub(crate) fn cf(db: &DB, family: Family) -> Result<&ColumnFamily, StoreError> {
    db.cf_handle(family.name()).ok_or_else(|| StoreError(format!("family {:?} is not there", family.name())))
}

/// Bytes of one write in a batch, and a few that say what it is.
fn size(write: &Write) -> usize {
    const HEADER_BYTES: usize = 16;
    write.key.len() + write.value.as_ref().map_or(0, Bytes::len) + HEADER_BYTES
}

#[allow(clippy::needless_pass_by_value, reason = "the shape of map_err")]
pub(crate) fn failed(error: rocksdb::Error) -> StoreError {
    StoreError(error.to_string())
}

impl Store for RocksStore {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let db = self.db();
        let row = db.get_pinned_cf(cf(&db, family)?, key).map_err(self.failed(family, key))?;
        Ok(row.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Step,
    ) -> Result<(), StoreError> {
        self.visit(ReadOptions::default(), family, from..to, visit)
    }

    fn read_through(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Step,
    ) -> Result<(), StoreError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        self.visit(options, family, from..to, visit)
    }

    fn first_version(&self, places: &[Bytes], visit: &mut dyn FnMut(usize, &[u8]) -> Step) -> Result<(), StoreError> {
        let Current { db, newest } = self.current.read().clone();
        let versions = cf(&db, Family::Versions)?;
        // One cursor for all that need one: making it costs more than a seek.
        let mut cursor = None;
        for (which, place) in places.iter().enumerate() {
            if let Some(row) = newest.at_or_behind(place)
                && let Some(value) = db.get_pinned_cf(versions, &row).map_err(self.failed(Family::Versions, &row))?
            {
                if visit(which, &value) == Step::Stop {
                    return Ok(());
                }
                continue;
            }
            let cursor = cursor.get_or_insert_with(|| {
                let mut options = ReadOptions::default();
                // Files that have no row of the stem are skipped by their filters.
                options.set_prefix_same_as_start(true);
                db.raw_iterator_cf_opt(versions, options)
            });
            cursor.seek(place);
            match cursor.item() {
                Some((key, value)) if stem(key) == stem(place) => {
                    if visit(which, value) == Step::Stop {
                        return Ok(());
                    }
                }
                Some(_) => {}
                // Behind the last row, or at a block that cannot be read.
                None => cursor.status().map_err(self.failed(Family::Versions, place))?,
            }
        }
        Ok(())
    }

    fn write(&self, batch: &Batch) -> Result<(), StoreError> {
        let Current { db, newest } = self.current.read().clone();
        // Grown step by step it would be copied over and over.
        let mut rows = WriteBatch::with_capacity_bytes(batch.writes.iter().map(size).sum());
        // Neighbouring writes are mostly of one family: its handle is looked up once.
        let mut last = None;
        for write in &batch.writes {
            let family = match last {
                Some((family, handle)) if family == write.family => handle,
                _ => cf(&db, write.family)?,
            };
            last = Some((write.family, family));
            match &write.value {
                Some(value) => rows.put_cf(family, &write.key, value),
                None => rows.delete_cf(family, &write.key),
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        db.write_opt(rows, &options).map_err(|error| self.health.failed(None, &[], &error))?;
        for write in &batch.writes {
            if write.family == Family::Versions && write.value.is_some() {
                newest.wrote(&write.key);
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        let db = self.db();
        let mut families = Vec::with_capacity(Family::ALL.len());
        for family in Family::ALL {
            families.push(cf(&db, family)?);
        }
        let mut options = FlushOptions::default();
        options.set_wait(true);
        db.flush_cfs_opt(&families, &options).map_err(|error| self.health.failed(None, &[], &error))
    }

    fn persisted(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let db = self.db();
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::Persisted);
        let row = db.get_pinned_cf_opt(cf(&db, family)?, key, &options).map_err(self.failed(family, key))?;
        Ok(row.map(|value| Bytes::copy_from_slice(&value)))
    }
}
