//! One command family a file. Everything here may read [`Facts`] and the pending batch, and nothing else.

mod compact;
mod drop;
mod expire;
mod range;
mod txn;

use quilt_proto::state::command::Kind;
use quilt_proto::{Entry, Event, EventKind, Key, Record, Revision};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use quilt_proto::state::{Change, ChangeKind};

use crate::machine::{Applied, ApplyError, Facts, RequestOutcome};
use crate::pending::{Head, Pending};
use crate::row;
use crate::store::{Family, Store};

/// Applies one entry's commands in order.
pub(crate) fn entry<S: Store + ?Sized>(
    facts: &mut Facts,
    pending: &mut Pending<'_, S>,
    applied: &mut Applied,
    index: u64,
    entry: &Entry,
) -> Result<(), ApplyError> {
    // Cluster time never goes back, whatever a leader stamped.
    facts.cluster_time_ms = facts.cluster_time_ms.max(entry.at_ms);
    facts.wall_ms = entry.wall_ms;
    for command in &entry.commands {
        match &command.kind {
            Some(Kind::Txn(txn)) => {
                let outcome = txn::apply(facts, pending, txn)?;
                applied.outcomes.push(RequestOutcome { index, request_id: txn.request_id, outcome });
            }
            Some(Kind::RegisterSession(open)) => facts.sessions.register(pending, open.session, open.replica),
            Some(Kind::Acknowledge(ack)) => facts.sessions.acknowledge(pending, ack.session, ack.answered_below),
            Some(Kind::Expire(expire)) => expire::apply(facts, pending, expire.limit)?,
            Some(Kind::Compact(compact)) => compact::apply(facts, pending, compact)?,
            Some(Kind::DropCluster(dropped)) => drop::mark(facts, pending, applied, &dropped.cluster),
            Some(Kind::Sweep(sweep)) => drop::sweep(facts, pending, sweep.limit)?,
            // A command of a later release: the feature level keeps it out of the log until all replicas know it.
            None => return Err(ApplyError::Broken("a command of an unknown kind reached apply")),
        }
    }
    Ok(())
}

/// The keys that an entry's transactions name one by one.
pub(crate) fn keys(entry: &Entry) -> impl Iterator<Item = &Bytes> {
    let txns = entry.commands.iter().filter_map(|command| match &command.kind {
        Some(Kind::Txn(txn)) => Some(txn),
        _ => None,
    });
    txns.flat_map(|txn| txn.compares.iter().map(|compare| &compare.key).chain(txn.ops.iter().filter_map(txn::op_key)))
}

/// Writes one object change at `revision`: version, history row, event.
pub(crate) fn change<S: Store + ?Sized>(
    pending: &mut Pending<'_, S>,
    key: &Key,
    revision: Revision,
    txn_end: Revision,
    previous: Option<Head>,
    record: Option<&Record>,
) -> Result<(), ApplyError> {
    let (kind, stored) = match (&previous, &record) {
        (None, _) => (EventKind::Create, ChangeKind::Create),
        (Some(_), Some(_)) => (EventKind::Update, ChangeKind::Update),
        (Some(_), None) => (EventKind::Delete, ChangeKind::Delete),
    };
    let record = pending.set_head(key.bytes(), revision, previous.as_ref(), record)?;
    let previous = previous.map(|head| head.record);
    let row = Change {
        key: key.bytes().clone(),
        kind: stored.into(),
        previous_revision: previous.as_ref().map_or(0, |record| record.mod_revision),
        txn_end: txn_end.get(),
    };
    pending.batch.put(Family::Changes, row::change(key.parts().cluster, revision), Bytes::from(row.encode_to_vec()));
    pending.events.push(Arc::new(Event { revision, txn_end, key: key.clone(), kind, record, previous }));
    Ok(())
}
