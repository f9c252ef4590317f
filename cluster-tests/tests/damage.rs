//! Bytes that change on a disk under a real replica: clients of the others notice nothing, and nobody has to do anything.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cluster_tests::cluster::{Cluster, Shape, items};
use cluster_tests::wait::until;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The data directory a replica was started on.
fn data_dir(cluster: &Cluster, id: u16) -> Result<PathBuf> {
    let argv = &cluster.replica(id)?.argv;
    let at = argv.iter().position(|argument| argument == "--data-dir").context("it was given a data directory")?;
    Ok(argv.get(at + 1).context("it has a value")?.into())
}

/// The tables of a replica's state.
fn tables(data_dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for state in std::fs::read_dir(data_dir.join("state"))? {
        let state = state?.path();
        if state.is_dir() {
            let files = std::fs::read_dir(state)?.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
            found.extend(files.into_iter().filter(|file| file.extension().is_some_and(|ending| ending == "sst")));
        }
    }
    ensure!(!found.is_empty(), "the state has no tables");
    Ok(found)
}

/// The objects of a list that the test has made.
fn ours(list: &Value) -> usize {
    items(list).filter(|map| map["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("ours-"))).count()
}

/// Changes the first bytes of a table: blocks of rows, and not the index that is read when it is opened.
fn damage(table: &Path) -> Result<()> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(table)?;
    let mut begin = vec![0; 64.min(usize::try_from(file.metadata()?.len())? / 2)];
    file.read_exact_at(&mut begin, 0)?;
    begin.iter_mut().for_each(|byte| *byte ^= 0x11);
    Ok(file.write_all_at(&begin, 0)?)
}

/// The tables of a follower rot while it runs. Whoever reads there gets an error and never a wrong object; the process sets
/// the state aside and takes another from a peer, without having been started anew by anybody, and shows what all show. The
/// same once more while it is down.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_state_is_made_anew_by_itself() -> Result<()> {
    let mut cluster = Cluster::start(Shape { replicas: 3, agents: 0 }).await?;
    let leader = cluster.leader().await?;
    let hit = cluster.ids().into_iter().find(|id| *id != leader).context("there are followers")?;
    let (writer, reader) = (cluster.tenant(leader)?, cluster.tenant(hit)?);
    for n in 0..40 {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("ours-{n}")}, "data": {"n": format!("{n}")}});
        writer.post(MAPS, &map).await?.expect(201)?;
    }
    let data = data_dir(&cluster, hit)?;
    // A backup writes the state out; its own snapshot shares the tables, and their damage.
    let backup = cluster.admin(hit)?.request(reqwest::Method::GET, "/api/admin/snapshot").send().await?;
    ensure!(backup.status().is_success(), "no backup: {}", backup.status());
    backup.bytes().await?;
    tables(&data)?.iter().try_for_each(|table| damage(table))?;

    let pids = cluster.pids();
    until("the damage is met, and another state is there", || async {
        let reply = reader.get(MAPS).await;
        if let Ok(reply) = &reply
            && reply.status.is_success()
        {
            ensure!(ours(&reply.body) == 40, "a list that is not whole was answered: {}", reply.body);
        }
        ensure!(data.join("damaged").is_dir(), "nothing was set aside");
        reply?.expect(200).map(drop)
    })
    .await?;
    ensure!(pids == cluster.pids(), "a process was replaced");
    cluster.ready(hit).await?;
    cluster.converged(MAPS).await?;

    cluster.kill(hit).await?;
    tables(&data)?.iter().try_for_each(|table| std::fs::remove_file(table))?;
    writer.delete(&format!("{MAPS}/ours-7")).await?.expect(200)?;
    cluster.restart(hit)?;
    cluster.ready(hit).await?;
    cluster.converged(MAPS).await?;
    let list = reader.get(MAPS).await?.expect(200)?;
    ensure!(ours(&list) == 39, "{list}");
    let status = cluster.status(hit).await?;
    ensure!(status["alarms"].as_array().is_some_and(Vec::is_empty), "{status}");
    cluster.passed();
    Ok(())
}
