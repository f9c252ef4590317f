//! All replicas do the same at the same revision.

use super::{Facts, Invariant};
use crate::sight::Sight;

pub(super) struct StateMachineSafety;

impl Invariant for StateMachineSafety {
    fn name(&self) -> &'static str {
        "state machine safety"
    }

    fn see(&mut self, sight: &Sight<'_>, facts: &Facts) -> Result<(), String> {
        if let Sight::Applied { replica, changes, .. } = sight {
            for (revision, changed) in *changes {
                if let Some(known) = facts.history.changes.get(revision)
                    && known != changed
                {
                    return Err(format!("replica {replica} does {changed:?} at revision {revision}, others {known:?}"));
                }
            }
        }
        Ok(())
    }
}
