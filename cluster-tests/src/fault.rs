//! Faults: what is done to a running control plane, each in a file of its own. A fault is data ([`Fault`]); begun, it is [`Active`] until
//! it is ended, and then says whether it took effect ([`Proof`]): a run whose fault did not happen proves nothing.
//!
//! Faults know processes, connections, files and clocks. They must not know what clients ask, nor judge what clients saw.

pub mod layer;

mod absence;
mod backup;
mod clock;
mod cut;
mod debt;
mod disk;
mod kill;
mod members;
mod pause;
mod probe;
mod quorum;
mod restart;
mod rot;
mod service;
mod sick;
mod trouble;
mod upgrade;

use std::fmt::{self, Display, Formatter};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

pub use cut::Way;
pub use debt::{Blame, Failure};
pub use disk::DiskTrouble;
pub use layer::{Clock, Tail};
pub use members::Change;
pub use restart::Order;
pub use rot::{Files, When};
pub use service::Service;
pub use trouble::{Over, Trouble};
pub use upgrade::Steps;

use crate::oracle::{Promise, Violation};
use crate::random::Random;
use crate::rig::{Rig, State};
use debt::Debt;

/// How long anything an operator waits for may take on a busy host.
const PATIENCE: Duration = Duration::from_secs(30);

/// A replica that is asked to stop does so within this.
const STOPS: Duration = Duration::from_secs(20);

/// Who leads, once somebody does: somebody must.
async fn leader(rig: &Rig) -> Result<u16> {
    let debt = Debt::of(rig, PATIENCE, Promise::G20, "somebody leads")?;
    debt.seen(|| async {
        let leader = rig.leader().await.context("nobody knows a leader")?;
        ensure!(rig.running().contains(&leader), "replica {leader} is named and does not run");
        Ok(leader)
    })
    .await
}

/// Waits until these replicas serve, which they must when they have been started.
async fn serving(rig: &Rig, ids: &[u16]) -> Result<()> {
    let debt = Debt::of(rig, PATIENCE, Promise::G20, "a replica that was started serves")?;
    debt.seen(|| async {
        for id in ids {
            rig.serves(*id).await?;
        }
        Ok(())
    })
    .await
}

/// Asks a replica to stop in order, and it must.
async fn stop(rig: &mut Rig, id: u16) -> Result<ExitStatus> {
    let debt = Debt::of(rig, STOPS, Promise::G20, "a replica that is asked to stop does so")?;
    let stopped = debt.paid(rig.stop(id, Debt::longest(STOPS))).await;
    if stopped.is_err() && rig.at(id)?.state() != State::Absent {
        rig.kill(&[id])?;
    }
    stopped.with_context(|| format!("replica {id}"))
}

/// `kill -9`: whoever is killed must have been there.
fn kill(rig: &mut Rig, ids: &[u16]) -> Result<()> {
    for id in ids {
        if let Some(ended) = rig.at_mut(*id)?.ended()? {
            let told = format!("replica {id} ended by itself: {}: {}", ended.status, ended.last_words);
            return Err(Failure::new(Promise::G20, "no replica stops by itself", told).into());
        }
    }
    rig.kill(ids)
}

/// Everyone but these, if that is a majority.
fn without(rig: &Rig, ids: &[u16]) -> Vec<u16> {
    let all = rig.ids();
    let others: Vec<u16> = all.iter().copied().filter(|id| !ids.contains(id)).collect();
    if others.len() > all.len() / 2 { others } else { Vec::new() }
}

/// Which replicas a fault is about, chosen when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// Who leads.
    Leader,
    /// One who does not.
    Follower,
    /// Any one.
    Any,
    /// The leader and as many others as make a majority.
    Majority,
    /// Every one.
    All,
}

