//! Upgrades: replicas change over, one after the other, from the build before to the one under test, and back. One client writes all the
//! while, and is allowed to send a request once more.

use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::debt::Debt;
use super::probe::Probe;
use super::{Proof, Whom};
use crate::oracle::Promise;
use crate::random::Random;
use crate::rig::{Build, Rig};
use crate::starvation::Canary;

/// A replica of another build serves within this.
const SERVES: Duration = Duration::from_secs(30);

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steps {
    /// All, in turn.
    Rolling,
    /// All, in turn; the leader is killed instead of stopped.
    Killed,
    /// All but one, in turn, and back again.
    Rollback,
}

impl Display for Steps {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rolling => "rolling upgrade",
            Self::Killed => "rolling upgrade in which the leader is killed",
            Self::Rollback => "half an upgrade, taken back",
        })
    }
}

/// An upgrade under way.
#[derive(Debug)]
pub struct Upgrade {
    steps: Steps,
    probe: Probe,
    /// Those of the new build, in the order in which they got it.
    changed: Vec<u16>,
    proof: Proof,
    since: Instant,
    canary: Canary,
}

impl Upgrade {
    pub(super) async fn begin(rig: &mut Rig, random: &mut Random, steps: Steps) -> Result<Self> {
        ensure!(rig.has_previous(), "no build from before was given: --previous PATH");
        let leader = Whom::Leader.one(rig, random).await?;
        let mut order: Vec<u16> = rig.ids().into_iter().filter(|id| *id != leader).collect();
        if random.percent(50) {
            order.reverse();
        }
        // The leader first or last: whoever leads meanwhile is of the old build, or of the new one.
        let leads = if random.percent(50) { 0 } else { order.len() };
        order.insert(leads, leader);
        let probe = Probe::start(rig, &rig.ids())?;
        let canary = Canary::start(rig.directory(), &rig.pids())?;
        let (since, changed, proof) = (Instant::now(), Vec::new(), Proof::default());
        let mut upgrade = Self { steps, probe, changed, proof, since, canary };
        let count = order.len() - usize::from(steps == Steps::Rollback);
        for id in order.into_iter().take(count) {
            let killed = steps == Steps::Killed && id == leader;
            upgrade.change(rig, id, Build::Current, killed).await?;
            upgrade.changed.push(id);
        }
        Ok(upgrade)
    }

    /// One replica gets another build.
    async fn change(&mut self, rig: &mut Rig, id: u16, build: Build, killed: bool) -> Result<()> {
        if killed {
            super::kill(rig, &[id])?;
        } else {
            super::stop(rig, id).await?;
        }
        rig.change_build(id, build)?;
        rig.launch(id)?;
        let debt = Debt::of(rig, SERVES, Promise::G10, "a replica of the other build serves")?;
        let serves = debt.seen(|| rig.serves(id)).await;
        if let Err(why) = serves {
            let words = rig.at_mut(id)?.ended()?.map(|ended| ended.last_words).unwrap_or_default();
            return Err(why.context(format!("replica {id} does not serve as {build}: {words}")));
        }
        self.proof.took.push(format!("replica {id} serves as {build}"));
        Ok(())
    }

    pub(super) async fn end(mut self, rig: &mut Rig) -> Result<Proof> {
        if self.steps == Steps::Rollback {
            for id in std::mem::take(&mut self.changed) {
                self.change(rig, id, Build::Previous, false).await.context("the way back")?;
            }
        }
        let (lasted, withheld) = (self.since.elapsed(), self.canary.withheld(&rig.pids()));
        let seen = self.probe.stop();
        let mut proof = self.proof;
        proof.took.push(format!("{} writes, of which {} were sent twice", seen.took.len(), seen.repeated));
        Ok(seen.judged(proof, Promise::G10, "no request fails that is sent once more", withheld, lasted))
    }
}
