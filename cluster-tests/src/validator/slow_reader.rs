//! `SlowReader`: whoever reads slowly, or through a replica that was away, is brought up in the end or told so; it is never left
//! in silence.

use super::Told;
use crate::history::{Reader, Stream};
use crate::oracle::{Findings, Promise, Violation};

pub(super) fn check(stream: &Stream, tales: &[Told<'_>], findings: &mut Findings) {
    let Some(awaited) = stream.awaited else { return };
    let reached = tales.iter().map(|told| told.upto).max().unwrap_or(0);
    if reached >= awaited {
        return;
    }
    let last = tales.last();
    let through = last.map_or(0, |told| told.connection.replica);
    let check = if stream.reader == Reader::Slow { "SlowReader" } else { "Silent" };
    let explanation = format!(
        "watch {} ({:?}) came to revision {reached} and, given time, not to {awaited}; its last connection is {}",
        stream.id,
        stream.reader,
        last.map_or_else(|| "none".to_owned(), |told| format!("{}, ended {:?}", told.named(), told.connection.end))
    );
    findings.add(Violation::new(Promise::G4, check, explanation).on(stream.id).through(through).at(awaited));
}
