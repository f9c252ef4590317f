//! The bug museum's exhibits in the agreement layer: bugs it could have, each of which the simulation must convict. Only
//! compiled for the simulation, and off unless a run asks for one.

use std::cell::Cell;

/// One planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhibit {
    /// A leader answers a read without asking anybody whether it still leads.
    LeaseRead,
    /// A late answer to an append counts as one to a later append, as openraft has it.
    LateAnswerCredited,
    /// A follower answers a read before it has applied up to the read index.
    ReadBeforeApplied,
    /// A request that is sent again has another id.
    DedupeDropped,
    /// The outcome of a request is forgotten before its owner has it.
    OutcomeForgotten,
    /// A transaction carries no expiry, and its owner believes it does.
    ExpiryIgnored,
    /// A replica starts over a state that is ahead of its log and of its snapshot.
    AheadOfLogUncovered,
    /// A leader that has heard a majority a while ago answers a read without asking again, also one that hands over, as in
    /// openraft #1747.
    LeaseDuringTransfer,
    /// A view stands at the last revision but one, within a transaction.
    ViewInsideTxn,
    /// A compare that fails on this replica's own state is refused at once, however old that state is.
    RefusedByOwnState,
    /// Entries are stamped with the wall clock, as it stands.
    WallClockStamps,
    /// History is let go of at once.
    WindowIgnored,
    /// Apply reads this host's clock.
    ClockInApply,
    /// Apply takes the operations of a transaction in an order that is not the entry's.
    OpsInAnyOrder,
    /// Apply makes up a part of what it writes.
    IdInApply,
    /// A peer that has acknowledged something counts for everything that was sent to it: what openraft #1802 came to.
    SubQuorumCommit,
    /// A watch that has fallen behind goes on at the present.
    EventsDropped,
    /// A watch that is taken up again begins one transaction early.
    DuplicateOnResume,
    /// A delivery ends within a transaction.
    TxnSplit,
    /// A bookmark stands at the present, delivered or not.
    BookmarkAhead,
    /// A replica that installs a snapshot tells its watches nothing.
    GapAfterSnapshot,
}

thread_local! {
    static SHOWN: Cell<Option<Exhibit>> = const { Cell::new(None) };
}

impl Exhibit {
    /// Plants one bug in everything that runs on this thread, or none.
    pub fn show(which: Option<Self>) {
        SHOWN.set(which);
    }

    /// Whether it is planted.
    pub(crate) fn is_shown(self) -> bool {
        SHOWN.get() == Some(self)
    }
}
