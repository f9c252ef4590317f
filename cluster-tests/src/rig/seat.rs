//! [`Seat`]: where one replica sits: how it is started, its process while it has one, its directory, its layer.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::fault::layer::Layer;

/// `quiltd` stops when its standard input ends, if this is set: a harness that was killed leaves nothing behind.
pub(super) const FOLLOW_STDIN: &str = "QUILTD_STOP_WITH_STDIN";

/// Whether a replica has a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running,
    /// It is there and stopped in its middle.
    Paused,
    /// There is none.
    Absent,
}

/// A process that has ended by itself.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// The last it said.
    pub last_words: String,
}

/// Where one replica sits.
#[derive(Debug)]
pub struct Seat {
    binary: PathBuf,
    arguments: Vec<String>,
    data: PathBuf,
    log: PathBuf,
    layer: Option<Layer>,
    process: Option<Child>,
    paused: bool,
}

impl Seat {
    pub(super) fn new(
        binary: PathBuf,
        arguments: Vec<String>,
        data: PathBuf,
        log: PathBuf,
        layer: Option<Layer>,
    ) -> Self {
        Self { binary, arguments, data, log, layer, process: None, paused: false }
    }

    /// Its next process is made of this.
    pub(super) fn set_binary(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where its words go.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What is under it.
    #[must_use]
    pub fn layer(&self) -> Option<&Layer> {
        self.layer.as_ref()
    }

    /// Whether it has a process, as far as the harness knows.
    #[must_use]
    pub fn state(&self) -> State {
        match (&self.process, self.paused) {
            (None, _) => State::Absent,
            (Some(_), true) => State::Paused,
            (Some(_), false) => State::Running,
        }
    }

    pub(super) fn launch(&mut self) -> Result<u32> {
        ensure!(self.process.is_none(), "the replica of {} runs already", self.data.display());
        let output = OpenOptions::new().append(true).create(true).open(&self.log)?;
        let mut command = Command::new(&self.binary);
        command.args(&self.arguments).env(FOLLOW_STDIN, "1");
        if let Some(layer) = &self.layer {
            command.envs(layer.environment());
        }
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("{} cannot be started", self.binary.display()))?;
        let pid = child.id();
        self.process = Some(child);
        self.paused = false;
        Ok(pid)
    }

    /// Its process.
    ///
    /// # Errors
    /// When it has none.
    pub fn pid(&self) -> Result<u32> {
        self.process.as_ref().map(Child::id).with_context(|| format!("no replica runs in {}", self.data.display()))
    }

    /// Sends its process a signal.
    ///
    /// # Errors
    /// When it has none.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid()?)?).context("a pid is positive")?;
        kill_process(pid, signal).with_context(|| format!("process {pid:?} cannot be sent {signal:?}"))?;
        match signal {
            Signal::STOP => self.paused = true,
            Signal::CONT => self.paused = false,
            _ends => {}
        }
        Ok(())
    }

    /// Waits for the end of its process, which was sent for.
    ///
    /// # Errors
    /// When it has none.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let mut child = self.process.take().context("it has no process")?;
        self.paused = false;
        Ok(child.wait()?)
    }

    /// Asks its process to stop in order, and waits for that.
    ///
    /// # Errors
    /// When it does not in time, and is killed.
    pub async fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let started = Instant::now();
        loop {
            if let Some(ended) = self.ended()? {
                return Ok(ended.status);
            }
            if started.elapsed() > limit {
                self.signal(Signal::KILL)?;
                self.wait()?;
                bail!("the replica of {} did not stop within {limit:?} and was killed", self.data.display());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether its process has ended, and how. From then on it has none.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ended(&mut self) -> Result<Option<Ended>> {
        let Some(child) = &mut self.process else { return Ok(None) };
        let Some(status) = child.try_wait()? else { return Ok(None) };
        self.process = None;
        self.paused = false;
        let log = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log[log.len().saturating_sub(4_000)..]).into_owned();
        let lines: Vec<&str> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(3).collect();
        Ok(Some(Ended { status, last_words: lines.into_iter().rev().collect::<Vec<_>>().join(" | ") }))
    }

    /// Whether the system still shows its process as more than the remains of one.
    #[must_use]
    pub fn is_there(&self) -> bool {
        let about = self.pid().ok().and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        about.is_some_and(|about| about.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
    }

    /// Whether the system says that its process is stopped in its middle.
    ///
    /// # Errors
    /// When it has none.
    pub fn is_frozen(&self) -> Result<bool> {
        let about = fs::read_to_string(format!("/proc/{}/stat", self.pid()?))?;
        // The name before it may hold anything, brackets included.
        Ok(about.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(child) = &mut self.process {
            let _gone = child.kill();
            let _collected = child.wait();
        }
    }
}
