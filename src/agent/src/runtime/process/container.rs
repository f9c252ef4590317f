//! Keeps one container as it should be: starts it when it can be started, watches it, starts it again by its policy, ends it when told.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use crate::assignment::Assignment;
use crate::clock;
use crate::durable;
use crate::events::Weight;
use crate::keeper::ExitRecord;
use crate::logs::ContainerLog;
use crate::pod::{Container, RestartPolicy};
use crate::runtime::Stop;
use crate::runtime::process::backoff::Backoff;
use crate::runtime::process::child::{Exit, Process};
use crate::runtime::process::launch::{self, Launch, Obstacle};
use crate::runtime::process::output::Output;
use crate::runtime::process::probe::{self, Finding, Surroundings};
use crate::runtime::process::record::{PodState, Slot};
use crate::status::{ContainerState, Ended};

/// A container that cannot be started is looked at again after this time: a program may have been installed meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// How the care for a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It has ended and will not be started again.
    Ended { exit_code: i32 },
    /// It was told to end.
    Stopped,
}

/// The care for one container.
pub(super) struct ContainerCare {
    pub(super) state: Arc<PodState>,
    pub(super) slot: Slot,
    pub(super) container: Container,
    pub(super) log: Arc<ContainerLog>,
    pub(super) policy: RestartPolicy,
    pub(super) assignment: watch::Receiver<Assignment>,
    pub(super) stop: watch::Receiver<Option<Stop>>,
}

/// A container that runs.
struct Running {
    process: Process,
    output: Output,
    launch: Option<Launch>,
    since: Instant,
}

/// Why a running container is watched no longer.
struct End {
    exit: Exit,
    stopped: bool,
    message: Option<String>,
}

impl ContainerCare {
    pub(super) async fn run(mut self) -> Outcome {
        let mut backoff = Backoff::new(self.state.config.backoff);
        let mut running = self.take_up();
        if running.is_none()
            && let ContainerState::Terminated(ended) = self.state.container(self.slot).state
        {
            if !self.policy.restarts(ended.exit_code) {
                return Outcome::Ended { exit_code: ended.exit_code };
            }
            if self.wait_to_restart(backoff.after(Duration::ZERO)).await {
                return Outcome::Stopped;
            }
        }
        loop {
            let now_running = match running.take() {
                Some(running) => running,
                None => match self.start().await {
                    Some(running) => running,
                    None => return Outcome::Stopped,
                },
            };
            let since = now_running.since;
            let end = self.watch_over(now_running).await;
            let exit_code = self.record_end(end.exit, end.message);
            if end.stopped {
                return Outcome::Stopped;
            }
            if !self.policy.restarts(exit_code) {
                return Outcome::Ended { exit_code };
            }
            let pause = backoff.after(since.elapsed());
            if self.wait_to_restart(pause).await {
                return Outcome::Stopped;
            }
        }
    }

    /// Tells people what happens to the container.
    fn tell(&self, weight: Weight, reason: &'static str, message: &str) {
        self.state.config.events.tell(&self.state.pod(), weight, reason, message);
    }

    fn is_stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// The process an earlier run of the agent left, or the record that it is gone.
    fn take_up(&mut self) -> Option<Running> {
        let record = self.state.container(self.slot);
        let ContainerState::Running { process: Some(process), .. } = &record.state else {
            return None;
        };
        let exit_file = self.log.exit_file(record.restart_count);
        let adopted = Process::adopt(process, &exit_file).and_then(|process| {
            let bytes_max = self.state.config.log_bytes_max;
            match Output::take_up(&self.log, record.restart_count, bytes_max) {
                Ok(output) => Some((process, output)),
                Err(error) => {
                    warn!(container = %self.container.name, %error, "output cannot be taken up again");
                    process.signal(Signal::KILL);
                    None
                }
            }
        });
        let Some((process, output)) = adopted else {
            Process::end_remains(process);
            match ExitRecord::read(&exit_file) {
                Some(kept) => self.record_end_at(Exit::from(&kept), None, &kept.finished_at),
                None => self.record_end(Exit::Unknown, Some("the container ended while no agent ran".to_owned())),
            };
            return None;
        };
        info!(container = %self.container.name, pid = process.record().pid, "container taken up again");
        Some(Running { process, output, launch: None, since: Instant::now() })
    }

