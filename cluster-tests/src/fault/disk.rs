//! Disks that fail, fill, or take their time.

use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::debt::Debt;
use super::layer::{Tail, Word};
use super::{Proof, Whom, cut};
use crate::oracle::Promise;
use crate::random::Random;
use crate::rig::{Rig, State};
use crate::starvation::{Canary, Withheld};

/// After a failed sync a replica stops within this.
const STOPS: Duration = Duration::from_secs(10);

/// A replica under load syncs so often within this that the one that fails is among them.
const SYNCS: Duration = Duration::from_secs(5);

/// Elections that a slow disk may bring about.
const ELECTIONS: u64 = 2;

/// What is wrong with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskTrouble {
    /// A sync fails, one of so many. The replica must stop; what it had not synced is gone.
    FailedSync(u64),
    /// No more than so many bytes can be written.
    Full(u64),
    /// Every sync takes so many milliseconds longer.
    SlowSync(u64),
    /// Every sync says that it is done and is not. No store survives that and a power cut: it shows that the harness sees a loss.
    LyingSync,
}

impl Display for DiskTrouble {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::FailedSync(_) => f.write_str("failed sync"),
            Self::Full(_) => f.write_str("full disk"),
            Self::SlowSync(ms) => write!(f, "syncs of {ms} ms"),
            Self::LyingSync => f.write_str("lying syncs"),
        }
    }
}

/// Replicas with trouble.
#[derive(Debug)]
pub struct Disk {
    trouble: DiskTrouble,
    ids: Vec<u16>,
    before: Vec<Counts>,
    term: Option<u64>,
    since: Instant,
    canary: Canary,
    random: Random,
}

#[derive(Debug, Clone, Copy)]
struct Counts {
    delayed: u64,
    errors: u64,
    retried: u64,
    refused: u64,
    lies: u64,
}

fn counts(rig: &Rig, id: u16) -> Result<Counts> {
    let layer = rig.layer(id)?;
    Ok(Counts {
        delayed: layer.get(Word::SyncsDelayed)?,
        errors: layer.get(Word::SyncErrors)?,
        retried: layer.get(Word::SyncsRetried)?,
        refused: layer.get(Word::WritesRefused)?,
        lies: layer.get(Word::SyncLies)?,
    })
}

impl Disk {
    pub(super) async fn begin(rig: &Rig, random: &mut Random, whom: Whom, trouble: DiskTrouble) -> Result<Self> {
        let ids = whom.choose(rig, random).await?;
        let (mut before, term) = (Vec::new(), cut::term(rig).await);
        for id in &ids {
            let layer = rig.layer(*id)?;
            layer.check_loaded(rig.at(*id)?.pid()?)?;
            before.push(counts(rig, *id)?);
            match trouble {
                DiskTrouble::FailedSync(most) => layer.fail_sync(random.within(1..most + 1))?,
                DiskTrouble::Full(bytes) => layer.leave_space(bytes)?,
                DiskTrouble::SlowSync(ms) => layer.slow_syncs(Duration::from_millis(ms))?,
                DiskTrouble::LyingSync => layer.lie_about_syncs()?,
            }
        }
        let (since, canary) = (Instant::now(), Canary::start(rig.directory(), &rig.pids())?);
        Ok(Self { trouble, ids, before, term, since, canary, random: Random::new(random.draw()) })
    }

    pub(super) fn may_end(&self, id: u16) -> bool {
        // A log that cannot be written is no log: going on without one would break more than stopping does.
        !matches!(self.trouble, DiskTrouble::SlowSync(_) | DiskTrouble::LyingSync) && self.ids.contains(&id)
    }

    /// A write that was refused stops the replica when it comes to know of it, which on a busy host is later.
    pub(super) fn lingers(&self) -> Vec<u16> {
        if matches!(self.trouble, DiskTrouble::Full(_)) { self.ids.clone() } else { Vec::new() }
    }

