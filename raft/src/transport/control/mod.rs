//! The control connection: votes, heartbeats, read index questions, pings. Small frames over TLS, never queued behind
//! replication, and cheap enough to beat 25 times a second for ever ([decision 14](../../../docs/decisions)).

mod client;
mod frame;
mod server;

use std::time::Duration;

#[cfg(all(test, not(simulated)))]
pub(super) use client::introduce;
pub(super) use client::{CallError, Client, Dial};
pub(super) use server::serve;

/// A connection on which nothing comes for this long is closed; pings come every second. That is how a silent cut is
/// noticed.
const SILENCE_MAX: Duration = Duration::from_secs(4);
