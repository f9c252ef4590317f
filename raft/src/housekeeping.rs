//! The leader's upkeep of the state: expired keys, old history, deleted clusters. Everything is a command in the log,
//! bounded, and proposed only when something is due.

use std::sync::Arc;
use std::time::Duration;

use openraft::Instant as _;
use openraft::type_config::TypeConfigExt;
use quilt_proto::state::{Compact, Expire, Sweep};
use quilt_proto::{KeyPrefix, Revision, command};
use quilt_state::limits::{COMPACT_ROWS_MAX, EXPIRE_KEYS_MAX, SWEEP_ROWS_MAX};
use quilt_state::{Family, Step, row};

use crate::applied::Applied;
use crate::clock::{Clock, millis};
use crate::history::{Floors, Window, Written};
use crate::host::watch;
use crate::leadership::{LeaderId, Leadership};
use crate::proposer::Proposer;
use crate::types::TypeConfig;

/// How often something may become due.
const TICK: Duration = Duration::from_secs(1);
/// One command's way through the log; after a longer silence the next round looks again.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Housekeeping {
    pub(crate) applied: Arc<Applied>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// How long history is kept.
    pub(crate) window: Duration,
    /// How much of it.
    pub(crate) budget_bytes: u64,
    pub(crate) written: Arc<Written>,
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
        let mut window = Window::new(self.window, self.budget_bytes);
        // By this process's own time: cluster time may take a step when it is first stamped here, and a watch that fell
        // behind would have the less.
        let began = TypeConfig::now();
        while self.leads(leader) {
            let led_ms = millis(TypeConfig::now().saturating_duration_since(began));
            let floors = window.look(led_ms, self.applied.mark().revision, &self.written);
            if let Err(error) = self.round(leader, floors).await {
                // Apply meets the same error and stops the replica; here it is only reported.
                tracing::error!(%error, "reading what is due");
            }
            TypeConfig::sleep(TICK).await;
        }
    }

    async fn round(&self, leader: LeaderId, floors: Floors) -> Result<(), quilt_state::StoreError> {
        while self.leads(leader) && self.expiry_due()? {
            if !self.command(command::Kind::Expire(Expire { limit: EXPIRE_KEYS_MAX })).await {
                return Ok(());
            }
        }
        if let Some(floor) = floors.all {
            while self.leads(leader)
                && let Some(cluster) = self.compactable(floor)?
            {
                if !self.compact(cluster, floor).await {
                    return Ok(());
                }
            }
        }
        for (cluster, floor) in floors.of {
            while self.leads(leader) && self.applied.horizon().floor(&cluster) < floor {
                if !self.compact(cluster.clone(), floor).await {
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

    async fn compact(&self, cluster: String, floor: Revision) -> bool {
        let compact = Compact { cluster, floor: floor.get(), limit: COMPACT_ROWS_MAX };
        self.command(command::Kind::Compact(compact)).await
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
