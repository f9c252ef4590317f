//! The leader's upkeep of the state: expired keys, old history, deleted clusters. Everything is a command in the log,
//! bounded, and proposed only when something is due.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use openraft::type_config::TypeConfigExt;
use quilt_proto::state::{Compact, Expire, Sweep};
use quilt_proto::{KeyPrefix, Revision, command};
use quilt_state::limits::{COMPACT_ROWS_MAX, EXPIRE_KEYS_MAX, SWEEP_ROWS_MAX};
use quilt_state::{Family, Step, row};
use tokio::sync::watch;

use crate::applied::Applied;
use crate::clock::Clock;
use crate::leadership::{LeaderId, Leadership};
use crate::proposer::Proposer;
use crate::types::TypeConfig;

/// How often something may become due.
const TICK: Duration = Duration::from_secs(1);
/// How often the newest revision is noted; the window is exact to this.
const SAMPLE_EVERY_MS: u64 = 5_000;
/// One command's way through the log; after a longer silence the next round looks again.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// No watch is cut off from history younger than this, whatever is asked for.
pub(crate) const WINDOW_MIN: Duration = Duration::from_secs(75);

pub(crate) struct Housekeeping {
    pub(crate) applied: Arc<Applied>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// How long history is kept.
    pub(crate) window: Duration,
}

impl Housekeeping {
    /// Works whenever this replica leads, until it stops.
    pub(crate) async fn run(mut self) {
        loop {
            let held = self.leadership.wait_for(|now| now.held().is_some()).await.map(|now| now.held());
            match held {
                Ok(Some(leader)) => self.lead(leader).await,
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }

    fn leads(&self, leader: LeaderId) -> bool {
        self.leadership.borrow().held() == Some(leader)
    }

    async fn lead(&self, leader: LeaderId) {
        // Revisions by the cluster time at which they were the newest. A new leader starts without, so history is
        // kept longer after a fail-over, never shorter.
        let mut samples: VecDeque<(u64, Revision)> = VecDeque::new();
        let window_ms = u64::try_from(self.window.max(WINDOW_MIN).as_millis()).unwrap_or(u64::MAX);
        while self.leads(leader) {
            let now = self.clock.now_ms();
            let newest = self.applied.mark().revision;
            if samples.back().is_none_or(|(at, _)| now >= at + SAMPLE_EVERY_MS) {
                samples.push_back((now, newest));
            }
            let mut floor = None;
            while let Some((at, revision)) = samples.front()
                && now >= at + window_ms
            {
                floor = Some(*revision);
                samples.pop_front();
            }
            if let Err(error) = self.round(leader, floor).await {
                // Apply meets the same error and stops the replica; here it is only reported.
                tracing::error!(%error, "reading what is due");
            }
            TypeConfig::sleep(TICK).await;
        }
    }

    async fn round(&self, leader: LeaderId, floor: Option<Revision>) -> Result<(), quilt_state::StoreError> {
        while self.leads(leader) && self.expiry_due()? {
            if !self.command(command::Kind::Expire(Expire { limit: EXPIRE_KEYS_MAX })).await {
                return Ok(());
            }
        }
        if let Some(floor) = floor {
            while self.leads(leader)
                && let Some(cluster) = self.compactable(floor)?
            {
                let compact = Compact { cluster, floor: floor.get(), limit: COMPACT_ROWS_MAX };
                if !self.command(command::Kind::Compact(compact)).await {
                    return Ok(());
                }
            }
        }
        while self.leads(leader) && self.sweepable()? {
            if !self.command(command::Kind::Sweep(Sweep { limit: SWEEP_ROWS_MAX })).await {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn command(&self, kind: command::Kind) -> bool {
        match self.proposer.command(kind) {
            Ok(done) => matches!(TypeConfig::timeout(COMMAND_TIMEOUT, done).await, Ok(Ok(true))),
            Err(_) => false,
        }
    }

    fn expiry_due(&self) -> Result<bool, quilt_state::StoreError> {
        let (store, _) = self.applied.state();
        let mut next = None;
        store.scan(Family::Expiry, &[], &[0xff; 9], &mut |key, _| {
            next = row::split_expiry(key).map(|(at, _)| at);
            Step::Stop
        })?;
        Ok(next.is_some_and(|at| at <= self.clock.now_ms()))
    }

    /// A cluster with history at or below `floor` that has not been compacted so far.
    fn compactable(&self, floor: Revision) -> Result<Option<String>, quilt_state::StoreError> {
        let (store, horizon) = self.applied.state();
        let mut found = None;
        store.scan(Family::Changes, &[], &[0xff; 9], &mut |key, _| {
            let Some((cluster, revision)) = row::split_change(key) else { return Step::Stop };
            let Ok(cluster) = std::str::from_utf8(cluster) else { return Step::Stop };
            if revision <= floor && horizon.floor(cluster) < floor && !horizon.dropped.contains(cluster) {
                found = Some(cluster.to_owned());
                return Step::Stop;
            }
            KeyPrefix::cluster(cluster).map_or(Step::Stop, |prefix| Step::Seek(prefix.end().to_vec()))
        })?;
        Ok(found)
    }

    /// Whether rows of deleted clusters are left.
    fn sweepable(&self) -> Result<bool, quilt_state::StoreError> {
        let (store, horizon) = self.applied.state();
        for cluster in horizon.dropped.iter() {
            let Ok(prefix) = KeyPrefix::cluster(cluster) else { continue };
            for family in [Family::Versions, Family::Changes] {
                let mut any = false;
                store.scan(family, prefix.bytes(), &prefix.end(), &mut |_, _| {
                    any = true;
                    Step::Stop
                })?;
                if any {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}
