//! Carries what a process writes into its output file, through two named pipes.
//!
//! The process holds its pipes open for reading too, so it never meets a broken pipe: when the agent ends, what is written waits in the pipe
//! until the next agent opens it.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::logs::ContainerLog;
use crate::logs::write::{LogWriter, Stream};

const BUFFER: usize = 16 * 1024;

/// The process's ends of its pipes.
#[derive(Debug)]
pub(super) struct ProcessEnds {
    pub(super) stdout: File,
    pub(super) stderr: File,
}

/// Carries output until told to finish. Dropping it leaves the pipes to the next agent.
#[derive(Debug)]
pub(super) struct Output {
    finish: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Output {
    /// New, empty pipes for a process about to be started.
    pub(super) fn make(log: &Arc<ContainerLog>, run: u32, bytes_max: u64) -> io::Result<(Self, ProcessEnds)> {
        for name in ["stdout", "stderr"] {
            let path = log.directory.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        }
        let output = Self::take_up(log, run, bytes_max)?;
        let ends = ProcessEnds {
            stdout: both_ways(&log.directory.join("stdout"))?,
            stderr: both_ways(&log.directory.join("stderr"))?,
        };
        Ok((output, ends))
    }

    /// The pipes of a process that runs already.
    pub(super) fn take_up(log: &Arc<ContainerLog>, run: u32, bytes_max: u64) -> io::Result<Self> {
        let writer = LogWriter::open(log.clone(), run, bytes_max)?;
        let open = |name: &str| pipe::OpenOptions::new().read_write(true).open_receiver(log.directory.join(name));
        let (finish, finished) = oneshot::channel();
        let task = tokio::spawn(carry(open("stdout")?, open("stderr")?, writer, finished));
        Ok(Self { finish: Some(finish), task })
    }

    /// Carries what is still in the pipes, now that nobody writes any more.
    pub(super) async fn finish(mut self) {
        if let Some(finish) = self.finish.take() {
            let _already_over = finish.send(());
        }
        let _panicked = (&mut self.task).await;
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // After `finish` this changes nothing.
        self.task.abort();
    }
}

fn both_ways(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

async fn carry(
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    mut writer: LogWriter,
    mut finished: oneshot::Receiver<()>,
) {
    let mut buffer = vec![0_u8; BUFFER];
    loop {
        let over = tokio::select! {
            _ = stdout.readable() => false,
            _ = stderr.readable() => false,
            ended = &mut finished => match ended {
                Ok(()) => true,
                // The agent ends, the process goes on.
                Err(_dropped) => return,
            },
        };
        for (stream, pipe) in [(Stream::Stdout, &stdout), (Stream::Stderr, &stderr)] {
            loop {
                match pipe.try_read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => {
                        if let Err(error) = writer.write(stream, &buffer[..count]) {
                            // Output is dropped rather than the process stopped: a full disk must not end what runs.
                            warn!(%error, "output of a container cannot be written");
                        }
                    }
                    Err(_empty) => break,
                }
                // One busy stream must not starve the other, nor the end.
                if !over {
                    break;
                }
            }
        }
        if over {
            return;
        }
    }
}
