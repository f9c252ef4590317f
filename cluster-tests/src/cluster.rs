//! A cluster of real processes: started by `quiltd dev`, known by its `dev.json`, killed and started again one by one.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::binary;
use crate::client::{Client, Credential};
use crate::wait::until;

/// `dev.json`, as far as tests need it.
#[derive(Debug, Clone, Deserialize)]
pub struct Manifest {
    /// The replicas, in order.
    pub replicas: Vec<Replica>,
    /// The agents.
    pub agents: Vec<Agent>,
    /// A kubeconfig for the first replica.
    pub kubeconfig: String,
    /// The authority's certificate.
    pub ca: String,
    /// The admin key.
    pub admin_token: String,
    /// The key of tenant `default`.
    pub api_key: String,
}

/// A replica as `dev.json` shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct Replica {
    /// Its number.
    pub id: u16,
    /// Its process while it lives.
    pub pid: Option<i32>,
    /// How it is started.
    pub argv: Vec<String>,
    /// Environment beyond the inherited one.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Its address.
    pub api: String,
    /// Its plain-HTTP address.
    pub http: String,
    /// Where its output goes.
    #[serde(default)]
    pub log: Option<PathBuf>,
}

/// An agent as `dev.json` shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct Agent {
    /// Its node's name.
    pub name: String,
    /// Its process while it lives.
    pub pid: Option<i32>,
}

/// How many of each.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Replicas.
    pub replicas: u16,
    /// Agents.
    pub agents: u16,
}

/// How a cluster is started.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// How many of each.
    pub shape: Shape,
    /// Given to `quiltd dev` besides.
    pub arguments: &'a [&'a str],
    /// Where its directory is made; the system's place for temporary files otherwise.
    pub under: Option<&'a Path>,
    /// The build of quiltd; the one under test otherwise.
    pub program: Option<&'a Path>,
}

/// A running cluster. Dropping it ends every process of it; its directory is kept unless the test has [`passed`](Cluster::passed).
#[derive(Debug)]
pub struct Cluster {
    directory: Option<TempDir>,
    dev: Child,
    manifest: Manifest,
    authority: String,
    /// The process of each replica, by its number: of `quiltd dev`'s starting or of ours.
    processes: BTreeMap<u16, Process>,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Until the test says otherwise, however it ends.
    Failed,
    Passed,
}

#[derive(Debug)]
enum Process {
    OfDev(i32),
    Ours(Child),
    Killed,
}

impl Cluster {
    /// Starts a cluster and waits until all its replicas are ready and its agents' nodes too.
    ///
    /// # Errors
    /// When it does not come up, with what it said.
    pub async fn start(shape: Shape) -> Result<Self> {
        Self::launch(Launch { shape, arguments: &[], under: None, program: None }).await
    }

    /// The same, with more to say about it.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn launch(Launch { shape, arguments, under, program }: Launch<'_>) -> Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("quiltd-test-");
        let directory = under.map_or_else(|| builder.tempdir(), |under| builder.tempdir_in(under))?;
        let data = directory.path().join("dev");
        let said = directory.path().join("dev.log");
        let output = File::create(&said)?;
        let program = program.map_or_else(binary::quiltd, |program| Ok(program.to_owned()))?;
        let dev = Command::new(program)
            .arg("dev")
            .args(["--api-port", "0", "--http-port", "0", "--peer-port", "0"])
            .args(["--replicas", &shape.replicas.to_string(), "--agents", &shape.agents.to_string()])
            .arg("--dir")
            .arg(&data)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("quiltd dev cannot be started")?;
        let mut starting = Starting { remains: Some((dev, directory)) };
        let started = Instant::now();
        loop {
            let text = std::fs::read_to_string(&said)?;
            if text.lines().any(|line| line.trim() == "ready") {
                break;
            }
            ensure!(!starting.has_ended(), "quiltd dev ended before it was ready:\n{text}");
            ensure!(started.elapsed() < crate::wait::LIMIT, "quiltd dev was not ready in time:\n{text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let manifest = read_manifest(&data)?;
        let authority = std::fs::read_to_string(&manifest.ca)?;
        let processes = manifest
            .replicas
            .iter()
            .map(|replica| {
                let pid = replica.pid.with_context(|| format!("dev.json names no pid of replica {}", replica.id))?;
                Ok((replica.id, Process::OfDev(pid)))
            })
            .collect::<Result<_>>()?;
        let (dev, directory) = starting.remains.take().context("dev was started")?;
        let cluster =
            Self { directory: Some(directory), dev, manifest, authority, processes, verdict: Verdict::Failed };
        if shape.agents > 0 {
            cluster.nodes_ready(usize::from(shape.agents)).await?;
        }
        Ok(cluster)
    }

    /// The test is over and all was well: nothing is kept.
    pub fn passed(mut self) {
        self.verdict = Verdict::Passed;
    }

    /// What `dev.json` said when the cluster was ready.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The authority of its certificates, PEM.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The processes of the replicas that live.
    #[must_use]
    pub fn pids(&self) -> Vec<i32> {
        let pid = |process: &Process| match process {
            Process::OfDev(pid) => Some(*pid),
            Process::Ours(child) => i32::try_from(child.id()).ok(),
            Process::Killed => None,
        };
        self.processes.values().filter_map(pid).collect()
    }

    /// A directory that goes with the cluster.
    ///
    /// # Panics
    /// Never: the directory is there until the cluster is dropped.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.as_ref().expect("the directory lives as long as the cluster").path()
    }