impl Whom {
    /// The replicas, among those that run.
    ///
    /// # Errors
    /// When there are none of the kind.
    pub async fn choose(self, rig: &Rig, random: &mut Random) -> Result<Vec<u16>> {
        let running = rig.running();
        ensure!(!running.is_empty(), "no replica runs");
        if self == Self::All {
            return Ok(running);
        }
        if self == Self::Any {
            return Ok(vec![*random.one(&running)]);
        }
        let leader = leader(rig).await?;
        let mut others: Vec<u16> = running.into_iter().filter(|id| *id != leader).collect();
        match self {
            Self::Leader => Ok(vec![leader]),
            Self::Follower => {
                ensure!(!others.is_empty(), "no follower runs");
                Ok(vec![*random.one(&others)])
            }
            _majority => {
                let wanted = rig.ids().len() / 2 + 1;
                let mut chosen = vec![leader];
                while chosen.len() < wanted && !others.is_empty() {
                    let count = u64::try_from(others.len())?;
                    chosen.push(others.swap_remove(usize::try_from(random.within(0..count))?));
                }
                Ok(chosen)
            }
        }
    }

    /// The only one that was chosen.
    async fn one(self, rig: &Rig, random: &mut Random) -> Result<u16> {
        self.choose(rig, random).await?.first().copied().context("one was chosen")
    }
}

/// What can be done to a control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`; started again at the end.
    Kill(Whom),
    /// `kill -9`, and what no sync had made durable is gone; started again at the end.
    PowerCut(Whom, Tail),
    /// `SIGSTOP`; `SIGCONT` at the end.
    Pause(Whom),
    /// Stopped in order; started again at the end, or one after the other.
    Restart(Order),
    /// Bytes between replicas do not arrive.
    Cut(Way),
    /// Bytes arrive late, slowly, changed, or their connection ends.
    Links(Over, Trouble),
    /// A disk fails, fills or is slow.
    Disk(Whom, DiskTrouble),
    /// Bytes of files change.
    Rot(Whom, Files, When),
    /// Every sync of the leader takes so many milliseconds longer, and it must hand over.
    SickLeader(u64),
    /// Replicas change over from one build to another.
    Upgrade(Steps),
    /// A clock is wrong.
    Clock(Whom, Clock),
    /// Who belongs to the control plane changes.
    Members(Change),
    /// Killed for so long that the log it lacks is cut off meanwhile.
    Absence,
    /// Backups are taken one after the other, each a snapshot of the state.
    Backups,
}

impl Display for Whom {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "the leader",
            Self::Follower => "a follower",
            Self::Any => "a replica",
            Self::Majority => "a majority",
            Self::All => "all replicas",
        })
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(whom) => write!(f, "kill {whom}"),
            Self::PowerCut(whom, Tail::Dropped) => write!(f, "power cut of {whom}"),
            Self::PowerCut(whom, Tail::Torn) => write!(f, "power cut of {whom} with torn writes"),
            Self::Pause(whom) => write!(f, "pause {whom}"),
            Self::Restart(order) => write!(f, "{order}"),
            Self::Cut(way) => write!(f, "{way}"),
            Self::Links(over, trouble) => write!(f, "{trouble} {over}"),
            Self::Disk(whom, trouble) => write!(f, "{trouble} of {whom}"),
            Self::Rot(whom, files, When::Stopped) => write!(f, "{files} of {whom}"),
            Self::Rot(whom, files, When::Running) => write!(f, "{files} of {whom} while it runs"),
            Self::SickLeader(ms) => write!(f, "sick disk of the leader, syncs of {ms} ms"),
            Self::Upgrade(steps) => write!(f, "{steps}"),
            Self::Clock(whom, Clock::Jump(seconds)) => write!(f, "clock of {whom} jumps by {seconds} s"),
            Self::Clock(whom, Clock::Drift(percent)) => write!(f, "clocks of {whom} drift by {percent} %"),
            Self::Clock(whom, Clock::Frozen) => write!(f, "clock of {whom} stands still"),
            Self::Members(change) => write!(f, "{change}"),
            Self::Absence => f.write_str("a follower away until the log is cut"),
            Self::Backups => f.write_str("backups one after the other"),
        }
    }
}

