//! Everything between replicas: connections, the peer service, and openraft's network over them.

mod network;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;

pub(crate) use network::Network;

use crate::peer::{ForwardReply, ForwardRequest, ask_reply};

/// A peer did not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// No address is known, or this replica has no transport.
    #[error("replica {0} has no known address")]
    Unknown(u64),
}

/// The other replicas.
#[derive(Default)]
pub(crate) struct Peers {
    addresses: RwLock<BTreeMap<u64, String>>,
}

impl Peers {
    /// The members now, this replica among them.
    pub(crate) fn members(&self, members: impl Iterator<Item = (u64, String)>) {
        *self.addresses.write() = members.collect();
    }

    pub(crate) async fn forward(
        &self,
        to: u64,
        _request: ForwardRequest,
        _timeout: Duration,
    ) -> Result<ForwardReply, PeerError> {
        Err(PeerError::Unknown(to))
    }

    pub(crate) async fn read_index(&self, to: u64, _timeout: Duration) -> Result<u64, PeerError> {
        Err(PeerError::Unknown(to))
    }

    pub(crate) async fn ask(
        &self,
        to: u64,
        _service: &str,
        _body: Bytes,
        _timeout: Duration,
    ) -> Result<ask_reply::Result, PeerError> {
        Err(PeerError::Unknown(to))
    }

    pub(crate) fn heard(&self, _id: u64) -> Option<Duration> {
        None
    }
}
