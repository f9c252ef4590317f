//! [`MemoryStore`]: a [`Store`] over ordered maps, for tests and for a single replica that keeps nothing.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;

use crate::store::{Batch, Family, Step, Store, StoreError, stem};

type Rows = BTreeMap<Bytes, Bytes>;

/// An ordered store in memory. Everything written counts as durable at once.
#[derive(Debug, Default)]
pub struct MemoryStore {
    families: RwLock<BTreeMap<Family, Rows>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every row, for comparing two stores and for copying one.
    #[must_use]
    pub fn dump(&self) -> BTreeMap<Family, BTreeMap<Bytes, Bytes>> {
        self.families.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the whole content with `rows`.
    pub fn load(&self, rows: BTreeMap<Family, BTreeMap<Bytes, Bytes>>) {
        *self.families.write().unwrap_or_else(PoisonError::into_inner) = rows;
    }
}

impl Store for MemoryStore {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let families = self.families.read().unwrap_or_else(PoisonError::into_inner);
        Ok(families.get(&family).and_then(|rows| rows.get(key)).cloned())
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Step,
    ) -> Result<(), StoreError> {
        let families = self.families.read().unwrap_or_else(PoisonError::into_inner);
        let Some(rows) = families.get(&family) else { return Ok(()) };
        let to = Bytes::copy_from_slice(to);
        let mut at = Bytes::copy_from_slice(from);
        'seek: while at < to {
            for (key, value) in rows.range(at.clone()..to.clone()) {
                match visit(key, value) {
                    Step::Next => {}
                    Step::Stop => return Ok(()),
                    Step::Seek(next) => {
                        at = next.into();
                        continue 'seek;
                    }
                }
            }
            break;
        }
        Ok(())
    }

    fn first_version(&self, places: &[Bytes], visit: &mut dyn FnMut(usize, &[u8]) -> Step) -> Result<(), StoreError> {
        let families = self.families.read().unwrap_or_else(PoisonError::into_inner);
        let Some(rows) = families.get(&Family::Versions) else { return Ok(()) };
        for (which, place) in places.iter().enumerate() {
            let first = rows.range(place.clone()..).next();
            if let Some((_, value)) = first.filter(|(key, _)| stem(key) == stem(place))
                && visit(which, value) == Step::Stop
            {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut families = self.families.write().unwrap_or_else(PoisonError::into_inner);
        for write in &batch.writes {
            let rows = families.entry(write.family).or_default();
            match &write.value {
                Some(value) => rows.insert(write.key.clone(), value.clone()),
                None => rows.remove(&write.key),
            };
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn persisted(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.get(family, key)
    }
}