    /// Starts the container as soon as it can be started; nothing when it is told to end before.
    async fn start(&mut self) -> Option<Running> {
        loop {
            if self.is_stopping() {
                return None;
            }
            let assignment = self.assignment.borrow_and_update().clone();
            match self.try_start(&assignment).await {
                Ok(running) => return Some(running),
                Err(obstacle) => {
                    let waits = ContainerState::Waiting {
                        reason: obstacle.reason.to_owned(),
                        message: obstacle.message.clone(),
                    };
                    // Said once, not at each look; and that the control plane has not spoken yet is nobody's trouble.
                    if self.state.container(self.slot).state != waits && obstacle.reason != "ContainerCreating" {
                        let why = obstacle.message.as_deref().unwrap_or("no more is known");
                        self.tell(Weight::Warning, "Failed", &format!("Error: {}: {why}", obstacle.reason));
                    }
                    self.state.update(self.slot, |record| {
                        if let ContainerState::Terminated(ended) = &record.state {
                            record.last = Some(ended.clone());
                        }
                        record.ready = false;
                        record.started = false;
                        record.state = waits;
                    });
                }
            }
            tokio::select! {
                () = changed(&mut self.stop) => {}
                () = changed(&mut self.assignment) => {}
                () = sleep(LOOK_AGAIN) => {}
            }
        }
    }

    async fn try_start(&self, assignment: &Assignment) -> Result<Running, Obstacle> {
        let failed =
            |error: std::io::Error| Obstacle { reason: "CreateContainerError", message: Some(error.to_string()) };
        let config = &self.state.config;
        let record = self.state.container(self.slot);
        let launch = launch::prepare(config, &self.state.directory, assignment, &self.container)?;
        let run = if record.last.is_some() || matches!(record.state, ContainerState::Terminated(_)) {
            record.restart_count + 1
        } else {
            0
        };
        let (output, ends) = Output::make(&self.log, run, config.log_bytes_max).map_err(failed)?;
        let process = match &config.keeper {
            Some(keeper) => {
                let exit_file = self.log.exit_file(run);
                // What an earlier container of the same count wrote is not this one's.
                durable::remove_if_there(&exit_file).map_err(failed)?;
                let command = launch.kept(keeper, &exit_file, ends.stdout, ends.stderr);
                let mut command = command.ok_or_else(|| failed(std::io::Error::other("the keeper has no command")))?;
                Process::spawn_kept(&mut command, exit_file).await.map_err(failed)?
            }
            None => Process::spawn(&mut launch.command(ends.stdout, ends.stderr)).map_err(failed)?,
        };
        let process_record = process.record().clone();
        self.state.update(self.slot, |record| {
            if let ContainerState::Terminated(ended) = &record.state {
                record.last = Some(ended.clone());
            }
            record.restart_count = run;
            record.container_id = Some(format!("process://{}-{}-{run}", assignment.pod.uid, self.container.name));
            record.started = self.container.startup_probe.is_none();
            record.ready = record.started && self.container.readiness_probe.is_none();
            record.state =
                ContainerState::Running { started_at: clock::to_seconds(clock::now()), process: Some(process_record) };
        });
        let name = &self.container.name;
        self.tell(Weight::Normal, "Created", &format!("Created container: {name}"));
        self.tell(Weight::Normal, "Started", &format!("Started container {name}"));
        Ok(Running { process, output, launch: Some(launch), since: Instant::now() })
    }

    /// Until the container has ended, by itself or because it was told to.
    async fn watch_over(&mut self, running: Running) -> End {
        let Running { mut process, output, launch, .. } = running;
        let (to, mut findings) = mpsc::channel(4);
        let probes = tokio::spawn(self.probes(launch.clone(), to));
        let mut probing = true;
        let mut message = None;
        let (exit, stopped) = loop {
            if self.is_stopping() {
                let grace = self.stop.borrow().map_or(Duration::ZERO, |wish| wish.grace);
                self.tell(Weight::Normal, "Killing", &format!("Stopping container {}", self.container.name));
                break (self.end(&mut process, launch.as_ref(), grace).await, true);
            }
            tokio::select! {
                exit = process.wait() => break (exit, false),
                () = changed(&mut self.stop) => {}
                finding = findings.recv(), if probing => match finding {
                    None => probing = false,
                    Some(Finding::Failed(why)) => self.tell(Weight::Warning, "Unhealthy", &why),
                    Some(Finding::Unhealthy(why)) => {
                        let killed = format!("Container {} will be ended: {why}", self.container.name);
                        self.tell(Weight::Normal, "Killing", &killed);
                        let grace = self.state.pod().grace();
                        let exit = self.end(&mut process, launch.as_ref(), grace).await;
                        message = Some(why);
                        break (exit, self.is_stopping());
                    }
                    Some(finding) => self.note(&finding),
                },
            }
        };
        probes.abort();
        // The first process is the container; what it has left behind goes with it, and only then is its output complete.
        process.signal(Signal::KILL);
        output.finish().await;
        End { exit, stopped, message }
    }

