//! Links that work badly: late, slow, changed, or ended.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::task::JoinHandle;

use super::{Proof, Whom};
use crate::proxy::{Flow, Link, Passed, Place, Shape};
use crate::random::Random;
use crate::rig::Rig;

/// What is done once to a connection is done to all there are then, again after this.
const AGAIN: Duration = Duration::from_millis(400);
/// The byte that is changed is one of so many.
const CORRUPT_WITHIN: u64 = 4_000;

/// Which links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Between all replicas.
    Peers,
    /// Between these and all other replicas.
    PeersOf(Whom),
    /// Between all clients and all replicas.
    Clients,
}

/// What is wrong with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Every byte is late.
    Delay {
        /// By so much.
        ms: u64,
        /// And by chance so much more.
        jitter_ms: u64,
    },
    /// Few pass.
    Narrow {
        /// So many.
        bytes_per_second: u64,
    },
    /// None pass for the time, and nobody is told.
    Stall,
    /// Connections are reset, again and again.
    Resets,
    /// One direction of connections is closed, again and again.
    HalfCloses,
    /// A byte is changed, again and again.
    Corruption,
}

impl Display for Over {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peers => f.write_str("between replicas"),
            Self::PeersOf(whom) => write!(f, "between {whom} and the others"),
            Self::Clients => f.write_str("between clients and replicas"),
        }
    }
}

impl Display for Trouble {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delay { ms, jitter_ms } => write!(f, "delay of {ms} to {} ms", ms + jitter_ms),
            Self::Narrow { bytes_per_second } => write!(f, "{bytes_per_second} bytes a second"),
            Self::Stall => f.write_str("stall"),
            Self::Resets => f.write_str("resets"),
            Self::HalfCloses => f.write_str("half-closed connections"),
            Self::Corruption => f.write_str("changed bytes"),
        }
    }
}

/// Links in trouble.
#[derive(Debug)]
pub struct Links {
    trouble: Trouble,
    links: Vec<(Arc<Link>, Passed)>,
    repeated: Option<JoinHandle<()>>,
}

impl Links {
    pub(super) async fn begin(rig: &Rig, random: &mut Random, over: Over, trouble: Trouble) -> Result<Self> {
        let chosen = match over {
            Over::PeersOf(whom) => whom.choose(rig, random).await?,
            Over::Peers | Over::Clients => rig.ids(),
        };
        let is_chosen = |from: Place, to: Place| match (from, to) {
            (Place::Replica(a), Place::Replica(b)) => {
                over != Over::Clients && (chosen.contains(&a) || chosen.contains(&b))
            }
            _one_is_a_client => over == Over::Clients,
        };
        let links = rig.network().links().into_iter().filter(|((from, to), _)| is_chosen(*from, *to));
        let links: Vec<(Arc<Link>, Passed)> = links.map(|(_, link)| (Arc::clone(&link), link.passed())).collect();
        ensure!(!links.is_empty(), "there is no link {over}");
        let repeated = match shape(trouble) {
            Some(shape) => {
                for (link, _) in &links {
                    link.set(shape);
                }
                None
            }
            None => {
                let links: Vec<Arc<Link>> = links.iter().map(|(link, _)| Arc::clone(link)).collect();
                Some(tokio::spawn(repeat(links, trouble, Random::new(random.draw()))))
            }
        };
        Ok(Self { trouble, links, repeated })
    }

    pub(super) fn end(self) -> Proof {
        if let Some(task) = self.repeated {
            task.abort();
        }
        let mut count = 0;
        for (link, before) in self.links {
            let now = link.passed();
            count += match self.trouble {
                Trouble::Delay { .. } | Trouble::Narrow { .. } => now.slowed - before.slowed,
                Trouble::Stall => now.held + now.dials_held - before.held - before.dials_held,
                Trouble::Resets => now.resets - before.resets,
                Trouble::HalfCloses => now.half_closes - before.half_closes,
                Trouble::Corruption => now.corrupted - before.corrupted,
            };
            link.heal();
        }
        let what = match self.trouble {
            Trouble::Delay { .. } => "bytes delayed",
            Trouble::Narrow { .. } => "bytes throttled",
            Trouble::Stall => "bytes or dials held",
            Trouble::Resets => "connections reset",
            Trouble::HalfCloses => "connections half closed",
            Trouble::Corruption => "bytes changed",
        };
        Proof::counted(count, what)
    }
}

/// The shape of links that are wrong all the time.
fn shape(trouble: Trouble) -> Option<Shape> {
    let millis = Duration::from_millis;
    match trouble {
        Trouble::Delay { ms, jitter_ms } => {
            Some(Shape { delay: millis(ms), jitter: millis(jitter_ms), ..Shape::default() })
        }
        Trouble::Narrow { bytes_per_second } => {
            Some(Shape { bytes_per_second: Some(bytes_per_second), ..Shape::default() })
        }
        Trouble::Stall => Some(Shape { flow: Flow::Stalled, ..Shape::default() }),
        Trouble::Resets | Trouble::HalfCloses | Trouble::Corruption => None,
    }
}

async fn repeat(links: Vec<Arc<Link>>, trouble: Trouble, mut random: Random) {
    loop {
        // Half of them each time, so that not everything ends in the same instant.
        for link in links.iter().filter(|_| random.percent(50)).collect::<Vec<_>>() {
            match trouble {
                Trouble::Resets => link.reset(),
                Trouble::HalfCloses => link.half_close(),
                _corruption => link.corrupt(u32::try_from(random.within(0..CORRUPT_WITHIN)).unwrap_or(0)),
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}
