//! Waiting for a condition. The pause between two looks is not a synchronisation: the result is the same for any pause.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Far above what a loaded host with two cores needs; a test that waits this long has failed.
pub const LIMIT: Duration = Duration::from_secs(120);

const PAUSE: Duration = Duration::from_millis(25);

/// Looks until `look` finds something; its error is the reason told when the limit is reached.
///
/// # Errors
/// When nothing was found within [`LIMIT`].
pub async fn until<T, F>(what: &str, look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    within(LIMIT, what, look).await
}

/// As [`until`], with a limit of its own.
///
/// # Errors
/// When nothing was found in time.
pub async fn within<T, F>(limit: Duration, what: &str, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let started = Instant::now();
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(reason) if started.elapsed() > limit => bail!("not within {limit:?}: {what}: {reason:#}"),
            Err(_not_yet) => tokio::time::sleep(PAUSE).await,
        }
    }
}
