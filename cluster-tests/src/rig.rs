//! [`Rig`]: a control plane of real processes whose every connection goes through a proxy and whose every replica has a layer between it
//! and its disk and clock, if the binary can be given one.
//!
//! Replicas are set up as an operator does it, by `quiltd init` and `quiltd server`; each has a loopback address of its own, and its peers
//! and clients know only the one of its proxy. It breaks nothing by itself: that is what [`fault`](crate::fault) does.

mod seat;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::client::{Client, Credential};
use crate::fault::layer::Layer;
use crate::proxy::{Dialling, Network, Place};
use crate::wait::within;
pub use seat::{Ended, Seat, State};

/// Port of the API on every address of the rig.
const API_PORT: u16 = 6443;
/// Port for peers on every address of the rig.
const PEER_PORT: u16 = 7443;
/// Port of the first client's proxy; each client has one for itself.
const CLIENT_PORT: u16 = 10_000;
/// What is added to a replica's number for the last byte of its proxies' address.
const PROXY_HOSTS: u16 = 100;

/// A question of the rig's own is answered within this, or its replica counts as silent.
const ANSWER: Duration = Duration::from_secs(2);
/// Within this a control plane of this size comes up, on a host that is busy too.
const START: Duration = Duration::from_secs(60);

/// Agents stop their containers within this.
const AGENTS_STOP: Duration = Duration::from_secs(15);

/// How a rig is made.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many replicas found it.
    pub replicas: u16,
    /// The binary under test.
    pub binary: PathBuf,
    /// The build before it, if it is there: replicas begin as this one.
    pub previous: Option<PathBuf>,
    /// The library that is the layer under each replica.
    pub shim: Option<PathBuf>,
    /// Where everything is kept; made new.
    pub directory: PathBuf,
    /// How many agents there are, each a node.
    pub agents: u16,
    /// Further arguments of `quiltd server`.
    pub arguments: Vec<String>,
    /// Jitter and whatever else is chance.
    pub seed: u64,
    /// What becomes of directories of removed replicas.
    pub forgotten: Forgotten,
}

/// Which build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// The one under test.
    Current,
    /// The one before.
    Previous,
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Current => "the build under test",
            Self::Previous => "the build before",
        })
    }
}

impl Plan {
    /// What replicas are made of at first.
    fn first(&self) -> &Path {
        self.previous.as_deref().unwrap_or(&self.binary)
    }
}

/// What becomes of the directory of a replica that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgotten {
    /// It stays, for whoever looks through it.
    Kept,
    /// What is in it goes: a long run would fill the disk.
    Removed,
}

/// A running control plane. Dropping it ends every process of it; its directory stays.
#[derive(Debug)]
pub struct Rig {
    plan: Plan,
    addresses: Addresses,
    network: Network,
    seats: BTreeMap<u16, Seat>,
    authority: String,
    admin_key: String,
    api_key: String,
    clients: u16,
    agents: Vec<Child>,
}

/// Addresses of loopback that are this process's own.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    network: [u8; 2],
}

impl Addresses {
    fn of_process() -> Self {
        // 127.0 is everybody's; 127.1 and above are told apart by the process's number.
        let [.., high, low] = std::process::id().to_be_bytes();
        Self { network: [high.clamp(1, 254), low] }
    }

    fn at(self, host: u16, port: u16) -> SocketAddr {
        let [high, low] = self.network;
        SocketAddr::from((Ipv4Addr::new(127, high, low, u8::try_from(host).unwrap_or(u8::MAX)), port))
    }
}

