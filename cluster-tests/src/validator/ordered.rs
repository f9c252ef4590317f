//! Ordered: revisions never go back within a watch.

use super::Told;
use crate::history::{Line, Revision};
use crate::oracle::{Findings, Promise};

pub(super) fn check(told: &Told<'_>, findings: &mut Findings) {
    let Some(from) = told.from else { return };
    let mut last: Revision = from;
    let first_change = told.changes.first().map_or(usize::MAX, |first| first.place);
    for (place, frame) in told.frames().iter().enumerate() {
        let revision = match &frame.line {
            Line::Event { seen, .. } if place >= first_change => seen.revision,
            Line::Bookmark { revision, .. } => *revision,
            // Initial events come by name; what stands at or before the start is no going back but a repetition.
            Line::Event { .. } | Line::Error { .. } => continue,
        };
        if revision < last && last > from {
            let explanation = format!("shows revision {revision} after revision {last}");
            findings.add(told.violation(Promise::G4, "Ordered", &explanation).at(revision));
        }
        last = last.max(revision);
    }
}
