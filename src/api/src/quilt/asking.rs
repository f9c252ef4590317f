//! Asking the leader's services, through elections: a leader whose services have not begun yet, or have just ended,
//! says so, and is asked again. Must not know services.

use std::time::Duration;

use bytes::Bytes;
use quilt_raft::{AskError, Replica};
use tokio::time::Instant;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks `service` of the leader until it answers or the deadline has passed.
pub(crate) async fn ask(
    replica: &Replica,
    service: &'static str,
    request: Bytes,
    deadline: Duration,
) -> Result<Bytes, AskError> {
    let until = Instant::now() + deadline;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match replica.ask_leader(service, request.clone(), left).await {
            Err(AskError::Failed(reason)) if left > PAUSE => {
                tracing::debug!(reason, service, "asking the leader again");
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}