    /// The replica of this number.
    ///
    /// # Errors
    /// When there is none.
    pub fn replica(&self, id: u16) -> Result<&Replica> {
        let mut replicas = self.manifest.replicas.iter();
        replicas.find(|replica| replica.id == id).with_context(|| format!("there is no replica {id}"))
    }

    /// The numbers of all replicas.
    #[must_use]
    pub fn ids(&self) -> Vec<u16> {
        self.manifest.replicas.iter().map(|replica| replica.id).collect()
    }

    /// The admin's client of a replica.
    ///
    /// # Errors
    /// When there is no such replica.
    pub fn admin(&self, id: u16) -> Result<Client> {
        let credential = Credential::Bearer(self.manifest.admin_token.clone());
        Client::new(&self.replica(id)?.api, &self.authority, credential)
    }

    /// The tenant's client of a replica.
    ///
    /// # Errors
    /// When there is no such replica.
    pub fn tenant(&self, id: u16) -> Result<Client> {
        let credential = Credential::ApiKey(self.manifest.api_key.clone());
        Client::new(&self.replica(id)?.api, &self.authority, credential)
    }

    /// What a replica says of itself and of the group.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self, id: u16) -> Result<Value> {
        self.admin(id)?.get("/api/admin/status").await?.expect(200)
    }

    /// The leader, once all living replicas name the same living one.
    ///
    /// # Errors
    /// When they do not agree in time.
    pub async fn leader(&self) -> Result<u16> {
        until("one leader, named by all living replicas", || async {
            let mut named = None;
            for id in self.living() {
                let status = self.status(id).await?;
                let leader = status["leader"].as_u64().and_then(|leader| u16::try_from(leader).ok());
                let leader = leader.with_context(|| format!("replica {id} knows no leader"))?;
                ensure!(*named.get_or_insert(leader) == leader, "replicas name different leaders");
            }
            let leader = named.context("no replica lives")?;
            ensure!(self.living().contains(&leader), "replica {leader} is named and dead");
            Ok(leader)
        })
        .await
    }

    /// The replicas that have not been killed.
    #[must_use]
    pub fn living(&self) -> Vec<u16> {
        let living = self.processes.iter().filter(|(_, process)| !matches!(process, Process::Killed));
        living.map(|(id, _)| *id).collect()
    }

    /// `kill -9`, and the process is gone when this returns.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(&mut self, id: u16) -> Result<()> {
        self.send_kill(id)?;
        self.gone(id).await
    }

    /// `kill -9` of several at once: all signals are sent before the first end is waited for.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub async fn kill_all(&mut self, ids: &[u16]) -> Result<()> {
        for id in ids {
            self.send_kill(*id)?;
        }
        for id in ids {
            self.gone(*id).await?;
        }
        Ok(())
    }

    fn send_kill(&mut self, id: u16) -> Result<()> {
        match self.processes.get_mut(&id) {
            Some(Process::OfDev(pid)) => {
                let pid = Pid::from_raw(*pid).context("a pid is positive")?;
                kill_process(pid, Signal::KILL).with_context(|| format!("replica {id} cannot be killed"))
            }
            Some(Process::Ours(child)) => child.kill().with_context(|| format!("replica {id} cannot be killed")),
            Some(Process::Killed) | None => bail!("replica {id} does not run"),
        }
    }

    /// Stops a replica in the middle of whatever it does (`SIGSTOP`): its connections stay open and silent.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, id: u16) -> Result<()> {
        self.signal(id, Signal::STOP)
    }

    /// Lets a paused replica go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self, id: u16) -> Result<()> {
        self.signal(id, Signal::CONT)
    }

    fn signal(&self, id: u16, signal: Signal) -> Result<()> {
        let pid = match self.processes.get(&id) {
            Some(Process::OfDev(pid)) => *pid,
            Some(Process::Ours(child)) => i32::try_from(child.id())?,
            Some(Process::Killed) | None => bail!("replica {id} does not run"),
        };
        let pid = Pid::from_raw(pid).context("a pid is positive")?;
        kill_process(pid, signal).with_context(|| format!("replica {id} cannot be sent {signal:?}"))
    }

    async fn gone(&mut self, id: u16) -> Result<()> {
        match self.processes.insert(id, Process::Killed) {
            // `quiltd dev` is its parent and collects it.
            Some(Process::OfDev(pid)) => {
                let pid = Pid::from_raw(pid).context("a pid is positive")?;
                until("the end of a killed replica", || async {
                    ensure!(test_kill_process(pid).is_err(), "process {pid:?} is still there");
                    Ok(())
                })
                .await
            }
            Some(Process::Ours(mut child)) => Ok(child.wait().map(drop)?),
            Some(Process::Killed) | None => Ok(()),
        }
    }

    /// Starts a killed replica again, exactly as it was started before.
    ///
    /// # Errors
    /// When it cannot be started, or runs.
    pub fn restart(&mut self, id: u16) -> Result<()> {
        ensure!(matches!(self.processes.get(&id), Some(Process::Killed)), "replica {id} was not killed");
        let replica = self.replica(id)?;
        let (program, arguments) = replica.argv.split_first().context("dev.json names no program")?;
        let output = OpenOptions::new().append(true).create(true).open(self.log_of(replica))?;
        let child = Command::new(program)
            .args(arguments)
            .envs(&replica.env)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("replica {id} cannot be started again"))?;
        self.processes.insert(id, Process::Ours(child));
        Ok(())
    }

    fn log_of(&self, replica: &Replica) -> PathBuf {
        replica.log.clone().unwrap_or_else(|| self.directory().join(format!("replica-{}.log", replica.id)))
    }

    /// What a replica has said so far.
    ///
    /// # Errors
    /// When there is no such replica, or its log cannot be read.
    pub fn said(&self, id: u16) -> Result<String> {
        let path = self.log_of(self.replica(id)?);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// Waits until a replica says that it is ready.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn ready(&self, id: u16) -> Result<()> {
        let client = self.admin(id)?;
        until(&format!("replica {id} is ready"), || async { client.get("/readyz").await?.expect(200).map(drop) }).await
    }

    /// Waits until so many nodes are ready.
    ///
    /// # Errors
    /// When they are not in time.
    pub async fn nodes_ready(&self, count: usize) -> Result<()> {
        let client = self.admin(self.living().first().copied().context("no replica lives")?)?;
        until(&format!("{count} ready nodes"), || async {
            let list = client.get("/api/v1/nodes").await?.expect(200)?;
            let ready = items(&list).filter(|node| condition(node, "Ready")).count();
            ensure!(ready >= count, "{ready} nodes are ready");
            Ok(())
        })
        .await
    }

    /// Waits until all living replicas have applied the same log and hold the same objects of a resource.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn converged(&self, path: &str) -> Result<()> {
        let ids = self.living();
        until(&format!("all replicas show the same {path}"), || async {
            let mut first = None;
            for id in &ids {
                let client = self.admin(*id)?;
                let list = client.get(&format!("{path}?resourceVersion=0")).await?.expect(200)?;
                let mut objects: Vec<(String, String)> = items(&list)
                    .map(|object| (text(&object["metadata"]["uid"]), text(&object["metadata"]["resourceVersion"])))
                    .collect();
                objects.sort();
                let same = first.get_or_insert_with(|| objects.clone()) == &objects;
                ensure!(
                    same,
                    "replica {id} shows {} objects, another {}",
                    objects.len(),
                    first.map_or(0, |first| first.len())
                );
            }
            Ok(())
        })
        .await
    }
}

