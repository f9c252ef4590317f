//! [`Store`]: the one way out of the state machine. An ordered key-value store with one atomic batch.
//!
//! RocksDB and the simulated disk implement it elsewhere; [`crate::MemoryStore`] implements it here. The trait knows
//! families and bytes, nothing of keys, records or revisions.

use bytes::Bytes;

/// A named, separately ordered part of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `key ‖ !revision` → record, or nothing for a tombstone. The newest version of a key comes first.
    Versions,
    /// `cluster ‖ 0 ‖ revision` → change. What a watch reads to catch up.
    Changes,
    /// `expiry ‖ key` → nothing. What is due, in the order it is swept.
    Expiry,
    /// `session` → session, `session ‖ chunk` → outcomes of neighbouring sequences. Exactly-once memory.
    Sessions,
    /// The machine's own row, history floors, dropped clusters.
    Meta,
}

impl Family {
    /// All families, in a fixed order.
    pub const ALL: [Self; 5] = [Self::Versions, Self::Changes, Self::Expiry, Self::Sessions, Self::Meta];

    /// The family's name on disk; never changed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Versions => "versions",
            Self::Changes => "changes",
            Self::Expiry => "expiry",
            Self::Sessions => "sessions",
            Self::Meta => "meta",
        }
    }
}

/// Bytes at the end of a row key of `Versions` in which rows of one stem differ.
const VERSION_BYTES: usize = 8;

/// The part of a row key of `Versions` that all versions of one key share: a store may find rows by it.
#[must_use]
pub fn stem(row: &[u8]) -> &[u8] {
    row.get(..row.len().saturating_sub(VERSION_BYTES)).unwrap_or_default()
}

/// The store failed. The replica stops: an entry is never skipped.
#[derive(Debug, Clone, thiserror::Error)]
#[error("state store: {0}")]
pub struct StoreError(pub String);

/// What a scan does after a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go to the next row.
    Next,
    /// Go on at the first row at or after this key, which lies ahead.
    Seek(Vec<u8>),
    /// Enough.
    Stop,
}

/// One row's change within a [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub family: Family,
    /// Which row.
    pub key: Bytes,
    /// Its new value; `None` deletes it.
    pub value: Option<Bytes>,
}

/// Rows that change together or not at all. Later writes of the same row win.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In the order they were made.
    pub writes: Vec<Write>,
}

impl Batch {
    /// Sets a row.
    pub fn put(&mut self, family: Family, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.writes.push(Write { family, key: key.into(), value: Some(value.into()) });
    }

    /// Deletes a row, present or not.
    pub fn delete(&mut self, family: Family, key: impl Into<Bytes>) {
        self.writes.push(Write { family, key: key.into(), value: None });
    }
}

/// An ordered key-value store. All calls are synchronous; no cursor outlives a call.
pub trait Store: Send + Sync + 'static {
    /// One row.
    ///
    /// # Errors
    /// The store could not be read, or a checksum did not match.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Visits rows with `from <= key < to` in ascending order until the visitor stops.
    ///
    /// # Errors
    /// As [`Store::get`]; rows already visited stand.
    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Step,
    ) -> Result<(), StoreError>;

    /// As [`Store::scan`], for a reader who looks at everything once: what is read is not kept at hand.
    ///
    /// # Errors
    /// As [`Store::scan`].
    fn read_through(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Step,
    ) -> Result<(), StoreError> {
        self.scan(family, from, to, visit)
    }

    /// For each of these places in `Versions` the first row at or behind it that has the same [`stem`], if there is one:
    /// `visit` is told which place it is and the row's value, until it stops. Places in ascending order are found fastest.
    ///
    /// # Errors
    /// As [`Store::scan`].
    fn first_version(&self, places: &[Bytes], visit: &mut dyn FnMut(usize, &[u8]) -> Step) -> Result<(), StoreError>;

    /// Applies a batch atomically. Readers see all of it or nothing. A row put into `Versions` is newer than all that
    /// were put there before, or as new: revisions never go down.
    ///
    /// # Errors
    /// Nothing was applied.
    fn write(&self, batch: &Batch) -> Result<(), StoreError>;

    /// Makes everything written so far survive a crash.
    ///
    /// # Errors
    /// Durability is unknown; the caller stops.
    fn flush(&self) -> Result<(), StoreError>;

    /// The value of a row as it would be read after a crash now.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn persisted(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
}

/// Rows read before any of them is visited.
const PAGE_ROWS: usize = 4_096;

/// Visits all rows of a family in ascending order. No cursor is open while the visitor runs, so it may read and write.
///
/// # Errors
/// As [`Store::scan`], or the visitor's own.
pub fn for_each_row<S: Store + ?Sized, E: From<StoreError>>(
    store: &S,
    family: Family,
    mut visit: impl FnMut(&[u8], Bytes) -> Result<(), E>,
) -> Result<(), E> {
    /// Behind every row of every family: keys are text and numbers, and no number is this long.
    const END: [u8; 64] = [0xff; 64];
    let mut from = Vec::new();
    loop {
        let mut page = Vec::new();
        store.scan(family, &from, &END, &mut |key, value| {
            page.push((key.to_vec(), Bytes::copy_from_slice(value)));
            if page.len() == PAGE_ROWS { Step::Stop } else { Step::Next }
        })?;
        let full = page.len() == PAGE_ROWS;
        for (key, value) in page {
            visit(&key, value)?;
            from = key;
        }
        if !full {
            return Ok(());
        }
        from.push(0);
    }
}
