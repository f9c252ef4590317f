//! [`VoteFile`]: the vote once more, in a file of its own beside the database. What a replica has promised must not hang
//! on one place of a disk: with its vote, one that has lost its log can come back under its number.
//!
//! It is written after the database and before anybody is told. So the database is what counts as long as it reads, and
//! this file holds every vote that anybody was told of. Knows nothing of what a vote says.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use bytes::Bytes;
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use crate::files;

const NAME: &str = "VOTE";

const MAGIC: &[u8; 8] = b"QLTVOTE1";

/// One sector: it is written as a whole or not at all by most disks, and recognized as torn if not.
const BYTES: usize = 512;

/// Magic, whether there is a vote, its length.
const HEAD_BYTES: usize = MAGIC.len() + 1 + 4;

/// The file, open for writing.
pub(super) struct VoteFile {
    file: File,
}

/// What such a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is not there, or not as it was written.
    Nothing,
    /// This vote, or that there was none yet.
    Vote(Option<Bytes>),
}

/// Reads the file of a log.
pub(super) fn read(log: &Path) -> io::Result<Found> {
    let content = files::read_if_present(&log.join(NAME))?;
    Ok(content.and_then(|content| decode(&content)).map_or(Found::Nothing, Found::Vote))
}

fn decode(content: &[u8]) -> Option<Option<Bytes>> {
    let (body, sum) = content.split_at_checked(BYTES - SHA256_OUTPUT_LEN)?;
    if content.len() != BYTES || digest(&SHA256, body).as_ref() != sum {
        return None;
    }
    let rest = body.strip_prefix(MAGIC)?;
    let (voted, rest) = rest.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let vote = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    Some((*voted == 1).then(|| Bytes::copy_from_slice(vote)))
}

fn encode(vote: Option<&[u8]>) -> io::Result<Vec<u8>> {
    let bytes = vote.unwrap_or_default();
    if bytes.len() > BYTES - SHA256_OUTPUT_LEN - HEAD_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a vote of {} bytes is too long", bytes.len()),
        ));
    }
    // Its length is below a sector's.
    let length = u32::try_from(bytes.len()).unwrap_or(0).to_be_bytes();
    let mut content = [&MAGIC[..], &[u8::from(vote.is_some())], &length, bytes].concat();
    content.resize(BYTES - SHA256_OUTPUT_LEN, 0);
    let sum = digest(&SHA256, &content);
    content.extend_from_slice(sum.as_ref());
    Ok(content)
}

impl VoteFile {
    /// Opens the file of a log whose database says `vote`, and makes it say so as well.
    pub(super) fn open(log: &Path, vote: Option<&[u8]>) -> io::Result<Self> {
        let found = read(log)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(log.join(NAME))?;
        let opened = Self { file };
        if !matches!(&found, Found::Vote(known) if known.as_deref() == vote) {
            // Made by an older release, behind by a crash, or damaged: the database knows better.
            opened.write(vote)?;
            opened.file.set_len(BYTES as u64)?;
            opened.file.sync_all()?;
            files::sync_dir(log)?;
        }
        Ok(opened)
    }

    /// Replaces the vote. It is durable when this returns.
    pub(super) fn write(&self, vote: Option<&[u8]>) -> io::Result<()> {
        self.file.write_all_at(&encode(vote)?, 0)?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was written is read back, no vote as well; any changed bit and any cut makes it say nothing.
    #[test]
    fn a_vote_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), Found::Nothing);
        let file = VoteFile::open(dir.path(), None).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Found::Vote(None));
        file.write(Some(b"seven")).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Found::Vote(Some("seven".into())));
        let path = dir.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(&path, flipped).unwrap();
            assert_eq!(read(dir.path()).unwrap(), Found::Nothing, "{at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert_eq!(read(dir.path()).unwrap(), Found::Nothing, "{at}");
        }
        drop(VoteFile::open(dir.path(), Some(b"eight")).unwrap());
        assert_eq!(read(dir.path()).unwrap(), Found::Vote(Some("eight".into())));
        assert!(file.write(Some(&[7; 600])).is_err(), "it would not fit");
    }
}
