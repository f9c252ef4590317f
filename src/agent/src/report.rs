//! Tells the control plane what became of one placement, until it has heard the newest.

use std::net::IpAddr;

use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::assignment::Assignment;
use crate::client::Pause;
use crate::clock;
use crate::session::{Session, SessionError};
use crate::status::{self, Observation, Progress, Report};

/// Reports each change of one pod; ends with the pod's end, or when there is nobody left to tell.
pub(crate) async fn run(
    session: Session,
    mut assignment: watch::Receiver<Assignment>,
    mut observed: watch::Receiver<Observation>,
    node: IpAddr,
) {
    let mut told: Option<Report> = None;
    let mut conditions: Vec<Value> = assignment.borrow().pod.conditions.clone();
    let mut pause = Pause::default();
    loop {
        let seen = observed.borrow_and_update().clone();
        let assignment_now = assignment.borrow_and_update().clone();
        let now = clock::to_seconds(clock::now());
        let report = status::report(&assignment_now.pod, &seen, node, &conditions, &now);
        conditions = report.pod_status["conditions"].as_array().cloned().unwrap_or_default();
        let last_word = seen.progress == Progress::Stopped;
        // For a pod that is being ended, such a word means that all of it is gone; it is not said while a part still has its grace.
        let too_early = assignment_now.terminating && !last_word && report.says_ended();
        // How its gates stand is not kept here: after a restart the control plane has to say it first.
        let unheard = assignment_now.materials.is_none() && !assignment_now.pod.spec.readiness_gates.is_empty();
        if !too_early && (!unheard || last_word) && (told.as_ref() != Some(&report) || last_word) {
            match session.report(&assignment_now.placement_id, body(&report)).await {
                Ok(()) => {
                    told = Some(report);
                    pause.reset();
                }
                Err(SessionError::Removed) => return,
                // The placement is gone or on another node: nobody wants to know.
                Err(SessionError::Refused { status: 404, .. }) => {
                    debug!(placement = %assignment_now.placement_id, "placement is no longer here");
                    told = Some(report);
                }
                Err(SessionError::Refused { status, message }) => {
                    warn!(placement = %assignment_now.placement_id, status, %message, "report refused");
                    told = Some(report);
                }
                Err(SessionError::Unavailable(reason)) => {
                    debug!(placement = %assignment_now.placement_id, %reason, "report waits for the control plane");
                    pause.wait().await;
                    continue;
                }
            }
        }
        if last_word {
            return;
        }
        tokio::select! {
            changed = observed.changed() => if changed.is_err() { return; },
            // Conditions that others set may open or close the gates of its readiness.
            () = heard(&mut assignment) => {}
        }
    }
}

/// The next word of the control plane about the pod; never, once the pod is out of care: its last report still goes.
async fn heard(assignment: &mut watch::Receiver<Assignment>) {
    if assignment.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn body(report: &Report) -> Value {
    json!({
        "state": report.state,
        "container_id": report.container_id,
        "message": report.message,
        "pod_status": report.pod_status,
    })
}
