//! A follower is away for so long that the log it lacks is gone: it must be brought up by a snapshot. Needs a small budget for the log.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::debt::Debt;
use super::{PATIENCE, Proof, Whom};
use crate::oracle::Promise;
use crate::random::Random;
use crate::rig::Rig;
use crate::wait::within;

/// Replicas look every ten seconds whether their log is to be cut.
const CUT: Duration = Duration::from_secs(40);

/// A follower that was killed.
#[derive(Debug)]
pub struct Absence {
    id: u16,
    last: u64,
}

impl Absence {
    pub(super) async fn begin(rig: &mut Rig, random: &mut Random) -> Result<Self> {
        let id = Whom::Follower.one(rig, random).await?;
        let last = rig.status(id).await?["last_log_index"].as_u64().context("a status has a last log index")?;
        super::kill(rig, &[id])?;
        Ok(Self { id, last })
    }

    pub(super) async fn end(self, rig: &mut Rig) -> Result<Proof> {
        let cut = within(CUT, "every other replica has cut its log", || async {
            for id in rig.running() {
                let purged = rig.status(id).await?["purged_index"].as_u64().unwrap_or(0);
                ensure!(
                    purged > self.last,
                    "replica {id} has its log from {purged} on, and {} is the last known",
                    self.last
                );
            }
            Ok(())
        })
        .await;
        rig.launch(self.id)?;
        if let Err(why) = cut {
            return Ok(Proof::missing(format!("{why:#}")));
        }
        // Whoever lacks what is cut off can only have it from a snapshot.
        let debt = Debt::of(rig, PATIENCE, Promise::G20, "a replica that was away is brought up")?;
        debt.seen(|| async {
            let applied = rig.status(self.id).await?["applied_index"].as_u64().unwrap_or(0);
            ensure!(applied > self.last, "it has applied up to {applied}");
            Ok(())
        })
        .await?;
        Ok(Proof::took(format!("replica {} knew the log up to {}, which the others had cut off", self.id, self.last)))
    }
}