impl Rig {
    /// Makes the directories, starts all replicas and waits until they serve.
    ///
    /// # Errors
    /// When they do not in time, with where their words are.
    pub async fn start(plan: Plan) -> Result<Self> {
        let addresses = Addresses::of_process();
        std::fs::create_dir_all(&plan.directory)?;
        let cp = plan.directory.join("cp");
        let ids: Vec<u16> = (1..=plan.replicas).collect();
        let members: Vec<String> =
            ids.iter().map(|id| format!("{id}={}", addresses.at(PROXY_HOSTS + id, PEER_PORT))).collect();
        let mut init = Command::new(plan.first());
        init.arg("init").arg("--initial-cluster").arg(members.join(",")).arg("--out").arg(&cp);
        for id in &ids {
            for host in [*id, PROXY_HOSTS + id] {
                init.arg("--name").arg(addresses.at(host, 0).ip().to_string());
            }
        }
        let made = init.output().with_context(|| format!("{} cannot be run", plan.first().display()))?;
        ensure!(made.status.success(), "quiltd init failed: {}", String::from_utf8_lossy(&made.stderr));
        let authority = std::fs::read_to_string(cp.join("ca.crt"))?;
        let admin_key = std::fs::read_to_string(cp.join("admin.key"))?.trim().to_owned();
        let network = Network::new(plan.seed);
        let (seats, agents, api_key) = (BTreeMap::new(), Vec::new(), String::new());
        let mut rig = Self { plan, addresses, network, seats, authority, admin_key, api_key, clients: 0, agents };
        for id in &ids {
            let mut arguments = rig.arguments(*id, &cp.join(format!("replica-{id}")));
            arguments.extend([format!("--id={id}"), format!("--initial-cluster={}", members.join(","))]);
            rig.seat(*id, cp.join(format!("replica-{id}")), arguments).await?;
        }
        for id in &ids {
            rig.launch(*id)?;
        }
        rig.serving(START).await.with_context(|| format!("see {}", rig.plan.directory.display()))?;
        rig.api_key = rig.make_key().await?;
        rig.start_agents().await?;
        Ok(rig)
    }

    /// A key of the tenant that owns cluster `default`.
    async fn make_key(&self) -> Result<String> {
        let admin = self.admin(1)?;
        within(START, "a key of tenant default", || async {
            let made = admin.post("/api/admin/tenants/default/keys", &json!({})).await?.expect(201)?;
            Ok(made["api_key"].as_str().context("a key has a text")?.to_owned())
        })
        .await
    }

    /// Agents go to the replicas themselves: their connections are not what is broken here.
    async fn start_agents(&mut self) -> Result<()> {
        if self.plan.agents == 0 {
            return Ok(());
        }
        let tenant = self.admin(1)?.with(Credential::ApiKey(self.api_key.clone()));
        let wanted = json!({ "max_uses": self.plan.agents, "ttl_secs": 3600 });
        let token = tenant.post("/api/clusters/default/join-tokens", &wanted).await?.expect(201)?;
        let token_file = self.plan.directory.join("agents.token");
        write_private(&token_file, token["join_token"].as_str().context("a token has a text")?)?;
        for number in 1..=self.plan.agents {
            let output = std::fs::File::create(self.plan.directory.join(format!("agent-{number}.log")))?;
            let mut agent = Command::new(self.plan.first());
            agent.arg("agent").arg("--cluster=default").arg("--address=127.0.0.1").arg("--on-shutdown=stop");
            for id in self.ids() {
                agent.arg(format!("--server=https://{}", self.addresses.at(id, API_PORT)));
            }
            agent.arg(format!("--join-token-file={}", token_file.display()));
            agent.arg(format!("--ca={}", self.plan.directory.join("cp/ca.crt").display()));
            agent.arg(format!("--name=node-{number}"));
            agent.arg(format!("--data-dir={}", self.plan.directory.join(format!("agent-{number}")).display()));
            agent.env(seat::FOLLOW_STDIN, "1").stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
            self.agents.push(agent.spawn().context("an agent cannot be started")?);
        }
        let admin = self.admin(1)?;
        within(START, "nodes are ready", || async {
            let list = admin.get("/api/v1/nodes").await?.expect(200)?;
            let ready = crate::cluster::items(&list).filter(|node| crate::cluster::condition(node, "Ready")).count();
            ensure!(ready >= usize::from(self.plan.agents), "{ready} nodes are ready");
            Ok(())
        })
        .await
    }

    /// The key of the tenant that owns cluster `default`.
    #[must_use]
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    fn arguments(&self, id: u16, data: &Path) -> Vec<String> {
        let mut arguments = vec![
            "server".to_owned(),
            format!("--data-dir={}", data.display()),
            format!("--listen={}", self.addresses.at(id, API_PORT)),
            format!("--advertise={}", self.addresses.at(PROXY_HOSTS + id, API_PORT)),
            format!("--peer-listen={}", self.addresses.at(id, PEER_PORT)),
        ];
        arguments.extend(self.plan.arguments.iter().cloned());
        arguments
    }