/// The items of a Kubernetes list.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

/// Whether an object's condition is `True`.
#[must_use]
pub fn condition(object: &Value, kind: &str) -> bool {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// A string of an object; empty when it is absent.
#[must_use]
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn read_manifest(data: &Path) -> Result<Manifest> {
    let path = data.join("dev.json");
    let bytes = std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not as the contract says", path.display()))
}

/// A `quiltd dev` that ends with the attempt to start it, and whose remains are then kept.
struct Starting {
    remains: Option<(Child, TempDir)>,
}

impl Starting {
    fn has_ended(&mut self) -> bool {
        self.remains.as_mut().is_some_and(|(dev, _)| !matches!(dev.try_wait(), Ok(None)))
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some((mut dev, directory)) = self.remains.take() {
            end(&mut dev);
            keep(directory);
        }
    }
}

#[expect(clippy::print_stderr, reason = "who reads a failed test wants to know where its remains are")]
fn keep(directory: TempDir) {
    eprintln!("the cluster's directory is kept: {}", directory.keep().display());
}

/// Asks `quiltd dev` to stop everything, and waits for that.
fn end(dev: &mut Child) {
    if let Some(pid) = i32::try_from(dev.id()).ok().and_then(Pid::from_raw) {
        let _gone = kill_process(pid, Signal::TERM);
    }
    let started = Instant::now();
    while matches!(dev.try_wait(), Ok(None)) {
        if started.elapsed() > Duration::from_secs(30) {
            let _gone = dev.kill();
            let _collected = dev.wait();
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        end(&mut self.dev);
        for process in self.processes.values_mut() {
            if let Process::Ours(child) = process {
                let _gone = child.kill();
                let _collected = child.wait();
            }
        }
        if self.verdict == Verdict::Failed
            && let Some(directory) = self.directory.take()
        {
            keep(directory);
        }
    }
}
