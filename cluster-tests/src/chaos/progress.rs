//! What a run shows while it goes on: samples of load, latency and leader, one line that is kept up to date on a terminal, lines now and
//! then elsewhere.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::memory::{Memory, resident_mib};
use crate::client::Client;
use crate::rig::Rig;
use crate::workload::Load;

/// Between two samples.
const SAMPLE: Duration = Duration::from_millis(250);
/// Samples of one run that are kept.
const SAMPLES_MAX: usize = 8_000;
/// Between two lines that are not on a terminal.
const LINE: Duration = Duration::from_secs(5);
/// Longest line on a terminal.
const WIDTH: usize = 150;

/// What is going on, for whoever looks.
#[derive(Debug, Clone, Default)]
pub struct Board {
    /// Which run of how many, and which scenario.
    pub title: String,
    /// What the run is doing.
    pub phase: String,
    /// Faults in force.
    pub faults: Vec<String>,
    /// The whole that is to be done.
    pub total: Option<Duration>,
    /// When all of it began; nothing is shown without.
    pub begun: Option<Instant>,
}

/// One look at a run.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// When, in milliseconds since the run began.
    pub at_ms: u64,
    /// Requests acknowledged a second, lately.
    pub rate: f64,
    /// Half of the latest steps took no longer, in milliseconds.
    pub p50_ms: f64,
    /// Ninety-nine of a hundred took no longer.
    pub p99_ms: f64,
    /// How long the oldest step under way waits.
    pub waiting_ms: f64,
    /// Who leads, as far as anybody says.
    pub leader: Option<u64>,
    /// The highest term anybody says.
    pub term: Option<u64>,
    /// Memory of the harness itself, in MiB.
    pub memory_mib: u64,
    /// Memory of the replica that has most, in MiB.
    pub replica_mib: u64,
}

/// Takes samples until it is stopped.
pub(super) struct Sampler {
    stop: oneshot::Sender<()>,
    task: JoinHandle<(Vec<Sample>, Memory)>,
}

impl Sampler {
    pub(super) fn start(rig: &Rig, load: Arc<Load>, board: Arc<Mutex<Board>>, begun: Instant) -> Result<Self> {
        let clients = rig.ids().into_iter().map(|id| rig.admin(id)).collect::<Result<Vec<Client>>>()?;
        let owners = Arc::clone(rig.network().owners());
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let (mut samples, mut memory) = (Vec::new(), Memory::default());
            let mut shown = Shown::default();
            let mut tick = tokio::time::interval(SAMPLE);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = &mut stopped => return (samples, memory),
                    _ = tick.tick() => {}
                }
                let mut sample = look(&clients, &load, begun).await;
                let resident = |(id, process)| Some((id, resident_mib(process)?));
                let replicas: BTreeMap<u16, u64> = owners.processes().into_iter().filter_map(resident).collect();
                sample.replica_mib = replicas.values().copied().max().unwrap_or_default();
                memory.see(sample.at_ms, sample.memory_mib, &replicas);
                shown.show(&board, &sample);
                samples.push(sample);
                if samples.len() >= SAMPLES_MAX {
                    // Hours of them must fit: every other one is left out, again and again.
                    let mut kept = false;
                    samples.retain(|_| {
                        kept = !kept;
                        kept
                    });
                }
            }
        });
        Ok(Self { stop, task })
    }

    pub(super) async fn stop(self) -> (Vec<Sample>, Memory) {
        let _task_is_gone = self.stop.send(());
        self.task.await.unwrap_or_default()
    }
}

async fn look(clients: &[Client], load: &Load, begun: Instant) -> Sample {
    let asked = clients.iter().map(|client| async {
        let asked = tokio::time::timeout(SAMPLE, client.get("/api/admin/status")).await;
        asked.ok()?.ok()?.expect(200).ok()
    });
    let answers = futures::future::join_all(asked).await;
    let said =
        answers.iter().flatten().filter_map(|status| Some((status["term"].as_u64()?, status["leader"].as_u64())));
    let newest = said.max();
    let latency = load.latency();
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    Sample {
        at_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        rate: load.rate(),
        p50_ms: ms(latency.p50),
        p99_ms: ms(latency.p99),
        waiting_ms: ms(latency.waiting),
        leader: newest.and_then(|(_, leader)| leader),
        term: newest.map(|(term, _)| term),
        memory_mib: resident_mib(std::process::id()).unwrap_or_default(),
        replica_mib: 0,
    }
}

#[derive(Default)]
struct Shown {
    last: Option<(Instant, String)>,
}

impl Shown {
    fn show(&mut self, board: &Mutex<Board>, sample: &Sample) {
        let board = board.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(begun) = board.begun else { return };
        let faults = if board.faults.is_empty() { "no fault".to_owned() } else { board.faults.join(", ") };
        let clock = |time: Duration| format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60);
        let total = board.total.map_or_else(String::new, |total| format!("/{}", clock(total)));
        let leader = sample.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
        let line = format!(
            "{}{total}  {}  {}: {faults}  {:.0} ops/s  p99 {:.0} ms  leader {leader}",
            clock(begun.elapsed()),
            board.title,
            board.phase,
            sample.rate,
            sample.p99_ms.max(sample.waiting_ms),
        );
        let mut err = std::io::stderr();
        let key = format!("{}{}", board.phase, board.title);
        if err.is_terminal() {
            let _nobody_looks = write!(err, "\r\x1b[2K{}", line.chars().take(WIDTH).collect::<String>());
            let _nobody_looks = err.flush();
        } else if self.last.as_ref().is_none_or(|(at, last)| at.elapsed() > LINE || *last != key) {
            let _nobody_looks = writeln!(err, "{line}");
            self.last = Some((Instant::now(), key));
        }
    }
}
