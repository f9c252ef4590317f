//! Backup, restore and the way out of a lost quorum, with the real binary as an operator uses it.

use anyhow::{Context, Result, bail, ensure};
use cluster_tests::cluster::{Cluster, Shape, items};
use cluster_tests::terminal::Terminal;
use cluster_tests::wait::until;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The value of one of a replica's own flags.
fn flag(cluster: &Cluster, id: u16, name: &str) -> Result<String> {
    let argv = &cluster.replica(id)?.argv;
    let value = argv.iter().find_map(|argument| argument.strip_prefix(&format!("--{name}=")));
    Ok(value.with_context(|| format!("replica {id} was started without --{name}"))?.to_owned())
}

async fn create(cluster: &Cluster, through: u16, name: &str) -> Result<u64> {
    let body = json!({ "metadata": { "name": name } });
    let made = cluster.admin(through)?.post(MAPS, &body).await?.expect(201)?;
    revision_of(&made)
}

fn revision_of(object: &Value) -> Result<u64> {
    Ok(object["metadata"]["resourceVersion"].as_str().context("an object has a resourceVersion")?.parse()?)
}

async fn names(cluster: &Cluster, through: u16) -> Result<Vec<String>> {
    let list = cluster.admin(through)?.get(MAPS).await?.expect(200)?;
    let names = items(&list).filter_map(|item| item["metadata"]["name"].as_str());
    Ok(names.filter(|name| name.starts_with("map-")).map(str::to_owned).collect())
}

/// Restores a replica's directory from a backup, in the epoch of the first one.
async fn restore(cluster: &Cluster, id: u16, backup: &str, epoch: &mut Option<String>) -> Result<()> {
    let (dir, members) = (flag(cluster, id, "data-dir")?, flag(cluster, id, "initial-cluster")?);
    let place = format!("--data-dir {dir} --id {id} --initial-cluster {members}");
    let given = epoch.as_ref().map(|epoch| format!("--epoch {epoch}")).unwrap_or_default();
    let terminal = Terminal::of(cluster, id)?;
    let said = terminal.done(&format!("operator snapshot restore {backup} --yes {place} {given}")).await?;
    let named = said.split_once("epoch ").and_then(|(_, rest)| rest.split_once(','));
    *epoch = Some(named.context("a restore names its epoch")?.0.to_owned());
    Ok(())
}

/// Starts a replica that is of an older epoch than those in `by`: they refuse it for that, it never becomes ready, and it shows nothing of
/// what they took on.
async fn is_refused(cluster: &mut Cluster, old: u16, by: &[u16], unseen: &str) -> Result<()> {
    cluster.restart(old)?;
    until(&format!("replica {old} is refused"), || async {
        for id in by {
            let said = cluster.said(*id)?;
            if said.lines().any(|line| line.contains("a peer was refused") && line.contains("epoch")) {
                return Ok(());
            }
        }
        bail!("nobody has")
    })
    .await?;
    let client = cluster.admin(old)?;
    until(&format!("replica {old} answers"), || async { client.get("/livez").await?.expect(200).map(drop) }).await?;
    let ready = client.get("/readyz").await?;
    ensure!(ready.status == 500, "replica {old} of an older epoch says {} of its readiness", ready.status);
    let stale = client.get(&format!("{MAPS}?resourceVersion=0")).await?;
    ensure!(!stale.body.to_string().contains(unseen), "replica {old} of an older epoch has taken {unseen}");
    Ok(())
}

