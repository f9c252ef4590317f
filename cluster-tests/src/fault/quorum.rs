//! The way out when the write-ahead logs of so many replicas are damaged at once that the others are no majority: nobody is left who could
//! say what they had acknowledged. They must say so and serve nobody, no leader may come up, and the operator goes on with a survivor as
//! [the page](../../../docs/operate/recovery.md) says, in a new epoch.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::debt::Debt;
use super::{PATIENCE, Proof, Renewed, serving, stop};
use crate::oracle::Promise;
use crate::rig::Rig;

/// Where the fault writes: no client's place.
const PATH: &str = "/api/v1/namespaces/default/configmaps";
/// Each command of the operator's ends within this.
const COMMAND: Duration = Duration::from_secs(120);
/// A write that has no answer within this is not acknowledged.
const ANSWER: Duration = Duration::from_secs(2);
/// What a replica says whose log's end nobody knows.
const UNKNOWN: &str = "its log has lost nobody knows what";

/// Writes that were acknowledged while survivors had to store them: whatever is lost, these must not be.
#[derive(Debug, Default)]
pub(super) struct Witness {
    names: Vec<String>,
}

impl Witness {
    /// One more, by whichever of the running replicas takes it.
    pub(super) async fn write(&mut self, rig: &Rig) -> Result<()> {
        let name = format!("witness-{}-{}", std::process::id(), self.names.len());
        let body = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
        let debt = Debt::of(rig, PATIENCE, Promise::G20, "a write between two stops is acknowledged")?;
        debt.seen(|| async {
            let leader = rig.leader().await.context("nobody leads")?;
            let admin = rig.admin(leader)?;
            let answer = tokio::time::timeout(ANSWER, admin.post(PATH, &body)).await.context("no answer")??;
            // One without an answer may have been made.
            ensure!(matches!(answer.status.as_u16(), 201 | 409), "the answer is {}", answer.status);
            Ok(())
        })
        .await?;
        self.names.push(name);
        Ok(())
    }

    /// Those that a replica does not have.
    async fn missing(&self, rig: &Rig, id: u16) -> Result<Vec<String>> {
        let admin = rig.admin(id)?;
        let debt = Debt::of(rig, PATIENCE, Promise::G12, "a restored replica answers")?;
        let list = debt.seen(|| async { admin.get(PATH).await?.expect(200) }).await?;
        let there: Vec<&str> =
            crate::cluster::items(&list).filter_map(|map| map["metadata"]["name"].as_str()).collect();
        Ok(self.names.iter().filter(|name| !there.contains(&name.as_str())).cloned().collect())
    }
}

/// Sees that nobody serves, and goes on with what is left.
pub(super) async fn recover(rig: &mut Rig, damaged: &[u16], witness: &Witness, mut proof: Proof) -> Result<Proof> {
    for id in damaged {
        proof = says_so(rig, *id, proof).await?;
    }
    let survivors: Vec<u16> = rig.ids().into_iter().filter(|id| !damaged.contains(id)).collect();
    for id in &survivors {
        proof = leads_nobody(rig, *id, proof).await?;
    }
    for id in rig.running() {
        stop(rig, id).await?;
    }
    let begun = Instant::now();
    let revision = renew(rig, &survivors, &mut proof).await?;
    proof.renewed = Some(Renewed { begun, revision });
    for id in rig.ids() {
        serving(rig, &[id]).await?;
        let missing = witness.missing(rig, id).await?;
        if !missing.is_empty() {
            let told = format!("replica {id} has not {missing:?}, which the survivors had stored");
            proof = proof.broken(Promise::G3, "the survivor's log is gone on with", told);
        }
    }
    proof.took.push(format!("{} acknowledged writes are there again", witness.names.len()));
    Ok(proof)
}

