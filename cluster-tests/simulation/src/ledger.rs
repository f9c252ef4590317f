//! [`Ledger`]: everything that happened, in order: shown to every invariant, and summed up in the trace hash. Knows no
//! rule itself.

use std::io::Write as _;

use crate::invariant::{self, Facts, Invariant};
use crate::sight::Sight;
use crate::tally::Tally;
use crate::trace::{Trace, line};
use parking_lot::Mutex;
use quilt_raft_simulated::model::{now_ns, watch};

/// A rule was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant's name.
    pub invariant: &'static str,
    /// Virtual milliseconds since the beginning.
    pub at_ms: u64,
    /// What happened.
    pub what: String,
}

struct State {
    invariants: Vec<Box<dyn Invariant>>,
    facts: Facts,
    violation: Option<Violation>,
    tally: Tally,
    trace: Trace,
    dump: Option<std::fs::File>,
}

/// What happened in one world.
pub(crate) struct Ledger {
    state: Mutex<State>,
    /// How many votes were given to others, and by whom the last one.
    votes: watch::Sender<(u64, u64)>,
}

impl Ledger {
    /// An empty one; every line of the trace also goes to `dump`.
    pub(crate) fn new(dump: Option<std::fs::File>) -> Self {
        Self::of(invariant::all(), dump)
    }

    /// One that judges nothing.
    pub(crate) fn silent() -> Self {
        Self::of(Vec::new(), None)
    }

    fn of(invariants: Vec<Box<dyn Invariant>>, dump: Option<std::fs::File>) -> Self {
        let state = State {
            invariants,
            facts: Facts::default(),
            violation: None,
            tally: Tally::default(),
            trace: Trace::default(),
            dump,
        };
        Self { state: Mutex::new(state), votes: watch::Sender::new((0, 0)) }
    }

    /// Something happened.
    pub(crate) fn see(&self, sight: &Sight<'_>) {
        if let Sight::Promised { replica, candidate, .. } = sight
            && replica != candidate
        {
            self.votes.send_modify(|votes| *votes = (votes.0 + 1, *replica));
        }
        let mut state = self.state.lock();
        let state = &mut *state;
        state.trace.see(now_ns(), sight);
        state.tally.see(sight);
        if state.dump.is_some() {
            state.write(&line(sight));
        }
        if state.violation.is_some() {
            return;
        }
        state.facts.see(now_ns() / 1_000_000, sight);
        for invariant in &mut state.invariants {
            if let Err(what) = invariant.see(sight, &state.facts) {
                let violation = Violation { invariant: invariant.name(), at_ms: now_ns() / 1_000_000, what };
                state.violation = Some(violation);
                break;
            }
        }
        if let Some(violation) = state.violation.clone() {
            state.note(&format!("VIOLATION {violation:?}"));
        }
    }

    /// Something happened that no invariant judges: a fault, a phase.
    pub(crate) fn note(&self, what: &str) {
        self.state.lock().note(what);
    }

    /// Tells of votes given to others: how many, and by whom the last one.
    pub(crate) fn votes(&self) -> watch::Receiver<(u64, u64)> {
        self.votes.subscribe()
    }

    /// Something happened that is only counted.
    pub(crate) fn count(&self, count: impl FnOnce(&mut Tally)) {
        count(&mut self.state.lock().tally);
    }

    /// How much happened.
    pub(crate) fn tally(&self) -> Tally {
        self.state.lock().tally
    }

    /// A rule that is not an invariant's was broken.
    pub(crate) fn accuse(&self, rule: &'static str, what: impl Into<String>) {
        let mut state = self.state.lock();
        let violation = Violation { invariant: rule, at_ms: now_ns() / 1_000_000, what: what.into() };
        state.note(&format!("VIOLATION {violation:?}"));
        state.violation.get_or_insert(violation);
    }

    /// Whether no rule was broken.
    pub(crate) fn is_clean(&self) -> bool {
        self.state.lock().violation.is_none()
    }

    /// The first rule that was broken.
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.state.lock().violation.clone()
    }

    /// All invariants' last look, when nothing happens any more.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        if state.violation.is_some() {
            return;
        }
        let found =
            state.invariants.iter_mut().find_map(|invariant| Some((invariant.name(), invariant.close().err()?)));
        if let Some((invariant, what)) = found {
            state.violation = Some(Violation { invariant, at_ms: now_ns() / 1_000_000, what });
        }
    }

    /// Hash of the trace, and how many lines it has.
    pub(crate) fn trace(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.trace.hash(), state.trace.lines())
    }
}

impl State {
    fn note(&mut self, what: &str) {
        self.trace.note(now_ns(), what);
        self.write(what);
    }

    fn write(&mut self, what: &str) {
        if let Some(dump) = &mut self.dump {
            // A dump that cannot be written is only shorter.
            let _ = writeln!(dump, "{:>12} {what}", now_ns() / 1_000);
        }
    }
}