    /// The probes of this run. After a restart of the agent they begin when the control plane has said again what the container's
    /// surroundings are: a probe that could not be made is no finding about the container.
    fn probes(&self, launch: Option<Launch>, to: mpsc::Sender<Finding>) -> impl Future<Output = ()> + Send + use<> {
        let (state, container) = (self.state.clone(), self.container.clone());
        let started_already = state.container(self.slot).started;
        let mut assignment = self.assignment.clone();
        async move {
            let mut launch = launch;
            while launch.is_none() {
                let now = assignment.borrow_and_update().clone();
                launch = launch::prepare(&state.config, &state.directory, &now, &container).ok();
                if launch.is_none() {
                    changed(&mut assignment).await;
                }
            }
            let around = Surroundings::new(state.config.node, &container, launch);
            probe::run(container, around, started_already, to).await;
        }
    }

    fn launch_again(&self) -> Option<Launch> {
        let assignment = self.assignment.borrow().clone();
        launch::prepare(&self.state.config, &self.state.directory, &assignment, &self.container).ok()
    }

    fn note(&self, finding: &Finding) {
        self.state.update(self.slot, |record| match finding {
            Finding::Started => {
                record.started = true;
                record.ready = record.ready || self.container.readiness_probe.is_none();
            }
            Finding::Ready => record.ready = true,
            Finding::NotReady | Finding::Unhealthy(_) => record.ready = false,
            Finding::Failed(_) => {}
        });
    }

    /// Asks the container to end, and ends it when its time is over. A later, shorter wish counts.
    async fn end(&mut self, process: &mut Process, launch: Option<&Launch>, grace: Duration) -> Exit {
        let mut deadline = Instant::now() + grace;
        self.state.update(self.slot, |record| record.ready = false);
        if let Some(hook) = &self.container.lifecycle.pre_stop {
            let launch = launch.cloned().or_else(|| self.launch_again());
            let around = Surroundings::new(self.state.config.node, &self.container, launch);
            tokio::select! {
                exit = process.wait() => return exit,
                done = timeout(grace, probe::act(hook, &around, grace)) => {
                    if let Ok(Err(reason)) = done {
                        warn!(container = %self.container.name, %reason, "preStop hook failed");
                    }
                }
            }
        }
        process.signal(Signal::TERM);
        loop {
            tokio::select! {
                exit = process.wait() => return exit,
                () = sleep_until(deadline) => {
                    process.signal(Signal::KILL);
                    return process.wait().await;
                }
                () = changed(&mut self.stop) => if let Some(wish) = *self.stop.borrow_and_update() {
                    deadline = deadline.min(Instant::now() + wish.grace);
                },
            }
        }
    }

    fn record_end(&self, exit: Exit, message: Option<String>) -> i32 {
        self.record_end_at(exit, message, &clock::to_seconds(clock::now()))
    }

    fn record_end_at(&self, exit: Exit, message: Option<String>, finished_at: &str) -> i32 {
        let (exit_code, signal, reason) = match exit {
            Exit::Code(0) => (0, None, "Completed"),
            Exit::Code(code) => (code, None, "Error"),
            Exit::Signal(signal) => (128 + signal, Some(signal), "Error"),
            Exit::Unknown => (137, None, "ContainerStatusUnknown"),
        };
        self.state.update(self.slot, |record| {
            let started_at = match &record.state {
                ContainerState::Running { started_at, .. } => started_at.clone(),
                _ => finished_at.to_owned(),
            };
            record.ready = false;
            record.started = false;
            record.state = ContainerState::Terminated(Ended {
                exit_code,
                signal,
                reason: reason.to_owned(),
                message,
                started_at,
                finished_at: finished_at.to_owned(),
                container_id: record.container_id.clone(),
            });
        });
        exit_code
    }

    /// Whether the container was told to end during the pause.
    async fn wait_to_restart(&mut self, pause: Duration) -> bool {
        if !pause.is_zero() {
            let (name, pod) = (&self.container.name, self.state.pod());
            let words = format!(
                "Back-off restarting failed container {name} in pod {}_{}({})",
                pod.name, pod.namespace, pod.uid
            );
            self.tell(Weight::Warning, "BackOff", &words);
            self.state.update(self.slot, |record| {
                if let ContainerState::Terminated(ended) = &record.state {
                    record.last = Some(ended.clone());
                }
                record.state = ContainerState::Waiting {
                    reason: "CrashLoopBackOff".to_owned(),
                    message: Some(format!("back-off {} s restarting failed container", pause.as_secs())),
                };
            });
            let over = Instant::now() + pause;
            loop {
                if self.is_stopping() {
                    return true;
                }
                tokio::select! {
                    () = sleep_until(over) => break,
                    () = changed(&mut self.stop) => {}
                }
            }
        }
        self.is_stopping()
    }
}

/// The next change; never, once the sender is gone: then the agent ends, and the pod is left to the next one.
async fn changed<T>(of: &mut watch::Receiver<T>) {
    if of.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
