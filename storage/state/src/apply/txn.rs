//! Transactions: compare, then change, all or nothing, exactly once.

use bytes::Bytes;
use quilt_proto::state::{Applied, Expired, Put, Rejected, compare, op, outcome};
use quilt_proto::{Compare, Key, Op, Outcome, Record, Revision, Txn};

use crate::apply::change;
use crate::apply::range::{self, Doomed};
use crate::limits::{TXN_BYTES_MAX, TXN_COMPARES_MAX, TXN_OPS_MAX, TXN_RANGES_MAX, VALUE_BYTES_MAX};
use crate::machine::{ApplyError, Facts};
use crate::pending::{Head, Pending};
use crate::session::Seen;
use crate::store::Store;

pub(super) fn apply<S: Store + ?Sized>(
    facts: &mut Facts,
    pending: &mut Pending<'_, S>,
    txn: &Txn,
) -> Result<Outcome, ApplyError> {
    if let Some(id) = txn.request_id {
        match facts.sessions.seen(id.session, id.sequence) {
            Seen::New => {}
            Seen::Answered(outcome) => return Ok(outcome.clone()),
            Seen::Gone => return Ok(invalid("request id of a closed session, or already acknowledged")),
        }
    }
    let outcome = run(facts, pending, txn)?;
    if let Some(id) = txn.request_id {
        facts.sessions.record(id.session, id.sequence, &outcome);
    }
    Ok(outcome)
}

fn invalid(text: impl Into<String>) -> Outcome {
    outcome::Result::Invalid(text.into()).into()
}

fn run<S: Store + ?Sized>(facts: &mut Facts, pending: &mut Pending<'_, S>, txn: &Txn) -> Result<Outcome, ApplyError> {
    if txn.expires_at_ms != 0 && facts.cluster_time_ms >= txn.expires_at_ms {
        return Ok(outcome::Result::Expired(Expired {}).into());
    }
    let keys = match check(facts, txn) {
        Ok(keys) => keys,
        Err(text) => return Ok(invalid(text)),
    };
    for (index, compare) in txn.compares.iter().enumerate() {
        let found = live(facts, pending.head(&compare.key)?.as_ref()).map_or(0, |record| record.mod_revision);
        let holds = match compare.condition {
            Some(compare::Condition::ModRevision(wanted)) => found == wanted,
            Some(compare::Condition::Exists(wanted)) => (found != 0) == wanted,
            None => false,
        };
        if !holds {
            let compare = u32::try_from(index).unwrap_or(u32::MAX);
            return Ok(outcome::Result::Rejected(Rejected { compare, mod_revision: found }).into());
        }
    }
    // What ranges delete is known before the first write: every change names the transaction's last revision. Nothing else
    // in it writes there, so the order does not matter.
    let doomed = txn.ops.iter().map(|op| range::doomed(facts, pending, op)).collect::<Result<Vec<_>, _>>()?;
    let doomed: Vec<Doomed> = doomed.into_iter().flatten().collect();
    let changes = keys.len() + doomed.iter().map(|range| range.heads.len()).sum::<usize>();
    let first = facts.revision.next();
    let last = Revision::new(facts.revision.get() + u64::try_from(changes).unwrap_or(u64::MAX));
    let ranges = doomed.iter().map(Doomed::told).collect();
    let (mut keys, mut doomed) = (keys.iter(), doomed.into_iter());
    for op in &txn.ops {
        match &op.kind {
            Some(op::Kind::Put(put)) => {
                let key = keys.next().ok_or(UNCHECKED)?;
                facts.revision = facts.revision.next();
                self::put(facts, pending, key, put, last)?;
            }
            Some(op::Kind::Delete(_)) => {
                let key = keys.next().ok_or(UNCHECKED)?;
                facts.revision = facts.revision.next();
                if let Some(previous) = pending.head(key.bytes())? {
                    change(pending, key, facts.revision, last, Some(previous), None)?;
                }
            }
            Some(op::Kind::DeleteRange(_)) => {
                for (key, previous) in doomed.next().ok_or(UNCHECKED)?.heads {
                    facts.revision = facts.revision.next();
                    change(pending, &key, facts.revision, last, Some(previous), None)?;
                }
            }
            None => return Err(UNCHECKED),
        }
    }
    let applied = Applied { first_revision: first.get(), last_revision: last.get(), ranges };
    Ok(outcome::Result::Applied(applied).into())
}

const UNCHECKED: ApplyError = ApplyError::Broken("an operation passed the check that has no kind or no key");

/// An expired key counts as absent at once, swept or not.
pub(super) fn live<'a>(facts: &Facts, head: Option<&'a Head>) -> Option<&'a Record> {
    head.map(|head| &*head.record)
        .filter(|record| record.expires_at_ms == 0 || record.expires_at_ms > facts.cluster_time_ms)
}

fn put<S: Store + ?Sized>(
    facts: &Facts,
    pending: &mut Pending<'_, S>,
    key: &Key,
    put: &Put,
    txn_end: Revision,
) -> Result<(), ApplyError> {
    let previous = pending.head(key.bytes())?;
    let revision = facts.revision;
    let create_revision =
        live(facts, previous.as_ref()).map_or_else(|| revision.get(), |record| record.create_revision);
    let record = Record {
        create_revision,
        mod_revision: revision.get(),
        value: splice(&put.value, put.splice_at, revision),
        splice_at: put.splice_at,
        sealed: put.sealed.clone(),
        expires_at_ms: if put.ttl_ms == 0 { 0 } else { facts.cluster_time_ms.saturating_add(put.ttl_ms) },
        tags: put.tags.clone(),
    };
    change(pending, key, revision, txn_end, previous, Some(&record))
}

