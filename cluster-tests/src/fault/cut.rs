//! Cuts: links between replicas that carry nothing, each direction by itself.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Proof, Whom};
use crate::oracle::Promise;
use crate::proxy::{Link, Passed, Place};
use crate::random::Random;
use crate::rig::Rig;
use crate::starvation::{Canary, Withheld};

/// Which links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To and from these.
    Around(Whom),
    /// What others send them.
    To(Whom),
    /// What they send others.
    From(Whom),
    /// Between the leader and one follower, both ways: the others see both.
    Bridge,
    /// Every direction by the toss of a coin.
    Mask,
}

impl Display for Way {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Around(whom) => write!(f, "cut around {whom}"),
            Self::To(whom) => write!(f, "one-way cut to {whom}"),
            Self::From(whom) => write!(f, "one-way cut from {whom}"),
            Self::Bridge => f.write_str("cut between the leader and one follower"),
            Self::Mask => f.write_str("random one-way cuts"),
        }
    }
}

/// A cut in force.
#[derive(Debug)]
pub struct Cut {
    links: Vec<(u16, u16, Arc<Link>, Passed)>,
    term: Option<u64>,
    since: Instant,
    canary: Canary,
}

/// Terms that may pass however short a cut is, and one more for each second of it: less than any livelock of elections.
const TERMS: u64 = 4;

impl Cut {
    pub(super) async fn begin(rig: &Rig, random: &mut Random, way: Way) -> Result<Self> {
        let ids = rig.ids();
        let pairs: Vec<(u16, u16)> =
            ids.iter().flat_map(|a| ids.iter().filter(move |b| a != *b).map(move |b| (*a, *b))).collect();
        let chosen: Vec<(u16, u16)> = match way {
            Way::Around(whom) => {
                let inside = whom.choose(rig, random).await?;
                pairs.into_iter().filter(|(a, b)| inside.contains(a) != inside.contains(b)).collect()
            }
            Way::To(whom) => {
                let to = whom.choose(rig, random).await?;
                pairs.into_iter().filter(|(a, b)| to.contains(b) && !to.contains(a)).collect()
            }
            Way::From(whom) => {
                let from = whom.choose(rig, random).await?;
                pairs.into_iter().filter(|(a, b)| from.contains(a) && !from.contains(b)).collect()
            }
            Way::Bridge => {
                let leader = Whom::Leader.one(rig, random).await?;
                let other = Whom::Follower.one(rig, random).await?;
                vec![(leader, other), (other, leader)]
            }
            Way::Mask => {
                let mut chosen: Vec<(u16, u16)> = pairs.iter().copied().filter(|_| random.percent(50)).collect();
                if chosen.is_empty() {
                    chosen.push(*random.one(&pairs));
                }
                chosen
            }
        };
        ensure!(!chosen.is_empty(), "there is no link to cut");
        let term = term(rig).await;
        let links: Vec<(u16, u16, Arc<Link>, Passed)> = chosen
            .into_iter()
            .map(|(a, b)| {
                let link = rig.network().link(Place::Replica(a), Place::Replica(b));
                let passed = link.passed();
                (a, b, link, passed)
            })
            .collect();
        for (_, _, link, _) in &links {
            link.stall();
        }
        let canary = Canary::start(rig.directory(), &rig.pids())?;
        Ok(Self { links, term, since: Instant::now(), canary })
    }

    /// The majority whose links among each other are whole, if there is one and only one.
    pub(super) fn spared(&self, rig: &Rig) -> Vec<u16> {
        let cut: Vec<(u16, u16)> = self.links.iter().map(|(a, b, ..)| (*a, *b)).collect();
        whole(&rig.ids(), &cut)
    }

