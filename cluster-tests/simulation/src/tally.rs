//! [`Tally`]: how much happened in a world, so that time in which nothing happens cannot pass for time that was tested.

use std::fmt;
use std::ops::AddAssign;

use crate::sight::{Ended, Sight};

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Transactions acknowledged.
    pub applied: u64,
    /// Transactions told to have no effect.
    pub unapplied: u64,
    /// Transactions of which nobody could tell.
    pub unknown: u64,
    /// Reads answered.
    pub reads: u64,
    /// Events delivered to watches.
    pub events: u64,
    /// Faults of all kinds.
    pub faults: u64,
    /// Processes killed and machines that lost power, among the faults and beside them.
    pub crashes: u64,
    /// Leaders that came into office.
    pub elections: u64,
    /// What an operator asked for: transfers, snapshots, cut logs, compactions, changes of members.
    pub commands: u64,
    /// Snapshots that were put in the place of a state.
    pub installs: u64,
}

impl Tally {
    /// Counts what is seen.
    pub(crate) fn see(&mut self, sight: &Sight<'_>) {
        match sight {
            Sight::Answered { ended: Ended::Applied(..), .. } => self.applied += 1,
            Sight::Answered { ended: Ended::Rejected | Ended::NotApplied, .. } => self.unapplied += 1,
            Sight::Answered { ended: Ended::Unknown, .. } => self.unknown += 1,
            Sight::ReadEnded { .. } => self.reads += 1,
            Sight::Delivered { events, .. } => self.events += events.len() as u64,
            Sight::Voted { replica, candidate, leads: true, .. } if replica == candidate => self.elections += 1,
            Sight::Installed { .. } => self.installs += 1,
            _ => {}
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.applied += other.applied;
        self.unapplied += other.unapplied;
        self.unknown += other.unknown;
        self.reads += other.reads;
        self.events += other.events;
        self.faults += other.faults;
        self.crashes += other.crashes;
        self.elections += other.elections;
        self.commands += other.commands;
        self.installs += other.installs;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { applied, unapplied, unknown, reads, events, faults, crashes, elections, commands, installs } = self;
        write!(
            f,
            "{applied} written, {unapplied} not, {unknown} unknown, {reads} read, {events} events; {faults} faults, \
             {crashes} crashes, {elections} elections, {commands} commands, {installs} installs"
        )
    }
}
