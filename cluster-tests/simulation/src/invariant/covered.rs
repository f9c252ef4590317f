//! What a log has let go of is in the newest snapshot: a replica could bring up no other without it, once it leads.

use super::{Facts, Invariant};
use crate::sight::Sight;

pub(super) struct Covered;

impl Invariant for Covered {
    fn name(&self) -> &'static str {
        "what a log lets go of is in a snapshot"
    }

    fn see(&mut self, sight: &Sight<'_>, _: &Facts) -> Result<(), String> {
        match *sight {
            Sight::Purged { replica, upto, covered } if covered.is_none_or(|covered| covered < upto) => Err(format!(
                "replica {replica} lets go of its log up to {upto}, and its newest snapshot ends at {covered:?}"
            )),
            _ => Ok(()),
        }
    }
}
