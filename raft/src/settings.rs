//! How the agreement layer is set, with reasons.

use std::time::Duration;

use openraft::SnapshotPolicy;

use crate::error::OpenError;

/// Timing of heartbeats and elections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two heartbeats of the leader.
    pub heartbeat_ms: u64,
    /// Shortest time without a leader before a follower stands for election.
    pub election_min_ms: u64,
    /// Longest; also the leader's lease, before which no election can begin.
    pub election_max_ms: u64,
}

impl Default for Timing {
    /// Fails over in well under half a second and still rides out a slow disk's hiccups. The heartbeat sets the pace of openraft's
    /// clock, which is most of what an idle replica does ([decision 34](../../../docs/decisions)).
    fn default() -> Self {
        Self { heartbeat_ms: 60, election_min_ms: 150, election_max_ms: 250 }
    }
}

impl Timing {
    /// For hosts where a process may not run for tens of milliseconds at a time.
    #[must_use]
    pub const fn relaxed() -> Self {
        Self { heartbeat_ms: 150, election_min_ms: 600, election_max_ms: 1_200 }
    }

    /// The leader's lease.
    #[must_use]
    pub const fn lease(&self) -> Duration {
        Duration::from_millis(self.election_max_ms)
    }
}

/// Longest transfer of one snapshot, install included.
const SNAPSHOT_TIMEOUT_MS: u64 = 10 * 60 * 1_000;

/// openraft's settings. Everything that is a choice is written out.
pub(crate) fn config(cluster: &str, timing: Timing) -> Result<openraft::Config, OpenError> {
    let config = openraft::Config {
        cluster_name: cluster.to_owned(),
        heartbeat_interval: timing.heartbeat_ms,
        election_timeout_min: timing.election_min_ms,
        election_timeout_max: timing.election_max_ms,
        // A replica that cannot win must not push up the term of a working leader.
        enable_pre_vote: Some(true),
        // A leader without a quorum falls silent, so that a one-way cut cannot keep followers loyal to it. No shorter
        // than lease plus the longest election.
        quorum_loss_probe_interval: Some(2 * timing.election_max_ms),
        // A restarted leader's state may not be flushed: it has to be elected again.
        enable_leader_restore: Some(false),
        // Never: a replica that lost its log has to come back under a new id.
        allow_log_reversion: Some(false),
        // Snapshots and purges follow bytes and time, decided in `retention`, not counts of entries.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // Log positions are chosen by our own rule; a follower is fed from the log for as long as it is there.
        replication_lag_threshold: u64::MAX,
        install_snapshot_timeout: SNAPSHOT_TIMEOUT_MS,
        max_payload_entries: 1_024,
        // Retry soon at first: a peer that restarts is back within a second. Later too, since it is of use only once it
        // has caught up, and a try costs little.
        backoff: "20ms 40ms 80ms ...200ms".to_owned(),
        ..openraft::Config::default()
    };
    config.validate().map_err(|error| OpenError::Settings(error.to_string()))
}
