//! [`Servers`]: the three processes of one side, whichever it is.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::client::{Dial, Side};
use super::etcd::Etcd;
use crate::cluster::{Cluster, Launch, Shape};
use crate::wait::until;

/// A look at a member that is just starting.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Three running servers.
#[derive(Debug)]
pub enum Servers {
    /// quiltd.
    Ours(Box<Cluster>),
    /// etcd.
    Peer(Etcd),
}

impl Servers {
    /// Three replicas of quiltd with their key-value service switched on.
    ///
    /// # Errors
    /// When they do not become ready.
    pub async fn ours(under: &Path) -> Result<Self> {
        let launch = Launch { shape: Shape { replicas: 3, agents: 0 }, arguments: &["--kv-api"], under: Some(under) };
        let cluster = Cluster::launch(launch).await?;
        Ok(Self::Ours(Box::new(cluster)))
    }

    /// Three members of etcd.
    ///
    /// # Errors
    /// When they do not become ready.
    pub async fn peer(program: &Path, under: &Path) -> Result<Self> {
        let servers = Self::Peer(Etcd::start(program, &under.join("etcd"))?);
        servers.settled().await?;
        Ok(servers)
    }

    /// Whose they are.
    #[must_use]
    pub const fn side(&self) -> Side {
        match self {
            Self::Ours(_) => Side::Ours,
            Self::Peer(_) => Side::Peer,
        }
    }

    /// How clients reach them.
    ///
    /// # Errors
    /// When an address is not as expected.
    pub fn dial(&self) -> Result<Dial> {
        match self {
            Self::Ours(cluster) => {
                let replicas = cluster.manifest().replicas.iter();
                let servers = replicas
                    .map(|replica| replica.api.strip_prefix("https://").map(str::to_owned).context("an https address"))
                    .collect::<Result<_>>()?;
                Ok(Dial {
                    side: Side::Ours,
                    servers,
                    authority: cluster.authority().to_owned(),
                    token: Some(cluster.manifest().admin_token.clone()),
                })
            }
            Self::Peer(etcd) => Ok(etcd.dial()),
        }
    }

    /// The living servers' processes.
    #[must_use]
    pub fn pids(&self) -> Vec<i32> {
        match self {
            Self::Ours(cluster) => cluster.pids(),
            Self::Peer(etcd) => etcd.pids(),
        }
    }

    /// Waits until all three are there and one leads; its place in the list.
    ///
    /// # Errors
    /// When that does not come about in time.
    pub async fn settled(&self) -> Result<usize> {
        match self {
            Self::Ours(cluster) => {
                for id in cluster.ids() {
                    cluster.ready(id).await?;
                }
                let leader = cluster.leader().await?;
                cluster.ids().iter().position(|id| *id == leader).context("a leader among the replicas")
            }
            Self::Peer(etcd) => {
                let dial = etcd.dial();
                until("a leader of etcd and three members that know it", || async {
                    let mut leader = None;
                    for member in 0..dial.servers.len() {
                        let look = async { Ok(dial.connect(member).await?.etcd_status().await?) };
                        let look: Result<(bool, String)> = tokio::time::timeout(LOOK_TIMEOUT, look).await?;
                        if look?.0 {
                            leader = Some(member);
                        }
                    }
                    ensure!(self.pids().len() == dial.servers.len(), "a member has ended");
                    leader.context("none leads")
                })
                .await
            }
        }
    }

    /// `kill -9` of one.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self, server: usize) -> Result<()> {
        match self {
            Self::Ours(cluster) => {
                let id = cluster.ids().get(server).copied().context("such a replica")?;
                cluster.kill(id).await
            }
            Self::Peer(etcd) => etcd.kill(server),
        }
    }

    /// Starts a killed one again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self, server: usize) -> Result<()> {
        match self {
            Self::Ours(cluster) => {
                let id = cluster.ids().get(server).copied().context("such a replica")?;
                cluster.restart(id)
            }
            Self::Peer(etcd) => etcd.begin(server),
        }
    }

    /// All was well: nothing is kept.
    pub fn passed(self) {
        if let Self::Ours(cluster) = self {
            cluster.passed();
        }
    }
}
