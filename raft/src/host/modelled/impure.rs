//! [`impure`]: what apply would work on if it were not a function of the entry alone: the museum's exhibits against the purity of
//! apply. Knows nothing of what an entry means.

use quilt_proto::state::Entry;
use quilt_proto::{Txn, command, op};
use quilt_state::{Input, Payload};

use super::{Exhibit, random_u64, wall_ms};

/// The input as it is, or with the bug that is planted.
pub(crate) fn impure(mut input: Input) -> Input {
    let Payload::Entry(entry) = &mut input.payload else { return input };
    if Exhibit::ClockInApply.is_shown() {
        entry.at_ms = wall_ms();
    }
    if Exhibit::OpsInAnyOrder.is_shown() && random_u64().is_multiple_of(2) {
        txns(entry).for_each(|txn| txn.ops.reverse());
    }
    if Exhibit::IdInApply.is_shown() {
        txns(entry).for_each(make_up);
    }
    input
}

fn txns(entry: &mut Entry) -> impl Iterator<Item = &mut Txn> {
    entry.commands.iter_mut().filter_map(|command| match &mut command.kind {
        Some(command::Kind::Txn(txn)) => Some(txn),
        _ => None,
    })
}

/// Puts into all that a transaction writes what nobody asked for.
fn make_up(txn: &mut Txn) {
    for op in &mut txn.ops {
        if let Some(op::Kind::Put(put)) = &mut op.kind {
            put.value = [&put.value[..], &random_u64().to_be_bytes()].concat().into();
        }
    }
}