/// A backup taken through a follower holds what was acknowledged before; three replicas restored from it show that and
/// nothing later, under a revision ahead of every one handed out, so that whoever watched is told to list anew. One that was
/// not restored yet is refused by those that were.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_becomes_the_control_plane() -> Result<()> {
    let mut cluster = Cluster::start(Shape { replicas: 3, agents: 0 }).await?;
    let leader = cluster.leader().await?;
    let follower = *cluster.ids().iter().find(|id| **id != leader).context("there are three")?;
    create(&cluster, leader, "map-before").await?;

    let terminal = Terminal::of(&cluster, follower)?;
    let backup = cluster.directory().join("backup.quilt").display().to_string();
    terminal.done(&format!("operator snapshot save {backup}")).await?;
    terminal.done(&format!("operator snapshot verify {backup}")).await?;
    let head = terminal.done(&format!("operator snapshot inspect {backup} -o json")).await?;
    let head: Value = serde_json::from_str(&head)?;
    let newest = create(&cluster, leader, "map-after").await?;

    let ids = cluster.ids();
    cluster.kill_all(&ids).await?;
    let mut epoch: Option<String> = None;
    let [late, others @ ..] = ids.as_slice() else { bail!("there are three") };
    for id in others {
        restore(&cluster, *id, &backup, &mut epoch).await?;
        cluster.restart(*id)?;
    }
    cluster.ready(others[0]).await?;
    create(&cluster, others[0], "unseen").await?;
    is_refused(&mut cluster, *late, others, "unseen").await?;
    cluster.kill(*late).await?;
    restore(&cluster, *late, &backup, &mut epoch).await?;
    cluster.restart(*late)?;
    for id in &ids {
        cluster.ready(*id).await?;
        ensure!(names(&cluster, *id).await? == ["map-before"], "replica {id} shows {:?}", names(&cluster, *id).await?);
    }
    let list = cluster.admin(follower)?.get(MAPS).await?.expect(200)?;
    ensure!(revision_of(&list)? > newest && newest > head["revision"].as_u64().context("a number")?);
    let gone =
        cluster.admin(follower)?.get(&format!("{MAPS}?watch=1&resourceVersion={newest}&timeoutSeconds=5")).await?;
    ensure!(gone.body.to_string().contains("410"), "a watch from before the restore was told {}", gone.body);
    ensure!(create(&cluster, follower, "map-next").await? > newest);
    cluster.converged(MAPS).await?;
    cluster.passed();
    Ok(())
}

/// Two of three replicas are lost for good: the third goes on with everything acknowledged, in a new epoch, and refuses
/// one of the dead when it comes back. While a majority lives, none of it is done.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_quorum_is_recovered_from() -> Result<()> {
    let mut cluster = Cluster::start(Shape { replicas: 3, agents: 0 }).await?;
    let leader = cluster.leader().await?;
    for n in 0..20 {
        create(&cluster, leader, &format!("map-{n:02}")).await?;
    }
    cluster.converged(MAPS).await?;
    let survivor = *cluster.ids().iter().find(|id| **id != leader).context("there are three")?;
    cluster.kill(survivor).await?;

    let dir = flag(&cluster, survivor, "data-dir")?;
    let write = |name: &str, text: String| -> Result<String> {
        let path = cluster.directory().join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let terminal = Terminal::of(&cluster, survivor)?;
    let collect = format!("operator recover collect --data-dir {dir}");
    let findings = write("findings.json", terminal.done(&collect).await?)?;
    let plan = write("plan.json", terminal.done(&format!("operator recover plan {findings}")).await?)?;
    let alone = format!("--id {survivor} --initial-cluster {survivor}={}", flag(&cluster, survivor, "peer-listen")?);
    let apply = format!("operator recover apply {plan} --data-dir {dir} {alone} --yes");
    let refused = terminal.failed(&apply, 5).await?;
    ensure!(refused.contains("the quorum is not lost"), "{refused}");

    let others: Vec<u16> = cluster.ids().into_iter().filter(|id| *id != survivor).collect();
    cluster.kill_all(&others).await?;
    terminal.done(&apply).await?;
    let again = terminal.done(&apply).await?;
    ensure!(again.contains("has been applied"), "asked again it says: {again}");
    cluster.restart(survivor)?;
    cluster.ready(survivor).await?;
    terminal.done(&format!("operator recover verify {plan}")).await?;
    ensure!(names(&cluster, survivor).await?.len() == 20, "acknowledged writes are missing");

    create(&cluster, survivor, "map-new").await?;
    is_refused(&mut cluster, leader, &[survivor], "map-new").await?;
    create(&cluster, survivor, "map-newer").await?;
    let status = cluster.status(survivor).await?;
    ensure!(status["leader"].as_u64() == Some(survivor.into()), "the returned replica disturbs: {status}");
    cluster.passed();
    Ok(())
}
