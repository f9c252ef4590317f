//! A look at what the agreement layer stores, for the simulation's invariants, and the one planted bug that answers from
//! there. Changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use quilt_proto::state::compare::Condition;
use quilt_proto::{Key, Revision, Txn};

use crate::applied::Applied;
use crate::codec;
use crate::host::modelled::Exhibit;
use crate::replica::Decision;
use crate::view::View;

/// A stored vote: its term, whom it is for, and whether that one leads.
#[must_use]
pub fn vote(bytes: &[u8]) -> Option<(u64, u64, bool)> {
    let vote = codec::decode_vote(bytes).ok()?;
    Some((vote.leader_id.term, vote.leader_id.voted_for, vote.committed))
}

/// The voters of a membership as the state keeps it: one set, or two during a change.
#[must_use]
pub fn membership(bytes: &[u8]) -> Option<Vec<BTreeSet<u64>>> {
    let (_, membership) = codec::decode_membership_at(bytes).ok()?;
    Some(membership.get_joint_config().clone())
}

/// A compare that fails on this replica's own state, when that bug is planted.
pub(crate) fn refused_by_own_state(txn: &Txn, applied: &Arc<Applied>) -> Option<Decision> {
    if !Exhibit::RefusedByOwnState.is_shown() {
        return None;
    }
    let view = View::newest(applied);
    txn.compares.iter().enumerate().find_map(|(compare, wanted)| {
        let Some(Condition::ModRevision(expected)) = wanted.condition else { return None };
        let key = Key::from_bytes(wanted.key.clone()).ok()?;
        let held = view.get(&key).ok()?.map_or(0, |record| record.mod_revision);
        (held != expected).then(|| Decision::Rejected { compare, mod_revision: Revision::new(held) })
    })
}
