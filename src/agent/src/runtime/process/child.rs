//! One process group: started by this agent, or by an earlier run of it and taken up again.
//!
//! A container is started through its keeper ([`crate::keeper`]), which knows its exit code also when no agent was
//! there; commands of probes and hooks are started directly.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::keeper::ExitRecord;
use crate::status::{KeeperRecord, ProcessRecord};

/// A keeper says within this how the start went, on the slowest host.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Code(i32),
    Signal(i32),
    /// Nobody was there to ask for it.
    Unknown,
}

impl From<&ExitRecord> for Exit {
    fn from(record: &ExitRecord) -> Self {
        match (record.code, record.signal) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

/// The first process of a container and, through its group, what it has started.
#[derive(Debug)]
pub(super) struct Process {
    record: ProcessRecord,
    source: Source,
    /// Where the keeper writes how it ended.
    exit_file: Option<PathBuf>,
}

/// What ends when the process has: itself, or its keeper.
#[derive(Debug)]
enum Source {
    Own(Child),
    Adopted(AsyncFd<OwnedFd>),
}

impl Process {
    /// Starts `command` as the leader of a new process group.
    pub(super) fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.process_group(0).kill_on_drop(false).spawn()?;
        let pid = pid_of(&child)?;
        let record = record_of(pid, start_ticks(pid).unwrap_or(0), None);
        Ok(Self { record, source: Source::Own(child), exit_file: None })
    }

    /// Starts a keeper, whose `command` names the container's program; it says over its standard output how that went.
    pub(super) async fn spawn_kept(command: &mut Command, exit_file: PathBuf) -> io::Result<Self> {
        let mut child = command.process_group(0).kill_on_drop(false).spawn()?;
        let keeper = pid_of(&child)?;
        let keeper = KeeperRecord { pid: keeper, start_ticks: start_ticks(keeper).unwrap_or(0) };
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("a keeper's output is piped"))?;
        let mut line = String::new();
        match timeout(START_TIMEOUT, BufReader::new(stdout).read_line(&mut line)).await {
            Ok(read) => read?,
            Err(_elapsed) => {
                child.start_kill()?;
                return Err(io::Error::other("the container's keeper does not say whether it has started"));
            }
        };
        let started = line.trim_end().strip_prefix("started ").and_then(|words| {
            let (pid, ticks) = words.split_once(' ')?;
            Some((pid.parse().ok()?, ticks.parse().ok()?))
        });
        let Some((pid, ticks)) = started else {
            let why = line.trim_end().strip_prefix("failed ").unwrap_or("its keeper ended");
            return Err(io::Error::other(why.to_owned()));
        };
        let record = record_of(pid, ticks, Some(keeper));
        Ok(Self { record, source: Source::Own(child), exit_file: Some(exit_file) })
    }

    /// Takes up a process of an earlier run; nothing when it has ended, even if another has its pid now.
    pub(super) fn adopt(record: &ProcessRecord, exit_file: &Path) -> Option<Self> {
        if record.boot_id != boot_id() {
            return None;
        }
        let (pid, ticks, exit_file) = match &record.keeper {
            Some(keeper) => (keeper.pid, keeper.start_ticks, Some(exit_file.to_owned())),
            None => (record.pid, record.start_ticks, None),
        };
        let descriptor = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::NONBLOCK).ok()?;
        // Checked after opening: from here on the descriptor and the start time mean the same process.
        if start_ticks(pid)? != ticks {
            return None;
        }
        Some(Self { record: record.clone(), source: Source::Adopted(registered(descriptor).ok()?), exit_file })
    }

    /// Ends what is left of a process that lost its keeper.
    pub(super) fn end_remains(record: &ProcessRecord) {
        if record.boot_id == boot_id() && start_ticks(record.pid) == Some(record.start_ticks) {
            signal_group(record.pid, Signal::KILL);
        }
    }

    pub(super) fn record(&self) -> &ProcessRecord {
        &self.record
    }

    /// Waits for its end. May be dropped and called again.
    pub(super) async fn wait(&mut self) -> Exit {
        let own = match &mut self.source {
            Source::Own(child) => match child.wait().await {
                Ok(status) => match (status.code(), status.signal()) {
                    (Some(code), _) => Exit::Code(code),
                    (None, Some(signal)) => Exit::Signal(signal),
                    (None, None) => Exit::Unknown,
                },
                Err(_not_ours) => Exit::Unknown,
            },
            Source::Adopted(descriptor) => {
                // A process descriptor becomes readable when its process ends.
                let _ended = descriptor.readable().await;
                Exit::Unknown
            }
        };
        match &self.exit_file {
            // What ended is the keeper; without a word from it the container's end is unknown, or still to come.
            Some(exit_file) => ExitRecord::read(exit_file).map_or(Exit::Unknown, |record| Exit::from(&record)),
            None => own,
        }
    }

    /// Sends a signal to the whole group. A group that is gone is what was wanted.
    pub(super) fn signal(&self, signal: Signal) {
        signal_group(self.record.pid, signal);
    }
}

fn pid_of(child: &Child) -> io::Result<i32> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    pid.ok_or_else(|| io::Error::other("a started process has no pid"))
}

fn record_of(pid: i32, start_ticks: u64, keeper: Option<KeeperRecord>) -> ProcessRecord {
    ProcessRecord { pid, start_ticks, boot_id: boot_id(), keeper }
}

fn signal_group(pid: i32, signal: Signal) {
    if let Some(group) = Pid::from_raw(pid) {
        let _gone = kill_process_group(group, signal);
    }
}

// Its replacement is an unsafe function, for types whose descriptor may change; an owned descriptor does not.
#[expect(deprecated, reason = "the safe constructor is sound for an owned descriptor")]
fn registered(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(descriptor)
}

/// When the process started, in clock ticks since boot; nothing when there is none or only its remains.
pub(crate) fn start_ticks(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name stands in parentheses and may hold anything, parentheses included.
    let (_, rest) = text.rsplit_once(") ")?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned()).unwrap_or_default()
}
