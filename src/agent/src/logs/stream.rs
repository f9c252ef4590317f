//! Reads the output of one run of a container back, from the tail or from a time, and on to its end while it is being written.

use std::fs::File;
use std::io::{self, Read as _, Seek, SeekFrom};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::logs::request::Read;
use crate::logs::{ContainerLog, Written};

const BLOCK: usize = 64 * 1024;

/// Sends the output of `run` until its end, until the limit, or until nobody listens.
pub(crate) async fn send(log: Arc<ContainerLog>, run: u32, read: Read, to: mpsc::Sender<io::Result<Bytes>>) {
    if let Err(error) = copy(&log, run, &read, &to).await {
        let _nobody_listens = to.send(Err(error)).await;
    }
}

async fn copy(log: &ContainerLog, run: u32, read: &Read, to: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    let mut written = log.written.subscribe();
    let mut filter = Filter::new(read);
    let (mut files, mut turned) = open_all(log, run, &mut written)?;
    if let Some(lines) = read.tail_lines {
        seek_to_tail(&mut files, lines)?;
    }
    let mut files = files.into_iter();
    let Some(mut file) = files.next() else {
        return Ok(());
    };
    let mut block = vec![0_u8; BLOCK];
    loop {
        // What is known before reading: if that says the file is complete, reaching its end means the end.
        let before = *written.borrow_and_update();
        let count = file.read(&mut block)?;
        if count > 0 {
            let out = filter.take(&block[..count]);
            if !out.is_empty() && to.send(Ok(out.into())).await.is_err() {
                return Ok(());
            }
            if filter.is_full() {
                return Ok(());
            }
            continue;
        }
        if let Some(next) = files.next() {
            file = next;
            continue;
        }
        if !read.follow {
            return Ok(());
        }
        if before.run == run && before.turned > turned {
            turned = before.turned;
            file = File::open(log.file(run))?;
            continue;
        }
        if before.run != run || !before.open {
            return Ok(());
        }
        tokio::select! {
            changed = written.changed() => if changed.is_err() { return Ok(()) },
            () = to.closed() => return Ok(()),
        }
    }
}

