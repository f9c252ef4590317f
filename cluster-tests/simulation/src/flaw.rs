//! The bug museum's exhibits outside the agreement layer: what a disk, or the code that uses it, could get wrong, and what
//! those who propose transactions could.

use std::cell::Cell;

/// One planted bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The log says that it is durable before it is.
    AckBeforeSync,
    /// A vote is answered before it is durable.
    VoteNotSynced,
    /// A vote is written behind what is appended after it.
    VoteReordered,
    /// A failed sync is taken for one that went well.
    FailedSyncIgnored,
    /// Rows and the position they stand at are not written as one.
    AppliedIndexApart,
    /// Recovery takes the last whole record for a torn one.
    TailCutTooFar,
    /// The log's writer tells those who came while it synced that theirs is durable too.
    CompletedOutOfOrder,
    /// A purge takes an entry more than it says.
    PurgedTooFar,
    /// The log is purged up to its end, whatever the state holds.
    PurgePastDurable,
    /// A store's error loses the rows of an entry, and apply goes on.
    WriteSkipped,
    /// What is left of an install that a crash interrupted counts as the state.
    HalfInstalled,
    /// A snapshot does not hold what was answered to whom.
    SessionsNotInSnapshot,
    /// A snapshot does not say who the members are.
    MembershipNotInSnapshot,
    /// Whoever places a pod does not compare what it saw of it.
    BindUnchecked,
    /// Uses of a token are counted by whoever asks, not in the entry that admits.
    TokenUnchecked,
    /// A subnet that looks free is taken without an index that says so.
    SubnetUnchecked,
}

thread_local! {
    static SHOWN: Cell<Option<Flaw>> = const { Cell::new(None) };
}

impl Flaw {
    /// Plants one bug in everything that runs on this thread, or none.
    pub(crate) fn show(which: Option<Self>) {
        SHOWN.set(which);
    }

    /// Whether it is planted.
    pub(crate) fn is_shown(self) -> bool {
        SHOWN.get() == Some(self)
    }
}
