//! The keeper: a small process between the agent and one container, which waits for the container's end and writes
//! down how it ended. An agent that was not there learns it from the file; nobody else could tell it, since only a
//! parent is told the exit code.
//!
//! It is started by the agent as `<keeper> EXIT_FILE PROGRAM NAME [ARGUMENT…]`, in the container's environment and
//! directory. Its standard input is what the container gets as its standard output, its standard error the container's,
//! and its own standard output takes one line to the agent: `started PID TICKS` or `failed WHY`. The container has a
//! process group of its own, so signals to it do not reach the keeper.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::durable;
use crate::runtime::process::start_ticks;

/// How a container ended, as its keeper writes it down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    /// Its exit code, unless a signal ended it.
    pub(crate) code: Option<i32>,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// When, RFC 3339.
    pub(crate) finished_at: String,
}

impl ExitRecord {
    /// What the keeper has written, if it has.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let bytes = durable::read_if_there(path).ok()??;
        serde_json::from_slice(&bytes).ok()
    }
}

/// Runs a keeper to its end, with the arguments behind its own name.
#[must_use]
pub fn run(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(exit_file), Some(program), Some(name)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return ExitCode::from(2);
    };
    match keep(&PathBuf::from(exit_file), program, &name, arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The agent may be gone; then nobody is left to tell.
            let _nobody_listens = tell(&format!("failed {error}"));
            ExitCode::FAILURE
        }
    }
}

fn keep(
    exit_file: &Path,
    program: OsString,
    name: &OsString,
    arguments: impl Iterator<Item = OsString>,
) -> io::Result<()> {
    let stdout = io::stdin().as_fd().try_clone_to_owned()?;
    let mut child = Command::new(program)
        .arg0(name)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::from(stdout))
        .process_group(0)
        .spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    // An agent that ends right now takes nothing with it: the container runs, and is kept.
    let _nobody_listens = tell(&format!("started {pid} {}", start_ticks(pid).unwrap_or(0)));
    let status = child.wait()?;
    let record =
        ExitRecord { code: status.code(), signal: status.signal(), finished_at: clock::to_seconds(clock::now()) };
    durable::swap(exit_file, &serde_json::to_vec(&record)?)
}

fn tell(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", line.replace('\n', " "))?;
    stdout.flush()
}
