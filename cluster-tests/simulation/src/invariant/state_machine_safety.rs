//! All replicas do the same at the same revision.

use super::Invariant;
use super::history::History;
use crate::sight::Sight;

#[derive(Default)]
pub(super) struct StateMachineSafety {
    history: History,
}

impl Invariant for StateMachineSafety {
    fn name(&self) -> &'static str {
        "state machine safety"
    }

    fn see(&mut self, sight: &Sight<'_>) -> Result<(), String> {
        if let Sight::Applied { replica, changes, .. } = sight {
            for (revision, changed) in *changes {
                if let Some(known) = self.history.changes.get(revision)
                    && known != changed
                {
                    return Err(format!("replica {replica} does {changed:?} at revision {revision}, others {known:?}"));
                }
            }
        }
        self.history.see(sight);
        Ok(())
    }
}
