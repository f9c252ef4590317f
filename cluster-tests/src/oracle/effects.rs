//! Effects: every write has the number of effects that its answer says, every effect has its write, and what was acknowledged stays.

use std::collections::BTreeMap;

use super::order::named;
use super::replay::{Life, Replay};
use super::{Bias, Findings, Promise, Violation};
use crate::history::{History, Object, Operation, Outcome, Request, Revision, Writers};

/// Refusals that leave the fate of a write open.
pub(super) const OPEN: u16 = 504;

/// Checks effects and writes against each other.
pub(super) fn check(history: &History, replay: &Replay, bias: Bias, findings: &mut Findings) {
    let mut writers: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in &history.operations {
        let left_out = bias == Bias::UnknownIsAbsent && matches!(operation.outcome, Outcome::Unknown { .. });
        if let Some(value) = operation.request.value().filter(|_| !left_out) {
            writers.entry(value).or_default().push(operation);
        }
    }
    let mut effects: BTreeMap<&str, Vec<(Object, Revision)>> = BTreeMap::new();
    for (id, collection) in (0_u16..).zip(&history.collections) {
        let course = replay.course(id);
        for (revision, name) in &course.changes {
            let Some((_, version)) = course.change(*revision) else { continue };
            if version.life == Life::Gone {
                continue;
            }
            let before = course.before(name, *revision).filter(|before| before.life == Life::There);
            let same = before.is_some_and(|before| before.value == version.value);
            if same && collection.writers == Writers::Ours {
                let explanation = format!("{name} was changed at revision {revision} by nobody");
                findings.add(Violation::new(Promise::G1, "Phantom", explanation).at(*revision));
            }
            if !same && !version.value.is_empty() {
                let object = Object { collection: id, name: name.clone() };
                effects.entry(version.value.as_str()).or_default().push((object, *revision));
            }
        }
    }
    for (value, made) in &effects {
        match writers.get(value) {
            Some(writers) => judge(value, made, writers, findings),
            None => {
                for (object, revision) in made {
                    let explanation =
                        format!("{} became \"{value}\" at revision {revision}, which nobody ever wrote", object.name);
                    findings.add(Violation::new(Promise::G1, "Phantom", explanation).at(*revision));
                }
            }
        }
    }
    for (value, writers) in &writers {
        if !effects.contains_key(value) {
            lost(history, replay, writers, findings);
        }
    }
    keyed(history, findings);
    deletions(history, replay, findings);
}

/// What a value's effects say of the requests that wrote it.
fn judge(value: &str, made: &[(Object, Revision)], writers: &[&Operation], findings: &mut Findings) {
    let Some(first) = writers.first() else { return };
    if let [(object, one), (other, two), ..] = made {
        let explanation = format!(
            "operation {} ({}) took effect {} times: \"{value}\" was written to {} at revision {one} and to {} at revision {two}",
            first.id,
            named(first),
            made.len(),
            object.name,
            other.name
        );
        findings.add(told(Promise::G21, "OneEffect", explanation, first, *two));
    }
    for (object, revision) in made {
        if first.request.object() != Some(object) {
            let explanation = format!(
                "operation {} ({}) took effect on {} at revision {revision}",
                first.id,
                named(first),
                object.name
            );
            findings.add(told(Promise::G1, "Phantom", explanation, first, *revision));
        }
    }
    let open = |writer: &&Operation| match writer.outcome {
        Outcome::Refused { code, .. } => code == OPEN,
        _ => true,
    };
    if !writers.iter().any(open)
        && let Some((_, revision)) = made.first()
    {
        let (code, reason) = match &first.outcome {
            Outcome::Refused { code, reason } => (*code, reason.as_str()),
            _ => (0, ""),
        };
        let promise = if code >= 500 { Promise::G21 } else { Promise::G1 };
        let explanation = format!(
            "operation {} ({}) was refused with {code} {reason} and took effect at revision {revision}",
            first.id,
            named(first)
        );
        findings.add(told(promise, "RefusedHasEffect", explanation, first, *revision));
    }
    if writers.iter().all(|writer| matches!(writer.outcome, Outcome::Unknown { .. })) {
        findings.counts().unknown_happened += 1;
    }
}

fn told(promise: Promise, check: &str, explanation: String, operation: &Operation, revision: Revision) -> Violation {
    Violation::new(promise, check, explanation).of(operation.id).through(operation.replica).at(revision)
}

/// An acknowledged write without an effect, where the answer shows no revision and so no other check can tell.
fn lost(history: &History, replay: &Replay, writers: &[&Operation], findings: &mut Findings) {
    for operation in writers {
        let (Outcome::Object(seen), Some(object)) = (&operation.outcome, operation.request.object()) else { continue };
        if seen.revision > 0 {
            continue;
        }
        let course = replay.course(object.collection);
        if operation.invoked < course.base_read {
            // It may stand before the base, where changes are not known one by one.
            if course.at(&object.name, course.base).is_none_or(|version| version.value != seen.value) {
                findings.unjudged("an acknowledged write from before everything watched");
            }
            continue;
        }
        // Its revision is not known: only when watches have gone on behind it is its absence a loss.
        if operation.returned < replay.known_until(history, object.collection) {
            let explanation = format!(
                "operation {} ({}) was acknowledged with \"{}\", which no watch and no list ever shows",
                operation.id,
                named(operation),
                seen.value
            );
            let violation = Violation::new(Promise::G3, "Acknowledged", explanation);
            findings.add(violation.of(operation.id).through(operation.replica));
        } else {
            findings.unjudged("an acknowledged write behind everything watched");
        }
    }
}

/// One key, one answer.
fn keyed(history: &History, findings: &mut Findings) {
    let mut answers: BTreeMap<&str, (&Operation, &str)> = BTreeMap::new();
    for operation in &history.operations {
        let (Request::Create { key: Some(key), .. }, Outcome::Object(seen)) = (&operation.request, &operation.outcome)
        else {
            continue;
        };
        let (first, uid) = *answers.entry(key).or_insert((operation, &seen.uid));
        if uid != seen.uid {
            let explanation = format!(
                "operations {} and {} were sent with one Idempotency-Key and answered with {uid} and {}",
                first.id, operation.id, seen.uid
            );
            let violation = Violation::new(Promise::G21, "OneEffect", explanation);
            findings.add(violation.of(first.id).of(operation.id).through(operation.replica));
        }
    }
}

/// No object is deleted more often than somebody asked for.
fn deletions(history: &History, replay: &Replay, findings: &mut Findings) {
    let mut asked: BTreeMap<&Object, usize> = BTreeMap::new();
    for operation in &history.operations {
        let Request::Delete { object, .. } = &operation.request else { continue };
        let may_have = match operation.outcome {
            Outcome::Refused { code, .. } => code == OPEN,
            _ => true,
        };
        *asked.entry(object).or_default() += usize::from(may_have);
    }
    for (id, collection) in (0_u16..).zip(&history.collections) {
        if collection.writers == Writers::Shared {
            continue;
        }
        for (name, track) in &replay.course(id).tracks {
            let gone = track.iter().filter(|version| version.life == Life::Gone);
            let object = Object { collection: id, name: name.clone() };
            let asked = asked.get(&object).copied().unwrap_or_default();
            if let Some(version) = gone.clone().nth(asked) {
                let explanation = format!(
                    "{name} was deleted {} times, lastly at revision {}, and {asked} requests could have done so",
                    gone.count(),
                    version.revision
                );
                findings.add(Violation::new(Promise::G1, "Phantom", explanation).at(version.revision));
            }
        }
    }
}
