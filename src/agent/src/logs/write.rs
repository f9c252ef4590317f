//! Writes the output of one run of a container: cut into lines, stamped, turned over by size.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use crate::clock;
use crate::logs::{ContainerLog, Written};

/// A longer line is written in parts, so that no output makes the agent hold more.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// Which of its two outputs a process wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// The file of one run. Dropping it writes what is left of unfinished lines and tells followers that the end is reached.
#[derive(Debug)]
pub(crate) struct LogWriter {
    log: Arc<ContainerLog>,
    run: u32,
    file: File,
    bytes: u64,
    bytes_max: u64,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl LogWriter {
    /// Opens the run's file at its end and removes those of runs nobody can ask for any more.
    pub(crate) fn open(log: Arc<ContainerLog>, run: u32, bytes_max: u64) -> io::Result<Self> {
        let file = append_to(&log, run)?;
        let bytes = file.metadata()?.len();
        if let Some(forgotten) = run.checked_sub(2) {
            let _missing = std::fs::remove_file(log.file(forgotten));
            let _missing = std::fs::remove_file(log.older(forgotten));
        }
        log.written.send_replace(Written { run, turned: 0, bytes, open: true });
        Ok(Self { log, run, file, bytes, bytes_max, stdout: Vec::new(), stderr: Vec::new() })
    }

    /// Takes what a process wrote.
    pub(crate) fn write(&mut self, stream: Stream, mut bytes: &[u8]) -> io::Result<()> {
        let mut pending = std::mem::take(self.pending(stream));
        let mut out = Vec::with_capacity(bytes.len() + 64);
        while !bytes.is_empty() {
            let room = LINE_BYTES_MAX.saturating_sub(pending.len());
            let window = &bytes[..bytes.len().min(room)];
            match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    pending.extend_from_slice(&window[..end]);
                    stamp(&mut out, stream, "F", &pending);
                    pending.clear();
                    bytes = &bytes[end + 1..];
                }
                None => {
                    pending.extend_from_slice(window);
                    bytes = &bytes[window.len()..];
                    if pending.len() >= LINE_BYTES_MAX {
                        stamp(&mut out, stream, "P", &pending);
                        pending.clear();
                    }
                }
            }
        }
        *self.pending(stream) = pending;
        self.append(&out)
    }

    fn pending(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        if self.bytes > 0 && self.bytes + lines.len() as u64 > self.bytes_max {
            std::fs::rename(self.log.file(self.run), self.log.older(self.run))?;
            self.file = append_to(&self.log, self.run)?;
            self.bytes = 0;
            self.log.written.send_modify(|written| {
                written.turned += 1;
                written.bytes = 0;
            });
        }
        self.file.write_all(lines)?;
        self.bytes += lines.len() as u64;
        self.log.written.send_modify(|written| written.bytes = self.bytes);
        Ok(())
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        let mut out = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let pending = std::mem::take(self.pending(stream));
            if !pending.is_empty() {
                stamp(&mut out, stream, "F", &pending);
            }
        }
        let _nobody_to_tell = self.append(&out);
        let run = self.run;
        self.log.written.send_modify(|written| {
            if written.run == run {
                written.open = false;
            }
        });
    }
}

fn append_to(log: &ContainerLog, run: u32) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(log.file(run))
}

fn stamp(out: &mut Vec<u8>, stream: Stream, tag: &str, text: &[u8]) {
    out.extend_from_slice(clock::to_nanoseconds(clock::now()).as_bytes());
    out.push(b' ');
    out.extend_from_slice(stream.name().as_bytes());
    out.push(b' ');
    out.extend_from_slice(tag.as_bytes());
    out.push(b' ');
    out.extend_from_slice(text);
    out.push(b'\n');
}
