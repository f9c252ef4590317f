//! Membership: who belongs to the control plane changes while it works, by the operator's routes.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::debt::Debt;
use super::{PATIENCE, Proof, Whom, kill, leader};
use crate::oracle::Promise;
use crate::random::Random;
use crate::rig::Rig;

/// What changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A new replica joins, and a follower is removed for it.
    Replace,
    /// A new replica joins, and is removed again.
    GrowAndShrink,
    /// A follower loses its vote, and gets it back.
    DemoteAndPromote,
    /// A vote is taken from a follower while the leader is killed; who it was is settled afterwards, as an operator would.
    Abandon,
    /// Leadership goes round.
    Transfer,
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replace => "a replica is replaced",
            Self::GrowAndShrink => "a replica joins and is removed",
            Self::DemoteAndPromote => "a replica loses its vote and gets it back",
            Self::Abandon => "the leader is killed in the middle of a membership change",
            Self::Transfer => "leadership is handed over",
        })
    }
}

/// A change whose leader is killed is not waited for longer: what is left of the voters may be too few until it is back.
const ANSWER: Duration = Duration::from_secs(2);

/// The leader is killed within this of a change, in microseconds.
const ABANDONED_WITHIN_US: u64 = 30_000;
/// Changes that are tried until one is not over by then.
const ABANDONED_ATTEMPTS: u32 = 6;

/// A change that was begun.
#[derive(Debug)]
pub struct Members {
    change: Change,
    took: Vec<String>,
    missing: Vec<String>,
    /// Who has to get its vote back.
    demoted: Option<u16>,
    killed: Option<u16>,
    joined: Option<u16>,
    voters: Vec<u64>,
}

impl Members {
    pub(super) async fn begin(rig: &mut Rig, random: &mut Random, change: Change) -> Result<Self> {
        let leads = Whom::Leader.one(rig, random).await?;
        let follower = Whom::Follower.one(rig, random).await?;
        let voters = voters(rig).await?;
        let (took, missing) = (Vec::new(), Vec::new());
        let mut members = Self { change, took, missing, demoted: None, killed: None, joined: None, voters };
        match change {
            Change::Replace => {
                kill(rig, &[follower])?;
                members.took.push(replace(rig, follower).await?);
            }
            Change::GrowAndShrink => {
                let joined = join(rig, leads, None).await?;
                members.took.push(format!("replica {joined} joined"));
                members.joined = Some(joined);
            }
            Change::DemoteAndPromote => {
                demote(rig, follower).await?;
                members.took.push(format!("replica {follower} lost its vote"));
                members.demoted = Some(follower);
            }
            Change::Abandon => {
                let told = abandon(rig, random, leads, follower).await?;
                match told {
                    Some(told) => members.took.push(told),
                    None => members.missing.push("every change was over before the leader was killed".into()),
                }
                members.demoted = Some(follower);
                members.killed = Some(leads);
            }
            Change::Transfer => {
                for _ in 0..3 {
                    members.took.push(hand_over(rig, random).await?);
                    tokio::time::sleep(Duration::from_millis(random.within(50..400))).await;
                }
            }
        }
        Ok(members)
    }

    pub(super) async fn end(self, rig: &mut Rig) -> Result<Proof> {
        let mut proof = Proof { took: self.took, missing: self.missing, ..Proof::default() };
        if let Some(killed) = self.killed {
            rig.launch(killed)?;
        }
        if let Some(joined) = self.joined {
            remove(rig, joined).await?;
            rig.forget(joined)?;
            proof.took.push(format!("replica {joined} was removed"));
        }
        if let Some(demoted) = self.demoted {
            promote(rig, demoted).await?;
            proof.took.push(format!("replica {demoted} votes"));
        }
        let after = voters(rig).await?;
        if after.len() != self.voters.len() {
            let told = format!("{} left voters {after:?} of {:?}", self.change, self.voters);
            proof = proof.broken(Promise::G11, "a change that is finished leaves all voters", told);
        }
        Ok(proof)
    }
}

