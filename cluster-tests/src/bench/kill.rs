//! `kill -9` of the leader: time until a write that was begun afterwards is acknowledged by one of the others.
//!
//! Writes are begun at fixed moments at both survivors, whatever became of earlier ones, so that no request that hangs
//! hides the moment at which writes are taken again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::Client;
use super::load::key;
use super::servers::Servers;

/// Between two writes.
const EVERY: Duration = Duration::from_millis(5);
/// Writes flow for so long before the kill.
const BEFORE: Duration = Duration::from_secs(1);
/// Far above any gap worth measuring.
const LIMIT: Duration = Duration::from_secs(60);

/// Kills the leader once and brings it back.
///
/// # Errors
/// When the servers do not behave, or no write is acknowledged in time.
pub async fn gap(servers: &mut Servers, value_bytes: usize) -> Result<Duration> {
    let leader = servers.settled().await?;
    let dial = servers.dial()?;
    let mut survivors = Vec::new();
    for server in (0..dial.servers.len()).filter(|server| *server != leader) {
        survivors.push(dial.connect(server).await?);
    }
    let (acknowledged, mut acknowledgements) = mpsc::unbounded_channel();
    let writers = tokio::spawn(write(survivors, value_bytes, acknowledged));
    tokio::time::sleep(BEFORE).await;
    let killed = Instant::now();
    servers.kill(leader).await?;
    let next = async {
        loop {
            let (begun, done): (Instant, Instant) = acknowledgements.recv().await.context("the writers go on")?;
            if begun >= killed {
                return Ok::<_, anyhow::Error>(done - killed);
            }
        }
    };
    let gap = tokio::time::timeout(LIMIT, next).await.context("no write was acknowledged after the kill")?;
    writers.abort();
    servers.restart(leader)?;
    servers.settled().await?;
    gap
}

async fn write(survivors: Vec<Client>, value_bytes: usize, done: mpsc::UnboundedSender<(Instant, Instant)>) {
    let value = Bytes::from(vec![0x5a; value_bytes]);
    let done = Arc::new(done);
    let mut under_way = JoinSet::new();
    let mut ticks = tokio::time::interval(EVERY);
    for number in 0_u64.. {
        ticks.tick().await;
        for survivor in &survivors {
            let (mut client, value, done) = (survivor.clone(), value.clone(), Arc::clone(&done));
            under_way.spawn(async move {
                let begun = Instant::now();
                if client.put(key(value.len(), number % 1_000), value).await.is_ok() {
                    // Whoever counted has what it wanted.
                    let _ = done.send((begun, Instant::now()));
                }
            });
        }
        while under_way.try_join_next().is_some() {}
    }
}
