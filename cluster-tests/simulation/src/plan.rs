//! [`Plan`]: what a seed decides before anything runs: how many replicas, how the network and the disks are, which faults
//! come and how often. Values only.

use std::time::Duration;

use quilt_raft_simulated::Timing;
use quilt_raft_simulated::model::{Dice, Weather};

use crate::pace::Pace;

/// What one world is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How densely things happen.
    pub pace: Pace,
    /// Replicas at the beginning.
    pub replicas: u64,
    /// Clients that write and read.
    pub clients: u64,
    /// Clients that claim what only so many may have.
    pub claimants: u64,
    /// Keys they share.
    pub keys: u64,
    /// How many requests in a hundred are reads.
    pub reads_percent: u64,
    /// Watches.
    pub watchers: u64,
    /// Most a client thinks between two requests.
    pub think_ms_max: u64,
    /// The network.
    pub weather: Weather,
    /// A sync takes so long, least and most.
    pub sync_us: (u64, u64),
    /// Mean time between faults.
    pub fault_every_ms: u64,
    /// Mean time between an operator's commands.
    pub command_every_ms: u64,
    /// Whether replicas come and go for good.
    pub membership_changes: bool,
    /// How wrong monotonic clocks may run.
    pub drift_ppm_max: u64,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// Bytes of log that stay for replicas that were away.
    pub log_keep_bytes: u64,
    /// Bytes of events held for watches.
    pub event_ring_bytes: usize,
}

impl Plan {
    /// The plan of a seed, at its own pace or another.
    #[must_use]
    pub fn of(seed: u64, pace: Option<Pace>) -> Self {
        let pace = pace.unwrap_or_else(|| Pace::of(seed));
        let mut dice = Dice::new(seed).child(2);
        let within = |(least, most): (u64, u64), dice: &mut Dice| dice.between(least, most);
        let replicas = *dice.pick(&[1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 5, 7]).expect("there are some");
        let rough = dice.percent(50);
        let delay_us = if rough { (100, 50_000) } else { (50, 2_000) };
        let weather = Weather {
            delay_us,
            spikes_ppm: if rough { 2_000 } else { 100 },
            spike_us: (50_000, 800_000),
            losses_ppm: if rough { 5_000 } else { 100 },
            resets_ppm: if dice.percent(50) { 200 } else { 0 },
        };
        // Where a message takes longer than a heartbeat may, only slower timing is a fair setting.
        let timing = if rough { Timing::relaxed() } else { pace.timing(&mut dice.child(1)) };
        let sync_us = if dice.percent(30) { (1_000, 20_000) } else { (50, 2_000) };
        Self {
            pace,
            replicas,
            clients: dice.between(2, 8),
            claimants: *dice.child(2).pick(&[0, 2, 3, 4]).expect("there are some"),
            reads_percent: dice.child(3).between(15, 70),
            keys: dice.between(3, 24),
            watchers: dice.between(1, 4),
            think_ms_max: within(pace.think_ms(), &mut dice),
            weather,
            sync_us,
            fault_every_ms: within(pace.fault_ms(), &mut dice),
            command_every_ms: within(pace.command_ms(), &mut dice),
            membership_changes: dice.percent(30),
            drift_ppm_max: if dice.percent(30) { 100_000 } else { 200 },
            timing,
            log_keep_bytes: dice.between(4 << 10, 64 << 10),
            event_ring_bytes: usize::try_from(dice.between(4 << 10, 256 << 10)).unwrap_or(1 << 16),
        }
    }

    /// Some time around a mean.
    pub(crate) fn around(dice: &mut Dice, mean_ms: u64) -> Duration {
        Duration::from_millis(dice.between(mean_ms / 4, mean_ms * 7 / 4))
    }
}
