//! `SameEverywhere`: two replicas deliver the same bytes for the same revision.

use std::collections::BTreeMap;

use crate::history::{EventKind, History, Line, Revision};
use crate::oracle::{Findings, Promise, Violation};

pub(super) fn check(history: &History, findings: &mut Findings) {
    // What left a selector is shown as it was, under the revision of the change: another shape of the same revision.
    let mut known: BTreeMap<(u16, Revision, bool), (u64, u32, u16)> = BTreeMap::new();
    for stream in &history.streams {
        for connection in &stream.connections {
            for frame in &connection.frames {
                let Line::Event { kind, seen, bytes } = &frame.line else { continue };
                let key = (stream.collection, seen.revision, *kind == EventKind::Deleted);
                let (first, by, through) = *known.entry(key).or_insert((*bytes, stream.id, connection.replica));
                if first != *bytes {
                    let explanation = format!(
                        "watch {} through replica {} shows other bytes for {} at revision {} than watch {by} through replica \
                         {through}",
                        stream.id, connection.replica, seen.name, seen.revision
                    );
                    let violation = Violation::new(Promise::G4, "SameEverywhere", explanation);
                    findings.add(violation.on(stream.id).through(connection.replica).at(seen.revision));
                }
            }
        }
    }
}
