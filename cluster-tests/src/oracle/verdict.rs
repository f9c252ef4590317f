//! [`Verdict`]: what was found, by promise, and how much was looked at. A verdict over too little is no proof, so the counts belong to it.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use super::replay::Replay;
use crate::history::{End, Freshness, History, Line, OperationId, Outcome, Request, Revision};

/// Violations of one check that are told one by one; the others are counted.
const TOLD_MAX: usize = 20;

/// The promises of the product, by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Promise {
    /// Acknowledged writes are linearizable; a compare-and-set has one winner.
    G1,
    /// Reads and refusals are never older than what was acknowledged before; a list is one snapshot.
    G2,
    /// Nothing acknowledged is lost.
    G3,
    /// A watch is complete, ordered, without repetition, atomic and exact.
    G4,
    /// A watch resumes on any replica; 410 only outside the window.
    G5,
    /// A token with k uses admits k at most.
    G6,
    /// A pod is bound once, nodes are never overfull, subnets never overlap.
    G7,
    /// Controllers never act on stale reads.
    G8,
    /// Restore keeps content and never takes a client back.
    G9,
    /// Upgrades without a failed request.
    G10,
    /// Membership changes are safe.
    G11,
    /// Recovery from a lost quorum.
    G12,
    /// Corruption is detected, never served.
    G13,
    /// A full disk refuses writes and recovers.
    G14,
    /// Clocks never break safety.
    G15,
    /// A leader with a sick disk hands over.
    G16,
    /// One-way cuts do no harm.
    G17,
    /// Certificates rotate.
    G18,
    /// Hostile clients exhaust nothing.
    G19,
    /// After faults end, everything goes on and becomes equal.
    G20,
    /// One request, one effect; 503 only for what never happens.
    G21,
}

impl Display for Promise {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One broken promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// Which check found it.
    pub check: String,
    /// What happened, in a sentence that names requests, replicas and revisions.
    pub explanation: String,
    /// The requests it is about.
    pub operations: Vec<OperationId>,
    /// The watch it is about.
    pub stream: Option<u32>,
    /// The replica that answered.
    pub replica: Option<u16>,
    /// The revision it is about.
    pub revision: Option<Revision>,
}

impl Violation {
    /// A violation of `promise` found by `check`.
    pub fn new(promise: Promise, check: &str, explanation: impl Into<String>) -> Self {
        let explanation = explanation.into();
        let check = check.to_owned();
        Self { promise, check, explanation, operations: Vec::new(), stream: None, replica: None, revision: None }
    }

    /// It is about this request.
    #[must_use]
    pub fn of(mut self, operation: OperationId) -> Self {
        self.operations.push(operation);
        self
    }

    /// It is about these requests.
    #[must_use]
    pub fn of_all(mut self, operations: impl IntoIterator<Item = OperationId>) -> Self {
        self.operations.extend(operations);
        self
    }

    /// It is about this watch.
    #[must_use]
    pub fn on(mut self, stream: u32) -> Self {
        self.stream = Some(stream);
        self
    }

    /// This replica answered.
    #[must_use]
    pub fn through(mut self, replica: u16) -> Self {
        self.replica = Some(replica);
        self
    }

    /// It is about this revision.
    #[must_use]
    pub fn at(mut self, revision: Revision) -> Self {
        self.revision = Some(revision);
        self
    }
}

impl Display for Violation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.promise, self.check, self.explanation)
    }
}

/// How much was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests.
    pub operations: u64,
    /// Requests answered with a success.
    pub acknowledged: u64,
    /// Writes among them.
    pub writes: u64,
    /// Requests that were refused, by status.
    pub refused: BTreeMap<u16, u64>,
    /// Writes whose outcome was not known to their client.
    pub unknown: u64,
    /// Of those, the ones that turned out to have happened.
    pub unknown_happened: u64,
    /// Reads that had to be the latest and were judged.
    pub reads: u64,
    /// Lists and pages held against the replayed state.
    pub lists: u64,
    /// Objects in them.
    pub items: u64,
    /// Watches.
    pub streams: u64,
    /// Their connections.
    pub connections: u64,
    /// Events delivered and checked.
    pub events: u64,
    /// Bookmarks delivered and checked.
    pub bookmarks: u64,
    /// 410 answers, to lists and watches.
    pub expired: u64,
    /// Connections of watches that were refused otherwise, or broke.
    pub broken: u64,
    /// Changes in the replayed history.
    pub changes: u64,
    /// Revisions at which product invariants were checked.
    pub invariants: u64,
    /// Bindings of Pods among what they were checked for.
    #[serde(default)]
    pub bindings: u64,
    /// Changes known to be one transaction that watches were held against.
    #[serde(default)]
    pub transactions: u64,
    /// Registrations judged by their tokens.
    pub joins: u64,
    /// Those by tokens that had been issued a second before or more, within their time.
    #[serde(default)]
    pub lent: u64,
    /// Those by tokens whose time was over.
    #[serde(default)]
    pub outlived: u64,
    /// What could not be judged, by why.
    pub unjudged: BTreeMap<String, u64>,
}

