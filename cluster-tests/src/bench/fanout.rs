//! One writer and many watchers of its key, on all servers. The writer keeps a few events under way: it writes the next
//! one when an earlier one has reached every watcher, so the rate is what the servers can deliver.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::client::{Changes, Client};
use super::load::{Counted, Spec, Window, connections, key};

/// Events on their way at once.
const UNDER_WAY: usize = 8;

/// What writer and watchers share.
struct Shared {
    began: Instant,
    window: Window,
    watchers: u64,
    delivered: AtomicU64,
    free: Semaphore,
}

/// Puts the watchers in place, then starts them and the writer.
pub(super) async fn start(
    spec: &Arc<Spec>,
    writers: &[Client],
    window: Window,
    tasks: &mut JoinSet<Counted>,
) -> Result<()> {
    let watching = connections(spec, spec.clients).await?;
    let watched = key(spec.value_bytes, 0);
    let mut streams = Vec::with_capacity(spec.clients);
    for number in 0..spec.clients {
        streams.push(watching[number % watching.len()].clone().watch(watched.clone()).await?);
    }
    let shared = Arc::new(Shared {
        began: Instant::now(),
        window,
        watchers: spec.clients as u64,
        delivered: AtomicU64::new(0),
        free: Semaphore::new(UNDER_WAY),
    });
    for changes in streams {
        tasks.spawn(follow(changes, Arc::clone(&shared)));
    }
    tasks.spawn(write(writers[0].clone(), watched, spec.value_bytes, shared));
    Ok(())
}

/// Counts deliveries, and how long each took since its writer began it.
async fn follow(mut changes: Changes, shared: Arc<Shared>) -> Counted {
    let mut counted = Counted::default();
    loop {
        let next = tokio::time::timeout_at(shared.window.to.into(), changes.next());
        let values = match next.await {
            Ok(Some(Ok(values))) => values,
            Ok(Some(Err(status))) => {
                counted.failed(&status);
                return counted;
            }
            Ok(None) => {
                counted.failed(&"a watch ended");
                return counted;
            }
            Err(_over) => return counted,
        };
        let now = Instant::now();
        for value in values {
            let Some(sent) = value.first_chunk().map(|nanos| u64::from_le_bytes(*nanos)) else { continue };
            let sent = shared.began + Duration::from_nanos(sent);
            if shared.window.holds(now) {
                counted.done += 1;
                counted.latency.record(now.saturating_duration_since(sent));
            }
            if (shared.delivered.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(shared.watchers) {
                shared.free.add_permits(1);
            }
        }
    }
}

async fn write(mut client: Client, key: String, value_bytes: usize, shared: Arc<Shared>) -> Counted {
    let mut counted = Counted::default();
    let mut value = vec![0x5a; value_bytes.max(8)];
    loop {
        let free = tokio::time::timeout_at(shared.window.to.into(), shared.free.acquire());
        match free.await {
            Ok(Ok(permit)) => permit.forget(),
            Ok(Err(_)) | Err(_) => return counted,
        }
        let sent = u64::try_from(shared.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        value[..8].copy_from_slice(&sent.to_le_bytes());
        if let Err(status) = client.put(key.clone(), Bytes::copy_from_slice(&value)).await {
            counted.failed(&status);
            return counted;
        }
    }
}