    pub(super) async fn end(self, rig: &Rig) -> Proof {
        let mut proof = Proof::default();
        let mut silent = Vec::new();
        for (a, b, link, before) in &self.links {
            let now = link.passed();
            let (held, dials) = (now.held - before.held, now.dials_held - before.dials_held);
            if held + dials > 0 {
                proof.took.push(format!("{held} bytes and {dials} dials from {a} to {b} held"));
            } else {
                silent.push(format!("{a} to {b}"));
            }
        }
        if proof.took.is_empty() {
            proof.missing.push(format!("nothing was sent over the links cut: {}", silent.join(", ")));
        }
        let after = term(rig).await;
        let (lasted, withheld) = (self.since.elapsed(), self.canary.withheld(&rig.pids()));
        proof = steady(proof, (self.term, after), lasted, withheld);
        for (_, _, link, _) in self.links {
            link.heal();
        }
        proof
    }
}

/// The largest majority in which everyone reaches everyone; none when another one is as large.
fn whole(ids: &[u16], cut: &[(u16, u16)]) -> Vec<u16> {
    let majorities = (0_u32..1 << ids.len()).map(|chosen| -> Vec<u16> {
        ids.iter().enumerate().filter(|(place, _)| chosen >> place & 1 == 1).map(|(_, id)| *id).collect()
    });
    let majorities = majorities.filter(|some| some.len() > ids.len() / 2);
    let mut found: Vec<Vec<u16>> =
        majorities.filter(|some| !cut.iter().any(|(a, b)| some.contains(a) && some.contains(b))).collect();
    found.sort_by_key(Vec::len);
    match found.as_slice() {
        [.., next, largest] if next.len() == largest.len() => Vec::new(),
        [.., largest] => largest.clone(),
        [] => Vec::new(),
    }
}

/// Elections that follow each other for as long as a cut lasts are a livelock; those that a starved host explains are not.
fn steady(proof: Proof, (before, after): (Option<u64>, Option<u64>), lasted: Duration, withheld: Withheld) -> Proof {
    let allowed = TERMS + lasted.as_secs() + withheld.elections(lasted);
    match (before, after) {
        (Some(before), Some(after)) if after > before + allowed => {
            let told = format!("term {before} became {after} in {lasted:?} of a cut; the host withheld {withheld}");
            proof.broken(Promise::G17, "terms do not inflate", told)
        }
        _ => proof,
    }
}

/// The highest term any replica knows.
pub(super) async fn term(rig: &Rig) -> Option<u64> {
    let ids = rig.running();
    let asked = ids.iter().map(|id| async { rig.status(*id).await.ok()?["term"].as_u64() });
    futures::future::join_all(asked).await.into_iter().flatten().max()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cut around one spares the others; one between two spares none for certain; one-way cuts count as well.
    #[test]
    fn the_majority_that_is_whole_is_spared() {
        assert_eq!(whole(&[1, 2, 3], &[(1, 2), (2, 1), (3, 2)]), [1, 3]);
        assert_eq!(whole(&[1, 2, 3], &[(2, 1)]), Vec::<u16>::new());
        assert_eq!(whole(&[1, 2, 3], &[(2, 1), (1, 3)]), [2, 3]);
        assert_eq!(whole(&[1, 2, 3], &[(2, 1), (1, 3), (3, 2)]), Vec::<u16>::new());
        assert_eq!(whole(&[1, 2, 3, 4, 5], &[(1, 2), (1, 3), (1, 4), (1, 5)]), [2, 3, 4, 5]);
    }

    /// Terms that grow faster than any election under a cut needs are told, except as far as a starved host explains them.
    #[test]
    fn terms_that_inflate_are_told() {
        let seconds = Duration::from_secs;
        let judged =
            |after, withheld| steady(Proof::default(), (Some(10), Some(after)), seconds(4), withheld).broken.len();
        let busy = Withheld { ran: seconds(1), waited: seconds(3), disk: Duration::ZERO };
        assert_eq!(judged(18, Withheld::default()), 0);
        assert_eq!(judged(19, Withheld::default()), 1);
        assert_eq!(judged(19, busy), 0);
        assert_eq!(judged(20, busy), 1);
    }
}
