//! A look at what the agreement layer stores, for the simulation's invariants. Changes nothing.

use std::collections::BTreeSet;

use crate::codec;

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
