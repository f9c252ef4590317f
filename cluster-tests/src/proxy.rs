//! TCP proxies with which the harness is the network: one [`Link`] for each ordered pair of places, whatever connection its bytes are on.
//!
//! A proxy stands in front of every replica. Who dials it is found out by who owns the other end of the connection, so that replicas need
//! no settings of their own for it and any build of them can be tested. Clients have a proxy of their own each. Bytes from A to B pass the
//! link (A, B), on connections that A dialled and on those that B did: a one-way cut is one link stalled.
//!
//! It must not know what is on a connection.

mod carry;
mod link;
mod owner;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::random::Random;
pub use link::{Flow, Link, Passed, Shape};
pub use owner::Owners;

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A replica, by its number.
    Replica(u16),
    /// A client, by its number.
    Client(u16),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Replica(id) => write!(f, "replica {id}"),
            Self::Client(id) => write!(f, "client {id}"),
        }
    }
}

/// Whom a proxy is for.
#[derive(Debug, Clone, Copy)]
pub enum Dialling {
    /// This place only.
    From(Place),
    /// Any replica: which one is found out at each connection.
    Replicas,
}

/// All links, and the proxies that carry them. Dropping it ends all connections.
#[derive(Debug)]
pub struct Network {
    seed: u64,
    links: Arc<Links>,
    owners: Arc<Owners>,
    heirs: Arc<Heirs>,
    proxies: Mutex<Vec<JoinHandle<()>>>,
}

/// Places whose clients are carried to another one.
type Heirs = Mutex<BTreeMap<Place, (Place, SocketAddr)>>;

#[derive(Debug, Default)]
struct Links(Mutex<BTreeMap<(Place, Place), Arc<Link>>>);

impl Links {
    fn between(&self, from: Place, to: Place) -> Arc<Link> {
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(links.entry((from, to)).or_default())
    }
}

impl Network {
    /// A network without any proxy; its jitter comes from the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, links: Arc::default(), owners: Arc::default(), heirs: Arc::default(), proxies: Mutex::default() }
    }

    /// Which process is which replica; kept up to date by who starts them.
    #[must_use]
    pub fn owners(&self) -> &Arc<Owners> {
        &self.owners
    }

    /// The link from one place to another.
    #[must_use]
    pub fn link(&self, from: Place, to: Place) -> Arc<Link> {
        self.links.between(from, to)
    }

    /// All links that anything has passed or been set on.
    #[must_use]
    pub fn links(&self) -> Vec<((Place, Place), Arc<Link>)> {
        let links = self.links.0.lock().unwrap_or_else(PoisonError::into_inner);
        links.iter().map(|(ends, link)| (*ends, Arc::clone(link))).collect()
    }

    /// Makes every link pass everything at once again.
    pub fn heal(&self) {
        for (_, link) in self.links() {
            link.heal();
        }
    }

    /// From now on clients who dial `from` are carried to `heir` at `target`, as when a name is given to another host.
    pub fn bequeath(&self, from: Place, heir: Place, target: SocketAddr) {
        let mut heirs = self.heirs.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, at) in heirs.values_mut().filter(|(place, _)| *place == from) {
            (*place, *at) = (heir, target);
        }
        heirs.insert(from, (heir, target));
    }

    /// Listens at `at` and carries what is dialled there to `target`, which is place `to`.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn proxy(&self, at: SocketAddr, dialling: Dialling, to: Place, target: SocketAddr) -> Result<SocketAddr> {
        let listener = TcpListener::bind(at).await.with_context(|| format!("a proxy cannot listen at {at}"))?;
        let at = listener.local_addr()?;
        let (links, owners, heirs) = (Arc::clone(&self.links), Arc::clone(&self.owners), Arc::clone(&self.heirs));
        let mut random = Random::of(self.seed, &format!("{at}"));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, peer)) => {
                            let (links, owners) = (Arc::clone(&links), Arc::clone(&owners));
                            let heir = match dialling {
                                Dialling::From(_) => heirs.lock().unwrap_or_else(PoisonError::into_inner).get(&to).copied(),
                                Dialling::Replicas => None,
                            };
                            let (to, target) = heir.unwrap_or((to, target));
                            let random = Random::new(random.draw());
                            connections.spawn(async move {
                                let Some(from) = dialler(dialling, &owners, peer, at).await else { return };
                                connect(stream, target, &links.between(from, to), &links.between(to, from), random).await;
                            });
                        }
                        // Out of descriptors, or the dialler is gone already.
                        Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner).push(task);
        Ok(at)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for task in self.proxies.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

async fn dialler(dialling: Dialling, owners: &Arc<Owners>, peer: SocketAddr, at: SocketAddr) -> Option<Place> {
    match dialling {
        Dialling::From(place) => Some(place),
        Dialling::Replicas => {
            let owners = Arc::clone(owners);
            // Reads files of /proc.
            tokio::task::spawn_blocking(move || owners.of(peer, at)).await.ok().flatten().map(Place::Replica)
        }
    }
}

async fn connect(dialled: TcpStream, target: SocketAddr, up: &Arc<Link>, down: &Arc<Link>, random: Random) {
    // A connection that is dialled while one way is cut is not made before it is whole: its first packet is lost.
    up.wait_open().await;
    down.wait_open().await;
    match TcpStream::connect(target).await {
        Ok(answered) => carry::carry(dialled, answered, up, down, random).await,
        // Nobody listens there: the dialler learns it at once, as without a proxy.
        Err(_) => carry::reset(&dialled),
    }
}