/// What a fault that has ended says of itself.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    /// How it was seen to take effect.
    pub took: Vec<String>,
    /// Why it cannot be said to have taken effect; then the run is void.
    pub missing: Vec<String>,
    /// What the product did that it must not do under this fault.
    pub broken: Vec<Violation>,
    /// The epoch that an operator began because of it.
    pub renewed: Option<Renewed>,
}

/// An epoch that an operator began: whoever stands before it is told to begin anew.
#[derive(Debug, Clone, Copy)]
pub struct Renewed {
    /// Not before this.
    pub begun: Instant,
    /// Its first revision.
    pub revision: u64,
}

impl Proof {
    fn took(what: impl Into<String>) -> Self {
        Self { took: vec![what.into()], ..Self::default() }
    }

    fn missing(why: impl Into<String>) -> Self {
        Self { missing: vec![why.into()], ..Self::default() }
    }

    /// Took effect if something was counted.
    fn counted(count: u64, what: &str) -> Self {
        if count > 0 { Self::took(format!("{count} {what}")) } else { Self::missing(format!("no {what}")) }
    }

    fn broken(mut self, promise: Promise, check: &str, explanation: impl Into<String>) -> Self {
        self.broken.push(Violation::new(promise, check, explanation));
        self
    }
}

/// A fault in force.
#[derive(Debug)]
pub enum Active {
    /// See [`Fault::Kill`] and [`Fault::PowerCut`].
    Kill(kill::Kill),
    /// See [`Fault::Pause`].
    Pause(pause::Pause),
    /// See [`Fault::Restart`].
    Restart(restart::Restart),
    /// See [`Fault::Cut`].
    Cut(cut::Cut),
    /// See [`Fault::Links`].
    Links(trouble::Links),
    /// See [`Fault::Disk`].
    Disk(disk::Disk),
    /// See [`Fault::Rot`].
    Rot(rot::Rot),
    /// See [`Fault::SickLeader`].
    Sick(sick::Sick),
    /// See [`Fault::Upgrade`].
    Upgrade(upgrade::Upgrade),
    /// See [`Fault::Clock`].
    Clock(clock::WrongClock),
    /// See [`Fault::Members`].
    Members(members::Members),
    /// See [`Fault::Absence`].
    Absence(absence::Absence),
    /// See [`Fault::Backups`].
    Backups(backup::Backups),
}

impl Fault {
    /// Begins it.
    ///
    /// # Errors
    /// When it cannot be begun: by the harness, or for a [`Failure`] of the product.
    pub async fn begin(self, rig: &mut Rig, random: &mut Random) -> Result<Active> {
        Ok(match self {
            Self::Kill(whom) => Active::Kill(kill::Kill::begin(rig, random, whom, None).await?),
            Self::PowerCut(whom, tail) => Active::Kill(kill::Kill::begin(rig, random, whom, Some(tail)).await?),
            Self::Pause(whom) => Active::Pause(pause::Pause::begin(rig, random, whom).await?),
            Self::Restart(order) => Active::Restart(restart::Restart::begin(rig, random, order).await?),
            Self::Cut(way) => Active::Cut(cut::Cut::begin(rig, random, way).await?),
            Self::Links(over, trouble) => Active::Links(trouble::Links::begin(rig, random, over, trouble).await?),
            Self::Disk(whom, trouble) => Active::Disk(disk::Disk::begin(rig, random, whom, trouble).await?),
            Self::Rot(whom, files, when) => Active::Rot(rot::Rot::begin(rig, random, whom, files, when).await?),
            Self::SickLeader(ms) => Active::Sick(sick::Sick::begin(rig, random, ms).await?),
            Self::Upgrade(steps) => Active::Upgrade(upgrade::Upgrade::begin(rig, random, steps).await?),
            Self::Clock(whom, clock) => Active::Clock(clock::WrongClock::begin(rig, random, whom, clock).await?),
            Self::Members(change) => Active::Members(members::Members::begin(rig, random, change).await?),
            Self::Absence => Active::Absence(absence::Absence::begin(rig, random).await?),
            Self::Backups => Active::Backups(backup::Backups::begin(rig)),
        })
    }