/// Inserts the decimal revision at `at`; 0 = nowhere.
fn splice(value: &Bytes, at: u32, revision: Revision) -> Bytes {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    match (at, value.split_at_checked(at)) {
        (0, _) | (_, None) => value.clone(),
        (_, Some((head, tail))) => [head, revision.to_string().as_bytes(), tail].concat().into(),
    }
}

/// The keys of puts and deletes, in their order, once it is sure that the transaction may be applied: limits, well-formed
/// keys, ranges that nothing else writes into, writes in one cluster (or the tenant range) only, no cluster that was dropped. What a
/// transaction in a cluster relies on may also stand in the tenant range: the credential it acts by, and the cluster's
/// entry in the directory (architecture §3, step 2).
fn check(facts: &Facts, txn: &Txn) -> Result<Vec<Key>, String> {
    if txn.ops.len() > TXN_OPS_MAX || txn.compares.len() > TXN_COMPARES_MAX {
        return Err(format!(
            "transaction of {} operations and {} compares is over the limit of {TXN_OPS_MAX} and {TXN_COMPARES_MAX}",
            txn.ops.len(),
            txn.compares.len()
        ));
    }
    let mut bytes = 0_usize;
    let mut ranges = Vec::new();
    for op in &txn.ops {
        match &op.kind {
            Some(op::Kind::Put(put)) => {
                let size = put.value.len() + put.sealed.len();
                if size > VALUE_BYTES_MAX {
                    return Err(format!("object of {size} bytes is over the limit of {VALUE_BYTES_MAX} bytes"));
                }
                if usize::try_from(put.splice_at).unwrap_or(usize::MAX) > put.value.len() {
                    return Err("splice_at lies outside the value".into());
                }
                bytes += size;
            }
            Some(op::Kind::Delete(_)) => {}
            Some(op::Kind::DeleteRange(range)) => ranges.push(range),
            None => return Err("operation without kind".into()),
        }
    }
    if bytes > TXN_BYTES_MAX {
        return Err(format!("transaction of {bytes} bytes is over the limit of {TXN_BYTES_MAX} bytes"));
    }
    let deletions: usize = ranges.iter().map(|range| usize::try_from(range.limit).unwrap_or(usize::MAX)).sum();
    if ranges.len() > TXN_RANGES_MAX || txn.ops.len() - ranges.len() + deletions > TXN_OPS_MAX {
        return Err(format!(
            "transaction of {} operations with {} delete-ranges of up to {deletions} keys is over the limit of \
             {TXN_OPS_MAX} operations, {TXN_RANGES_MAX} of them delete-ranges",
            txn.ops.len(),
            ranges.len()
        ));
    }
    let parse = |bytes: Bytes| Key::from_bytes(bytes).map_err(|error| error.to_string());
    // Keys of events outlive the log entry: as pieces of it they would keep all of it in memory.
    let named = txn.ops.iter().filter_map(op_key);
    let keys = named.map(|key| parse(Bytes::copy_from_slice(key))).collect::<Result<Vec<_>, _>>()?;
    let compared = txn.compares.iter().map(|Compare { key, .. }| parse(key.clone())).collect::<Result<Vec<_>, _>>()?;
    let emptied = range::clusters(&ranges, &keys)?;
    let written = keys.iter().map(cluster).chain(emptied.iter().map(String::as_str));
    let relied_on = compared.iter().map(cluster).filter(|cluster| !cluster.is_empty());
    let mut touched = written.chain(relied_on);
    if let Some(own) = touched.next() {
        if let Some(other) = touched.find(|cluster| *cluster != own) {
            return Err(format!("transaction touches two clusters: '{own}' and '{other}'"));
        }
        if facts.dropped.contains(own) {
            return Err(format!("cluster '{own}' was deleted"));
        }
    }
    Ok(keys)
}

fn cluster(key: &Key) -> &str {
    key.parts().cluster
}

/// The key a put or delete is about.
pub(super) const fn op_key(op: &Op) -> Option<&Bytes> {
    match &op.kind {
        Some(op::Kind::Put(put)) => Some(&put.key),
        Some(op::Kind::Delete(delete)) => Some(&delete.key),
        Some(op::Kind::DeleteRange(_)) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes stay in one cluster; a compare may stand beside them in the tenant range, but in no other cluster.
    #[test]
    fn transactions_touch_one_cluster() {
        let key = |cluster: &str| Key::new(cluster, "", "things", "", "x").expect("valid");
        let judge = |compares: &[&str], ops: &[&str]| {
            let compares = compares.iter().map(|cluster| Compare::exists(&key(cluster))).collect();
            let ops = ops.iter().map(|cluster| Op::delete(&key(cluster))).collect();
            check(&Facts::default(), &Txn::new(compares, ops)).is_ok()
        };
        assert!(judge(&["a", ""], &["a", "a"]), "a credential is relied on");
        assert!(judge(&[""], &[""]));
        assert!(judge(&["", "a"], &[]));
        assert!(!judge(&["b"], &["a"]));
        assert!(!judge(&[], &["a", ""]));
        assert!(!judge(&["a"], &[""]), "the tenant range relies on no cluster");
        assert!(!judge(&["a", "b"], &[]));
    }
}