/// What the judge says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What was broken, by promise.
    pub violations: BTreeMap<Promise, Vec<Violation>>,
    /// Violations found by each check, also those not told one by one.
    pub found: BTreeMap<String, u64>,
    /// How much was looked at.
    pub counts: Counts,
}

impl Verdict {
    /// Whether nothing was found.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
    }

    /// Adds what another part of the same run has shown.
    pub fn merge(&mut self, other: Self) {
        for (promise, violations) in other.violations {
            self.violations.entry(promise).or_default().extend(violations);
        }
        for (check, count) in other.found {
            *self.found.entry(check).or_default() += count;
        }
        self.counts.merge(&other.counts);
    }
}

impl Counts {
    fn merge(&mut self, other: &Self) {
        let Self { refused, unjudged, .. } = other;
        for (code, count) in refused {
            *self.refused.entry(*code).or_default() += count;
        }
        for (why, count) in unjudged {
            *self.unjudged.entry(why.clone()).or_default() += count;
        }
        let sums: [(&mut u64, u64); 21] = [
            (&mut self.operations, other.operations),
            (&mut self.acknowledged, other.acknowledged),
            (&mut self.writes, other.writes),
            (&mut self.unknown, other.unknown),
            (&mut self.unknown_happened, other.unknown_happened),
            (&mut self.reads, other.reads),
            (&mut self.lists, other.lists),
            (&mut self.items, other.items),
            (&mut self.streams, other.streams),
            (&mut self.connections, other.connections),
            (&mut self.events, other.events),
            (&mut self.bookmarks, other.bookmarks),
            (&mut self.expired, other.expired),
            (&mut self.broken, other.broken),
            (&mut self.changes, other.changes),
            (&mut self.invariants, other.invariants),
            (&mut self.bindings, other.bindings),
            (&mut self.transactions, other.transactions),
            (&mut self.joins, other.joins),
            (&mut self.lent, other.lent),
            (&mut self.outlived, other.outlived),
        ];
        for (sum, more) in sums {
            *sum += more;
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Counts { operations, acknowledged, unknown, lists, streams, events, bookmarks, changes, .. } = &self.counts;
        writeln!(
            f,
            "{operations} requests ({acknowledged} acknowledged, {unknown} of unknown outcome), {lists} lists, \
             {streams} watches with {events} events and {bookmarks} bookmarks over {changes} changes"
        )?;
        for (check, count) in &self.found {
            writeln!(f, "{count} violations found by {check}")?;
        }
        for violation in self.violations.values().flatten() {
            writeln!(f, "{violation}")?;
        }
        Ok(())
    }
}

/// Where checks put what they find.
#[derive(Debug, Default)]
pub struct Findings {
    violations: BTreeMap<Promise, Vec<Violation>>,
    found: BTreeMap<String, u64>,
    counts: Counts,
}

impl Findings {
    /// A promise was broken.
    pub fn add(&mut self, violation: Violation) {
        let found = self.found.entry(violation.check.clone()).or_default();
        *found += 1;
        if usize::try_from(*found).is_ok_and(|found| found <= TOLD_MAX) {
            self.violations.entry(violation.promise).or_default().push(violation);
        }
    }

    /// What was looked at.
    pub fn counts(&mut self) -> &mut Counts {
        &mut self.counts
    }

    /// Something could not be judged.
    pub fn unjudged(&mut self, why: &str) {
        *self.counts.unjudged.entry(why.to_owned()).or_default() += 1;
    }

    pub(super) fn verdict(mut self, history: &History, replay: &Replay) -> Verdict {
        let counts = &mut self.counts;
        for operation in &history.operations {
            counts.operations += 1;
            let writes = operation.request.writes();
            match &operation.outcome {
                Outcome::Refused { code, .. } => {
                    *counts.refused.entry(*code).or_default() += 1;
                    counts.expired += u64::from(*code == 410);
                }
                Outcome::Unknown { .. } => counts.unknown += u64::from(writes),
                Outcome::Object(_) | Outcome::Done { .. } | Outcome::Items { .. } => {
                    counts.acknowledged += 1;
                    counts.writes += u64::from(writes);
                    let latest = matches!(
                        operation.request,
                        Request::Get { freshness: Freshness::Latest, .. }
                            | Request::List { freshness: Freshness::Latest, .. }
                    );
                    counts.reads += u64::from(latest);
                }
            }
        }
        for stream in &history.streams {
            counts.streams += 1;
            for connection in &stream.connections {
                counts.connections += 1;
                match &connection.end {
                    End::Refused { code: 410, .. } => counts.expired += 1,
                    End::Refused { .. } | End::Broken(_) => counts.broken += 1,
                    End::Closed | End::Left => {}
                }
                for frame in &connection.frames {
                    match frame.line {
                        Line::Event { .. } => counts.events += 1,
                        Line::Bookmark { .. } => counts.bookmarks += 1,
                        Line::Error { code, .. } => counts.expired += u64::from(code == 410),
                    }
                }
            }
        }
        counts.changes = replay.changes();
        counts.transactions = replay.transactions().len() as u64;
        Verdict { violations: self.violations, found: self.found, counts: self.counts }
    }
}
