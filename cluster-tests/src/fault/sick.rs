//! A leader whose disk is sick: every sync takes long, and nothing fails. It must hand over, once, and clients of the others are served as
//! if nothing were wrong.

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

/// Another replica leads within this.
const MOVES: Duration = Duration::from_secs(10);
/// Elections in the first minute, and in each one after it.
const ELECTIONS: u64 = 1;
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
        layer.slow_syncs(Duration::from_millis(ms))?;
        let since = Instant::now();
        let moved = tokio::spawn(moved(clients, id));
        Ok(Self { id, ms, since, term, delayed, probe, moved })
    }

    pub(super) async fn end(self, rig: &Rig) -> Result<Proof> {
        let Self { id, ms, since, term, delayed, probe, moved } = self;
        // It may yet come, as far as it is in time.
        let moved = tokio::time::timeout(MOVES.saturating_sub(since.elapsed()), moved).await;
        let (lasted, after) = (since.elapsed(), cut::term(rig).await);
        let seen = probe.stop();
        let mut proof = Proof::counted(rig.layer(id)?.get(Word::SyncsDelayed)? - delayed, "syncs held up");
        rig.layer(id)?.heal()?;
        let Ok(Ok((moved, to))) = moved else {
            let told = format!("replica {id} leads after {lasted:?} of syncs of {ms} ms");
            return Ok(proof.broken(Promise::G16, "a leader with a sick disk hands over", told));
        };
        proof.took.push(format!("replica {to} leads in place of {id} after {:?}", moved - since));
        if moved - since > MOVES {
            let told = format!("replica {id} led for {:?} with syncs of {ms} ms", moved - since);
            proof = proof.broken(Promise::G16, "a leader with a sick disk hands over in time", told);
        }
        if let (Some(before), Some(after)) = (term, after)
            && after > before + ELECTIONS * (1 + lasted.as_secs() / 60)
        {
            let told = format!("term {before} became {after} in {lasted:?} of syncs of {ms} ms");
            proof = proof.broken(Promise::G16, "one election a minute", told);
        }
        if let Some(first) = seen.failed.first() {
            let told =
                format!("{} writes through healthy replicas failed twice, the first: {first}", seen.failed.len());
            proof = proof.broken(Promise::G16, "healthy replicas take writes", told);
        }
        match seen.p99_since(moved) {
            Some(p99) if p99 > P99 => {
                let told = format!("p99 of writes through healthy replicas is {p99:?} after the lead has moved");
                proof = proof.broken(Promise::G16, "writes through healthy replicas are quick", told);
            }
            Some(p99) => proof.took.push(format!("p99 of writes through healthy replicas {p99:?}")),
            None => proof.missing.push("no write was made after the lead had moved".into()),
        }
        Ok(proof)
    }
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