/// Takes a follower's vote and kills the leader meanwhile: what was seen of it, if the change was not over by then. One that was is taken
/// back, and tried again with less time.
async fn abandon(rig: &mut Rig, random: &mut Random, leader: u16, follower: u16) -> Result<Option<String>> {
    let path = format!("/api/admin/replicas/{follower}/demote");
    let mut longest_us = ABANDONED_WITHIN_US;
    for attempt in 1..=ABANDONED_ATTEMPTS {
        let (admin, asked) = (rig.admin(follower)?, path.clone());
        let asked = tokio::spawn(async move { admin.post(&asked, &json!({})).await });
        tokio::time::sleep(Duration::from_micros(random.within(0..longest_us))).await;
        if asked.is_finished() && attempt < ABANDONED_ATTEMPTS {
            promote(rig, follower).await?;
            longest_us /= 2;
            continue;
        }
        let over = asked.is_finished();
        kill(rig, &[leader])?;
        let told = match tokio::time::timeout(ANSWER, asked).await {
            Ok(Ok(Ok(reply))) => format!("answered {} behind that", reply.status),
            Ok(_) => "not answered".to_owned(),
            Err(_) => "still waited for".to_owned(),
        };
        let told = format!("leader {leader} was killed while replica {follower} lost its vote: {told}");
        return Ok((!over).then_some(told));
    }
    Ok(None)
}

/// Removes a dead replica and lets a new one join in its place.
async fn replace(rig: &mut Rig, dead: u16) -> Result<String> {
    let through = leader(rig).await?;
    remove(rig, dead).await?;
    rig.forget(dead)?;
    let joined = join(rig, through, Some(dead)).await?;
    Ok(format!("replica {joined} joined in the place of replica {dead}"))
}

/// A new replica joins, and votes.
async fn join(rig: &mut Rig, through: u16, heir_of: Option<u16>) -> Result<u16> {
    let debt = Debt::of(rig, PATIENCE, Promise::G11, "a replica that joins becomes a voter")?;
    debt.paid(rig.join(through, heir_of, Debt::longest(PATIENCE))).await
}

/// Leadership goes to one who does not lead. Whoever was asked may have lost it just then, so that it is asked for again.
async fn hand_over(rig: &Rig, random: &mut Random) -> Result<String> {
    let chance = random.draw();
    let debt = Debt::of(rig, PATIENCE, Promise::G11, "leadership is handed over")?;
    debt.seen(|| async {
        let mut random = Random::new(chance);
        let before = leader(rig).await?;
        let to = Whom::Follower.one(rig, &mut random).await?;
        let reply = ask(rig, before, Method::POST, "/api/admin/leader", json!({ "to": to })).await?;
        ensure!(reply == 200, "replica {before} answers {reply} to handing it to {to}");
        Ok(format!("leadership went from replica {before} to {to}"))
    })
    .await
}

/// Who votes, as the leader says.
async fn voters(rig: &Rig) -> Result<Vec<u64>> {
    let debt = Debt::of(rig, PATIENCE, Promise::G20, "a leader says who belongs to the control plane")?;
    debt.seen(|| async {
        let leader = rig.leader().await.context("nobody knows a leader")?;
        let status = rig.status(leader).await?;
        let members = status["members"].as_array().context("a status has members")?;
        let voters = members.iter().filter(|member| member["voter"] == true);
        Ok(voters.filter_map(|member| member["id"].as_u64()).collect())
    })
    .await
}

/// The status of an answer to the admin.
async fn ask(rig: &Rig, through: u16, method: Method, path: &str, body: Value) -> Result<u16> {
    let admin = rig.admin(through)?;
    let asked = admin.send(admin.request(method, path).json(&body));
    Ok(tokio::time::timeout(PATIENCE, asked).await.context("no answer")??.status.as_u16())
}

/// Asks until it is done: operations on members can be repeated.
async fn until_done(rig: &Rig, what: &str, method: Method, path: &str) -> Result<()> {
    let debt = Debt::of(rig, PATIENCE, Promise::G11, "a membership change is finished")?;
    let done = debt.seen(|| async {
        let through = rig.leader().await.context("nobody leads")?;
        let status = ask(rig, through, method.clone(), path, json!({})).await?;
        ensure!(status == 200, "the answer is {status}");
        Ok(())
    });
    done.await.with_context(|| what.to_owned())
}

async fn remove(rig: &Rig, id: u16) -> Result<()> {
    let path = format!("/api/admin/replicas/{id}");
    until_done(rig, &format!("removal of replica {id}"), Method::DELETE, &path).await
}

async fn demote(rig: &Rig, id: u16) -> Result<()> {
    let path = format!("/api/admin/replicas/{id}/demote");
    until_done(rig, &format!("demotion of replica {id}"), Method::POST, &path).await
}

async fn promote(rig: &Rig, id: u16) -> Result<()> {
    let path = format!("/api/admin/replicas/{id}/promote");
    until_done(rig, &format!("promotion of replica {id}"), Method::POST, &path).await
}
