//! The care for one pod: init containers one after the other, sidecars beside them, then the others together; and its end.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::assignment::Assignment;
use crate::pod::{Container, Pod, RestartPolicy};
use crate::runtime::process::container::{ContainerCare, Outcome};
use crate::runtime::process::environment::NodeFacts;
use crate::runtime::process::record::{PodState, Slot};
use crate::runtime::process::volumes;
use crate::runtime::{Stop, StopCause};
use crate::status::Progress;

/// Cares for a pod until it has been told to end and nothing of it is left. Dropped, it leaves the processes alone.
pub(super) async fn run(
    state: Arc<PodState>,
    assignment: watch::Receiver<Assignment>,
    mut stop: watch::Receiver<Option<Stop>>,
) {
    let refreshing = tokio::spawn(refresh_volumes(state.clone(), assignment.clone()));
    let care = PodCare { state: state.clone(), assignment, stop: stop.clone() };
    care.run().await;
    let wish = match stop.wait_for(Option::is_some).await {
        Ok(wish) => *wish,
        Err(_agent_ends) => None,
    };
    refreshing.abort();
    if wish.is_some_and(|wish| wish.cause == StopCause::Unwanted) {
        state.set_progress(Progress::Stopped);
    }
}

struct PodCare {
    state: Arc<PodState>,
    assignment: watch::Receiver<Assignment>,
    stop: watch::Receiver<Option<Stop>>,
}

impl PodCare {
    async fn run(&self) {
        let pod = self.state.pod();
        // Sidecars end after the others, so they have a wish of their own.
        let (end_sidecars, sidecars_end) = watch::channel(None::<Stop>);
        let mut sidecars = JoinSet::new();
        let initialized = self.initialize(&pod, &mut sidecars, &sidecars_end).await;
        let mut all_over = !initialized;
        if initialized {
            let mut containers = JoinSet::new();
            for (index, container) in pod.spec.containers.iter().enumerate() {
                let care = self.care(Slot::Main(index), container, pod.spec.restart_policy, self.stop.clone());
                if let Some(care) = care {
                    containers.spawn(care.run());
                }
            }
            all_over = true;
            while let Some(outcome) = containers.join_next().await {
                all_over &= matches!(outcome, Ok(Outcome::Ended { .. }));
            }
        }
        let wish = (*self.stop.borrow()).unwrap_or_else(|| Stop { grace: pod.grace(), cause: StopCause::Unwanted });
        end_sidecars.send_replace(Some(wish));
        while sidecars.join_next().await.is_some() {}
        if all_over && self.stop.borrow().is_none() {
            self.state.set_progress(Progress::Done);
        }
    }

    /// Whether all init containers have done their work.
    async fn initialize(
        &self,
        pod: &Pod,
        sidecars: &mut JoinSet<Outcome>,
        sidecars_end: &watch::Receiver<Option<Stop>>,
    ) -> bool {
        for (index, container) in pod.spec.init_containers.iter().enumerate() {
            let slot = Slot::Init(index);
            if Pod::is_sidecar(container) {
                let care = self.care(slot, container, RestartPolicy::Always, sidecars_end.clone());
                if let Some(care) = care {
                    sidecars.spawn(care.run());
                }
                if !self.wait_until_started(index).await {
                    return false;
                }
                continue;
            }
            // An init container that has done its work is done, whatever the Pod's policy.
            let policy = match pod.spec.restart_policy {
                RestartPolicy::Never => RestartPolicy::Never,
                RestartPolicy::Always | RestartPolicy::OnFailure => RestartPolicy::OnFailure,
            };
            let Some(care) = self.care(slot, container, policy, self.stop.clone()) else {
                return false;
            };
            if care.run().await != (Outcome::Ended { exit_code: 0 }) {
                return false;
            }
        }
        true
    }

    async fn wait_until_started(&self, index: usize) -> bool {
        let mut seen = self.state.seen();
        let mut stop = self.stop.clone();
        tokio::select! {
            started = seen.wait_for(|seen| seen.init[index].started) => started.is_ok(),
            _ = stop.wait_for(Option::is_some) => false,
        }
    }

    fn care(
        &self,
        slot: Slot,
        container: &Container,
        policy: RestartPolicy,
        stop: watch::Receiver<Option<Stop>>,
    ) -> Option<ContainerCare> {
        Some(ContainerCare {
            state: self.state.clone(),
            slot,
            container: container.clone(),
            log: self.state.logs.container(&container.name)?,
            policy,
            assignment: self.assignment.clone(),
            stop,
        })
    }
}

/// ConfigMaps and Secrets may change while a pod runs; their files follow.
async fn refresh_volumes(state: Arc<PodState>, mut assignment: watch::Receiver<Assignment>) {
    while assignment.changed().await.is_ok() {
        let now = assignment.borrow_and_update().clone();
        if let Some(materials) = &now.materials {
            let node = NodeFacts { name: &state.config.node_name, address: state.config.node };
            // What is wrong with them is said when a container starts; running ones keep what they have.
            let _said_elsewhere = volumes::materialise(&now.pod, materials, &state.directory, node);
        }
    }
}
