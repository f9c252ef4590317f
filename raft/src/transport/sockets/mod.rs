//! Bytes between replicas, as the product carries them: sockets under mutual TLS. Real sockets live in tokio, so this is
//! the one part of the crate that asks tokio for more than its runtime's abstraction.

mod accept;
mod dial;
mod purpose;
#[cfg(test)]
mod strangers;
mod stream;
mod tls;

use std::io;

pub(crate) use accept::listen;
pub(super) use dial::{Channel, control, data, snapshots};
pub(super) use stream::{PeerId, PeerStream};
pub(crate) use tls::Tls;
pub use tls::{PeerIdentity, peer_name};

/// Where peers are listened for.
pub type Listener = std::net::TcpListener;

/// Readies a listener that was bound elsewhere.
pub(crate) fn make_ready(listener: &Listener) -> io::Result<()> {
    listener.set_nonblocking(true)
}
