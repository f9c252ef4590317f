//! [`Pace`]: how densely things happen in a world, and for how long it goes on. Short dense worlds find races; long ones
//! find what needs time: retention, expiry, sessions that retire, clocks that drift apart.

use std::fmt;
use std::str::FromStr;

use quilt_raft_simulated::Timing;
use quilt_raft_simulated::model::Dice;

/// How dense a world is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// Several requests and a fault every few seconds.
    Busy,
    /// A request every few seconds, a fault every half minute, for ten times as long.
    Usual,
    /// A request now and then, a fault every few minutes, for sixty times as long.
    Quiet,
}

impl Pace {
    /// All, the densest first.
    pub const ALL: [Self; 3] = [Self::Busy, Self::Usual, Self::Quiet];

    /// The pace of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        match Dice::new(seed).child(4).below(100) {
            0..40 => Self::Busy,
            40..75 => Self::Usual,
            _ => Self::Quiet,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Usual => "usual",
            Self::Quiet => "quiet",
        }
    }

    /// How many times as long as a busy world it goes on.
    #[must_use]
    pub const fn stretch(self) -> u64 {
        match self {
            Self::Busy => 1,
            Self::Usual => 10,
            Self::Quiet => 60,
        }
    }

    /// Most a client thinks between two requests, the least and the most of that.
    pub(crate) const fn think_ms(self) -> (u64, u64) {
        match self {
            Self::Busy => (20, 400),
            Self::Usual => (500, 6_000),
            Self::Quiet => (5_000, 60_000),
        }
    }

    /// Mean time between faults, the least and the most of that.
    pub(crate) const fn fault_ms(self) -> (u64, u64) {
        match self {
            Self::Busy => (800, 8_000),
            Self::Usual => (5_000, 60_000),
            Self::Quiet => (30_000, 400_000),
        }
    }

    /// Mean time between an operator's commands, the least and the most of that.
    pub(crate) const fn command_ms(self) -> (u64, u64) {
        match self {
            Self::Busy => (1_000, 10_000),
            Self::Usual => (10_000, 90_000),
            Self::Quiet => (60_000, 600_000),
        }
    }

    /// Longest a watch is waited for before it is asked how far it has come.
    pub(crate) const fn patience_ms_max(self) -> u64 {
        match self {
            Self::Busy => 1_500,
            Self::Usual => 8_000,
            Self::Quiet => 60_000,
        }
    }

    /// How many times as long a fault may last that lasts longer than most.
    pub(crate) const fn long_fault(self) -> u64 {
        match self {
            Self::Busy => 1,
            Self::Usual => 4,
            Self::Quiet => 20,
        }
    }

    /// Heartbeats and elections as whoever runs it would set them, where nothing on the network calls for slower ones.
    pub(crate) fn timing(self, dice: &mut Dice) -> Timing {
        match self {
            Self::Busy => Timing::default(),
            Self::Usual if dice.percent(50) => Timing::default(),
            Self::Usual | Self::Quiet => Timing::relaxed(),
        }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|pace| pace.name() == text);
        found.ok_or_else(|| format!("{text:?} is no pace: busy, usual or quiet"))
    }
}
