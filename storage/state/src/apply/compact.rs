//! Raises a cluster's history floor in bounded steps.
//!
//! A change at revision r makes the version before it unreadable at every revision from r on. So when the floor
//! passes r, that version goes, and a deletion's own tombstone with it. Reads at or above the floor lose nothing.

use bytes::Bytes;
use prost::Message;
use quilt_proto::Revision;
use quilt_proto::state::{Change, ChangeKind, Compact};

use crate::limits::COMPACT_ROWS_MAX;
use crate::machine::{ApplyError, Facts};
use crate::pending::Pending;
use crate::row;
use crate::store::{Family, Store};

pub(super) fn apply<S: Store + ?Sized>(
    facts: &mut Facts,
    pending: &mut Pending<'_, S>,
    compact: &Compact,
) -> Result<(), ApplyError> {
    let cluster = compact.cluster.as_str();
    let floor = facts.floors.get(cluster).copied().unwrap_or(0);
    let target = compact.floor.min(facts.revision.get());
    if target <= floor || facts.dropped.contains(cluster) {
        return Ok(());
    }
    let limit = usize::try_from(compact.limit.clamp(1, COMPACT_ROWS_MAX)).unwrap_or(1);
    let from = row::change(cluster, Revision::new(floor + 1));
    let to = row::change(cluster, Revision::new(target + 1));
    let (rows, more) = pending.rows(Family::Changes, &from, &to, limit)?;
    let mut reached = target;
    for (key, value) in rows {
        let (_, revision) = row::split_change(&key).ok_or(ApplyError::Broken("a change row has a malformed key"))?;
        let change = Change::decode(value)?;
        if change.previous_revision != 0 {
            let previous = row::version(&change.key, Revision::new(change.previous_revision));
            pending.batch.delete(Family::Versions, previous);
        }
        if change.kind() == ChangeKind::Delete {
            pending.batch.delete(Family::Versions, row::version(&change.key, revision));
        }
        pending.batch.delete(Family::Changes, key);
        if more {
            reached = revision.get();
        }
    }
    let mut floors = (*facts.floors).clone();
    floors.insert(cluster.to_owned(), reached);
    facts.floors = floors.into();
    pending.batch.put(Family::Meta, row::floor(cluster), Bytes::copy_from_slice(&reached.to_be_bytes()));
    Ok(())
}
