//! One state at one index: revision, cluster time and the hash of all live rows.

use std::collections::BTreeMap;

use super::{Facts, Invariant};
use crate::sight::{Mark, Sight};

#[derive(Default)]
pub(super) struct OneHash {
    marks: BTreeMap<u64, Mark>,
}

impl Invariant for OneHash {
    fn name(&self) -> &'static str {
        "one hash per revision"
    }

    fn see(&mut self, sight: &Sight<'_>, _: &Facts) -> Result<(), String> {
        let (replica, mark) = match *sight {
            Sight::Applied { replica, mark, .. } | Sight::Installed { replica, mark } => (replica, mark),
            Sight::Booted { replica, mark: Some(mark), .. } => (replica, mark),
            _ => return Ok(()),
        };
        let known = *self.marks.entry(mark.index).or_insert(mark);
        if known == mark { Ok(()) } else { Err(format!("replica {replica} is at {mark:?}, others at {known:?}")) }
    }
}
