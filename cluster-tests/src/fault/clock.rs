//! Clocks that jump, drift or stand still.

use anyhow::Result;

use super::layer::{Clock, Word};
use super::{Proof, Whom};
use crate::random::Random;
use crate::rig::Rig;

/// Replicas with a wrong clock.
#[derive(Debug)]
pub struct WrongClock {
    ids: Vec<(u16, u64)>,
}

impl WrongClock {
    pub(super) async fn begin(rig: &Rig, random: &mut Random, whom: Whom, clock: Clock) -> Result<Self> {
        let mut ids = Vec::new();
        for id in whom.choose(rig, random).await? {
            let layer = rig.layer(id)?;
            layer.check_loaded(rig.at(id)?.pid()?)?;
            ids.push((id, layer.get(Word::ClockLies)?));
            layer.set_clock(Some(clock))?;
        }
        Ok(Self { ids })
    }

    pub(super) fn end(self, rig: &Rig) -> Result<Proof> {
        let mut lies = 0;
        for (id, before) in self.ids {
            let layer = rig.layer(id)?;
            lies += layer.get(Word::ClockLies)? - before;
            layer.set_clock(None)?;
        }
        Ok(Proof::counted(lies, "clock readings that were wrong"))
    }
}