    /// A place for a replica: its proxies and its layer.
    async fn seat(&mut self, id: u16, data: PathBuf, arguments: Vec<String>) -> Result<()> {
        let peers = self.addresses.at(PROXY_HOSTS + id, PEER_PORT);
        let target = self.addresses.at(id, PEER_PORT);
        self.network.proxy(peers, Dialling::Replicas, Place::Replica(id), target).await?;
        for client in 0..self.clients {
            self.client_proxy(client, id).await?;
        }
        let layer = match &self.plan.shim {
            Some(shim) => Some(Layer::new(shim, &self.plan.directory.join(format!("layer-{id}")), &data)?),
            None => None,
        };
        let log = self.plan.directory.join(format!("replica-{id}.log"));
        self.seats.insert(id, Seat::new(self.plan.first().to_owned(), arguments, data, log, layer));
        Ok(())
    }

    async fn client_proxy(&self, client: u16, id: u16) -> Result<()> {
        let at = self.addresses.at(PROXY_HOSTS + id, CLIENT_PORT + client);
        let target = self.addresses.at(id, API_PORT);
        self.network.proxy(at, Dialling::From(Place::Client(client)), Place::Replica(id), target).await.map(drop)
    }

    /// Proxies for so many clients, on the way to every replica. Call once, before [`Rig::ways`].
    ///
    /// # Errors
    /// When an address is taken.
    pub async fn make_ways(&mut self, clients: u16) -> Result<()> {
        for client in self.clients..clients {
            for id in self.ids() {
                self.client_proxy(client, id).await?;
            }
        }
        self.clients = self.clients.max(clients);
        Ok(())
    }

    /// Where a client reaches each replica.
    #[must_use]
    pub fn ways(&self, client: u16) -> Vec<(u16, String)> {
        let way = |id: &u16| (*id, format!("https://{}", self.addresses.at(PROXY_HOSTS + id, CLIENT_PORT + client)));
        self.seats.keys().map(way).collect()
    }

    /// How many clients have ways.
    #[must_use]
    pub fn clients(&self) -> u16 {
        self.clients
    }

    /// The links between all.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// All replicas that have not been removed with their peers' addresses, as `--initial-cluster` has them.
    #[must_use]
    pub fn members(&self) -> String {
        let member = |id: &u16| format!("{id}={}", self.addresses.at(PROXY_HOSTS + id, PEER_PORT));
        self.seats.keys().map(member).collect::<Vec<_>>().join(",")
    }

