//! [`refound`]: makes a copy of a state the first state of a new epoch, as a restore and a recovery from a lost quorum
//! need it.
//!
//! Objects stay as they are. What belonged to the old control plane's life goes: its history, its sessions, its place
//! in the log, and keys that must not come back. The revision moves forward past everything the old epoch can have
//! handed out, and every cluster's history begins there, so that each watch is told to list anew instead of missing
//! what was lost. Works on a store that nobody else has open; a half-done one is thrown away, so nothing here is
//! atomic.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use quilt_proto::state::MachineState;
use quilt_proto::{Key, Revision};

use crate::hash::StateHash;
use crate::machine::{ApplyError, Position};
use crate::pending::Pending;
use crate::recent::Recent;
use crate::row;
use crate::store::{Batch, Family, Store, for_each_row};

/// How a state begins anew.
pub struct Refounding<'a> {
    /// The revision is moved to this, or one further than it was when that is more.
    pub revision: Revision,
    /// The log entry the state counts as applied up to; the new epoch's log begins behind it.
    pub position: Position,
    /// The agreement layer's membership record, opaque here.
    pub membership: Bytes,
    /// Keys that must not come back, such as tokens that may have been spent since.
    pub forget: &'a dyn Fn(&Key) -> bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refounded {
    /// Revision before.
    pub revision_before: Revision,
    /// Revision of the new epoch's first state, and the floor of all history.
    pub revision: Revision,
    /// Keys that are there.
    pub live_keys: u64,
    /// Keys that were left out.
    pub forgotten: u64,
}

/// Rows changed by one write.
const SPILL_ROWS: usize = 4_096;

/// Makes the state in `store` the first one of a new epoch.
///
/// # Errors
/// The store holds no state, or cannot be read or written; what it holds then is of no use.
pub fn refound<S: Store + ?Sized>(store: &S, refounding: &Refounding<'_>) -> Result<Refounded, ApplyError> {
    let machine =
        store.get(Family::Meta, row::MACHINE)?.ok_or(ApplyError::Broken("there is no state to begin with"))?;
    let before = MachineState::decode(machine)?;
    let revision = refounding.revision.max(Revision::new(before.revision).next());
    let hash = StateHash::from_halves(before.hash_high, before.hash_low);
    let recent = Recent::default();
    let mut pending = Pending::new(store, &recent, hash, before.live_keys);
    let (mut clusters, mut forgotten) = (BTreeSet::new(), 0);

    // The newest version of a key comes first; of a key that is gone it is a tombstone.
    let mut current: Option<Bytes> = None;
    for_each_row(store, Family::Versions, |row_key, value| {
        let (key, _) = row::split_version(row_key).ok_or(ApplyError::Broken("a version row has a malformed key"))?;
        let newest = current.as_deref() != Some(key);
        if newest {
            current = Some(Bytes::copy_from_slice(key));
        }
        let key = Key::from_bytes(Bytes::copy_from_slice(key))
            .map_err(|_| ApplyError::Broken("a version row names no key"))?;
        clusters.insert(key.parts().cluster.to_owned());
        if newest && !value.is_empty() {
            if !(refounding.forget)(&key) {
                return Ok(());
            }
            pending.forget_head(key.bytes(), value)?;
            forgotten += 1;
        }
        pending.batch.delete(Family::Versions, Bytes::copy_from_slice(row_key));
        spill(store, &mut pending.batch)
    })?;
    for_each_row(store, Family::Changes, |key, _| {
        pending.batch.delete(Family::Changes, Bytes::copy_from_slice(key));
        spill(store, &mut pending.batch)
    })?;
    for_each_row(store, Family::Sessions, |key, value| {
        let stored = StateHash::of(Family::Sessions, key, &value);
        pending.delete_live(Family::Sessions, Bytes::copy_from_slice(key), Some(stored));
        spill(store, &mut pending.batch)
    })?;
    for_each_row(store, Family::Meta, |key, _| {
        clusters.extend(row::split_floor(key).map(str::to_owned));
        Ok::<_, ApplyError>(())
    })?;
    for cluster in &clusters {
        pending.batch.put(Family::Meta, row::floor(cluster), Bytes::copy_from_slice(&revision.get().to_be_bytes()));
    }
    let (hash_high, hash_low) = pending.hash.halves();
    let after = MachineState {
        revision: revision.get(),
        hash_high,
        hash_low,
        live_keys: pending.live_keys,
        applied_index: refounding.position.index,
        applied_term: refounding.position.term,
        applied_leader: refounding.position.leader,
        membership: refounding.membership.clone(),
        ..before
    };
    pending.batch.put(Family::Meta, row::MACHINE, after.encode_to_vec());
    store.write(&pending.batch)?;
    store.flush()?;
    Ok(Refounded { revision_before: Revision::new(before.revision), revision, live_keys: after.live_keys, forgotten })
}

/// Writes what has been gathered, once it is worth a write.
fn spill<S: Store + ?Sized>(store: &S, batch: &mut Batch) -> Result<(), ApplyError> {
    if batch.writes.len() >= SPILL_ROWS {
        store.write(batch)?;
        batch.writes.clear();
    }
    Ok(())
}
