//! Tells the control plane that the node is alive: at once when it is ready, then at a fixed pace.
//!
//! What rarely changes (address, capacity, log endpoint) goes with the first heartbeat of a run, so that a restarted agent with another
//! port is found again; later ones carry the state and the usage only.

use std::time::Duration;

use serde_json::json;
use tracing::{debug, warn};

use crate::client::Pause;
use crate::enrol::Offer;
use crate::host::Usage;
use crate::session::{Session, SessionError};

/// A host that is told to stop does not wait longer to say so.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// Beats until the node is removed.
pub(crate) async fn run(session: Session, offer: &Offer, every: Duration) {
    let mut usage = Usage::default();
    let mut introduced = false;
    let mut pause = Pause::default();
    loop {
        let mut body = if introduced { json!({}) } else { offer.fields() };
        body["state"] = json!("ready");
        body["usage"] = usage.read();
        match session.heartbeat(body).await {
            Ok(()) => {
                introduced = true;
                pause.reset();
                tokio::time::sleep(every).await;
            }
            Err(SessionError::Removed) => return,
            Err(SessionError::Unavailable(reason)) => {
                debug!(%reason, "heartbeat waits for the control plane");
                pause.wait().await;
            }
            Err(SessionError::Refused { status, message }) => {
                warn!(status, %message, "heartbeat refused");
                tokio::time::sleep(every).await;
            }
        }
    }
}

/// Lets the control plane know at once that nothing should be placed here, rather than by silence. Best effort.
pub(crate) async fn say_not_ready(session: &Session) {
    let farewell = session.heartbeat(json!({"state": "not_ready"}));
    match tokio::time::timeout(FAREWELL_TIMEOUT, farewell).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "the control plane was not told of the stop"),
        Err(_elapsed) => debug!("the control plane was not told of the stop in time"),
    }
}
