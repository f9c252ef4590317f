//! The product's host: tokio and the operating system. The only place of this crate that reads a wall clock or draws.

use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use openraft_rt_tokio::TokioRuntime as Runtime;
pub(crate) use tokio::runtime::Handle;
pub(crate) use tokio::sync::watch;
pub(crate) use tokio::task::{JoinHandle, yield_now};

use crate::clock::millis;

/// Milliseconds since the Unix epoch by this host's clock.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

/// 64 random bits.
pub(crate) fn random_u64() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}
