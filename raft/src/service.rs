//! Services in the leader's memory: asked from any replica, answered by the current leader only.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::type_config::TypeConfigExt;
use parking_lot::RwLock;

use crate::admin;
use crate::courier::Destination;
use crate::error::AskError;
use crate::host::watch;
use crate::leadership::Leadership;
use crate::peer::ask_reply;
use crate::transport::Peers;
use crate::types::TypeConfig;

/// Answers one request of a service.
pub type Handler = Arc<dyn Fn(Bytes) -> BoxFuture<'static, Result<Bytes, String>> + Send + Sync>;

/// A request or answer: below the limit of a peer message, with room for what surrounds it.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Pause before the leader is asked again.
const RETRY_AFTER: Duration = Duration::from_millis(25);

/// The services of one replica.
pub(crate) struct Services {
    id: u64,
    handlers: RwLock<HashMap<&'static str, Handler>>,
    leadership: watch::Receiver<Leadership>,
    destination: watch::Receiver<Destination>,
    peers: Arc<Peers>,
}

/// What the local services say to a request.
pub(crate) enum Served {
    Body(Bytes),
    Failed(String),
    NotLeader,
    Unknown,
}

impl Services {
    pub(crate) fn new(
        id: u64,
        leadership: watch::Receiver<Leadership>,
        destination: watch::Receiver<Destination>,
        peers: Arc<Peers>,
    ) -> Self {
        Self { id, handlers: RwLock::default(), leadership, destination, peers }
    }

    pub(crate) fn register(&self, service: &'static str, handler: Handler) {
        self.handlers.write().insert(service, handler);
    }

    /// Lets go of all of them: most hold the replica that holds them.
    pub(crate) fn end(&self) {
        let ended = std::mem::take(&mut *self.handlers.write());
        // Not under the lock: a handler may hold the last of much else.
        drop(ended);
    }

    /// Answers here, if this replica leads before and after.
    pub(crate) async fn answer(&self, service: &str, body: Bytes) -> Served {
        let held = self.leadership.borrow().held();
        if held.is_none() {
            return Served::NotLeader;
        }
        let handler = self.handlers.read().get(service).cloned();
        let Some(handler) = handler else { return Served::Unknown };
        let result = handler(body).await;
        // What a change of the control plane has brought about stands, whoever leads now: giving leadership away is one.
        if self.leadership.borrow().held() != held && service != admin::SERVICE {
            return Served::NotLeader;
        }
        match result {
            Ok(body) => Served::Body(body),
            Err(text) => Served::Failed(text),
        }
    }

    /// Asks whoever leads, until someone answers or the deadline has passed.
    pub(crate) async fn ask(&self, service: &str, body: Bytes, deadline: Duration) -> Result<Bytes, AskError> {
        if body.len() > MESSAGE_BYTES_MAX {
            return Err(AskError::TooLarge { bytes: body.len(), limit: MESSAGE_BYTES_MAX });
        }
        let asking = async {
            loop {
                let leader = self.destination.borrow().leader;
                let served = match leader {
                    Some(leader) if leader == self.id => self.answer(service, body.clone()).await,
                    Some(leader) => self.ask_peer(leader, service, body.clone(), deadline).await,
                    None => Served::NotLeader,
                };
                match served {
                    Served::Body(body) => return Ok(body),
                    Served::Failed(text) => return Err(AskError::Failed(text)),
                    Served::Unknown => return Err(AskError::Unknown(service.to_owned())),
                    Served::NotLeader => TypeConfig::sleep(RETRY_AFTER).await,
                }
            }
        };
        TypeConfig::timeout(deadline, asking).await.unwrap_or(Err(AskError::NoLeader))
    }

    async fn ask_peer(&self, leader: u64, service: &str, body: Bytes, deadline: Duration) -> Served {
        match self.peers.ask(leader, service, body, deadline).await {
            Ok(ask_reply::Result::Body(body)) => Served::Body(body),
            Ok(ask_reply::Result::Failed(text)) => Served::Failed(text),
            Ok(ask_reply::Result::UnknownService(_)) => Served::Unknown,
            Ok(ask_reply::Result::NotLeader(_)) => Served::NotLeader,
            Err(error) => {
                tracing::debug!(%error, leader, service, "asking the leader failed");
                Served::NotLeader
            }
        }
    }
}
