//! What shows only after a while: memory after a million writes and half as many again, elections that nobody needed,
//! the start of a server that holds a gigabyte, watches that nobody uses, servers that nobody asks.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::task::JoinSet;

use super::case::Case;
use super::client::{Changes, Client};
use super::load::{self, Spec, Work};
use super::run::{Plan, slice, spec};
use super::servers::Servers;
use super::usage;

/// Writes after which memory is looked at, and looked at again.
const WRITES: u64 = 1_000_000;
const MORE_WRITES: u64 = 1_500_000;
/// Keys and value size of them: a tenth of the writes, so that most of them replace something.
const KEYS: u64 = 100_000;
/// Keys of a gigabyte, a kibibyte each.
const COLD_KEYS: u64 = 1_000_000;
/// Measured time of each slice of a long load.
const SLICE: Duration = Duration::from_secs(20);
/// A start that takes longer than this has failed.
const START_LIMIT: Duration = Duration::from_secs(120);
/// For so long servers are looked at that nobody asks.
const IDLE: Duration = Duration::from_secs(15);
/// Time for what a start, or opening watches, leaves behind.
const REST: Duration = Duration::from_secs(3);

/// As many times more watches share a connection than other clients do.
const WATCHES_SHARE: usize = 10;

const KIB: f64 = 1_024.0;

/// What a million writes leave behind.
#[derive(Clone, Copy, Debug)]
pub struct Soaked {
    /// Memory of the largest server after a million writes, MiB.
    pub resident: f64,
    /// After half as many again.
    pub resident_later: f64,
    /// By how much the term has risen meanwhile.
    pub elections: f64,
}

fn as_f64(value: u64) -> f64 {
    f64::from(u32::try_from(value).unwrap_or(u32::MAX))
}

fn resident_mib(servers: &Servers) -> Result<f64> {
    Ok(as_f64(usage::rss_kib(&servers.pids())?.into_iter().max().unwrap_or(0)) / KIB)
}

/// Writes a million and a half times, as fast as all clients can.
///
/// # Errors
/// When a server is gone, or no write succeeds.
pub async fn soak(plan: &Plan, servers: &Servers, case: &Case) -> Result<Soaked> {
    let before = servers.term().await?;
    let mut done = 0;
    let mut resident = None;
    for number in 0.. {
        let long = Plan { slice: SLICE, keys: KEYS, ..plan.clone() };
        let told = slice(&spec(&long, servers, case, Work::Put, number).await?).await?;
        ensure!(told.done > 0, "no write succeeded: {:?}", told.error);
        done += told.done;
        if done >= WRITES && resident.is_none() {
            resident = Some(resident_mib(servers)?);
        }
        if done >= MORE_WRITES {
            break;
        }
    }
    let elections = as_f64(servers.term().await?.saturating_sub(before));
    Ok(Soaked {
        resident: resident.context("a million writes come before a million and a half")?,
        resident_later: resident_mib(servers)?,
        elections,
    })
}

/// Fills the servers with a gigabyte, kills one that does not lead and tells how long it takes until it serves again,
/// in milliseconds.
///
/// # Errors
/// When the servers do not behave.
pub async fn cold_start(plan: &Plan, servers: &mut Servers, case: &Case) -> Result<f64> {
    let filling = Plan { keys: COLD_KEYS, ..plan.clone() };
    let told = slice(&spec(&filling, servers, case, Work::Fill, 0).await?).await?;
    ensure!(told.done == COLD_KEYS, "only {} of {COLD_KEYS} keys were written: {:?}", told.done, told.error);
    let leader = servers.settled().await?;
    let follower = (leader + 1) % servers.dial()?.servers.len();
    servers.kill(follower).await?;
    let began = Instant::now();
    servers.restart(follower)?;
    tokio::time::timeout(START_LIMIT, servers.serving(follower)).await.context("it does not start")??;
    let took = began.elapsed();
    servers.settled().await?;
    Ok(took.as_secs_f64() * 1_000.0)
}

/// What servers need that nobody asks anything.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// Of a processor, in percent: the mean of the servers.
    pub cpu: f64,
    /// Memory of the largest, MiB.
    pub resident: f64,
}

/// Looks at servers on which nothing has happened yet.
///
/// # Errors
/// When one is gone.
pub async fn idle(servers: &Servers) -> Result<Idle> {
    tokio::time::sleep(REST).await;
    let (pids, began, before) = (servers.pids(), Instant::now(), usage::of(&servers.pids())?);
    tokio::time::sleep(IDLE).await;
    let used = Duration::from_micros((usage::of(&pids)? - before).cpu_us);
    let cpu = 100.0 * used.div_duration_f64(began.elapsed()) / as_f64(pids.len() as u64);
    Ok(Idle { cpu, resident: resident_mib(servers)? })
}

/// What one watch costs while nothing happens, in KiB, over all servers. Many share a connection, so that the cost of
/// TLS is next to nothing. As many are there before: what servers take for their first ones only is no watch's own, and what they had let go
/// of is taken up.
///
/// # Errors
/// When a watch is refused.
pub async fn idle_watch(plan: &Plan, servers: &Servers, case: &Case) -> Result<f64> {
    let spec: Spec = spec(plan, servers, case, Work::Fanout, 0).await?;
    let connections = load::connections(&spec, case.clients / WATCHES_SHARE).await?;
    let before = open(&connections, case).await?;
    let sum = || -> Result<u64> { Ok(usage::rss_kib(&spec.pids)?.into_iter().sum()) };
    let without = sum()?;
    let measured = open(&connections, case).await?;
    let with = sum()?;
    drop((before, measured));
    Ok(as_f64(with.saturating_sub(without)) / as_f64(case.clients as u64))
}

/// Opens as many watches as the case has clients, and waits until that is all over.
async fn open(connections: &[Client], case: &Case) -> Result<Vec<Changes>> {
    let mut opening = JoinSet::new();
    for number in 0..case.clients {
        let mut client = connections[number % connections.len()].clone();
        let key = load::key(case.value_bytes, number as u64);
        opening.spawn(async move { client.watch(key).await });
    }
    let mut open = Vec::with_capacity(case.clients);
    while let Some(watch) = opening.join_next().await {
        open.push(watch??);
    }
    tokio::time::sleep(REST).await;
    Ok(open)
}
