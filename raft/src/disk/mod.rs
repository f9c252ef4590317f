//! How this replica's disk does, compared with those of its peers; and what follows when it does badly: leadership goes
//! to a replica whose disk is well, and a disk that has stalled stops the process ([decision 28](../../../docs/decisions)).
//!
//! Slowness is never a matter of safety here: nothing counts as stored before it is. [`policy`] decides on plain values
//! and knows no clock, no raft and no peers.

mod pace;
mod policy;
mod watch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::type_config::TypeConfigExt;
use parking_lot::Mutex;

pub(crate) use pace::Pace;
pub(crate) use watch::DiskWatch;

use crate::types::{TypeConfig, Vote};

type Instant = openraft::alias::InstantOf<TypeConfig>;

/// A leader that goes because of its disk is not followed by a second one for so long: one election a minute at most.
const ONE_HANDOVER_IN: Duration = Duration::from_secs(60);
/// Requests to take over that leave within this belong to the handover that was decided on.
const HANDING_OVER: Duration = Duration::from_secs(2);

/// What this replica knows of its disk, and tells its peers.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) pace: Pace,
    is_slow: AtomicBool,
    seen: Mutex<Seen>,
    /// The vote that no crash can take back.
    vote: Mutex<Option<Vote>>,
}

#[derive(Default)]
struct Seen {
    /// What a sync of the log takes at this time, if there was one lately.
    sync: Option<Duration>,
    /// The last time that a leader went because of its disk, as far as this replica has heard.
    handed_over: Option<Instant>,
    /// The last time that this one did.
    handing_over: Option<Instant>,
    /// The last heartbeat of a leader that this replica follows.
    followed: Option<Instant>,
}

impl Disk {
    /// What a sync of the log takes at this time, if there was one lately.
    pub(crate) fn sync(&self) -> Option<Duration> {
        self.seen.lock().sync
    }

    /// Whether this disk is slow, and those of others are not.
    pub(crate) fn is_slow(&self) -> bool {
        self.is_slow.load(Ordering::Relaxed)
    }

    /// This vote is durable, and no other one is any more.
    pub(crate) fn note_vote(&self, vote: Option<Vote>) {
        *self.vote.lock() = vote;
    }

    /// Whether this vote is the durable one.
    pub(crate) fn holds_vote(&self, vote: &Vote) -> bool {
        self.vote.lock().as_ref() == Some(vote)
    }

    /// Whether a later vote is durable: whoever led by this one leads no more.
    pub(crate) fn has_voted_beyond(&self, vote: &Vote) -> bool {
        self.vote.lock().as_ref().is_some_and(|durable| durable > vote)
    }

    /// A leader that this replica follows has beaten.
    pub(crate) fn note_followed(&self) {
        self.seen.lock().followed = Some(TypeConfig::now());
    }

    /// Whether a leader that this replica follows has beaten within a time.
    fn followed_within(&self, span: Duration) -> bool {
        self.within(span, |seen| seen.followed)
    }

    /// A leader goes because its disk is slow.
    pub(crate) fn note_handover(&self) {
        self.seen.lock().handed_over = Some(TypeConfig::now());
    }

    /// Whether this replica is giving leadership away because of its disk.
    pub(crate) fn is_handing_over(&self) -> bool {
        self.within(HANDING_OVER, |seen| seen.handing_over)
    }

    /// Whether a leader has gone because of its disk a short time ago.
    fn handed_over_lately(&self) -> bool {
        self.within(ONE_HANDOVER_IN, |seen| seen.handed_over)
    }

    fn within(&self, span: Duration, when: impl Fn(&Seen) -> Option<Instant>) -> bool {
        let now = TypeConfig::now();
        when(&self.seen.lock()).is_some_and(|at| now < at + span)
    }

    fn see(&self, sync: Option<Duration>, is_slow: bool) {
        self.seen.lock().sync = sync;
        self.is_slow.store(is_slow, Ordering::Relaxed);
    }

    fn begin_handover(&self) {
        let now = Some(TypeConfig::now());
        let mut seen = self.seen.lock();
        seen.handed_over = now;
        seen.handing_over = now;
    }
}
