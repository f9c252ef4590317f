//! A backup: one file that holds a snapshot.
//!
//! ```text
//! "QLTBACK1"  4 bytes: length of the manifest  manifest  the files, in the manifest's order, nothing between
//! ```
//!
//! The manifest says whose state it is, at which revision, and carries size and SHA-256 of every file; it comes first,
//! so that looking at a backup reads a few hundred bytes of it. Knows no row.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ring::digest::{Context, SHA256};

use crate::files;
use crate::snapshot::{Manifest, ManifestError, Snapshot, SnapshotError, io_error};

const MAGIC: &[u8; 8] = b"QLTBACK1";

/// Longest manifest: see its own limit.
const MANIFEST_BYTES_MAX: u32 = 16 << 20;

/// Bytes read or sent at a time.
const PIECE_BYTES: usize = 256 << 10;

/// The bytes of a backup of `snapshot`, piece by piece, and how many there will be.
///
/// Each piece is read when it is asked for. Blocks for that.
pub fn pieces(snapshot: Arc<Snapshot>) -> (u64, impl Iterator<Item = Result<Bytes, SnapshotError>> + Send) {
    let manifest = snapshot.manifest().encode();
    let length = u32::try_from(manifest.len()).unwrap_or(u32::MAX).to_be_bytes();
    let head = Bytes::from([&MAGIC[..], &length, &manifest].concat());
    let total = head.len() as u64 + snapshot.manifest().size();
    let files = snapshot.manifest().files.len();
    let mut at = (0, 0_u64);
    let body = std::iter::from_fn(move || {
        while at.0 < files {
            match snapshot.read(at.0, at.1, PIECE_BYTES) {
                Ok(piece) if piece.is_empty() => at = (at.0 + 1, 0),
                Ok(piece) => {
                    at.1 += piece.len() as u64;
                    return Some(Ok(piece));
                }
                Err(error) => {
                    at.0 = files;
                    return Some(Err(error));
                }
            }
        }
        None
    });
    (total, std::iter::once(Ok(head)).chain(body))
}

/// What a backup holds: its manifest, after a look at the file's length. Reads nothing else.
///
/// # Errors
/// It is not a backup, is of a newer format, or is shorter or longer than it should be.
pub fn inspect(path: &Path) -> Result<Manifest, SnapshotError> {
    open(path).map(|(manifest, _)| manifest)
}

fn open(path: &Path) -> Result<(Manifest, File), SnapshotError> {
    let mut file = File::open(path).map_err(io_error(path))?;
    let damaged = |reason: &str| SnapshotError::Manifest(ManifestError::Damaged(reason.into()));
    let mut head = [0; 12];
    let read = file.read_exact(&mut head);
    if read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::UnexpectedEof) || !head.starts_with(MAGIC) {
        return Err(SnapshotError::NoBackup(path.to_owned()));
    }
    read.map_err(io_error(path))?;
    let length = head.last_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length));
    if length > MANIFEST_BYTES_MAX {
        return Err(damaged("it is too long"));
    }
    let mut manifest = vec![0; length as usize];
    file.read_exact(&mut manifest).map_err(|_| damaged("the file ends within it"))?;
    let manifest = Manifest::decode(&manifest)?;
    manifest.check_files()?;
    let expected = head.len() as u64 + u64::from(length) + manifest.size();
    let found = file.metadata().map_err(io_error(path))?.len();
    if found != expected {
        return Err(SnapshotError::Length { path: path.to_owned(), found, expected });
    }
    Ok((manifest, file))
}

/// Puts the files of a backup into `dir`, which is made, and compares each with its checksum.
///
/// # Errors
/// The backup is damaged, or a file cannot be read or written. What is in `dir` then is of no use.
pub(crate) fn unpack(path: &Path, dir: &Path) -> Result<Manifest, SnapshotError> {
    let (manifest, mut backup) = open(path)?;
    files::create_dir(dir).map_err(io_error(dir))?;
    for file in &manifest.files {
        let to = dir.join(&file.name);
        let mut out = files::create_file(&to).map_err(io_error(&to))?;
        let mut sum = Context::new(&SHA256);
        let mut left = file.size;
        let mut buffer = vec![0; PIECE_BYTES];
        while left > 0 {
            let piece = buffer.get_mut(..usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES));
            let piece = piece.unwrap_or_default();
            backup.read_exact(piece).map_err(io_error(path))?;
            sum.update(piece);
            io::Write::write_all(&mut out, piece).map_err(io_error(&to))?;
            left -= piece.len() as u64;
        }
        let found = sum.finish();
        if found.as_ref() != &*file.sha256 {
            let found = hex::encode(found);
            return Err(SnapshotError::Checksum { file: file.name.clone(), found, expected: file.checksum() });
        }
        out.sync_all().map_err(io_error(&to))?;
    }
    files::sync_dir(dir).map_err(io_error(dir))?;
    Ok(manifest)
}
