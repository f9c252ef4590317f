//! A linearizable read sees every write acknowledged before it began, and everything an earlier one saw; and any read
//! gives what the state was at its revision, but for keys that were lent and have become due: one of the newest state no
//! longer shows them, one at a revision shows them until they are deleted.

use std::collections::BTreeMap;

use super::{Facts, Invariant};
use crate::sight::{Ended, Sight};

#[derive(Default)]
pub(super) struct LinearizableReads {
    /// The newest revision anybody was told of.
    told: u64,
    /// What was told when a read began.
    floors: BTreeMap<u64, u64>,
    /// The newest cluster time applied anywhere.
    cluster_ms: u64,
}

impl Invariant for LinearizableReads {
    fn name(&self) -> &'static str {
        "linearizable reads"
    }

    fn see(&mut self, sight: &Sight<'_>, facts: &Facts) -> Result<(), String> {
        match sight {
            Sight::Answered { ended: Ended::Applied(_, last), .. } => {
                self.told = self.told.max(*last);
                Ok(())
            }
            Sight::Applied { mark, .. } => {
                self.cluster_ms = self.cluster_ms.max(mark.cluster_ms);
                Ok(())
            }
            Sight::ReadBegan { read } => {
                self.floors.insert(*read, self.told);
                Ok(())
            }
            Sight::ReadEnded { read, replica, revision, found, written } => {
                if let Some(read) = read {
                    let floor = self.floors.remove(read).unwrap_or(0);
                    if *revision < floor {
                        return Err(format!(
                            "a read on replica {replica} stands at {revision}; {floor} was acknowledged before it began"
                        ));
                    }
                    self.told = self.told.max(*revision);
                }
                for (of_newest, (key, value)) in
                    found.iter().map(|one| (true, one)).chain(written.iter().map(|one| (false, one)))
                {
                    let last = facts.history.at(key, *revision).map(|(_, changed)| changed);
                    let at = last.and_then(|changed| changed.value.clone());
                    let is_due = |ms: u64| ms != 0 && ms <= self.cluster_ms;
                    let due = of_newest && value.is_none() && last.is_some_and(|changed| is_due(changed.expires_ms));
                    if at != *value && !due {
                        return Err(format!(
                            "a read of {key:?} on replica {replica} at {revision} gives {value:?}; it was {at:?}"
                        ));
                    }
                }
                if !facts.history.is_boundary(*revision) {
                    return Err(format!("a view of replica {replica} stands at {revision}, within a transaction"));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
