//! [`DiskWatch`]: looks at the disk's pace all the time and does what follows.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::type_config::TypeConfigExt;
use quilt_storage::LogEngine;

use super::pace::SLOT;
use super::policy::{Recent, Slowness, Voter};
use super::{Disk, Instant};
use crate::clock::millis;
use crate::membership::Membership;
use crate::state_machine::Raft;
use crate::status::{alive, matched_index};
use crate::transport::Peers;
use crate::types::{Metrics, TypeConfig};

/// What a peer said of itself longer ago counts no more.
const FRESH: Duration = Duration::from_secs(3);
/// A replica whose disk is slow stands for election only when no leader has been heard from for so many times as long as anybody
/// else waits: by then nobody else will.
const RELUCTANT: u32 = 4;

/// Whom the watch asks and tells.
pub(crate) struct DiskWatch {
    pub(crate) id: u64,
    pub(crate) disk: Arc<Disk>,
    pub(crate) log: Arc<dyn LogEngine>,
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
    pub(crate) membership: Arc<Membership>,
    /// A sync that takes longer is slow.
    pub(crate) slow: Duration,
    /// Without a leader for so long every replica stands for election, as far as it may.
    pub(crate) election: Duration,
    /// A sync that takes longer has stalled for good.
    pub(crate) stalled: Duration,
}

impl DiskWatch {
    /// Watches until the disk has stalled for good, and says so.
    pub(crate) async fn run(self) -> String {
        let mut recent = Recent::default();
        let mut slowness = Slowness::new(self.slow);
        let mut shy = Shyness { led_at: TypeConfig::now(), stands: true };
        loop {
            let slot = self.disk.pace.look(TypeConfig::now(), self.log.syncs());
            if slot.stuck >= self.stalled {
                return format!(
                    "the disk of its log has stalled: nothing has become durable for {} s; look at the disk and its host",
                    slot.stuck.as_secs()
                );
            }
            recent.push(slot.sync);
            let was_slow = slowness.is_slow();
            // Most of the time there is nothing to compare.
            if was_slow || recent.at_least().is_some_and(|sync| sync >= self.slow) {
                let metrics = self.raft.metrics().borrow_watched().clone();
                let voters = self.others(&metrics);
                slowness.judge(&recent, &voters);
                self.tell(was_slow, slowness.is_slow(), &recent, &voters);
                if !self.disk.handed_over_lately()
                    && let Some(to) = slowness.successor(&recent, &voters)
                {
                    self.hand_over(&metrics, to, &recent).await;
                }
            }
            self.disk.see(recent.typical(), slowness.is_slow());
            self.hold_back(slowness.is_slow(), &mut shy);
            TypeConfig::sleep(SLOT).await;
        }
    }

    /// The other voters, as far as they are known.
    fn others(&self, metrics: &Metrics) -> Vec<Voter> {
        let now = TypeConfig::now();
        let last = metrics.last_log_index.unwrap_or(0);
        let others = metrics.membership_config.voter_ids().filter(|id| *id != self.id);
        others
            .map(|id| {
                let report = self.peers.report(id).filter(|report| now < report.at + FRESH);
                Voter {
                    id,
                    sync: report.as_ref().and_then(|report| report.sync),
                    is_slow: report.is_some_and(|report| report.disk_is_slow),
                    answers: alive(metrics, id),
                    lag_entries: matched_index(metrics, id).map_or(u64::MAX, |matched| last.saturating_sub(matched)),
                }
            })
            .collect()
    }

    fn tell(&self, was_slow: bool, is_slow: bool, recent: &Recent, voters: &[Voter]) {
        let sync_ms = recent.typical().map(millis);
        if is_slow && !was_slow {
            let best_ms = voters.iter().filter_map(|voter| voter.sync).min().map(millis);
            tracing::warn!(sync_ms, best_ms, "the disk is slow: this replica is not to lead while another can");
        } else if was_slow && !is_slow {
            tracing::info!(sync_ms, "the disk is as fast as it should be again");
        }
    }

    /// Gives leadership away, if it is held and nothing else is being done with it.
    async fn hand_over(&self, metrics: &Metrics, to: u64, recent: &Recent) {
        let leads = metrics.current_leader == Some(self.id) && metrics.state == openraft::ServerState::Leader;
        if !leads || metrics.membership_config.get_joint_config().len() > 1 {
            return;
        }
        let sync_ms = recent.typical().map(millis);
        let handing_over = self.membership.hand_over_unless_busy(to, || {
            tracing::warn!(to, sync_ms, "the disk is slow: handing leadership over");
            self.disk.begin_handover();
        });
        // When the one that is asked does not take over, an election decides: this replica beats no more.
        handing_over.await;
    }

    /// Lets another one stand for election first while the disk is slow.
    fn hold_back(&self, is_slow: bool, shy: &mut Shyness) {
        if !is_slow && shy.stands {
            return;
        }
        let now = TypeConfig::now();
        // A replica that is known to have led last, and answers, may have started again and lead no more: what counts is that
        // somebody beats. Nobody else may be able to lead, since this replica may hold more of the log.
        let leads = self.raft.server_metrics().borrow_watched().state == openraft::ServerState::Leader;
        let reluctant = self.election * RELUCTANT;
        if leads || self.disk.followed_within(reluctant) {
            shy.led_at = now;
        }
        let stands = !is_slow || now >= shy.led_at + reluctant;
        if stands != shy.stands {
            shy.stands = stands;
            self.raft.runtime_config().elect(stands);
        }
    }
}

/// Whether this replica stands for election by itself.
struct Shyness {
    /// When a leader was last there.
    led_at: Instant,
    stands: bool,
}