    pub(super) async fn end(mut self, rig: &mut Rig) -> Result<Proof> {
        let mut proof = Proof::default();
        let ids = std::mem::take(&mut self.ids);
        for (id, before) in ids.into_iter().zip(std::mem::take(&mut self.before)) {
            let now = counts(rig, id)?;
            let part = match self.trouble {
                DiskTrouble::FailedSync(_) => self.failed_sync(rig, id, before).await?,
                DiskTrouble::LyingSync => Proof::counted(now.lies - before.lies, "syncs that lied"),
                DiskTrouble::Full(_) => Proof::counted(now.refused - before.refused, "writes refused"),
                DiskTrouble::SlowSync(_) => {
                    let proof = Proof::counted(now.delayed - before.delayed, "syncs held up");
                    let (term, withheld) = (cut::term(rig).await, self.canary.withheld(&rig.pids()));
                    steady(proof, self.trouble, (self.term, term), self.since.elapsed(), withheld)
                }
            };
            rig.layer(id)?.heal()?;
            self.decided(rig, id).await;
            if rig.at_mut(id)?.ended()?.is_some() || rig.at(id)?.state() == State::Absent {
                rig.network().owners().remove(id);
                rig.launch(id)?;
            }
            proof.took.extend(part.took);
            proof.missing.extend(part.missing);
            proof.broken.extend(part.broken);
        }
        Ok(proof)
    }

    /// A replica that could not write may be about to stop: waits until it has, or says that it is well.
    async fn decided(&self, rig: &mut Rig, id: u16) {
        let begun = Instant::now();
        while matches!(self.trouble, DiskTrouble::Full(_)) && begun.elapsed() < STOPS {
            let runs = rig.at(id).is_ok_and(|seat| seat.is_there());
            let well = runs && rig.status(id).await.is_ok_and(|status| status["error"].is_null());
            if !runs || well {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The process must be gone by itself. Then the power goes too: what the failed sync lost is gone from the disk, as it would be.
    async fn failed_sync(&mut self, rig: &mut Rig, id: u16, before: Counts) -> Result<Proof> {
        let begun = Instant::now();
        while counts(rig, id)?.errors == before.errors && begun.elapsed() < SYNCS {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if counts(rig, id)?.errors == before.errors {
            return Ok(Proof::missing(format!("replica {id} did not sync")));
        }
        let mut proof = Proof::took(format!("a sync of replica {id} failed"));
        let debt = Debt::of(rig, STOPS, Promise::G3, "a failed sync stops the replica")?;
        while !rig.at_mut(id).is_ok_and(|seat| matches!(seat.ended(), Ok(Some(_))) || seat.state() == State::Absent) {
            if let Some(error) = debt.over(&format!("replica {id} goes on after a sync that failed")) {
                rig.kill(&[id])?;
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let retried = counts(rig, id)?.retried - before.retried;
        if retried > 0 {
            let told = format!("replica {id} synced {retried} times more after a sync that failed");
            proof = proof.broken(Promise::G3, "a failed sync is not repeated", told);
        }
        rig.layer(id)?.power_cut(Tail::Dropped, &mut self.random)?;
        Ok(proof)
    }
}

/// A slow disk may cost its leader the lead, once; elections that follow each other would cost everybody. Those that a starved host explains
/// are not its.
fn steady(
    proof: Proof,
    trouble: DiskTrouble,
    (before, after): (Option<u64>, Option<u64>),
    lasted: Duration,
    withheld: Withheld,
) -> Proof {
    let owed = withheld.elections(lasted);
    match (before, after) {
        (Some(before), Some(after)) if after > before + ELECTIONS + owed => {
            let told = format!(
                "term {before} became {after} in {lasted:?} under {trouble}; the host withheld {withheld}, which explains {owed}"
            );
            proof.broken(Promise::G16, "a slow disk does not make elections follow each other", told)
        }
        _ => proof,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three elections under a slow disk are one too many, except on a host that had no processors for the replicas.
    #[test]
    fn elections_that_follow_each_other_are_told() {
        let seconds = Duration::from_secs;
        let judged = |after, withheld| {
            let terms = (Some(184), Some(after));
            steady(Proof::default(), DiskTrouble::SlowSync(2_000), terms, seconds(8), withheld).broken.len()
        };
        let busy = Withheld { ran: seconds(2), waited: seconds(6), disk: Duration::ZERO };
        assert_eq!(judged(186, Withheld::default()), 0);
        assert_eq!(judged(187, Withheld::default()), 1);
        assert_eq!(judged(187, busy), 0);
        assert_eq!(judged(190, busy), 1, "what the host withheld explains three, and no more");
    }
}
