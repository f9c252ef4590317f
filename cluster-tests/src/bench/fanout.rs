//! One writer and many watchers of its key, on all servers. In a closed loop the writer keeps a few events under way: it
//! writes the next one when an earlier one has reached every watcher, so the rate is what the servers can deliver. In an
//! open one events are due at fixed moments, and their delay counts from those.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tonic::Status;

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
    let writer = Writer { client: writers[0].clone(), key: watched, value_bytes: spec.value_bytes, shared };
    match spec.rate {
        None => tasks.spawn(writer.write_as_delivered()),
        Some(rate) => tasks.spawn(writer.write_as_due(rate)),
    };
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

/// Who writes the one key.
#[derive(Clone)]
struct Writer {
    client: Client,
    key: String,
    value_bytes: usize,
    shared: Arc<Shared>,
}

impl Writer {
    async fn write_as_delivered(mut self) -> Counted {
        let mut counted = Counted::default();
        loop {
            let free = tokio::time::timeout_at(self.shared.window.to.into(), self.shared.free.acquire());
            match free.await {
                Ok(Ok(permit)) => permit.forget(),
                Ok(Err(_)) | Err(_) => return counted,
            }
            if let Err(status) = self.put(Instant::now()).await {
                counted.failed(&status);
                return counted;
            }
        }
    }

    /// However long writes take, the next one begins when it is due.
    async fn write_as_due(self, rate: u64) -> Counted {
        let mut counted = Counted::default();
        let every = Duration::from_secs_f64(1.0 / f64::from(u32::try_from(rate.max(1)).unwrap_or(u32::MAX)));
        let (mut due, mut under_way) = (Instant::now(), JoinSet::new());
        while due < self.shared.window.to {
            tokio::time::sleep_until(due.into()).await;
            let mut writer = self.clone();
            under_way.spawn(async move { writer.put(due).await });
            while let Some(done) = under_way.try_join_next() {
                counted.judge(done);
            }
            due += every;
        }
        while let Some(done) = under_way.join_next().await {
            counted.judge(done);
        }
        counted
    }

    /// Writes a value that tells when it was to be written.
    async fn put(&mut self, at: Instant) -> Result<(), Status> {
        let nanos = at.saturating_duration_since(self.shared.began).as_nanos();
        let mut value = vec![0x5a; self.value_bytes.max(8)];
        value[..8].copy_from_slice(&u64::try_from(nanos).unwrap_or(u64::MAX).to_le_bytes());
        self.client.put(self.key.clone(), Bytes::from(value)).await
    }
}

impl Counted {
    /// A delivery is what is counted, so a write is only when it failed.
    fn judge(&mut self, done: Result<Result<(), Status>, JoinError>) {
        match done {
            Ok(Ok(())) => {}
            Ok(Err(status)) => self.failed(&status),
            Err(error) => self.failed(&error),
        }
    }
}
