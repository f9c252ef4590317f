//! Load of many clients on one side for one slice. Runs in a process of its own, which reads its [`Spec`] from standard
//! input and prints its [`Told`] as JSON.
//!
//! Closed loop: each client waits for its answer before it asks again. Open loop: requests are due at fixed moments,
//! whether or not earlier ones are answered, and latency counts from the moment a request was due, so that a server
//! that stalls is not excused for what it kept waiting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::client::{Client, Dial, Freshness};
use super::fanout;
use super::histogram::Histogram;
use super::pairs::Random;
use super::usage::{self, Usage};

/// Clients that share a connection: applications pool their connections as well.
const CLIENTS_PER_CONNECTION: usize = 10;
/// Values are cut out of this many random bytes, so that no compression helps anybody.
const RANDOM_BYTES: u64 = 1 << 20;

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Write keys.
    Put,
    /// Write every key once, and stop.
    Fill,
    /// Read keys.
    Get(Freshness),
    /// One client writes one key; the others watch it.
    Fanout,
}

/// One slice.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Whom to load.
    pub dial: Dial,
    /// With what.
    pub work: Work,
    /// Clients at once.
    pub clients: usize,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// Keys they choose from.
    pub keys: u64,
    /// Requests due per second over all clients; without it each client asks as soon as it was answered.
    pub rate: Option<u64>,
    /// Not measured.
    pub warm_ms: u64,
    /// Measured.
    pub measure_ms: u64,
    /// Time for what the servers still do after the last answer; what they use in it counts.
    pub settle_ms: u64,
    /// Which server the first connection goes to.
    pub first_server: usize,
    /// Of the random choice of keys.
    pub seed: u64,
    /// The servers' processes.
    pub pids: Vec<i32>,
}

/// What came of a slice.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Told {
    /// Answered well within the measured time.
    pub done: u64,
    /// Answered with an error, or not at all.
    pub errors: u64,
    /// The first error.
    pub error: Option<String>,
    /// Measured time.
    pub elapsed_us: u64,
    /// Of requests that became due within the measured time.
    pub latency: Histogram,
    /// Of the servers.
    pub servers: Usage,
    /// Of this process.
    pub client_cpu_us: u64,
    /// All work of this host meanwhile that was neither the servers' nor ours.
    pub foreign_cpu_us: u64,
    /// Time this machine, a virtual one, was not let work.
    pub stolen_cpu_us: u64,
}

/// The measured time.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub(super) from: Instant,
    pub(super) to: Instant,
}

impl Window {
    /// Whether a moment lies in it.
    #[must_use]
    pub fn holds(&self, moment: Instant) -> bool {
        self.from <= moment && moment < self.to
    }
}

/// What one client has counted.
#[derive(Debug, Default)]
pub struct Counted {
    pub(super) done: u64,
    pub(super) errors: u64,
    pub(super) error: Option<String>,
    pub(super) latency: Histogram,
}

impl Counted {
    pub(super) fn failed(&mut self, error: &dyn std::fmt::Display) {
        self.errors += 1;
        self.error.get_or_insert_with(|| error.to_string());
    }

    fn add(&mut self, other: Self) {
        self.done += other.done;
        self.errors += other.errors;
        self.error = self.error.take().or(other.error);
        self.latency.add(&other.latency);
    }
}

/// The name of a key: a family for each size of value, so that a read always finds the size it asks for.
#[must_use]
pub fn key(value_bytes: usize, number: u64) -> String {
    format!("bench/{value_bytes}/{number:010}")
}

/// Random bytes to cut values out of.
#[must_use]
pub fn random_bytes(seed: u64) -> Bytes {
    let mut random = Random::new(seed);
    (0..RANDOM_BYTES / 8).flat_map(|_| random.next().to_le_bytes()).collect::<Vec<u8>>().into()
}

struct Loader {
    client: Client,
    spec: Arc<Spec>,
    bytes: Bytes,
    random: Random,
    number: usize,
}

impl Loader {
    fn value(&mut self) -> Bytes {
        let from = self.random.below(RANDOM_BYTES - self.spec.value_bytes as u64);
        self.bytes.slice(from..from + self.spec.value_bytes)
    }

    async fn ask(&mut self, number: u64) -> Result<(), String> {
        let key = key(self.spec.value_bytes, number);
        match self.spec.work {
            Work::Put | Work::Fill | Work::Fanout => {
                let value = self.value();
                self.client.put(key, value).await.map_err(|status| status.to_string())
            }
            Work::Get(freshness) => match self.client.get(key, freshness).await {
                Ok(Some(length)) if length == self.spec.value_bytes => Ok(()),
                Ok(found) => Err(format!("a value of {found:?} bytes was read")),
                Err(status) => Err(status.to_string()),
            },
        }
    }

