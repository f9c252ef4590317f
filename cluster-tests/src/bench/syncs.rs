//! Counts the calls by which processes make the disk keep something.
//!
//! `perf stat` counts them at the kernel's tracepoints and costs next to nothing; where it may not, `strace` counts
//! them and slows the processes down, which changes how many operations share a sync. Which one was used is told.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

const CALLS: [&str; 2] = ["fsync", "fdatasync"];

/// How calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Tracepoints of the kernel.
    Perf,
    /// Stopping the process at each call.
    Strace,
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Perf => "perf stat, at the kernel's tracepoints",
            Self::Strace => "strace -c, which slows the servers",
        })
    }
}

/// The best way that works here, if one does.
#[must_use]
pub fn method() -> Option<Method> {
    let works = |command: &mut Command| {
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if works(Command::new("perf").args(["stat", "-e", "syscalls:sys_enter_fdatasync", "true"])) {
        return Some(Method::Perf);
    }
    works(Command::new("strace").args(["-c", "-e", "trace=fdatasync", "true"])).then_some(Method::Strace)
}

/// A count under way.
#[derive(Debug)]
pub struct Counting {
    child: Child,
    method: Method,
}

impl Counting {
    /// Begins to count.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(method: Method, pids: &[i32]) -> Result<Self> {
        let mut command = match method {
            Method::Perf => {
                let events: Vec<String> = CALLS.iter().map(|call| format!("syscalls:sys_enter_{call}")).collect();
                let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
                let mut perf = Command::new("perf");
                perf.args(["stat", "-x", ",", "-e", &events.join(","), "-p", &pids.join(",")]);
                perf
            }
            Method::Strace => {
                let mut strace = Command::new("strace");
                strace.args(["-f", "-c", "-e", &format!("trace={}", CALLS.join(","))]);
                for pid in pids {
                    strace.args(["-p", &pid.to_string()]);
                }
                strace
            }
        };
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().context("the counter cannot be started")?;
        Ok(Self { child, method })
    }

    /// Ends the count: calls since it began.
    ///
    /// # Errors
    /// When the program said nothing that can be read.
    pub fn stop(self) -> Result<u64> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a pid is positive")?;
        kill_process(pid, Signal::INT)?;
        let output = self.child.wait_with_output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        let calls = match self.method {
            // "17,,syscalls:sys_enter_fsync,…"
            Method::Perf => told
                .lines()
                .filter_map(|line| line.split_once(",,syscalls:"))
                .map(|(calls, _)| calls)
                .collect::<Vec<_>>(),
            // "% time  seconds  usecs/call  calls  [errors]  syscall"
            Method::Strace => told
                .lines()
                .filter(|line| line.split_whitespace().last().is_some_and(|call| CALLS.contains(&call)))
                .filter_map(|line| line.split_whitespace().nth(3))
                .collect(),
        };
        if calls.is_empty() && self.method == Method::Perf {
            bail!("perf counted nothing: {told}");
        }
        calls.iter().map(|calls| calls.trim().parse::<u64>().with_context(|| format!("'{calls}' is no count"))).sum()
    }
}
