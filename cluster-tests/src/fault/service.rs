//! [`Service`]: what a majority that a fault leaves alone gives clients while the fault lasts. They wait for a new leader at most, and for
//! nothing else.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Proof;
use super::probe::{Probe, Seen};
use crate::oracle::Promise;
use crate::rig::Rig;
use crate::starvation::{Canary, Withheld};

/// A write that is begun under the fault is acknowledged within this.
const RESUMES: Duration = Duration::from_secs(2);

/// Clients at work while a fault lasts.
#[derive(Debug)]
pub struct Service {
    promise: Promise,
    spared: Vec<u16>,
    since: Instant,
    canary: Canary,
    probe: Probe,
}

impl Service {
    /// Begins to ask these replicas, which a fault that has just begun spares.
    ///
    /// # Errors
    /// When there are too few, or one of them does not run.
    pub fn begin(rig: &Rig, spared: &[u16], promise: Promise) -> Result<Self> {
        let canary = Canary::start(rig.directory(), &rig.pids())?;
        let (since, probe) = (Instant::now(), Probe::start(rig, spared)?);
        Ok(Self { promise, spared: spared.to_vec(), since, canary, probe })
    }

    /// Ends it, before the fault ends: what was seen, and what of that must not be.
    pub async fn end(self, rig: &Rig) -> Proof {
        let Self { promise, spared, since, canary, probe } = self;
        let (lasted, withheld) = (since.elapsed(), canary.withheld(&rig.pids()));
        let seen = probe.stop();
        let proof = resumed(&seen, promise, since, lasted, withheld);
        let proof = seen.judged(proof, promise, "a majority serves under the fault", withheld, lasted);
        match super::probe::clear(rig, &spared).await.context("what was written to see whether a majority serves") {
            Ok(()) => proof,
            Err(error) => Proof { missing: [proof.missing, vec![format!("{error:#}")]].concat(), ..proof },
        }
    }
}

/// The first write acknowledged under the fault came in time, or the fault was over before.
fn resumed(seen: &Seen, promise: Promise, since: Instant, lasted: Duration, withheld: Withheld) -> Proof {
    let first = seen.took.iter().map(|(began, took)| *began + *took).min();
    let gap = first.map_or(lasted, |first| first.saturating_duration_since(since));
    let proof = match first {
        Some(_) => Proof::took(format!("the majority took a write after {} ms", gap.as_millis())),
        None => Proof::default(),
    };
    if withheld.share(gap, lasted) <= RESUMES {
        return proof;
    }
    let told = match first {
        Some(_) => format!("the first write took {gap:?}; the host withheld {withheld}"),
        None => format!("no write was acknowledged in {lasted:?}; the host withheld {withheld}"),
    };
    proof.broken(promise, "a majority takes writes soon", told)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A majority that takes its first write late breaks the promise, and so does one that takes none for as long; a fault that ends sooner
    /// tells nothing, and a host that withheld most of it excuses.
    #[test]
    fn a_majority_must_serve_soon() {
        let (since, seconds) = (Instant::now(), Duration::from_secs);
        let after = |took| Seen { took: vec![(since, seconds(took)), (since, seconds(9))], ..Seen::default() };
        let judged = |seen: &Seen, lasted, withheld| resumed(seen, Promise::G17, since, seconds(lasted), withheld);
        let idle = Withheld::default();
        assert!(judged(&after(1), 10, idle).broken.is_empty());
        assert_eq!(judged(&after(1), 10, idle).took, ["the majority took a write after 1000 ms"]);
        assert_eq!(judged(&after(3), 10, idle).broken.len(), 1);
        assert_eq!(judged(&Seen::default(), 3, idle).broken.len(), 1);
        assert!(judged(&Seen::default(), 1, idle).broken.is_empty());
        let busy = Withheld { ran: seconds(1), waited: seconds(3), disk: Duration::ZERO };
        assert!(judged(&after(3), 10, busy).broken.is_empty());
        assert_eq!(judged(&after(9), 10, busy).broken.len(), 1);
    }
}
