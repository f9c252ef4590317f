//! Deletes what is due, in (expiry, key) order, each at its own revision.

use bytes::Bytes;
use quilt_proto::Key;

use crate::apply::change;
use crate::limits::EXPIRE_KEYS_MAX;
use crate::machine::{ApplyError, Facts};
use crate::pending::Pending;
use crate::row;
use crate::store::{Family, Store};

pub(super) fn apply<S: Store + ?Sized>(
    facts: &mut Facts,
    pending: &mut Pending<'_, S>,
    limit: u32,
) -> Result<(), ApplyError> {
    let limit = usize::try_from(limit.clamp(1, EXPIRE_KEYS_MAX)).unwrap_or(1);
    let end = facts.cluster_time_ms.saturating_add(1).to_be_bytes();
    let (due, _) = pending.rows(Family::Expiry, &[], &end, limit)?;
    for (row, _) in due {
        let (at, key) = row::split_expiry(&row).ok_or(ApplyError::Broken("an expiry row has a malformed key"))?;
        let bytes = Bytes::copy_from_slice(key);
        let head = pending.head(&bytes)?.filter(|head| head.record.expires_at_ms == at);
        let head = head.ok_or(ApplyError::Broken("an expiry row names a version that is not the latest"))?;
        let key = Key::from_bytes(bytes).map_err(|_| ApplyError::Broken("an expiry row names no key"))?;
        facts.revision = facts.revision.next();
        change(pending, &key, facts.revision, facts.revision, Some(head), None)?;
    }
    Ok(())
}
