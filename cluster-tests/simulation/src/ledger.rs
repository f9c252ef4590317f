//! [`Ledger`]: everything that happened, in order: shown to every invariant, and summed up in the trace hash. Knows no
//! rule itself.

use std::fmt::Write as _;
use std::io::Write as _;

use parking_lot::Mutex;
use quilt_raft_simulated::model::now_ns;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::invariant::{self, Invariant};
use crate::sight::{Sight, Wrote};

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
    violation: Option<Violation>,
    trace: Xxh3,
    sights: u64,
    line: String,
    dump: Option<std::fs::File>,
}

/// What happened in one world.
pub(crate) struct Ledger {
    state: Mutex<State>,
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
        let state = State { invariants, violation: None, trace: Xxh3::new(), sights: 0, line: String::new(), dump };
        Self { state: Mutex::new(state) }
    }

    /// Something happened.
    pub(crate) fn see(&self, sight: &Sight<'_>) {
        let mut state = self.state.lock();
        let state = &mut *state;
        match sight {
            // Of what is long only a sum: what it says is compared with what others say.
            Sight::Appended { replica, before, records } => {
                let sum = records.iter().fold(0, |sum: u64, record| sum.rotate_left(7) ^ xxh3_64(&record.payload));
                let last = records.last().map(|record| (record.index, record.term));
                state.note(&format_args!("Appended {replica} {before:?} {last:?} {sum:016x}"));
            }
            Sight::Applied { replica, mark, changes, voters } => {
                let revisions = changes.first().map(|first| first.0).zip(changes.last().map(|last| last.0));
                state.note(&format_args!("Applied {replica} {mark:?} {revisions:?} {voters:?}"));
            }
            Sight::Delivered { replica, from, events, upto, .. } => {
                state.note(&format_args!("Delivered {replica} {from} {upto} {}", events.len()));
            }
            Sight::Asked { request, writes } => state.note(&format_args!("Asked {request} {}", Writes(writes))),
            Sight::Booted { replica, vote, bounds, mark, .. } => {
                state.note(&format_args!("Booted {replica} {vote:?} {bounds:?} {mark:?}"));
            }
            Sight::ReadEnded { read, replica, revision, .. } => {
                state.note(&format_args!("ReadEnded {read:?} {replica} {revision}"));
            }
            short => state.note(&format_args!("{short:?}")),
        }
        if state.violation.is_some() {
            return;
        }
        for invariant in &mut state.invariants {
            if let Err(what) = invariant.see(sight) {
                let violation = Violation { invariant: invariant.name(), at_ms: now_ns() / 1_000_000, what };
                state.violation = Some(violation);
                break;
            }
        }
        if let Some(violation) = state.violation.clone() {
            state.note(&format_args!("VIOLATION {violation:?}"));
        }
    }

    /// Something happened that no invariant judges: a fault, a phase.
    pub(crate) fn note(&self, what: &str) {
        self.state.lock().note(&format_args!("{what}"));
    }

    /// A rule that is not an invariant's was broken.
    pub(crate) fn accuse(&self, rule: &'static str, what: impl Into<String>) {
        let mut state = self.state.lock();
        let violation = Violation { invariant: rule, at_ms: now_ns() / 1_000_000, what: what.into() };
        state.note(&format_args!("VIOLATION {violation:?}"));
        state.violation.get_or_insert(violation);
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
        (state.trace.digest(), state.sights)
    }
}

impl State {
    fn note(&mut self, what: &std::fmt::Arguments<'_>) {
        self.line.clear();
        // Writing to a string cannot fail.
        let _ = writeln!(self.line, "{:>12} {what}", now_ns() / 1_000);
        self.trace.update(self.line.as_bytes());
        self.sights += 1;
        if let Some(dump) = &mut self.dump {
            // A dump that cannot be written is only shorter.
            let _ = dump.write_all(self.line.as_bytes());
        }
    }
}

/// The writes of a transaction, in one line.
struct Writes<'a>(&'a [Wrote]);

impl std::fmt::Display for Writes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Wrote { key, value, expected } in self.0 {
            let key = String::from_utf8_lossy(key).replace('\0', "/");
            let value = value.as_ref().map(|value| String::from_utf8_lossy(&value[..value.len().min(16)]).into_owned());
            write!(f, "{key} = {value:?} at {expected:?}; ")?;
        }
        Ok(())
    }
}