    /// Whether it needs the layer between replicas and their disks and clocks.
    #[must_use]
    pub fn needs_layer(self) -> bool {
        matches!(self, Self::PowerCut(..) | Self::Disk(..) | Self::Clock(..) | Self::SickLeader(_))
    }

    /// Whether it needs a build from before the one under test.
    #[must_use]
    pub fn needs_previous(self) -> bool {
        matches!(self, Self::Upgrade(_))
    }

    /// Whether it may end with another replica in the place of one.
    #[must_use]
    pub fn may_replace(self) -> bool {
        matches!(self, Self::Members(Change::Replace | Change::GrowAndShrink))
    }

    /// Whether an operator has to begin a new epoch after it.
    #[must_use]
    pub fn renews(self) -> bool {
        matches!(self, Self::Rot(Whom::Majority | Whom::All, Files::Log, _))
    }

    /// The promise that a majority it spares is held to.
    #[must_use]
    pub fn to_serve(self) -> Promise {
        match self {
            Self::Cut(_) | Self::Pause(_) => Promise::G17,
            _ => Promise::G20,
        }
    }

    /// The name of its kind, for tables.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Kill(_) => "kill",
            Self::PowerCut(..) => "power cut",
            Self::Pause(_) => "pause",
            Self::Restart(_) => "restart",
            Self::Cut(_) => "cut",
            Self::Links(Over::Clients, _) => "client links",
            Self::Links(..) => "peer links",
            Self::Disk(..) | Self::SickLeader(_) => "disk",
            Self::Upgrade(_) => "upgrade",
            Self::Rot(..) => "rot",
            Self::Clock(..) => "clock",
            Self::Members(_) => "membership",
            Self::Absence => "absence",
            Self::Backups => "backups",
        }
    }
}

impl Active {
    /// Whether a replica may end by itself while this is in force.
    #[must_use]
    pub fn may_end(&self, id: u16) -> bool {
        match self {
            Self::Disk(disk) => disk.may_end(id),
            Self::Rot(rot) => rot.is_about(id),
            _ => false,
        }
    }

    /// Replicas through which clients must be served while this is in force and nothing else is; none when no such majority is left.
    #[must_use]
    pub fn spared(&self, rig: &Rig) -> Vec<u16> {
        match self {
            Self::Kill(kill) => kill.spared(rig),
            Self::Pause(pause) => pause.spared(rig),
            Self::Cut(cut) => cut.spared(rig),
            _ => Vec::new(),
        }
    }

    /// Replicas that may yet end for its sake when it has ended: what failed them was on its way.
    #[must_use]
    pub fn lingers(&self) -> Vec<u16> {
        match self {
            Self::Disk(disk) => disk.lingers(),
            _ => Vec::new(),
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it cannot be ended: by the harness, or for a [`Failure`] of the product.
    pub async fn end(self, rig: &mut Rig) -> Result<Proof> {
        match self {
            Self::Kill(kill) => kill.end(rig),
            Self::Pause(pause) => pause.end(rig),
            Self::Restart(restart) => restart.end(rig),
            Self::Cut(cut) => Ok(cut.end(rig).await),
            Self::Links(links) => Ok(links.end()),
            Self::Disk(disk) => disk.end(rig).await,
            Self::Rot(rot) => rot.end(rig).await,
            Self::Sick(sick) => sick.end(rig).await,
            Self::Upgrade(upgrade) => upgrade.end(rig).await,
            Self::Clock(clock) => clock.end(rig),
            Self::Members(members) => members.end(rig).await,
            Self::Absence(absence) => absence.end(rig).await,
            Self::Backups(backups) => Ok(backups.end()),
        }
    }
}