/// A damaged replica names what is wrong, and serves nobody.
async fn says_so(rig: &Rig, id: u16, mut proof: Proof) -> Result<Proof> {
    let log = rig.at(id)?.log().to_owned();
    let debt = Debt::of(rig, PATIENCE, Promise::G13, "damage that cannot be mended is told")?;
    let said = debt.seen(|| async {
        let text = fs::read_to_string(&log).unwrap_or_default();
        ensure!(text.contains(UNKNOWN), "it has not said \"{UNKNOWN}\"");
        Ok(())
    });
    said.await.with_context(|| format!("replica {id}, whose write-ahead log is damaged"))?;
    if rig.serves(id).await.is_ok() {
        let told = format!("replica {id} serves, and nobody knows what it had acknowledged");
        return Ok(proof.broken(Promise::G13, "nobody serves what may be incomplete", told));
    }
    proof.took.push(format!("replica {id} says that {UNKNOWN}, and serves nobody"));
    Ok(proof)
}

/// A survivor alone leads nobody, and acknowledges nothing.
async fn leads_nobody(rig: &Rig, id: u16, mut proof: Proof) -> Result<Proof> {
    let body = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "generateName": "alone-" } });
    let admin = rig.admin(id)?;
    let answer = tokio::time::timeout(ANSWER, admin.post(PATH, &body)).await;
    let acknowledged = matches!(&answer, Ok(Ok(reply)) if reply.status == 201);
    let leader = rig.status(id).await.ok().and_then(|status| status["leader"].as_u64());
    if acknowledged || leader.is_some() {
        let told = format!("replica {id} is no majority, and says that {leader:?} leads; acknowledged: {acknowledged}");
        return Ok(proof.broken(Promise::G3, "no majority, no leader", told));
    }
    proof.took.push(format!("replica {id} alone acknowledges nothing"));
    Ok(proof)
}

/// The operator's page, line by line. The first revision of the new epoch.
async fn renew(rig: &mut Rig, survivors: &[u16], proof: &mut Proof) -> Result<u64> {
    let mut findings = Vec::new();
    for id in survivors {
        let found = operator(rig, &["recover", "collect", "--data-dir", &data(rig, *id)?]).await?;
        findings.push(kept(rig, &format!("findings-{id}.json"), &found)?);
    }
    let mut asked = vec!["recover", "plan"];
    asked.extend(findings.iter().map(String::as_str));
    let plan = operator(rig, &asked).await?;
    let chosen: Value = serde_json::from_str(&plan).context("a plan is JSON")?;
    let plan = kept(rig, "plan.json", &plan)?;
    let chosen = chosen["replica"].as_u64().and_then(|id| u16::try_from(id).ok()).context("a plan names a replica")?;
    let members = rig.members();
    let (number, place) = (chosen.to_string(), data(rig, chosen)?);
    let place = ["--data-dir", &place, "--id", &number, "--initial-cluster", &members, "-o", "json", "--yes"];
    let applied = operator(rig, &[&["recover", "apply", &plan], &place[..]].concat()).await?;
    let applied: Value = serde_json::from_str(&applied).context("what was applied is told as JSON")?;
    let epoch = applied["epoch"].as_str().context("an epoch was begun")?.to_owned();
    let backup = applied["backup"].as_str().context("a backup was written")?;
    for id in rig.ids().into_iter().filter(|id| *id != chosen) {
        let (number, place) = (id.to_string(), data(rig, id)?);
        let place = ["--data-dir", &place, "--id", &number, "--initial-cluster", &members, "--epoch", &epoch, "--yes"];
        operator(rig, &[&["snapshot", "restore", backup], &place[..]].concat()).await?;
    }
    for id in rig.ids() {
        rig.launch(id)?;
    }
    serving(rig, &rig.ids()).await?;
    operator(rig, &["recover", "verify", &plan]).await?;
    proof.took.push(format!("the operator went on with replica {chosen} in epoch {epoch}"));
    applied["revision"].as_u64().context("an epoch begins with a revision")
}

/// A line of the operator's page, which must do what the page says.
async fn operator(rig: &Rig, line: &[&str]) -> Result<String> {
    let debt = Debt::of(rig, COMMAND, Promise::G12, "the procedure after a lost quorum is gone through")?;
    debt.paid(rig.operator(line)).await
}

fn data(rig: &Rig, id: u16) -> Result<String> {
    Ok(rig.at(id)?.data().display().to_string())
}

fn kept(rig: &Rig, name: &str, text: &str) -> Result<String> {
    let path = rig.directory().join(name);
    fs::write(&path, text)?;
    Ok(path.display().to_string())
}
