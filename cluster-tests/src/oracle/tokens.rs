//! Join tokens: one of k uses admits k nodes and no more, whoever asks at once through whichever replica; and it ends at its time, which is
//! cluster time, whatever any clock on the wall says.

use std::collections::{BTreeMap, BTreeSet};

use super::replay::{Life, Replay};
use super::{Findings, Promise, Violation};
use crate::history::{History, Micros, Operation, Outcome, Request};

/// Paths of collections of Nodes end so.
const NODES: &str = "/nodes";

/// Cluster time goes on with the leader's monotonic clock, which may be a tenth too fast or too slow, and a twentieth faster while a wall
/// clock is ahead. So a minute of it is no shorter than this share of a minute, in thousandths,
const SHORTEST: u64 = 865;
/// and no longer than this.
const LONGEST: u64 = 1_112;
/// By so much replicas' estimates of it may be apart.
const APART: Micros = 5_000_000;
/// While nothing is acknowledged for longer, cluster time may stand still: who starts goes on from what was last written.
const SILENCE: Micros = 500_000;
/// A token has lived for a while after this.
const AGED: Micros = 1_000_000;

/// Between when and when a token ends.
#[derive(Debug, Clone, Copy)]
struct Ends {
    /// It had been issued by then.
    issued: Micros,
    earliest: Micros,
    latest: Micros,
}

/// Times in which nothing was acknowledged.
fn silences(history: &History) -> Vec<(Micros, Micros)> {
    let answered = history.operations.iter().filter(|one| one.outcome.succeeded() && one.request.writes());
    let mut answered: Vec<Micros> = answered.map(|one| one.returned).collect();
    answered.sort_unstable();
    answered.windows(2).filter(|pair| pair[1] - pair[0] > SILENCE).map(|pair| (pair[0], pair[1])).collect()
}

/// When each token ends that does so within a run.
fn ends(history: &History) -> BTreeMap<&str, Ends> {
    let silences = silences(history);
    let mut asked: BTreeMap<&str, (Micros, Micros, u64)> = BTreeMap::new();
    for operation in &history.operations {
        let Request::IssueToken { token, ttl_secs: Some(ttl_secs), .. } = &operation.request else { continue };
        let entry = asked.entry(token).or_insert((operation.invoked, 0, *ttl_secs));
        entry.0 = entry.0.min(operation.invoked);
        entry.1 = entry.1.max(operation.returned);
    }
    let ends = asked.into_iter().map(|(token, (invoked, returned, ttl_secs))| {
        // Thousandths of seconds' millions are thousands.
        let earliest = invoked.saturating_add(ttl_secs * SHORTEST * 1_000).saturating_sub(APART);
        let mut latest = returned.saturating_add(ttl_secs * LONGEST * 1_000).saturating_add(APART);
        for (from, until) in &silences {
            if *from < latest && *until > invoked {
                latest += until - invoked.max(*from);
            }
        }
        (token, Ends { issued: returned, earliest, latest })
    });
    ends.collect()
}

/// Checks all tokens.
pub(super) fn check(history: &History, replay: &Replay, findings: &mut Findings) {
    let mut uses: BTreeMap<&str, u64> = BTreeMap::new();
    let mut joins: BTreeMap<&str, Vec<(&Operation, &str)>> = BTreeMap::new();
    for operation in &history.operations {
        match &operation.request {
            Request::IssueToken { token, uses: count, .. } => drop(uses.insert(token, *count)),
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
    let ends = ends(history);
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
            judge(operation, node, uses, &joins, ends.get(token).copied(), findings);
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

/// A refusal for a spent token is right only when enough others can have spent it, or when its time can be over; behind its time nobody is
/// let in.
fn judge(
    operation: &Operation,
    node: &str,
    uses: u64,
    joins: &[(&Operation, &str)],
    ends: Option<Ends>,
    findings: &mut Findings,
) {
    let aged = ends.is_some_and(|ends| operation.invoked > ends.issued + AGED && operation.returned < ends.earliest);
    let outlived = ends.is_some_and(|ends| operation.invoked > ends.latest);
    findings.counts().lent += u64::from(aged);
    findings.counts().outlived += u64::from(outlived);
    let tell = |promise, check, explanation: String| {
        Violation::new(promise, check, explanation).of(operation.id).through(operation.replica)
    };
    if let (Some(ends), true, true) = (ends, outlived, operation.outcome.succeeded()) {
        let explanation = format!(
            "operation {} joined as {node} through replica {} at {} us, by a token that had ended at {} us at the latest",
            operation.id, operation.replica, operation.invoked, ends.latest
        );
        findings.add(tell(Promise::G15, "TokenTime", explanation));
    }
    let Outcome::Refused { code: 401, .. } = operation.outcome else { return };
    if ends.is_some_and(|ends| operation.returned >= ends.earliest) {
        return;
    }
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
        findings.add(match (aged, ends) {
            (true, Some(ends)) => {
                let explanation = format!(
                    "{explanation}, at {} us, and ends at {} us at the earliest",
                    operation.returned, ends.earliest
                );
                tell(Promise::G15, "TokenTime", explanation)
            }
            _ => tell(Promise::G6, "Token", explanation),
        });
    }
}
