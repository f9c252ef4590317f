//! Stopping and starting in order, as an operator does it.

use std::fmt::{self, Display, Formatter};

use anyhow::Result;

use super::{Proof, Whom};
use crate::random::Random;
use crate::rig::{Rig, State};

/// Which replicas, in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Stopped, and started at the end.
    Stop(Whom),
    /// Every one in turn, the next one when the last one serves again.
    Rolling,
}

impl Display for Order {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stop(whom) => write!(f, "stop {whom} in order"),
            Self::Rolling => f.write_str("rolling restart"),
        }
    }
}

/// Replicas that were stopped, or restarted already.
#[derive(Debug)]
pub struct Restart {
    stopped: Vec<u16>,
    took: Vec<String>,
}

impl Restart {
    pub(super) async fn begin(rig: &mut Rig, random: &mut Random, order: Order) -> Result<Self> {
        let mut restart = Self { stopped: Vec::new(), took: Vec::new() };
        match order {
            Order::Stop(whom) => {
                for id in whom.choose(rig, random).await? {
                    restart.stop(rig, id).await?;
                    restart.stopped.push(id);
                }
            }
            Order::Rolling => {
                for id in rig.running() {
                    restart.stop(rig, id).await?;
                    rig.launch(id)?;
                    super::serving(rig, &rig.running()).await?;
                }
            }
        }
        Ok(restart)
    }

    async fn stop(&mut self, rig: &mut Rig, id: u16) -> Result<()> {
        let status = super::stop(rig, id).await?;
        self.took.push(format!("replica {id} stopped: {status}"));
        Ok(())
    }

    pub(super) fn end(self, rig: &mut Rig) -> Result<Proof> {
        for id in self.stopped {
            if rig.at(id)?.state() == State::Absent {
                rig.launch(id)?;
            }
        }
        Ok(Proof { took: self.took, ..Proof::default() })
    }
}
