//! The bug museum: bugs that are planted on purpose, and the seed that convicts each. A simulation that lets one of them
//! pass proves nothing (`quality.md`, section 5).

use std::fmt;

use quilt_raft_simulated::model::Exhibit;

use crate::campaign::{Verdict, one};
use crate::fault::Strike;
use crate::flaw::Flaw;
use crate::pace::Pace;
use crate::world::Options;

/// Where a bug is planted.
#[derive(Clone, Copy, Debug)]
enum Place {
    Agreement(Exhibit),
    Disk(Flaw),
}

/// One exhibit.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Its name.
    pub name: &'static str,
    /// Which part of the product it could be in.
    pub area: &'static str,
    place: Place,
    /// The seed that convicts it, or the first of a few.
    pub seed: u64,
    /// Virtual seconds under faults that it takes, before the pace stretches them.
    pub seconds: u64,
    /// How dense the world has to be.
    pub pace: Pace,
    /// The only fault in it, where what leads to the bug takes several at the right time.
    pub only: Option<Strike>,
}

const fn agreement(name: &'static str, area: &'static str, which: Exhibit, seed: u64, seconds: u64) -> Piece {
    Piece { name, area, place: Place::Agreement(which), seed, seconds, pace: Pace::Busy, only: None }
}

const fn disk(name: &'static str, area: &'static str, which: Flaw, seed: u64, seconds: u64) -> Piece {
    Piece { name, area, place: Place::Disk(which), seed, seconds, pace: Pace::Busy, only: None }
}

impl Piece {
    const fn by(self, only: Strike) -> Self {
        Self { only: Some(only), ..self }
    }
}

/// All exhibits.
pub const PIECES: &[Piece] = &[
    disk("ack before sync", "votes and log", Flaw::AckBeforeSync, 1, 60),
    disk("vote not synced", "votes and log", Flaw::VoteNotSynced, 1, 60),
    disk("vote behind a later log write", "votes and log", Flaw::VoteReordered, 1, 60),
    disk("retry of a failed sync", "votes and log", Flaw::FailedSyncIgnored, 4, 60),
    disk("whole record taken for a torn tail", "votes and log", Flaw::TailCutTooFar, 1, 60),
    disk("out-of-order completion in the log writer", "votes and log", Flaw::CompletedOutOfOrder, 1, 60),
    disk("hole after a purge", "votes and log", Flaw::PurgedTooFar, 1, 60),
    disk("purge past the durable applied index", "votes and log", Flaw::PurgePastDurable, 1, 60),
    disk("applied index outside the batch", "apply", Flaw::AppliedIndexApart, 1, 60),
    disk("half-installed snapshot survives a crash", "apply", Flaw::HalfInstalled, 8, 60),
    disk("dedupe table missing in the snapshot", "apply", Flaw::SessionsNotInSnapshot, 2, 60),
    disk("entry skipped on a store error", "apply", Flaw::WriteSkipped, 1, 60),
    agreement("lease read during a transfer", "reads", Exhibit::LeaseDuringTransfer, 1, 60),
    agreement("view within a transaction", "reads", Exhibit::ViewInsideTxn, 1, 60),
    agreement("refusal from a lagging replica", "reads", Exhibit::RefusedByOwnState, 7, 60),
    agreement("lease expired by a wall clock", "apply", Exhibit::WallClockStamps, 1, 60),
    agreement("history let go within its window", "watch", Exhibit::WindowIgnored, 1, 60),
    agreement("bookmark ahead of an undelivered event", "watch", Exhibit::BookmarkAhead, 1, 60),
    disk("pod placed without comparing", "product", Flaw::BindUnchecked, 3, 60),
    disk("token counted outside the entry", "product", Flaw::TokenUnchecked, 3, 60),
    disk("subnet taken without its index", "product", Flaw::SubnetUnchecked, 4, 60),
    agreement("state ahead of its log uncovered", "consensus seam", Exhibit::AheadOfLogUncovered, 1, 60)
        .by(Strike::Outrun),
    agreement("commit on less than a quorum", "consensus seam", Exhibit::SubQuorumCommit, 1, 60),
    disk("membership missing in the snapshot", "consensus seam", Flaw::MembershipNotInSnapshot, 2, 60),
    agreement("clock in apply", "apply", Exhibit::ClockInApply, 1, 60),
    agreement("hash order in apply", "apply", Exhibit::OpsInAnyOrder, 1, 60),
    agreement("id made in apply", "apply", Exhibit::IdInApply, 1, 60),
    agreement("request sent again under another id", "apply", Exhibit::DedupeDropped, 1, 60),
    agreement("outcome forgotten before it was answered", "apply", Exhibit::OutcomeForgotten, 1, 60),
    agreement("transaction applied after its expiry", "apply", Exhibit::ExpiryIgnored, 2, 60),
    agreement("late answer credited", "reads", Exhibit::LateAnswerCredited, 7, 60).by(Strike::Deafen),
    agreement("lease read after a pause", "reads", Exhibit::LeaseRead, 1, 60),
    agreement("follower read without waiting for the read index", "reads", Exhibit::ReadBeforeApplied, 1, 60),
    agreement("events dropped for a slow reader", "watch", Exhibit::EventsDropped, 1, 60),
    agreement("duplicate on resume", "watch", Exhibit::DuplicateOnResume, 1, 60),
    agreement("one transaction split in two deliveries", "watch", Exhibit::TxnSplit, 1, 60),
    agreement("gap on the replica that installed a snapshot", "watch", Exhibit::GapAfterSnapshot, 8, 60),
];

/// A change of the product changes what a seed does. An exhibit has this many in a row to be convicted by.
const SEEDS_MAX: u64 = 16;

/// What became of an exhibit.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Which.
    pub piece: Piece,
    /// What the simulation said of it.
    pub verdict: Verdict,
}

impl Trial {
    /// Whether it was convicted.
    #[must_use]
    pub const fn is_convicted(&self) -> bool {
        self.verdict.violation.is_some()
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Piece { name, area, .. } = self.piece;
        let seed = self.verdict.seed;
        match &self.verdict.violation {
            Some(violation) => write!(f, "convicted  {area:<14} {name:<50} by seed {seed}: {}", violation.invariant),
            None => write!(f, "SURVIVED   {area:<14} {name:<50} seed {seed}"),
        }
    }
}

/// Tries one exhibit with its own seed, or another.
#[must_use]
pub fn try_one(piece: Piece, seed: Option<u64>) -> Trial {
    match piece.place {
        Place::Agreement(which) => Exhibit::show(Some(which)),
        Place::Disk(which) => Flaw::show(Some(which)),
    }
    let options = Options { seconds: piece.seconds, pace: Some(piece.pace), only: piece.only, trace: None };
    let verdict = one(seed.unwrap_or(piece.seed), &options);
    Exhibit::show(None);
    Flaw::show(None);
    Trial { piece, verdict }
}

/// Tries some; `each` is told of every one as it ends. Whether all were convicted.
pub fn run<'a>(pieces: impl IntoIterator<Item = &'a Piece>, mut each: impl FnMut(&Trial)) -> bool {
    let mut all = true;
    for piece in pieces {
        let mut trial = try_one(*piece, None);
        for seed in piece.seed + 1..piece.seed + SEEDS_MAX {
            if !trial.is_convicted() {
                trial = try_one(*piece, Some(seed));
            }
        }
        each(&trial);
        all &= trial.is_convicted();
    }
    all
}