    /// Asks until the window is over.
    async fn run(mut self, window: Window) -> Counted {
        let mut counted = Counted::default();
        // Each client has its share of the due moments, evenly spread.
        let period = self.spec.rate.map(|rate| {
            let every = Duration::from_secs(1).checked_div(u32::try_from(rate).unwrap_or(u32::MAX)).unwrap_or_default();
            (every * u32::try_from(self.number).unwrap_or(0), every * u32::try_from(self.spec.clients).unwrap_or(1))
        });
        let mut due = period.map(|(offset, _)| Instant::now() + offset);
        loop {
            let began = match due {
                Some(due) => {
                    tokio::time::sleep_until(due.into()).await;
                    due
                }
                None => Instant::now(),
            };
            if began >= window.to {
                return counted;
            }
            let number = self.random.below(self.spec.keys) as u64;
            let answer = self.ask(number).await;
            let now = Instant::now();
            match answer {
                Ok(()) => {
                    counted.done += u64::from(window.holds(now));
                    if window.holds(began) {
                        counted.latency.record(now - began);
                    }
                }
                Err(error) => {
                    counted.failed(&error);
                    // A server that refuses at once must not be asked in a tight loop.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            due = due.zip(period).map(|(due, (_, period))| due + period);
        }
    }

    /// Writes its share of all keys once.
    async fn fill(mut self) -> Counted {
        let mut counted = Counted::default();
        let mut number = self.number as u64;
        while number < self.spec.keys {
            match self.ask(number).await {
                Ok(()) => {
                    counted.done += 1;
                    number += self.spec.clients as u64;
                }
                Err(error) => {
                    counted.failed(&error);
                    if counted.errors > 100 {
                        return counted;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        counted
    }
}

/// Connections of so many clients, spread over all servers.
pub(super) async fn connections(spec: &Spec, clients: usize) -> Result<Vec<Client>> {
    let count = clients.div_ceil(CLIENTS_PER_CONNECTION).max(clients.min(spec.dial.servers.len()));
    let mut connections = Vec::with_capacity(count);
    for n in 0..count {
        connections.push(spec.dial.connect(spec.first_server + n).await?);
    }
    Ok(connections)
}

/// Runs one slice to its end.
///
/// # Errors
/// When the servers are not reached, or one of them is gone.
pub async fn run(spec: Spec) -> Result<Told> {
    ensure!(spec.clients > 0 && spec.keys > 0, "nobody asks for anything");
    let spec = Arc::new(spec);
    let connections = connections(&spec, spec.clients).await?;
    let now = Instant::now();
    let from = now + Duration::from_millis(spec.warm_ms);
    let window = Window { from, to: from + Duration::from_millis(spec.measure_ms) };
    let mut clients = JoinSet::new();
    if spec.work == Work::Fanout {
        fanout::start(&spec, &connections, window, &mut clients).await?;
    } else {
        let bytes = random_bytes(spec.seed);
        for number in 0..spec.clients {
            let client = connections[number % connections.len()].clone();
            let random = Random::new(spec.seed.wrapping_add(number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let loader = Loader { client, spec: Arc::clone(&spec), bytes: bytes.clone(), random, number };
            if spec.work == Work::Fill {
                clients.spawn(loader.fill());
            } else {
                clients.spawn(loader.run(window));
            }
        }
    }
    if spec.work != Work::Fill {
        tokio::time::sleep_until(window.from.into()).await;
    }
    let (began, before, client_before, host_before) =
        (Instant::now(), usage::of(&spec.pids)?, usage::own_cpu_us()?, usage::host()?);
    if spec.work != Work::Fill {
        tokio::time::sleep_until(window.to.into()).await;
    }
    let mut sum = Counted::default();
    let (mut elapsed, mut client_cpu_us) = (began.elapsed(), usage::own_cpu_us()? - client_before);
    while let Some(counted) = clients.join_next().await {
        sum.add(counted.context("a client broke off")?);
    }
    if spec.work == Work::Fill {
        (elapsed, client_cpu_us) = (began.elapsed(), usage::own_cpu_us()? - client_before);
    }
    tokio::time::sleep(Duration::from_millis(spec.settle_ms)).await;
    let servers = usage::of(&spec.pids)? - before;
    let host = usage::host()?;
    let own = usage::own_cpu_us()? - client_before;
    Ok(Told {
        done: sum.done,
        errors: sum.errors,
        error: sum.error,
        elapsed_us: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
        latency: sum.latency,
        servers,
        client_cpu_us,
        foreign_cpu_us: (host.busy_us - host_before.busy_us).saturating_sub(servers.cpu_us + own),
        stolen_cpu_us: host.stolen_us - host_before.stolen_us,
    })
}
