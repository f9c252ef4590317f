//! [`Servers`]: the three processes of one side, whichever it is.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::json;

use super::client::{Dial, EtcdStatus, Freshness, Side};
use super::etcd::Etcd;
use crate::cluster::{Cluster, Launch, Shape};
use crate::wait::until;

/// A look at a member that is just starting.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Three running servers.
#[derive(Debug)]
pub enum Servers {
    /// quiltd.
    Quiltd(Box<Cluster>),
    /// etcd.
    Etcd(Etcd),
}

impl Servers {
    /// Three replicas of a build of quiltd, by default of the one under test, with their key-value service switched on.
    ///
    /// # Errors
    /// When they do not become ready.
    pub async fn quiltd(program: Option<&Path>, under: &Path) -> Result<Self> {
        let shape = Shape { replicas: 3, agents: 0 };
        let launch = Launch { shape, arguments: &["--kv-api"], under: Some(under), program };
        let cluster = Cluster::launch(launch).await?;
        Ok(Self::Quiltd(Box::new(cluster)))
    }

    /// Three members of etcd.
    ///
    /// # Errors
    /// When they do not become ready.
    pub async fn etcd(program: &Path, under: &Path) -> Result<Self> {
        let servers = Self::Etcd(Etcd::start(program, &under.join("etcd"))?);
        servers.settled().await?;
        Ok(servers)
    }

    /// How clients reach them.
    ///
    /// # Errors
    /// When an address is not as expected.
    pub fn dial(&self) -> Result<Dial> {
        match self {
            Self::Quiltd(cluster) => {
                let replicas = cluster.manifest().replicas.iter();
                let servers = replicas
                    .map(|replica| replica.api.strip_prefix("https://").map(str::to_owned).context("an https address"))
                    .collect::<Result<_>>()?;
                Ok(Dial {
                    side: Side::Quiltd,
                    servers,
                    authority: cluster.authority().to_owned(),
                    token: Some(cluster.manifest().admin_token.clone()),
                })
            }
            Self::Etcd(etcd) => Ok(etcd.dial()),
        }
    }

    /// The living servers' processes.
    #[must_use]
    pub fn pids(&self) -> Vec<i32> {
        match self {
            Self::Quiltd(cluster) => cluster.pids(),
            Self::Etcd(etcd) => etcd.pids(),
        }
    }

    /// Waits until all three are there and one leads; its place in the list.
    ///
    /// # Errors
    /// When that does not come about in time.
    pub async fn settled(&self) -> Result<usize> {
        match self {
            Self::Quiltd(cluster) => {
                for id in cluster.ids() {
                    cluster.ready(id).await?;
                }
                let leader = cluster.leader().await?;
                cluster.ids().iter().position(|id| *id == leader).context("a leader among the replicas")
            }
            Self::Etcd(etcd) => {
                let members = etcd.dial().servers.len();
                until("a leader of etcd and three members that know it", || async {
                    let mut leader = None;
                    for member in 0..members {
                        if etcd_look(etcd, member).await?.leads {
                            leader = Some(member);
                        }
                    }
                    ensure!(self.pids().len() == members, "a member has ended");
                    leader.context("none leads")
                })
                .await
            }
        }
    }

    /// Waits until a server that was started answers for itself again.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn serving(&self, server: usize) -> Result<()> {
        match self {
            Self::Quiltd(cluster) => cluster.ready(id(cluster, server)?).await,
            Self::Etcd(etcd) => {
                let dial = etcd.dial();
                until("a member that serves", || async {
                    // A read that the leader has to confirm: what a replica's own readiness means.
                    let reading = async {
                        let mut client = dial.connect(server).await?;
                        Ok(client.get("bench/ready".to_owned(), Freshness::Linear).await.map(drop)?)
                    };
                    let read: Result<()> = tokio::time::timeout(LOOK_TIMEOUT, reading).await?;
                    read
                })
                .await
            }
        }
    }

    /// The current term.
    ///
    /// # Errors
    /// When the leader does not answer.
    pub async fn term(&self) -> Result<u64> {
        let leader = self.settled().await?;
        match self {
            Self::Quiltd(cluster) => {
                cluster.status(id(cluster, leader)?).await?["term"].as_u64().context("a term in the status")
            }
            Self::Etcd(etcd) => Ok(etcd_look(etcd, leader).await?.term),
        }
    }

    /// `kill -9` of one.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self, server: usize) -> Result<()> {
        match self {
            Self::Quiltd(cluster) => {
                let id = id(cluster, server)?;
                cluster.kill(id).await
            }
            Self::Etcd(etcd) => etcd.kill(server),
        }
    }

    /// Starts a killed one again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self, server: usize) -> Result<()> {
        match self {
            Self::Quiltd(cluster) => {
                let id = id(cluster, server)?;
                cluster.restart(id)
            }
            Self::Etcd(etcd) => etcd.begin(server),
        }
    }

    /// Stops one in the middle of whatever it does.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, server: usize) -> Result<()> {
        match self {
            Self::Quiltd(cluster) => cluster.pause(id(cluster, server)?),
            Self::Etcd(etcd) => etcd.signal(server, Signal::STOP),
        }
    }

    /// Lets a paused one go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self, server: usize) -> Result<()> {
        match self {
            Self::Quiltd(cluster) => cluster.resume(id(cluster, server)?),
            Self::Etcd(etcd) => etcd.signal(server, Signal::CONT),
        }
    }

    /// Has the leader hand over to the next server, as an operator would.
    ///
    /// # Errors
    /// When it refuses.
    pub async fn transfer(&self, leader: usize) -> Result<()> {
        let next = (leader + 1) % self.pids().len();
        match self {
            Self::Quiltd(cluster) => {
                let to = json!({ "to": id(cluster, next)? });
                cluster.admin(id(cluster, leader)?)?.post("/api/admin/leader", &to).await?.expect(200).map(drop)
            }
            Self::Etcd(etcd) => {
                let to = etcd_look(etcd, next).await?.id;
                Ok(etcd.dial().connect(leader).await?.etcd_move_leader(to).await?)
            }
        }
    }

    /// All was well: nothing is kept.
    pub fn passed(self) {
        if let Self::Quiltd(cluster) = self {
            cluster.passed();
        }
    }
}

/// The replica at a place in the list of servers.
fn id(cluster: &Cluster, server: usize) -> Result<u16> {
    cluster.ids().get(server).copied().context("such a replica")
}

/// What a member says of itself, if it does so soon.
async fn etcd_look(etcd: &Etcd, member: usize) -> Result<EtcdStatus> {
    let dial = etcd.dial();
    let look = async { Ok(dial.connect(member).await?.etcd_status().await?) };
    tokio::time::timeout(LOOK_TIMEOUT, look).await?
}
