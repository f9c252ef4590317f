//! A runtime that runs nothing: every container is `Running` at once and ended as soon as that is wished. For tests of scale.

use tokio::sync::watch;

use crate::assignment::Assignment;
use crate::clock;
use crate::logs::PodLogs;
use crate::runtime::{PodHandle, Stop, StopCause};
use crate::status::{ContainerRecord, ContainerState, Ended, Observation, Progress};

pub(crate) fn start(assignment: Assignment) -> PodHandle {
    let pod = assignment.pod.clone();
    let now = clock::to_seconds(clock::now());
    let identify = |record: &mut ContainerRecord| {
        record.container_id = Some(format!("simulated://{}-{}", pod.uid, record.name));
    };
    let init = pod.spec.init_containers.iter().map(|container| {
        let mut record = ContainerRecord::waiting(container, "PodInitializing");
        identify(&mut record);
        record.started = true;
        record.state = ended(&record, &now);
        record
    });
    let containers = pod.spec.containers.iter().map(|container| {
        let mut record = ContainerRecord::waiting(container, "ContainerCreating");
        identify(&mut record);
        record.started = true;
        record.ready = true;
        record.state = ContainerState::Running { started_at: now.clone(), process: None };
        record
    });
    let seen = Observation {
        init: init.collect(),
        containers: containers.collect(),
        started_at: now.clone(),
        progress: Progress::Going,
    };
    let (sender, observed) = watch::channel(seen);
    let (stop, mut stopping) = watch::channel(None::<Stop>);
    let task = tokio::spawn(async move {
        let wish = match stopping.wait_for(Option::is_some).await {
            Ok(wish) => *wish,
            Err(_handle_dropped) => return,
        };
        if wish.is_none_or(|wish| wish.cause == StopCause::AgentStops) {
            return;
        }
        sender.send_modify(|seen| {
            let now = clock::to_seconds(clock::now());
            for record in &mut seen.containers {
                record.ready = false;
                record.state = ended(record, &now);
            }
            seen.progress = Progress::Stopped;
        });
    });
    PodHandle { assignment: watch::channel(assignment).0, stop, observed, logs: PodLogs::none(), task }
}

fn ended(record: &ContainerRecord, now: &str) -> ContainerState {
    let started_at = match &record.state {
        ContainerState::Running { started_at, .. } => started_at.clone(),
        _ => now.to_owned(),
    };
    ContainerState::Terminated(Ended {
        exit_code: 0,
        signal: None,
        reason: "Completed".to_owned(),
        message: None,
        started_at,
        finished_at: now.to_owned(),
        container_id: record.container_id.clone(),
    })
}
