//! The bug museum: bugs that are planted on purpose, and the seed that convicts each. A simulation that lets one of them
//! pass proves nothing (`quality.md`, section 5).

use std::fmt;

use quilt_raft_simulated::model::Exhibit;

use crate::campaign::{Verdict, one};
use crate::flaw::Flaw;
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
    /// Virtual seconds under faults that it takes.
    pub seconds: u64,
}

const fn agreement(name: &'static str, area: &'static str, which: Exhibit, seed: u64, seconds: u64) -> Piece {
    Piece { name, area, place: Place::Agreement(which), seed, seconds }
}

const fn disk(name: &'static str, area: &'static str, which: Flaw, seed: u64, seconds: u64) -> Piece {
    Piece { name, area, place: Place::Disk(which), seed, seconds }
}

/// All exhibits.
pub const PIECES: &[Piece] = &[
    disk("ack before sync", "votes and log", Flaw::AckBeforeSync, 1, 60),
    disk("failed sync ignored", "votes and log", Flaw::FailedSyncIgnored, 13, 60),
    disk("whole record taken for a torn tail", "votes and log", Flaw::TailCutTooFar, 3, 60),
    disk("purge past the durable applied index", "votes and log", Flaw::PurgePastDurable, 1, 60),
    disk("applied index outside the batch", "apply", Flaw::AppliedIndexApart, 1, 60),
    disk("half-installed snapshot survives a crash", "apply", Flaw::HalfInstalled, 12, 60),
    disk("dedupe table missing in the snapshot", "apply", Flaw::SessionsNotInSnapshot, 1, 60),
    disk("membership missing in the snapshot", "consensus seam", Flaw::MembershipNotInSnapshot, 14, 60),
    agreement("clock in apply", "apply", Exhibit::ClockInApply, 1, 60),
    agreement("request sent again under another id", "apply", Exhibit::DedupeDropped, 1, 60),
    agreement("outcome forgotten before it was answered", "apply", Exhibit::OutcomeForgotten, 1, 60),
    agreement("transaction applied after its expiry", "apply", Exhibit::ExpiryIgnored, 16, 60),
    agreement("lease read after a pause", "reads", Exhibit::LeaseRead, 1, 60),
    agreement("follower read without waiting for the read index", "reads", Exhibit::ReadBeforeApplied, 1, 60),
    agreement("events dropped for a slow reader", "watch", Exhibit::EventsDropped, 1, 60),
    agreement("duplicate on resume", "watch", Exhibit::DuplicateOnResume, 1, 60),
    agreement("one transaction split in two deliveries", "watch", Exhibit::TxnSplit, 1, 60),
    agreement("gap on the replica that installed a snapshot", "watch", Exhibit::GapAfterSnapshot, 68, 60),
];

/// A change of the product changes what a seed does. An exhibit has this many in a row to be convicted by.
const SEEDS_MAX: u64 = 6;

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
    let options = Options { seconds: piece.seconds, trace: None };
    let verdict = one(seed.unwrap_or(piece.seed), &options);
    Exhibit::show(None);
    Flaw::show(None);
    Trial { piece, verdict }
}

/// Tries all; `each` is told of every one as it ends. Whether all were convicted.
pub fn run(mut each: impl FnMut(&Trial)) -> bool {
    let mut all = true;
    for piece in PIECES {
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