    /// What `quiltd operator` answers the admin.
    ///
    /// # Errors
    /// When it does not succeed, with what it says.
    pub async fn operator(&self, arguments: &[&str]) -> Result<String> {
        let cp = self.plan.directory.join("cp");
        let through = self.ids().first().copied().context("there is no replica")?;
        let mut command = tokio::process::Command::new(&self.plan.binary);
        command.arg("operator").args(arguments).stdin(Stdio::null());
        command.env("QUILTD_ADDRESS", format!("https://{}", self.addresses.at(through, API_PORT)));
        command.env("QUILTD_CA", cp.join("ca.crt")).env("QUILTD_TOKEN_FILE", cp.join("admin.key"));
        let output = command.output().await.context("quiltd cannot be started")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "quiltd operator {}: {}: {said}", arguments.join(" "), output.status);
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// Where everything is kept.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.plan.directory
    }

    /// The authority of its certificates, PEM.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The admin's key.
    #[must_use]
    pub fn admin_key(&self) -> &str {
        &self.admin_key
    }

    /// All replicas that have not been removed.
    #[must_use]
    pub fn ids(&self) -> Vec<u16> {
        self.seats.keys().copied().collect()
    }

    /// Those whose process runs.
    #[must_use]
    pub fn running(&self) -> Vec<u16> {
        self.seats.iter().filter(|(_, seat)| seat.state() == State::Running).map(|(id, _)| *id).collect()
    }

    /// The processes of all replicas that have one.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.seats.values().filter_map(|seat| seat.pid().ok()).collect()
    }

    /// A replica's place.
    ///
    /// # Errors
    /// When there is no such replica.
    pub fn at(&self, id: u16) -> Result<&Seat> {
        self.seats.get(&id).with_context(|| format!("there is no replica {id}"))
    }

    /// The same, to start and end its process.
    ///
    /// # Errors
    /// When there is no such replica.
    pub fn at_mut(&mut self, id: u16) -> Result<&mut Seat> {
        self.seats.get_mut(&id).with_context(|| format!("there is no replica {id}"))
    }

    /// The layer under a replica.
    ///
    /// # Errors
    /// When it has none.
    pub fn layer(&self, id: u16) -> Result<&Layer> {
        self.at(id)?.layer().context("there is no layer between replicas and their disks here")
    }

    /// Whether there is a build from before the one under test.
    #[must_use]
    pub fn has_previous(&self) -> bool {
        self.plan.previous.is_some()
    }

    /// The next process of a replica is of this build.
    ///
    /// # Errors
    /// When there is no such replica or build.
    pub fn change_build(&mut self, id: u16, build: Build) -> Result<()> {
        let binary = match build {
            Build::Current => self.plan.binary.clone(),
            Build::Previous => self.plan.previous.clone().context("there is no build from before")?,
        };
        self.at_mut(id)?.set_binary(binary);
        Ok(())
    }

    /// Starts a replica whose process is not there.
    ///
    /// # Errors
    /// When it runs, or cannot be started.
    pub fn launch(&mut self, id: u16) -> Result<()> {
        let pid = self.at_mut(id)?.launch()?;
        self.network.owners().set(id, pid);
        Ok(())
    }

    /// Asks a replica to stop in order, and waits for that.
    ///
    /// # Errors
    /// When it does not in time, and is killed.
    pub async fn stop(&mut self, id: u16, limit: Duration) -> Result<ExitStatus> {
        let status = self.at_mut(id)?.stop(limit).await?;
        self.network.owners().remove(id);
        Ok(status)
    }

    /// `kill -9` of several at once: all signals are sent before the first end is waited for.
    ///
    /// # Errors
    /// When one does not run.
    pub fn kill(&mut self, ids: &[u16]) -> Result<()> {
        for id in ids {
            self.at_mut(*id)?.signal(Signal::KILL)?;
        }
        for id in ids {
            let status = self.at_mut(*id)?.wait()?;
            self.network.owners().remove(*id);
            ensure!(status.signal() == Some(9), "replica {id} was not killed but ended: {status}");
        }
        Ok(())
    }

    /// A client of the admin's that goes to a replica without a proxy: the harness's own questions are not part of the test.
    ///
    /// # Errors
    /// When there is no such replica.
    pub fn admin(&self, id: u16) -> Result<Client> {
        self.at(id)?;
        let base = format!("https://{}", self.addresses.at(id, API_PORT));
        Client::new(&base, &self.authority, Credential::Bearer(self.admin_key.clone()))
    }

    /// What a replica says of itself and of the group.
    ///
    /// # Errors
    /// When it does not answer soon.
    pub async fn status(&self, id: u16) -> Result<Value> {
        let client = self.admin(id)?;
        let asked = tokio::time::timeout(ANSWER, client.get("/api/admin/status")).await;
        asked.with_context(|| format!("replica {id} is silent"))??.expect(200)
    }

    /// Who leads, as most of the running replicas say that answer.
    pub async fn leader(&self) -> Option<u16> {
        let ids = self.running();
        let asked = ids.iter().map(|id| async { self.status(*id).await.ok() });
        let answers: Vec<Value> = futures::future::join_all(asked).await.into_iter().flatten().collect();
        let mut named: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
        for status in &answers {
            if let Some(leader) = status["leader"].as_u64() {
                let entry = named.entry(leader).or_default();
                entry.0 = entry.0.max(status["term"].as_u64().unwrap_or(0));
                entry.1 += 1;
            }
        }
        let most = named.into_iter().max_by_key(|(_, (term, voices))| (*voices, *term))?;
        u16::try_from(most.0).ok()
    }

    /// Whether a replica says that it is ready.
    ///
    /// # Errors
    /// When it does not.
    pub async fn serves(&self, id: u16) -> Result<()> {
        let client = self.admin(id)?;
        let asked = tokio::time::timeout(ANSWER, client.get("/readyz")).await;
        let said = asked.with_context(|| format!("replica {id} is silent"))??;
        said.expect(200).with_context(|| format!("replica {id} is not ready")).map(drop)
    }

    /// Waits until every running replica says that it is ready.
    ///
    /// # Errors
    /// When one does not in time.
    pub async fn serving(&self, limit: Duration) -> Result<()> {
        for id in self.running() {
            within(limit, &format!("replica {id} is ready"), || self.serves(id)).await?;
        }
        Ok(())
    }

    /// A new replica joins by a replica token, under the next number. It is a voter when this returns. Clients of the replica whose place
    /// it takes, if any, are then carried to it.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn join(&mut self, through: u16, heir_of: Option<u16>, limit: Duration) -> Result<u16> {
        let id = self.next_id()?;
        let admin = self.admin(through)?;
        let wanted = json!({ "ttl_secs": 600, "max_uses": 1 });
        let token = admin.post("/api/admin/replica-tokens", &wanted).await?.expect(201)?;
        let token = token["token"].as_str().context("a token has a text")?.to_owned();
        let data = self.plan.directory.join("cp").join(format!("replica-{id}"));
        private_directory(&data)?;
        let token_file = self.plan.directory.join(format!("replica-{id}.token"));
        write_private(&token_file, &token)?;
        let mut arguments = self.arguments(id, &data);
        arguments.extend([
            format!("--peer-advertise={}", self.addresses.at(PROXY_HOSTS + id, PEER_PORT)),
            format!("--join=https://{}", self.addresses.at(through, API_PORT)),
            format!("--token-file={}", token_file.display()),
        ]);
        // Clients of the one whose place it takes know it by that one's address.
        for host in [Some(id), heir_of].into_iter().flatten().flat_map(|id| [id, PROXY_HOSTS + id]) {
            arguments.push(format!("--name={}", self.addresses.at(host, 0).ip()));
        }
        self.seat(id, data, arguments).await?;
        self.launch(id)?;
        within(limit, &format!("replica {id} is a voter"), || async {
            let status = self.status(through).await?;
            let members = status["members"].as_array().cloned().unwrap_or_default();
            let member = members.iter().find(|member| member["id"] == id);
            let member = member.with_context(|| format!("replica {id} is no member: {status}"))?;
            ensure!(member["voter"] == true, "replica {id} is still a learner");
            Ok(())
        })
        .await?;
        if let Some(dead) = heir_of {
            let target = self.addresses.at(id, API_PORT);
            self.network.bequeath(Place::Replica(dead), Place::Replica(id), target);
        }
        Ok(id)
    }

    /// The number the control plane gives to who joins next: one above every number it ever gave. Directories are never removed.
    fn next_id(&self) -> Result<u16> {
        let places = std::fs::read_dir(self.plan.directory.join("cp"))?.flatten();
        let numbers =
            places.filter_map(|place| place.file_name().to_str()?.strip_prefix("replica-")?.parse::<u16>().ok());
        Ok(numbers.max().unwrap_or(0) + 1)
    }

    /// Whether another replica, and one for each that runs, can be given an address.
    #[must_use]
    pub fn has_numbers_left(&self) -> bool {
        let most = u16::from(u8::MAX) - PROXY_HOSTS;
        self.next_id().is_ok_and(|next| next + 2 * self.plan.replicas < most)
    }

    /// Forgets a replica that was removed from the control plane; its process is ended.
    ///
    /// # Errors
    /// When its process cannot be ended.
    pub fn forget(&mut self, id: u16) -> Result<()> {
        if let Some(mut seat) = self.seats.remove(&id) {
            self.network.owners().remove(id);
            if seat.state() != State::Absent {
                seat.signal(Signal::KILL)?;
                seat.wait()?;
            }
            if self.plan.forgotten == Forgotten::Removed {
                // The empty directory stays, and with it the number.
                std::fs::remove_dir_all(seat.data())?;
                private_directory(seat.data())?;
            }
        }
        Ok(())
    }
}

impl Drop for Rig {
    /// Agents are asked to stop: a killed one leaves its containers running.
    fn drop(&mut self) {
        for agent in &self.agents {
            if let Some(pid) = i32::try_from(agent.id()).ok().and_then(Pid::from_raw) {
                let _gone = kill_process(pid, Signal::TERM);
            }
        }
        let begun = Instant::now();
        for agent in &mut self.agents {
            while matches!(agent.try_wait(), Ok(None)) && begun.elapsed() < AGENTS_STOP {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _gone = agent.kill();
            let _collected = agent.wait();
        }
    }
}

fn private_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    Ok(std::fs::DirBuilder::new().mode(0o700).create(path)?)
}

fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}
