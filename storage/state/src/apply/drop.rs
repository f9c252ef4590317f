//! Dropping a whole cluster: one mark makes it unreadable, sweeping gives the space back.

use std::collections::BTreeSet;

use bytes::Bytes;
use quilt_proto::KeyPrefix;

use crate::limits::SWEEP_ROWS_MAX;
use crate::machine::{Applied, ApplyError, Facts};
use crate::pending::Pending;
use crate::row;
use crate::store::{Family, Store};

pub(super) fn mark<S: Store + ?Sized>(
    facts: &mut Facts,
    pending: &mut Pending<'_, S>,
    applied: &mut Applied,
    cluster: &str,
) {
    // The tenant range is not a cluster and cannot be dropped.
    if cluster.is_empty() || facts.dropped.contains(cluster) {
        return;
    }
    let mut dropped: BTreeSet<String> = (*facts.dropped).clone();
    dropped.insert(cluster.to_owned());
    facts.dropped = dropped.into();
    pending.batch.put(Family::Meta, row::dropped(cluster), Bytes::new());
    applied.dropped.push(cluster.to_owned());
}

/// Removes up to `limit` rows of dropped clusters. The marks stay: ids are never used again.
pub(super) fn sweep<S: Store + ?Sized>(
    facts: &mut Facts,
    pending: &mut Pending<'_, S>,
    limit: u32,
) -> Result<(), ApplyError> {
    let mut budget = usize::try_from(limit.clamp(2, SWEEP_ROWS_MAX)).unwrap_or(2);
    for cluster in facts.dropped.iter() {
        let Ok(prefix) = KeyPrefix::cluster(cluster) else { continue };
        for family in [Family::Versions, Family::Changes] {
            if budget > 0 {
                budget -= remove(pending, family, prefix.bytes(), &prefix.end(), budget)?;
            }
        }
    }
    Ok(())
}

/// Removes rows of one range. A key's newest version goes last: while it is there, older ones are not mistaken for it
/// in the hash of live rows.
fn remove<S: Store + ?Sized>(
    pending: &mut Pending<'_, S>,
    family: Family,
    from: &[u8],
    to: &[u8],
    budget: usize,
) -> Result<usize, ApplyError> {
    let (rows, more) = pending.rows(family, from, to, budget)?;
    // Only the last key of a cut page can have versions beyond it.
    let cut =
        more.then(|| rows.last().and_then(|(row_key, _)| row::split_version(row_key)).map(|(key, _)| key.to_vec()));
    let cut = cut.flatten();
    let mut current: Option<Bytes> = None;
    let mut removed = 0;
    for (row_key, value) in rows {
        if family == Family::Versions {
            let (key, _) =
                row::split_version(&row_key).ok_or(ApplyError::Broken("a version row has a malformed key"))?;
            let newest = current.as_deref() != Some(key);
            if newest {
                current = Some(Bytes::copy_from_slice(key));
                if cut.as_deref() == Some(key) {
                    continue; // more versions of this key remain: its newest one stays for now
                }
                pending.forget_head(key, value)?;
            }
        }
        pending.batch.delete(family, row_key);
        removed += 1;
    }
    Ok(removed)
}
