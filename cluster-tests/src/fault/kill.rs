//! `kill -9`, with or without the loss of power.

use anyhow::{Result, ensure};

use super::layer::{Dropped, Tail};
use super::{Proof, Whom};
use crate::random::Random;
use crate::rig::{Rig, State};

/// Killed replicas.
#[derive(Debug)]
pub struct Kill {
    ids: Vec<u16>,
    power: Option<Dropped>,
}

impl Kill {
    pub(super) async fn begin(rig: &mut Rig, random: &mut Random, whom: Whom, power: Option<Tail>) -> Result<Self> {
        let ids = whom.choose(rig, random).await?;
        super::kill(rig, &ids)?;
        let mut lost = Dropped::default();
        if let Some(tail) = power {
            for id in &ids {
                let dropped = rig.layer(*id)?.power_cut(tail, random)?;
                lost.files += dropped.files;
                lost.bytes += dropped.bytes;
                lost.sectors += dropped.sectors;
            }
        }
        Ok(Self { ids, power: power.map(|_| lost) })
    }

    pub(super) fn spared(&self, rig: &Rig) -> Vec<u16> {
        super::without(rig, &self.ids)
    }

    pub(super) fn end(self, rig: &mut Rig) -> Result<Proof> {
        let mut proof = Proof::default();
        for id in &self.ids {
            ensure!(rig.at(*id)?.state() == State::Absent, "replica {id} was killed and runs");
            proof.took.push(format!("the process of replica {id} was gone"));
            rig.launch(*id)?;
        }
        match self.power {
            Some(Dropped { bytes: 0, sectors: 0, .. }) => proof.missing.push("nothing was un-synced".into()),
            Some(Dropped { files, bytes, sectors }) => {
                proof.took.push(format!("{bytes} un-synced bytes of {files} files dropped, {sectors} sectors torn"));
            }
            None => {}
        }
        Ok(proof)
    }
}
