//! `SIGSTOP`: a replica stands still in its middle, its connections open and silent, and does not know that time has passed.

use anyhow::Result;
use rustix::process::Signal;

use super::{Proof, Whom};
use crate::random::Random;
use crate::rig::Rig;

/// Paused replicas.
#[derive(Debug)]
pub struct Pause {
    ids: Vec<u16>,
}

impl Pause {
    pub(super) async fn begin(rig: &mut Rig, random: &mut Random, whom: Whom) -> Result<Self> {
        let ids = whom.choose(rig, random).await?;
        for id in &ids {
            rig.at_mut(*id)?.signal(Signal::STOP)?;
        }
        Ok(Self { ids })
    }

    pub(super) fn spared(&self, rig: &Rig) -> Vec<u16> {
        super::without(rig, &self.ids)
    }

    pub(super) fn end(self, rig: &mut Rig) -> Result<Proof> {
        let mut proof = Proof::default();
        for id in self.ids {
            let seat = rig.at_mut(id)?;
            if seat.is_frozen()? {
                proof.took.push(format!("replica {id} stood still"));
            } else {
                proof.missing.push(format!("replica {id} was not stopped"));
            }
            seat.signal(Signal::CONT)?;
        }
        Ok(proof)
    }
}
