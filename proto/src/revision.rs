//! [`Revision`]: the one counter of object changes (architecture D4). Knows nothing of raft indexes.

use std::fmt;

/// Position of one object change in the history of the whole control plane: the `resourceVersion` of everything.
///
/// Strictly increasing, below 2^53 so that every JSON reader holds it exactly, never reused. Zero is "before
/// everything" and, as a compare, "absent". It is not a raft index and does not convert into one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// Before every change.
    pub const ZERO: Self = Self(0);

    /// Wraps a raw counter value.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The raw counter value.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next revision.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for Revision {
    fn from(value: u64) -> Self {
        Self(value)
    }
}
