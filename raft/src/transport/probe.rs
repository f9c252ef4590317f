//! Asks, without being a replica in service, which of them answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use quilt_proto::ReplicaId;
use tokio::sync::mpsc;

use super::connection::Connection;
use super::{PeerIdentity, Tls};
use crate::error::OpenError;
use crate::peer::control_frame::Body;
use crate::peer::{Hello, PingRequest};

/// A replica that works answers within milliseconds; one behind a bad network within this.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Who asks.
pub struct Asking<'a> {
    /// The replica whose identity is shown.
    pub id: ReplicaId,
    /// Its control plane.
    pub cluster: &'a str,
    /// Its epoch.
    pub epoch: u64,
    /// Its keys and certificates.
    pub identity: PeerIdentity,
}

/// The replicas that answer at their peer addresses, as members of the same control plane and epoch.
///
/// # Errors
/// The identity cannot be used.
pub async fn answering(asking: Asking<'_>, members: &BTreeMap<u64, String>) -> Result<BTreeSet<u64>, OpenError> {
    let tls = Arc::new(Tls::new(asking.id, asking.identity)?);
    let (resets, _unused) = mpsc::unbounded_channel();
    let asked = members.iter().filter(|(id, _)| **id != asking.id.0).map(|(id, address)| {
        let hello = Hello { cluster: asking.cluster.to_owned(), epoch: asking.epoch, from: asking.id.0, to: *id };
        let connection = Connection::new(hello, address.clone(), &tls, &resets, &tokio::runtime::Handle::current());
        async move {
            let answered = connection.ok()?.control(Body::Ping(PingRequest {}), TIMEOUT).await;
            answered.is_ok().then_some(*id)
        }
    });
    Ok(join_all(asked).await.into_iter().flatten().collect())
}
