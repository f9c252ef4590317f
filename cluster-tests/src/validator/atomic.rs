//! Atomic: what one transaction changed arrives together. Bytes of one delivery may travel in parts, so what is checked is that
//! nothing comes in between, no bookmark stands within, and that an end in order is no end in the middle.

use super::Told;
use crate::history::{End, Line, Revision};
use crate::oracle::{Findings, Promise};

pub(super) fn check(told: &Told<'_>, findings: &mut Findings) {
    if told.from.is_none() {
        return;
    }
    for transaction in told.replay.transactions() {
        // What this watch is to see of it; the part before its start is not its business.
        let wanted: Vec<Revision> = transaction
            .revisions
            .iter()
            .copied()
            .filter(|revision| told.course.change(*revision).is_some_and(|(name, _)| seen(told, *revision, name)))
            .collect();
        let places: Vec<usize> = told
            .changes
            .iter()
            .filter(|delivered| wanted.contains(&delivered.seen.revision))
            .map(|delivered| delivered.place)
            .collect();
        let (Some(first), Some(last), Some(newest)) = (places.first(), places.last(), wanted.last()) else { continue };
        // Not every revision of a transaction is always known: what lies between may belong to it.
        let (oldest, newest) = (wanted.first().unwrap_or(newest), newest);
        let between: Vec<String> = (*first..=*last)
            .filter(|place| !places.contains(place))
            .filter_map(|place| told.frames().get(place))
            .filter(|frame| match &frame.line {
                Line::Event { seen, .. } => !(*oldest..=*newest).contains(&seen.revision),
                Line::Bookmark { .. } | Line::Error { .. } => true,
            })
            .map(|frame| match &frame.line {
                Line::Event { seen, .. } => format!("an event of revision {}", seen.revision),
                Line::Bookmark { revision, .. } => format!("a bookmark at {revision}"),
                Line::Error { code, .. } => format!("an error {code}"),
            })
            .collect();
        if !between.is_empty() {
            let explanation = format!("shows the transaction {wanted:?} with {} within it", between.join(", "));
            findings.add(told.violation(Promise::G4, "Atomic", &explanation).of_all(transaction.operation).at(*newest));
        }
        let ended_within = told.connection.end == End::Closed && told.frames().len() == last + 1;
        if ended_within && places.len() < wanted.len() {
            let explanation =
                format!("was ended within the transaction {wanted:?}, of which it showed {}", places.len());
            findings.add(told.violation(Promise::G4, "Atomic", &explanation).of_all(transaction.operation).at(*newest));
        }
    }
}

/// Whether this watch is to see a change.
fn seen(told: &Told<'_>, revision: Revision, name: &str) -> bool {
    let Some(from) = told.from else { return false };
    let course = told.course;
    let chosen = |version: Option<&crate::oracle::replay::Version>| {
        version.is_some_and(|version| version.life == crate::oracle::replay::Life::There && told.chooses(name, version))
    };
    revision > from && (chosen(course.at(name, revision)) || chosen(course.before(name, revision)))
}
