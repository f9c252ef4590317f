//! A leader whose disk is sick: every sync takes long, and nothing fails. It must hand over, once, and clients of the others are served as
//! if nothing were wrong.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinHandle;

use super::layer::Word;
use super::probe::Probe;
use super::{Proof, Whom, cut};
use crate::client::Client;
use crate::oracle::Promise;
use crate::random::Random;
use crate::rig::Rig;
use crate::starvation::Canary;

/// Another replica leads within this.
const MOVES: Duration = Duration::from_secs(10);
/// And is waited for no longer, however much the host withholds.
const MOVES_MAX: Duration = Duration::from_secs(60);
/// Elections in the first minute, and in each one after it.
const ELECTIONS: u64 = 1;
/// What a leader says that gives leadership away for its disk's sake.
const HANDS_OVER: &str = "the disk is slow: handing leadership over";
/// Once another replica leads, ninety-nine of a hundred writes through the healthy ones take no longer.
const P99: Duration = Duration::from_secs(1);
/// Between two looks at who leads.
const LOOK: Duration = Duration::from_millis(100);

/// A leader that is sick.
#[derive(Debug)]
pub struct Sick {
    id: u16,
    ms: u64,
    since: Instant,
    term: Option<u64>,
    delayed: u64,
    /// Handovers for a slow disk so far.
    handed: usize,
    canary: Canary,
    probe: Probe,
    moved: JoinHandle<(Instant, u64)>,
}

impl Sick {
    pub(super) async fn begin(rig: &Rig, random: &mut Random, ms: u64) -> Result<Self> {
        let id = Whom::Leader.one(rig, random).await?;
        let layer = rig.layer(id)?;
        layer.check_loaded(rig.at(id)?.pid()?)?;
        let (term, delayed) = (cut::term(rig).await, layer.get(Word::SyncsDelayed)?);
        let healthy: Vec<u16> = rig.running().into_iter().filter(|other| *other != id).collect();
        let probe = Probe::start(rig, &healthy)?;
        let clients = healthy.iter().map(|id| rig.admin(*id)).collect::<Result<Vec<Client>>>()?;
        let (handed, canary) = (handed_over(rig)?, Canary::start(rig.directory(), &rig.pids())?);
        layer.slow_syncs(Duration::from_millis(ms))?;
        let since = Instant::now();
        let moved = tokio::spawn(moved(clients, id));
        Ok(Self { id, ms, since, term, delayed, handed, canary, probe, moved })
    }

    pub(super) async fn end(self, rig: &Rig) -> Result<Proof> {
        let Self { id, ms, since, term, delayed, handed, canary, probe, moved } = self;
        // It may yet come, as far as it is in time.
        let moved = tokio::time::timeout(MOVES_MAX.saturating_sub(since.elapsed()), moved).await;
        let (lasted, after) = (since.elapsed(), cut::term(rig).await);
        let withheld = canary.withheld(&rig.pids());
        let seen = probe.stop();
        let mut proof = Proof::counted(rig.layer(id)?.get(Word::SyncsDelayed)? - delayed, "syncs held up");
        rig.layer(id)?.heal()?;
        proof.took.push(format!("in {lasted:?} the host withheld {withheld}"));
        let Ok(Ok((moved, to))) = moved else {
            let told = format!("replica {id} leads after {lasted:?} of syncs of {ms} ms");
            return Ok(proof.broken(Promise::G16, "a leader with a sick disk hands over", told));
        };
        let took = moved - since;
        proof.took.push(format!("replica {to} leads in place of {id} after {took:?}"));
        if withheld.share(took, lasted) > MOVES {
            let told = format!("replica {id} led for {took:?} with syncs of {ms} ms; the host withheld {withheld}");
            proof = proof.broken(Promise::G16, "a leader with a sick disk hands over in time", told);
        }
        let elections = ELECTIONS * (1 + lasted.as_secs() / 60);
        let given = handed_over(rig)? - handed;
        proof.took.push(format!("leadership was given away {given} times for a slow disk"));
        if u64::try_from(given)? > elections {
            let told = format!("leadership was given away {given} times in {lasted:?} of syncs of {ms} ms");
            proof = proof.broken(Promise::G16, "one handover a minute", told);
        }
        let owed = withheld.elections(lasted);
        if let (Some(before), Some(after)) = (term, after)
            && after > before + elections + owed
        {
            let told =
                format!("term {before} became {after} in {lasted:?} of syncs of {ms} ms; the host withheld {withheld}");
            proof = proof.broken(Promise::G16, "one election a minute", told);
        }
        proof = seen.judged(proof, Promise::G16, "healthy replicas take writes", withheld, lasted);
        match seen.p99_since(moved) {
            Some(p99) if withheld.share(p99, lasted) > P99 => {
                let told = format!(
                    "p99 of writes through healthy replicas is {p99:?} after the lead has moved; the host withheld {withheld}"
                );
                proof = proof.broken(Promise::G16, "writes through healthy replicas are quick", told);
            }
            Some(p99) => proof.took.push(format!("p99 of writes through healthy replicas {p99:?}")),
            None => proof.missing.push("no write was made after the lead had moved".into()),
        }
        Ok(proof)
    }
}

/// How often leaders have said that they give leadership away for their disk's sake.
fn handed_over(rig: &Rig) -> Result<usize> {
    let mut count = 0;
    for id in rig.ids() {
        count += fs::read_to_string(rig.at(id)?.log())?.lines().filter(|line| line.contains(HANDS_OVER)).count();
    }
    Ok(count)
}

/// Waits until one of these replicas says that another one than `sick` leads.
async fn moved(clients: Vec<Client>, sick: u16) -> (Instant, u64) {
    loop {
        for client in &clients {
            let asked = tokio::time::timeout(LOOK * 5, client.get("/api/admin/status")).await;
            let said = asked.ok().and_then(Result::ok).and_then(|answer| answer.expect(200).ok());
            if let Some(leader) = said.and_then(|status| status["leader"].as_u64()).filter(|id| *id != u64::from(sick))
            {
                return (Instant::now(), leader);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