/// The files of a run, the older one first, as they were at one moment.
fn open_all(
    log: &ContainerLog,
    run: u32,
    written: &mut tokio::sync::watch::Receiver<Written>,
) -> io::Result<(Vec<File>, u64)> {
    loop {
        let before = *written.borrow_and_update();
        let mut files = Vec::new();
        for path in [log.older(run), log.file(run)] {
            match File::open(path) {
                Ok(file) => files.push(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let after = *written.borrow();
        if (before.run, before.turned) == (after.run, after.turned) {
            return Ok((files, before.turned));
        }
    }
}

/// Sets the files so that reading them in order gives their last `lines` lines.
fn seek_to_tail(files: &mut Vec<File>, lines: u64) -> io::Result<()> {
    let mut missing = lines;
    let mut keep_from = files.len().saturating_sub(1);
    for index in (0..files.len()).rev() {
        keep_from = index;
        let found = seek_back(&mut files[index], missing)?;
        missing -= found;
        if missing == 0 {
            break;
        }
    }
    files.drain(..keep_from);
    Ok(())
}

/// Sets a file before its last `lines` lines, or at its start when it has fewer; says how many lines follow.
fn seek_back(file: &mut File, lines: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(0);
    }
    let mut block = vec![0_u8; BLOCK];
    let mut at = end;
    let mut found = 0;
    while at > 0 {
        let size = at.min(BLOCK as u64);
        at -= size;
        let size = usize::try_from(size).unwrap_or(BLOCK);
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut block[..size])?;
        for index in (0..size).rev() {
            if block[index] != b'\n' {
                continue;
            }
            // The newline that ends the line before the tail: the tail starts behind it.
            if found == lines {
                file.seek(SeekFrom::Start(at + index as u64 + 1))?;
                return Ok(found);
            }
            found += 1;
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(found)
}

/// Turns stamped lines into what was asked for.
#[derive(Debug)]
struct Filter<'a> {
    read: &'a Read,
    unfinished: Vec<u8>,
    left: Option<u64>,
    since_reached: bool,
}

impl<'a> Filter<'a> {
    fn new(read: &'a Read) -> Self {
        Self { read, unfinished: Vec::new(), left: read.limit_bytes, since_reached: read.since.is_none() }
    }

    fn is_full(&self) -> bool {
        self.left == Some(0)
    }

    fn take(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let mut line = std::mem::take(&mut self.unfinished);
            line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.line(&line, &mut out);
        }
        self.unfinished.extend_from_slice(bytes);
        if let Some(left) = &mut self.left {
            let taken = (*left).min(out.len() as u64);
            out.truncate(usize::try_from(taken).unwrap_or(usize::MAX));
            *left -= taken;
        }
        out
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let mut fields = line.splitn(4, |byte| *byte == b' ');
        let (Some(time), Some(stream), Some(tag), Some(text)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return;
        };
        if !self.since_reached {
            let since = self.read.since.as_deref().unwrap_or_default();
            if time < since.as_bytes() {
                return;
            }
            self.since_reached = true;
        }
        if let Some(wanted) = &self.read.stream
            && wanted.as_bytes() != stream
        {
            return;
        }
        if self.read.timestamps {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        out.extend_from_slice(text);
        if tag != b"P" {
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{mpsc, watch};

    use super::send;
    use crate::logs::ContainerLog;
    use crate::logs::request::Read;
    use crate::logs::write::{LogWriter, Stream};

    fn log(directory: &std::path::Path) -> Arc<ContainerLog> {
        Arc::new(ContainerLog { directory: directory.to_owned(), written: watch::Sender::default() })
    }

    async fn read_all(log: &Arc<ContainerLog>, read: Read) -> String {
        let (to, mut from) = mpsc::channel(4);
        tokio::spawn(send(log.clone(), 0, read, to));
        let mut text = Vec::new();
        while let Some(part) = from.recv().await {
            text.extend_from_slice(&part.expect("readable"));
        }
        String::from_utf8(text).expect("text")
    }

    fn tail(lines: u64) -> Read {
        Read { tail_lines: Some(lines), ..Read::default() }
    }

    /// All, the tail, none, more than there is, a limit, one stream; also across a file that was turned over.
    #[tokio::test]
    async fn reads_what_was_asked_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = log(directory.path());
        let mut writer = LogWriter::open(log.clone(), 0, 200).expect("opens");
        for number in 0..5 {
            writer.write(Stream::Stdout, format!("line {number}\n").as_bytes()).expect("writes");
        }
        writer.write(Stream::Stderr, b"no newline").expect("writes");
        drop(writer);
        assert!(log.older(0).exists(), "five stamped lines exceed 200 bytes");

        let all = read_all(&log, Read::default()).await;
        assert!(all.ends_with("line 3\nline 4\nno newline\n"), "{all}");
        assert_eq!(read_all(&log, tail(2)).await, "line 4\nno newline\n");
        assert_eq!(read_all(&log, tail(4)).await, "line 2\nline 3\nline 4\nno newline\n");
        assert_eq!(read_all(&log, tail(0)).await, "");
        assert_eq!(read_all(&log, tail(99)).await, all);
        let limited = Read { limit_bytes: Some(4), ..tail(2) };
        assert_eq!(read_all(&log, limited).await, "line");
        let errors = Read { stream: Some("stderr".into()), ..Read::default() };
        assert_eq!(read_all(&log, errors).await, "no newline\n");
        let future = Read { since: Some("9999".into()), ..Read::default() };
        assert_eq!(read_all(&log, future).await, "");
        let stamped = Read { timestamps: true, ..tail(1) };
        let stamped = read_all(&log, stamped).await;
        assert!(stamped.ends_with("Z no newline\n") && stamped.starts_with("20"), "{stamped}");
    }

    /// A line longer than the agent holds comes back in one piece.
    #[tokio::test]
    async fn long_lines_are_whole_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = log(directory.path());
        let long = "x".repeat(100_000);
        let mut writer = LogWriter::open(log.clone(), 0, 1 << 20).expect("opens");
        writer.write(Stream::Stdout, format!("{long}\nshort\n").as_bytes()).expect("writes");
        drop(writer);
        assert_eq!(read_all(&log, Read::default()).await, format!("{long}\nshort\n"));
    }

    /// A follower gets what is written later, through files being turned over, and its stream ends with the run.
    #[tokio::test]
    async fn follows_to_the_end_of_the_run() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = log(directory.path());
        let mut writer = LogWriter::open(log.clone(), 0, 150).expect("opens");
        writer.write(Stream::Stdout, b"first\n").expect("writes");
        let (to, mut from) = mpsc::channel(64);
        let follow = Read { follow: true, ..Read::default() };
        tokio::spawn(send(log.clone(), 0, follow, to));
        let first = from.recv().await.expect("open").expect("readable");
        assert_eq!(&first[..], b"first\n");
        let mut seen = Vec::new();
        for number in 0..20 {
            let line = format!("line {number}\n");
            writer.write(Stream::Stdout, line.as_bytes()).expect("writes");
            let mut got = Vec::new();
            while got.len() < line.len() {
                got.extend_from_slice(&from.recv().await.expect("open").expect("readable"));
            }
            seen.push(String::from_utf8(got).expect("text") == line);
        }
        assert!(seen.iter().all(|same| *same));
        drop(writer);
        assert!(from.recv().await.is_none(), "the stream ends with the run");
    }
}
