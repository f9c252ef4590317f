//! The families of the state database: which there are and how each is laid out. Knows shapes of keys, not meanings.

use quilt_state::Family;

/// How rows of a family are mostly read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Scanned in long runs: larger blocks compress better.
    Runs,
    /// Sought one by one.
    Single,
}

/// How a family is mostly read.
pub(crate) const fn access(family: Family) -> Access {
    match family {
        Family::Versions | Family::Expiry | Family::Sessions | Family::Meta => Access::Single,
        Family::Changes => Access::Runs,
    }
}

impl Access {
    /// Bytes of one block on disk, before compression.
    pub(crate) const fn block_bytes(self) -> usize {
        match self {
            Self::Runs => 32 << 10,
            Self::Single => 8 << 10,
        }
    }
}
