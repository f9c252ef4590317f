//! One process group: started by this agent, or by an earlier run of it and taken up again.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};

use crate::status::ProcessRecord;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Code(i32),
    Signal(i32),
    /// Nobody was there to ask for it.
    Unknown,
}

/// The first process of a container and, through its group, what it has started.
#[derive(Debug)]
pub(super) struct Process {
    record: ProcessRecord,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Own(Child),
    Adopted(AsyncFd<OwnedFd>),
}

impl Process {
    /// Starts `command` as the leader of a new process group.
    pub(super) fn spawn(command: &mut Command) -> io::Result<Self> {
        let child = command.process_group(0).kill_on_drop(false).spawn()?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .ok_or_else(|| io::Error::other("a started process has no pid"))?;
        let record = ProcessRecord { pid, start_ticks: start_ticks(pid).unwrap_or(0), boot_id: boot_id() };
        Ok(Self { record, source: Source::Own(child) })
    }

    /// Takes up a process of an earlier run; nothing when it has ended, even if another has its pid now.
    pub(super) fn adopt(record: &ProcessRecord) -> Option<Self> {
        if record.boot_id != boot_id() {
            return None;
        }
        let descriptor = pidfd_open(Pid::from_raw(record.pid)?, PidfdFlags::NONBLOCK).ok()?;
        // Checked after opening: from here on the descriptor and the start time mean the same process.
        if start_ticks(record.pid)? != record.start_ticks {
            return None;
        }
        Some(Self { record: record.clone(), source: Source::Adopted(registered(descriptor).ok()?) })
    }

    pub(super) fn record(&self) -> &ProcessRecord {
        &self.record
    }

    /// Waits for its end. May be dropped and called again.
    pub(super) async fn wait(&mut self) -> Exit {
        match &mut self.source {
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
        }
    }

    /// Sends a signal to the whole group. A group that is gone is what was wanted.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(group) = Pid::from_raw(self.record.pid) {
            let _gone = kill_process_group(group, signal);
        }
    }
}

// Its replacement is an unsafe function, for types whose descriptor may change; an owned descriptor does not.
#[expect(deprecated, reason = "the safe constructor is sound for an owned descriptor")]
fn registered(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(descriptor)
}

/// When the process started, in clock ticks since boot; nothing when there is none or only its remains.
fn start_ticks(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name stands in parentheses and may hold anything, parentheses included.
    let (_, rest) = text.rsplit_once(") ")?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned()).unwrap_or_default()
}
