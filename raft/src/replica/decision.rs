//! [`Decision`]: what apply said to a transaction, in the words of the layers above.

use bytes::Bytes;
use quilt_proto::{Outcome, Revision, outcome};

use crate::error::ProposeError;

/// What apply decided about a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// All of it was done; without delete-ranges, operation i has revision `first + i`.
    Applied {
        /// Revision of the first operation.
        first: Revision,
        /// Revision of the last: the state right behind the transaction.
        last: Revision,
        /// One for each delete-range, in their order.
        ranges: Vec<DeletedRange>,
    },
    /// A compare failed and nothing was done.
    Rejected {
        /// Index of the first compare that failed.
        compare: usize,
        /// The key's revision found there; zero when absent.
        mod_revision: Revision,
    },
}

/// How far a delete-range has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedRange {
    /// Keys it deleted.
    pub deleted: u32,
    /// Where a further one has to begin; `None` when nothing of the range is left.
    pub next: Option<Bytes>,
}

impl Decision {
    pub(super) fn of(outcome: Outcome) -> Result<Self, ProposeError> {
        match outcome.result {
            Some(outcome::Result::Applied(applied)) => Ok(Self::Applied {
                first: Revision::new(applied.first_revision),
                last: Revision::new(applied.last_revision),
                ranges: applied.ranges.into_iter().map(DeletedRange::of).collect(),
            }),
            Some(outcome::Result::Rejected(rejected)) => Ok(Self::Rejected {
                compare: usize::try_from(rejected.compare).unwrap_or(usize::MAX),
                mod_revision: Revision::new(rejected.mod_revision),
            }),
            Some(outcome::Result::Expired(_)) => Err(ProposeError::NotApplied),
            Some(outcome::Result::Invalid(text)) => Err(ProposeError::Invalid(text)),
            // An outcome of a later release. It was decided; this release cannot say how.
            None => Err(ProposeError::Unknown),
        }
    }
}

impl DeletedRange {
    fn of(range: quilt_proto::state::DeletedRange) -> Self {
        Self { deleted: range.deleted, next: Some(range.next).filter(|next| !next.is_empty()) }
    }
}
