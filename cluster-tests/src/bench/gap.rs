//! How long no write is acknowledged when the leader dies, freezes or hands over.
//!
//! Writes are begun at fixed moments at the servers that stay, whatever became of earlier ones, so that no request that
//! hangs hides the moment at which writes are taken again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::case::LeaderLoss;
use super::client::Client;
use super::load::key;
use super::servers::Servers;

/// Between two writes at one server.
const EVERY: Duration = Duration::from_millis(5);
/// Writes flow for so long before the leader is lost.
const BEFORE: Duration = Duration::from_secs(1);
/// A hand-over is over after this.
const AFTER: Duration = Duration::from_secs(1);
/// Far above any gap worth measuring.
const LIMIT: Duration = Duration::from_secs(60);

/// An acknowledged write.
struct Acknowledged {
    begun: Instant,
    done: Instant,
}

type Acknowledgements = mpsc::UnboundedReceiver<Acknowledged>;

/// Loses the leader once, tells the gap, and makes everything as it was.
///
/// # Errors
/// When the servers do not behave, or no write is acknowledged in time.
pub async fn gap(servers: &mut Servers, loss: LeaderLoss, value_bytes: usize) -> Result<Duration> {
    let leader = servers.settled().await?;
    let dial = servers.dial()?;
    let mut clients = Vec::new();
    for server in (0..dial.servers.len()).filter(|server| loss == LeaderLoss::Transfer || *server != leader) {
        clients.push(dial.connect(server).await?);
    }
    let (acknowledged, mut acknowledgements) = mpsc::unbounded_channel();
    let writers = tokio::spawn(write(clients, value_bytes, acknowledged));
    tokio::time::sleep(BEFORE).await;
    let lost = Instant::now();
    let gap = match loss {
        LeaderLoss::Kill => {
            servers.kill(leader).await?;
            let gap = until_first(lost, &mut acknowledgements).await?;
            servers.restart(leader)?;
            gap
        }
        LeaderLoss::Pause => {
            servers.pause(leader)?;
            let gap = until_first(lost, &mut acknowledgements).await;
            servers.resume(leader)?;
            gap?
        }
        LeaderLoss::Transfer => {
            servers.transfer(leader).await?;
            longest(lost, &mut acknowledgements).await?
        }
    };
    writers.abort();
    servers.settled().await?;
    Ok(gap)
}

/// From the loss to the acknowledgement of a write begun behind it.
async fn until_first(lost: Instant, acknowledgements: &mut Acknowledgements) -> Result<Duration> {
    let next = async {
        loop {
            let Acknowledged { begun, done } = acknowledgements.recv().await.context("the writers go on")?;
            if begun >= lost {
                return Ok(done - lost);
            }
        }
    };
    tokio::time::timeout(LIMIT, next).await.context("no write was acknowledged after the loss")?
}

/// The longest time without an acknowledgement. A leader that hands over goes on acknowledging at first.
async fn longest(lost: Instant, acknowledgements: &mut Acknowledgements) -> Result<Duration> {
    let over = lost + AFTER;
    let (mut last, mut longest) = (lost, Duration::ZERO);
    while last < over {
        let next = tokio::time::timeout(LIMIT, acknowledgements.recv());
        let next = next.await.context("no write was acknowledged after the hand-over")?.context("the writers go on")?;
        longest = longest.max(next.done.saturating_duration_since(last));
        last = last.max(next.done);
    }
    Ok(longest)
}

async fn write(clients: Vec<Client>, value_bytes: usize, acknowledged: mpsc::UnboundedSender<Acknowledged>) {
    let value = Bytes::from(vec![0x5a; value_bytes]);
    let acknowledged = Arc::new(acknowledged);
    let mut under_way = JoinSet::new();
    let mut ticks = tokio::time::interval(EVERY);
    for number in 0_u64.. {
        ticks.tick().await;
        for client in &clients {
            let (mut client, value, acknowledged) = (client.clone(), value.clone(), Arc::clone(&acknowledged));
            under_way.spawn(async move {
                let begun = Instant::now();
                if client.put(key(value.len(), number % 1_000), value).await.is_ok() {
                    // Whoever counted has what it wanted.
                    let _ = acknowledged.send(Acknowledged { begun, done: Instant::now() });
                }
            });
        }
        while under_way.try_join_next().is_some() {}
    }
}
