//! Join tokens: one of k uses admits k nodes and no more, whoever asks at once through whichever replica.

use std::collections::{BTreeMap, BTreeSet};

use super::replay::{Life, Replay};
use super::{Findings, Promise, Violation};
use crate::history::{History, Operation, Outcome, Request};

/// Paths of collections of Nodes end so.
const NODES: &str = "/nodes";

/// Checks all tokens.
pub(super) fn check(history: &History, replay: &Replay, findings: &mut Findings) {
    let mut uses: BTreeMap<&str, u64> = BTreeMap::new();
    let mut joins: BTreeMap<&str, Vec<(&Operation, &str)>> = BTreeMap::new();
    for operation in &history.operations {
        match &operation.request {
            Request::IssueToken { token, uses: count } => drop(uses.insert(token, *count)),
            Request::Join { token, node } => joins.entry(token).or_default().push((operation, node)),
            _ => {}
        }
    }
    let watched = history.collections.iter().any(|collection| collection.path.ends_with(NODES));
    let mut ever: BTreeSet<&str> = BTreeSet::new();
    for (collection, course) in history.collections.iter().zip(replay.courses()) {
        if collection.path.ends_with(NODES) {
            let tracks = course.tracks.iter();
            let there = tracks.filter(|(_, track)| track.iter().any(|version| version.life == Life::There));
            ever.extend(there.map(|(name, _)| name.as_str()));
        }
    }
    for (token, joins) in joins {
        let Some(uses) = uses.get(token).copied() else { continue };
        findings.counts().joins += joins.len() as u64;
        let acknowledged: Vec<&(&Operation, &str)> =
            joins.iter().filter(|(operation, _)| operation.outcome.succeeded()).collect();
        let admitted: BTreeSet<&str> = joins
            .iter()
            .filter(|(operation, node)| operation.outcome.succeeded() || ever.contains(node))
            .map(|(_, node)| *node)
            .collect();
        if admitted.len() as u64 > uses {
            let explanation = format!("token {token} of {uses} uses admitted {} nodes: {admitted:?}", admitted.len());
            let mut violation = Violation::new(Promise::G6, "Token", explanation);
            for (operation, _) in &acknowledged {
                violation = violation.of(operation.id);
            }
            findings.add(violation);
        }
        for (operation, node) in &joins {
            judge(operation, node, uses, &joins, findings);
            let refused = matches!(operation.outcome, Outcome::Refused { code, .. } if code != 504);
            let retried = joins.iter().any(|(other, same)| other.id != operation.id && same == node);
            if refused && !retried && ever.contains(node) {
                let explanation =
                    format!("operation {} was refused to join as {node}, and {node} is there", operation.id);
                findings.add(Violation::new(Promise::G21, "RefusedHasEffect", explanation).of(operation.id));
            }
            if operation.outcome.succeeded() && watched && !ever.contains(node) {
                let explanation = format!("operation {} joined as {node}, which is never seen", operation.id);
                findings.add(Violation::new(Promise::G3, "Acknowledged", explanation).of(operation.id));
            }
        }
    }
}

/// A refusal for a spent token is right only when enough others can have spent it.
fn judge(operation: &Operation, node: &str, uses: u64, joins: &[(&Operation, &str)], findings: &mut Findings) {
    let Outcome::Refused { code: 401, .. } = operation.outcome else { return };
    let may_have_joined = joins.iter().filter(|(other, _)| {
        let may = match other.outcome {
            Outcome::Refused { code, .. } => code == 504,
            _ => true,
        };
        may && other.invoked <= operation.returned
    });
    let may_have_joined = may_have_joined.count() as u64;
    if may_have_joined < uses {
        let explanation = format!(
            "operation {} to join as {node} through replica {} was refused with 401, though its token of {uses} uses can \
             have been used {may_have_joined} times at most",
            operation.id, operation.replica
        );
        findings.add(Violation::new(Promise::G6, "Token", explanation).of(operation.id).through(operation.replica));
    }
}
