//! The node's own routes: what an admitted node may ask the control plane. Turns a refused token into one fact: the node is removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use crate::client::{Answer, CALL_TIMEOUT, Call, ControlPlane, Unavailable};
use crate::identity::Identity;

/// How long the control plane may hold a poll of the placements.
const WAIT_SECS: u64 = 30;

/// Why a node's request was not granted.
#[derive(Debug, Error)]
pub(crate) enum SessionError {
    /// No server answered; a later attempt may succeed.
    #[error("{0}")]
    Unavailable(#[from] Unavailable),
    /// The token is dead, twice confirmed: the node was removed.
    #[error("the node was removed")]
    Removed,
    /// The control plane refused this request, and will again.
    #[error("refused ({status}): {message}")]
    Refused { status: u16, message: String },
}

/// An admitted node's side of the conversation. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    control: ControlPlane,
    base: String,
    token: String,
    node_id: String,
    node_name: String,
    removed: AtomicBool,
}

impl Session {
    pub(crate) fn new(control: ControlPlane, identity: &Identity) -> Self {
        Self {
            inner: Arc::new(Inner {
                control,
                base: format!("/api/agent/clusters/{}/nodes/{}", identity.cluster, identity.node_id),
                token: identity.token.clone(),
                node_id: identity.node_id.clone(),
                node_name: identity.name.clone(),
                removed: AtomicBool::new(false),
            }),
        }
    }

    pub(crate) fn node_id(&self) -> &str {
        &self.inner.node_id
    }

    pub(crate) fn node_name(&self) -> &str {
        &self.inner.node_name
    }

    /// Whether the control plane has refused the token.
    pub(crate) fn is_removed(&self) -> bool {
        self.inner.removed.load(Ordering::Acquire)
    }

    pub(crate) async fn allocation(&self) -> Result<Value, SessionError> {
        let answer = self.ask(Call::get(self.path("/allocation"))).await?;
        Ok(answer.body)
    }

    pub(crate) async fn heartbeat(&self, body: Value) -> Result<(), SessionError> {
        self.ask(Call::post(self.path("/heartbeat"), body)).await?;
        Ok(())
    }

    /// The placements of this node: at once when they differ from `etag`, else when they change, at the latest after half a minute.
    pub(crate) async fn placements(&self, etag: Option<&str>) -> Result<Answer, SessionError> {
        let mut call = Call::get(self.path(&format!("/placements?wait_secs={WAIT_SECS}")))
            .timeout(CALL_TIMEOUT + Duration::from_secs(WAIT_SECS));
        if let Some(etag) = etag {
            call = call.header("if-none-match", etag);
        }
        self.ask(call).await
    }

    pub(crate) async fn report(&self, placement: &str, body: Value) -> Result<(), SessionError> {
        let path = self.path(&format!("/placements/{placement}/report"));
        self.ask(Call::post(path, body)).await?;
        Ok(())
    }

    /// Tells what has happened to pods of this node.
    pub(crate) async fn tell(&self, body: Value) -> Result<(), SessionError> {
        self.ask(Call::post(self.path("/events"), body)).await?;
        Ok(())
    }

    fn path(&self, tail: &str) -> String {
        format!("{}{tail}", self.inner.base)
    }

    async fn ask(&self, call: Call) -> Result<Answer, SessionError> {
        let call = call.header("x-quilt-node-token", self.inner.token.clone());
        let answer = self.inner.control.send(&call).await?;
        match answer.status {
            200..300 | 304 => Ok(answer),
            401 => Err(self.confirm_removal().await),
            status => Err(SessionError::Refused { status, message: answer.problem() }),
        }
    }

    /// All pods of the host are ended on this word, so it is asked for twice, by a read that has no other way to be refused.
    async fn confirm_removal(&self) -> SessionError {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let again = Call::get(self.path("/allocation")).header("x-quilt-node-token", self.inner.token.clone());
        match self.inner.control.send(&again).await {
            Ok(answer) if answer.status == 401 => {
                self.inner.removed.store(true, Ordering::Release);
                SessionError::Removed
            }
            Ok(answer) => SessionError::Refused {
                status: 401,
                message: format!("one request was refused, the next answered {}", answer.status),
            },
            Err(unavailable) => unavailable.into(),
        }
    }
}
