//! Membership: who belongs to the control plane changes while it works, by the operator's routes.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};

use super::{PATIENCE, Proof, Whom};
use crate::oracle::Promise;
use crate::random::Random;
use crate::rig::Rig;
use crate::wait::within;

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

/// A change that was begun.
#[derive(Debug)]
pub struct Members {
    change: Change,
    took: Vec<String>,
    /// Who has to get its vote back.
    demoted: Option<u16>,
    killed: Option<u16>,
    joined: Option<u16>,
    voters: Vec<u64>,
}

impl Members {
    pub(super) async fn begin(rig: &mut Rig, random: &mut Random, change: Change) -> Result<Self> {
        let leader = Whom::Leader.one(rig, random).await?;
        let follower = Whom::Follower.one(rig, random).await?;
        let voters = voters(&rig.status(leader).await?);
        let mut members = Self { change, took: Vec::new(), demoted: None, killed: None, joined: None, voters };
        match change {
            Change::Replace => {
                rig.kill(&[follower])?;
                members.took.push(replace(rig, follower, PATIENCE).await?);
            }
            Change::GrowAndShrink => {
                let joined = rig.join(leader, None, PATIENCE).await?;
                members.took.push(format!("replica {joined} joined"));
                members.joined = Some(joined);
            }
            Change::DemoteAndPromote => {
                demote(rig, follower).await?;
                members.took.push(format!("replica {follower} lost its vote"));
                members.demoted = Some(follower);
            }
            Change::Abandon => {
                let admin = rig.admin(follower)?;
                let path = format!("/api/admin/replicas/{follower}/demote");
                let asked = tokio::spawn(async move { admin.post(&path, &json!({})).await });
                tokio::time::sleep(Duration::from_millis(random.within(0..30))).await;
                rig.kill(&[leader])?;
                let answer = tokio::time::timeout(ANSWER, asked).await;
                let told = match answer {
                    Ok(Ok(Ok(reply))) => format!("answered {}", reply.status),
                    Ok(_) => "not answered".to_owned(),
                    Err(_) => "still waited for".to_owned(),
                };
                members.took.push(format!("leader {leader} was killed while replica {follower} lost its vote: {told}"));
                members.demoted = Some(follower);
                members.killed = Some(leader);
            }
            Change::Transfer => {
                for _ in 0..3 {
                    let before = rig.await_leader(PATIENCE).await?;
                    let to = Whom::Follower.one(rig, random).await?;
                    let reply = ask(rig, before, Method::POST, "/api/admin/leader", json!({ "to": to })).await?;
                    ensure!(reply == 200, "leadership was not handed over: {reply}");
                    members.took.push(format!("leadership went from replica {before} to {to}"));
                    tokio::time::sleep(Duration::from_millis(random.within(50..400))).await;
                }
            }
        }
        Ok(members)
    }

    pub(super) async fn end(self, rig: &mut Rig) -> Result<Proof> {
        let mut proof = Proof { took: self.took, ..Proof::default() };
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
        let leader = rig.await_leader(PATIENCE).await?;
        let after = voters(&rig.status(leader).await?);
        if after.len() != self.voters.len() {
            let told = format!("{} left voters {after:?} of {:?}", self.change, self.voters);
            proof = proof.broken(Promise::G11, "a change that is finished leaves all voters", told);
        }
        Ok(proof)
    }
}

/// Removes a dead replica and lets a new one join in its place.
pub(super) async fn replace(rig: &mut Rig, dead: u16, limit: Duration) -> Result<String> {
    let through = rig.await_leader(limit).await?;
    remove(rig, dead).await?;
    rig.forget(dead)?;
    let joined = rig.join(through, Some(dead), limit).await?;
    Ok(format!("replica {joined} joined in the place of replica {dead}"))
}

fn voters(status: &Value) -> Vec<u64> {
    let members = status["members"].as_array().into_iter().flatten();
    members.filter(|member| member["voter"] == true).filter_map(|member| member["id"].as_u64()).collect()
}

/// The status of an answer to the admin.
async fn ask(rig: &Rig, through: u16, method: Method, path: &str, body: Value) -> Result<u16> {
    let admin = rig.admin(through)?;
    let asked = admin.send(admin.request(method, path).json(&body));
    Ok(tokio::time::timeout(PATIENCE, asked).await.context("no answer")??.status.as_u16())
}

/// Asks until it is done: operations on members can be repeated.
async fn until_done(rig: &Rig, what: &str, method: Method, path: &str, done: &[u16]) -> Result<()> {
    within(PATIENCE, what, || async {
        let through = rig.leader().await.context("nobody leads")?;
        let status = ask(rig, through, method.clone(), path, json!({})).await?;
        ensure!(done.contains(&status), "the answer is {status}");
        Ok(())
    })
    .await
}

async fn remove(rig: &Rig, id: u16) -> Result<()> {
    until_done(rig, &format!("replica {id} is removed"), Method::DELETE, &format!("/api/admin/replicas/{id}"), &[200])
        .await
}

async fn demote(rig: &Rig, id: u16) -> Result<()> {
    let path = format!("/api/admin/replicas/{id}/demote");
    until_done(rig, &format!("replica {id} is a learner"), Method::POST, &path, &[200]).await
}

async fn promote(rig: &Rig, id: u16) -> Result<()> {
    let path = format!("/api/admin/replicas/{id}/promote");
    until_done(rig, &format!("replica {id} is a voter"), Method::POST, &path, &[200]).await
}
