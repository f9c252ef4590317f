//! A linearizable read sees every write acknowledged before it began, and everything an earlier one saw; and any read
//! gives what the state was at its revision.

use std::collections::BTreeMap;

use super::{Facts, Invariant};
use crate::client::expires;
use crate::sight::{Ended, Sight};

#[derive(Default)]
pub(super) struct LinearizableReads {
    /// The newest revision anybody was told of.
    told: u64,
    /// What was told when a read began.
    floors: BTreeMap<u64, u64>,
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
            Sight::ReadBegan { read } => {
                self.floors.insert(*read, self.told);
                Ok(())
            }
            Sight::ReadEnded { read, replica, revision, found } => {
                if let Some(read) = read {
                    let floor = self.floors.remove(read).unwrap_or(0);
                    if *revision < floor {
                        return Err(format!(
                            "a read on replica {replica} stands at {revision}; {floor} was acknowledged before it began"
                        ));
                    }
                    self.told = self.told.max(*revision);
                }
                for (key, value) in found.iter().filter(|(key, _)| !expires(key)) {
                    let at = facts.history.at(key, *revision).and_then(|(_, changed)| changed.value.clone());
                    if at != *value {
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
