//! [`Credentials`]: whether a call carries the admin key, judged by this replica's own state.
//!
//! A key once found good is remembered by its digest until any credential changes here: the memory is emptied by the
//! same events that tell everybody else, so it is never older than the applied state by more than their delivery.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use parking_lot::RwLock;
use quilt_api::authn::credential::{ADMIN_KEY_HEADER, bearer};
use quilt_api::authn::{Digest, Presented, Principal};
use quilt_proto::KeyPrefix;
use quilt_raft::{Consistency, Replica};
use tokio::sync::watch;
use tonic::Status;

/// A local read waits for nothing but the first catching up after a start.
const LOCAL_READ: Duration = Duration::from_millis(100);
/// Keys remembered: operators have a handful.
const KNOWN_MAX: usize = 64;
/// Pause before the events are asked for again when they broke off.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Judges credentials. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Credentials {
    replica: Replica,
    known: Arc<RwLock<Known>>,
}

#[derive(Default)]
struct Known {
    /// Whether changes of credentials are being listened to; nothing is remembered otherwise.
    listening: bool,
    /// Counts what was heard, so that a verdict reached meanwhile is not remembered.
    heard: u64,
    good: BTreeSet<Digest>,
}

impl Credentials {
    pub(crate) fn new(replica: Replica) -> Self {
        Self { replica, known: Arc::default() }
    }

    /// Refuses everybody but the operator.
    pub(super) async fn check(&self, headers: &HeaderMap) -> Result<(), Status> {
        let text = headers.get(ADMIN_KEY_HEADER).and_then(|value| value.to_str().ok()).or_else(|| bearer(headers));
        let Some(text) = text else { return Err(refusal()) };
        let digest = Digest::of(text.trim());
        let heard = {
            let known = self.known.read();
            if known.good.contains(&digest) {
                return Ok(());
            }
            known.heard
        };
        let view = self.replica.read(Consistency::Stale, LOCAL_READ).await;
        let view = view.map_err(|_| Status::unavailable("this replica has not caught up yet"))?;
        let proof = Presented::for_admin(headers).prove(&view, |principal| matches!(principal, Principal::Admin));
        match proof {
            Ok(Some(_)) => {}
            Ok(None) => return Err(refusal()),
            Err(error) => return Err(Status::unavailable(error.to_string())),
        }
        let mut known = self.known.write();
        if known.listening && known.heard == heard && known.good.len() < KNOWN_MAX {
            known.good.insert(digest);
        }
        Ok(())
    }

    /// Listens for changes of credentials until the process stops.
    pub(crate) async fn follow(self, mut stopping: watch::Receiver<bool>) {
        tokio::select! {
            () = self.listen() => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    }

    async fn listen(&self) {
        let prefix = KeyPrefix::resource("", "quilt.sh", "credentials").expect("constants without a zero byte");
        loop {
            if let Ok(view) = self.replica.read(Consistency::Stale, LOCAL_READ).await {
                let mut changes = self.replica.watch(prefix.clone(), view.revision());
                // What changes from here on is heard; what was judged before was not remembered.
                self.known.write().listening = true;
                while changes.next().await.is_ok() {
                    self.known.write().forget();
                }
            }
            {
                let mut known = self.known.write();
                known.listening = false;
                known.forget();
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}

impl Known {
    fn forget(&mut self) {
        self.heard += 1;
        self.good.clear();
    }
}

fn refusal() -> Status {
    Status::unauthenticated("a valid admin key is needed: send it as X-Quilt-Admin-Key or as Bearer token")
}
