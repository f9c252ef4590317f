//! Backups one after the other, through every replica: each is a snapshot of the state, made while it changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::Method;
use tokio::task::JoinHandle;

use super::Proof;
use crate::client::Client;
use crate::rig::Rig;

/// Backups under way.
#[derive(Debug)]
pub struct Backups {
    task: JoinHandle<()>,
    done: Arc<AtomicU64>,
}

impl Backups {
    pub(super) fn begin(rig: &Rig) -> Self {
        let clients: Vec<Client> = rig.running().into_iter().filter_map(|id| rig.admin(id).ok()).collect();
        let done: Arc<AtomicU64> = Arc::default();
        let counted = Arc::clone(&done);
        let task = tokio::spawn(async move {
            for client in clients.iter().cycle() {
                match whole(client).await {
                    Ok(()) => drop(counted.fetch_add(1, Ordering::Relaxed)),
                    // A replica that has just lost its leader cannot make one.
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                }
            }
        });
        Self { task, done }
    }

    pub(super) fn end(self) -> Proof {
        self.task.abort();
        Proof::counted(self.done.load(Ordering::Relaxed), "backups taken")
    }
}

/// Reads a backup to its end and keeps none of it.
async fn whole(client: &Client) -> anyhow::Result<()> {
    let mut response = client.request(Method::GET, "/api/admin/snapshot").send().await?.error_for_status()?;
    while response.chunk().await?.is_some() {}
    Ok(())
}
