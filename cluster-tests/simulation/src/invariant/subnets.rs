//! No two nodes hold the same subnet, at any revision.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Facts, Invariant};
use crate::claim::{Says, says};
use crate::sight::Sight;

#[derive(Default)]
pub(super) struct Subnets {
    /// Everything up to here was looked at.
    seen: u64,
    /// By node, the subnet it holds.
    holds: BTreeMap<Bytes, u64>,
}

impl Invariant for Subnets {
    fn name(&self) -> &'static str {
        "subnets do not overlap"
    }

    fn see(&mut self, sight: &Sight<'_>, _: &Facts) -> Result<(), String> {
        let Sight::Applied { changes, .. } = sight else { return Ok(()) };
        for (revision, changed) in changes.iter().filter(|(revision, _)| *revision > self.seen) {
            self.holds.remove(&changed.key);
            let Some(Says::Holds(subnet)) = changed.value.as_ref().and_then(|value| says(value)) else { continue };
            if let Some((other, _)) = self.holds.iter().find(|(_, held)| **held == subnet) {
                return Err(format!(
                    "revision {revision} gives {:?} subnet {subnet}, which {other:?} holds",
                    changed.key
                ));
            }
            self.holds.insert(changed.key.clone(), subnet);
        }
        self.seen = changes.last().map_or(self.seen, |last| self.seen.max(last.0));
        Ok(())
    }
}
