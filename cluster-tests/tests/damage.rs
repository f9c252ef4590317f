//! Disks of real replicas on which bytes change, or that are full: clients of the others notice nothing, what is wrong is named,
//! and nobody has to do anything but to make room.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster_tests::binary;
use cluster_tests::cluster::{Cluster, Shape, items};
use cluster_tests::fault::layer::Layer;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The data directory a replica was started on.
fn data_dir(cluster: &Cluster, id: u16) -> Result<PathBuf> {
    let argv = &cluster.replica(id)?.argv;
    let given = argv.iter().find_map(|argument| argument.strip_prefix("--data-dir="));
    Ok(given.context("it was given a data directory")?.into())
}

/// Files of a directory and those below it with an ending, that hold something.
fn files(directory: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path, ending)?);
        } else if path.extension().is_some_and(|it| it == ending) && path.metadata()?.len() > 0 {
            found.push(path);
        }
    }
    Ok(found)
}

/// The same, and at least one of them.
fn some(directory: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let found = files(directory, ending)?;
    ensure!(!found.is_empty(), "{} has no {ending}", directory.display());
    Ok(found)
}

/// The objects of a list that the test has made.
fn ours(list: &Value) -> usize {
    items(list).filter(|map| map["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("ours-"))).count()
}

/// Changes some bytes in each part of a file that is read as a whole, or in the first one only.
fn damage(file: &Path, parts: Parts) -> Result<()> {
    let open = std::fs::OpenOptions::new().read(true).write(true).open(file)?;
    let length = open.metadata()?.len();
    for at in (64..length.saturating_sub(16)).step_by(8 << 10) {
        let mut bytes = [0; 16];
        open.read_exact_at(&mut bytes, at)?;
        bytes.iter_mut().for_each(|byte| *byte ^= 0x11);
        open.write_all_at(&bytes, at)?;
        if parts == Parts::First {
            break;
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Parts {
    All,
    First,
}

async fn write(cluster: &Cluster, through: u16, names: std::ops::Range<u32>) -> Result<()> {
    for n in names {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("ours-{n}")}, "data": {"n": format!("{n}")}});
        cluster.tenant(through)?.post(MAPS, &map).await?.expect(201)?;
    }
    Ok(())
}

/// Writes the state of a replica out: a backup does.
async fn flush(cluster: &Cluster, id: u16) -> Result<()> {
    let backup = cluster.admin(id)?.request(reqwest::Method::GET, "/api/admin/snapshot").send().await?;
    ensure!(backup.status().is_success(), "no backup: {}", backup.status());
    backup.bytes().await?;
    Ok(())
}

/// The tables of a follower's state are damaged while it is down, and its own snapshot with them, since it shares them. The
/// next start names it, sets the state aside and takes another from a peer, and shows what all show. The same once more with
/// tables that are gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_state_is_made_anew_by_itself() -> Result<()> {
    let mut cluster = Cluster::start(Shape { replicas: 3, agents: 0 }).await?;
    let leader = cluster.leader().await?;
    let hit = cluster.ids().into_iter().find(|id| *id != leader).context("there are followers")?;
    let reader = cluster.tenant(hit)?;
    write(&cluster, leader, 0..40).await?;
    let data = data_dir(&cluster, hit)?;
    flush(&cluster, hit).await?;
    cluster.kill(hit).await?;
    some(&data.join("state"), "sst")?.iter().try_for_each(|table| damage(table, Parts::All))?;
    cluster.restart(hit)?;
    cluster.ready(hit).await?;
    cluster.converged(MAPS).await?;
    let list = reader.get(MAPS).await?.expect(200)?;
    ensure!(ours(&list) == 40, "{list}");
    let told = cluster.said(hit)?;
    ensure!(told.contains("the state cannot be gone on with") && told.contains(".sst"), "it was not named: {told}");
    ensure!(told.contains("the state was made anew from that of a peer"), "{told}");
    ensure!(data.join("damaged").is_dir(), "nothing was set aside");

    cluster.kill(hit).await?;
    some(&data.join("state"), "sst")?.iter().try_for_each(std::fs::remove_file)?;
    cluster.tenant(leader)?.delete(&format!("{MAPS}/ours-7")).await?.expect(200)?;
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

/// The log of a follower is damaged while it is down: in its write-ahead log, so that nobody can say what it had acknowledged,
/// then in a table. It is named, and the replica is back by itself each time, shows what all show, and is counted on.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_log_is_made_good_by_itself() -> Result<()> {
    let mut cluster = Cluster::start(Shape { replicas: 3, agents: 0 }).await?;
    let leader = cluster.leader().await?;
    let hit = cluster.ids().into_iter().find(|id| *id != leader).context("there are followers")?;
    write(&cluster, leader, 0..30).await?;
    let data = data_dir(&cluster, hit)?;
    for (ending, more) in [("log", 30..40), ("sst", 40..50)] {
        cluster.kill(hit).await?;
        if ending == "sst" {
            // A start writes what the write-ahead log holds into a table.
            cluster.restart(hit)?;
            cluster.ready(hit).await?;
            flush(&cluster, hit).await?;
            cluster.kill(hit).await?;
        }
        some(&data.join("log"), ending)?.iter().try_for_each(|file| damage(file, Parts::All))?;
        let through = cluster.leader().await?;
        write(&cluster, through, more.clone()).await?;
        cluster.restart(hit)?;
        cluster.ready(hit).await?;
        cluster.converged(MAPS).await?;
        let list = cluster.tenant(hit)?.get(MAPS).await?.expect(200)?;
        ensure!(ours(&list) == more.end as usize, "{ending}: {list}");
        ensure!(cluster.said(hit)?.contains("the log is damaged"), "{ending}: it was not named");
        ensure!(data.join("damaged-log").is_dir(), "{ending}: nothing was set aside");
        std::fs::remove_dir_all(data.join("damaged-log"))?;
    }
    // With the leader gone, a majority needs it.
    let leader = cluster.leader().await?;
    cluster.kill(leader).await?;
    cluster.leader().await?;
    write(&cluster, hit, 50..55).await?;
    cluster.restart(leader)?;
    cluster.ready(leader).await?;
    cluster.converged(MAPS).await?;
    cluster.passed();
    Ok(())
}

/// All three are damaged at once, each at another place: the state of one, the write-ahead log of the second, a table of the
/// log of the third. None has a whole copy; together they have all of it, and come back by themselves with all of it.
#[tokio::test(flavor = "multi_thread")]
async fn damage_at_another_place_of_each_replica() -> Result<()> {
    let mut cluster = Cluster::start(Shape { replicas: 3, agents: 0 }).await?;
    let leader = cluster.leader().await?;
    write(&cluster, leader, 0..30).await?;
    cluster.converged(MAPS).await?;
    let ids = cluster.ids();
    for id in &ids {
        // A start writes what the write-ahead log holds into a table.
        cluster.kill(*id).await?;
        cluster.restart(*id)?;
        cluster.ready(*id).await?;
        flush(&cluster, *id).await?;
    }
    let leader = cluster.leader().await?;
    write(&cluster, leader, 30..40).await?;
    cluster.converged(MAPS).await?;
    cluster.kill_all(&ids).await?;
    let [first, second, third] = ids[..] else { anyhow::bail!("there are three") };
    for table in some(&data_dir(&cluster, first)?.join("state"), "sst")? {
        damage(&table, Parts::All)?;
    }
    for written in some(&data_dir(&cluster, second)?.join("log"), "log")? {
        damage(&written, Parts::All)?;
    }
    let log = data_dir(&cluster, third)?.join("log");
    let mut tables = some(&log, "sst")?;
    tables.sort_by_key(|table| table.metadata().map_or(0, |about| about.len()));
    damage(tables.last().context("it has tables")?, Parts::First)?;
    // Found by the scan, which comes by every ten minutes.
    std::fs::write(log.join("DAMAGED"), "a table, says the scan")?;
    for id in &ids {
        cluster.restart(*id)?;
    }
    for id in &ids {
        cluster.ready(*id).await?;
    }
    cluster.converged(MAPS).await?;
    for id in &ids {
        let list = cluster.tenant(*id)?.get(MAPS).await?.expect(200)?;
        ensure!(ours(&list) == 40, "replica {id}: {list}");
    }
    ensure!(cluster.said(first)?.contains("the state was made anew"), "not by the state of a peer");
    for id in [second, third] {
        ensure!(cluster.said(id)?.contains("the log is damaged"), "replica {id} has not named it");
    }
    cluster.passed();
    Ok(())
}

/// Starts a killed replica as a service manager would, on a disk of which the test decides.
fn launch(cluster: &Cluster, id: u16, layer: &Layer) -> Result<Child> {
    let replica = cluster.replica(id)?;
    let (program, arguments) = replica.argv.split_first().context("dev.json names no program")?;
    let output = std::fs::OpenOptions::new().append(true).create(true).open(cluster.directory().join("full.log"))?;
    let mut command = Command::new(program);
    command.args(arguments).envs(&replica.env).envs(layer.environment()).kill_on_drop(true);
    command.stdin(std::process::Stdio::null()).stdout(output.try_clone()?).stderr(output);
    Ok(command.spawn()?)
}

/// A process must end by itself, and say that it failed.
async fn fails(process: &mut Child) -> Result<()> {
    let ended = tokio::time::timeout(Duration::from_secs(60), process.wait()).await;
    let ended = ended.context("it goes on although it cannot write")??;
    ensure!(!ended.success(), "it ended as if all were well");
    Ok(())
}

/// The disk of a follower is filled by others to its last byte. The others go on; the follower stops, and so does every start
/// of it as long as there is no room, without changing for the worse what it has. Once there is room, the next start is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_on_a_full_disk_comes_back() -> Result<()> {
    let mut cluster = Cluster::start(Shape { replicas: 3, agents: 0 }).await?;
    let leader = cluster.leader().await?;
    let hit = cluster.ids().into_iter().find(|id| *id != leader).context("there are followers")?;
    write(&cluster, leader, 0..20).await?;
    cluster.kill(hit).await?;
    let data = data_dir(&cluster, hit)?;
    let layer = Layer::new(&binary::shim()?, &cluster.directory().join("layer"), &data)?;
    let mut process = launch(&cluster, hit, &layer)?;
    cluster.ready(hit).await?;
    layer.check_loaded(process.id().context("it runs")?)?;

    layer.leave_space(4_000)?;
    write(&cluster, leader, 20..40).await?;
    fails(&mut process).await?;
    // Some room, and less than a start needs, at different places of it.
    for bytes in [0, 100, 5_000] {
        layer.leave_space(bytes)?;
        let mut again = launch(&cluster, hit, &layer)?;
        write(&cluster, leader, 40..41).await?;
        cluster.tenant(leader)?.delete(&format!("{MAPS}/ours-40")).await?.expect(200)?;
        fails(&mut again).await.with_context(|| format!("with room for {bytes} bytes"))?;
    }
    layer.heal()?;
    let said = std::fs::read_to_string(cluster.directory().join("full.log"))?;
    ensure!(said.contains("No space left on device"), "it does not say why: {said}");
    ensure!(!said.contains("is damaged"), "a full disk was taken for a damaged one: {said}");

    let process = launch(&cluster, hit, &layer)?;
    cluster.ready(hit).await?;
    write(&cluster, hit, 41..45).await?;
    let here = cluster.tenant(hit)?.get(MAPS).await?.expect(200)?;
    ensure!(ours(&here) == 44, "{here}");
    cluster.converged(MAPS).await?;
    for id in cluster.ids() {
        let status = cluster.status(id).await?;
        ensure!(status["alarms"].as_array().is_some_and(Vec::is_empty), "{status}");
    }
    ensure!(!data.join("damaged").exists() && !data.join("damaged-log").exists(), "something was set aside");
    drop(process);
    cluster.passed();
    Ok(())
}
