//! What a watch delivers is the history behind its position: in order, each event once and whole, none missing, with the
//! version before; a bookmark hides nothing; and a watch is refused only below the floor.

use std::sync::Arc;

use quilt_proto::state::ChangeKind;
use quilt_proto::{Event, EventKind};

use super::{Facts, Invariant};
use crate::sight::{Changed, Sight};

pub(super) struct Watches;

/// What a watch of a prefix has to give between two revisions.
fn due<'a>(facts: &'a Facts, prefix: &[u8], from: u64, upto: u64) -> impl Iterator<Item = (u64, &'a Changed)> {
    // Nothing is due when the end lies before the beginning.
    let within = facts.history.changes.range(from + 1..(upto + 1).max(from + 1));
    within.filter(move |(_, changed)| changed.key.starts_with(prefix)).map(|(revision, changed)| (*revision, changed))
}

fn same(facts: &Facts, event: &Event, revision: u64, changed: &Changed) -> bool {
    let kind = match changed.kind {
        ChangeKind::Create => EventKind::Create,
        ChangeKind::Delete => EventKind::Delete,
        _ => EventKind::Update,
    };
    let previous = facts.history.changes.get(&changed.previous).and_then(|before| before.value.clone());
    event.revision.get() == revision
        && event.txn_end.get() == changed.txn_end
        && *event.key.bytes() == changed.key
        && event.kind == kind
        && event.record.as_ref().map(|record| &record.value) == changed.value.as_ref()
        && event.previous.as_ref().map(|record| &record.value) == previous.as_ref()
}

fn delivered(facts: &Facts, prefix: &[u8], from: u64, events: &[Arc<Event>], upto: u64) -> Result<(), String> {
    let mut due = due(facts, prefix, from, upto);
    for event in events {
        match due.next() {
            Some((revision, changed)) if same(facts, event, revision, changed) => {}
            Some((revision, changed)) => return Err(format!("{event:?} where {changed:?} at {revision} was due")),
            None => return Err(format!("{event:?}, and nothing was due")),
        }
    }
    if let Some((revision, changed)) = due.next() {
        return Err(format!("up to {upto} everything is delivered, but {changed:?} at {revision} was not"));
    }
    // Where a client began, within a transaction perhaps, it may stay.
    if upto > from && !facts.history.is_boundary(upto) {
        return Err(format!("a delivery ends at {upto}, within a transaction"));
    }
    Ok(())
}

impl Invariant for Watches {
    fn name(&self) -> &'static str {
        "watches"
    }

    fn see(&mut self, sight: &Sight<'_>, facts: &Facts) -> Result<(), String> {
        match *sight {
            Sight::Delivered { prefix, replica, from, events, upto } => delivered(facts, prefix, from, events, upto)
                .map_err(|what| format!("a watch from {from} on replica {replica}: {what}")),
            Sight::Idle { prefix, replica, from, upto } => delivered(facts, prefix, from, &[], upto)
                .map_err(|what| format!("a bookmark of a watch at {from} on replica {replica}: {what}")),
            Sight::Refused { replica, from, floor } if from >= floor => {
                Err(format!("replica {replica} refuses a watch from {from} though history begins at {floor}"))
            }
            _ => Ok(()),
        }
    }
}
