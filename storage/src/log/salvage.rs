//! Makes a log anew out of what is whole of a damaged one, and sets the damaged one aside.
//!
//! What a replica has promised is its vote and the entries it acknowledged. The vote is kept twice, so it outlives damage
//! of one place. Of the entries those behind the damage are kept when the log's end is among them: then it is known which
//! are lost, and the new log says so. When its end is not known, nothing of it is kept: what this replica acknowledged can
//! then only be learned from the others. Who makes it good, and when that is enough, is not known here
//! ([decision 27](../../../docs/decisions)).

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rocksdb::{DB, Direction, IteratorMode, ReadOptions, WriteBatch, WriteOptions};

use super::record::{
    ENTRIES_END, LOST, PURGED, VOTE, decode_entry, decode_loss, decode_purge, encode_loss, encode_purge, entry_index,
    entry_key,
};
use super::rocks::lacks_writes;
use super::torn::{Tail, damage_in_manifest, inspect};
use super::vote::{Found, VoteFile, read};
use super::{LogError, LogPosition, Loss};
use crate::db::{self, Memory, marks};
use crate::files;

/// Where the new log is made.
const FRESH: &str = "log.new";

/// Where the last damaged log is kept for whoever wants to look at it.
const ASIDE: &str = "damaged-log";

/// Bytes copied as one batch.
const BATCH_BYTES: usize = 1 << 20;

fn log_of(home: &Path) -> PathBuf {
    home.join("log")
}

/// Ends what a crash interrupted: a new log that was complete takes its place, one that was not is removed.
pub(crate) fn finish(home: &Path) -> io::Result<()> {
    let (log, fresh) = (log_of(home), home.join(FRESH));
    if !fresh.exists() {
        return Ok(());
    }
    // The old one is moved away only when the new one is complete.
    if !log.exists() && home.join(ASIDE).exists() {
        std::fs::rename(fresh, log)?;
        return files::sync_dir(home);
    }
    files::remove_dir(&fresh)
}

/// What of a damaged log is gone on with.
struct Whole {
    vote: Option<Bytes>,
    purged: Option<(LogPosition, u64)>,
    /// The first entry that is kept, if any is.
    first: Option<u64>,
    loss: Option<Loss>,
}

/// Puts a log of what is whole in the place of the damaged one, which is kept aside.
///
/// # Errors
/// The vote is lost as well: then nothing can be gone on with. Or a file cannot be read or written.
pub(crate) fn salvage(home: &Path, memory: &Memory, reason: &str) -> Result<(), LogError> {
    let (log, fresh, aside) = (log_of(home), home.join(FRESH), home.join(ASIDE));
    let failed = |error: io::Error| LogError::Open(format!("{}: {error}", log.display()));
    let opened = open_whole(&log).map_err(failed)?;
    let whole = match opened.as_ref().and_then(|db| examine(db, &log)) {
        Some(whole) => whole,
        None => match read(&log).map_err(failed)? {
            Found::Vote(vote) => Whole { vote, purged: None, first: None, loss: Some(Loss::Unknown) },
            Found::Nothing => {
                let reason = format!("{reason}; and its vote is lost as well");
                return Err(LogError::Lost { dir: log, reason });
            }
        },
    };
    files::remove_dir(&fresh).map_err(failed)?;
    files::create_dir(&fresh).map_err(failed)?;
    make(&fresh, memory, &whole, opened.as_ref())?;
    drop(opened);
    files::remove_dir(&aside).map_err(failed)?;
    std::fs::rename(&log, &aside).map_err(failed)?;
    files::sync_dir(home).map_err(failed)?;
    std::fs::rename(&fresh, &log).map_err(failed)?;
    files::sync_dir(home).map_err(failed)?;
    let (kept_from, lost, dir) = (whole.first, whole.loss, aside.display());
    tracing::warn!(reason, ?lost, ?kept_from, %dir, "the damaged log was set aside; it is kept there until the next one, or until it is removed");
    Ok(())
}

/// Whether a log, damaged or not, can be gone on with: its vote is there, in one place or the other. Changes nothing.
pub(crate) fn is_salvageable(log: &Path) -> io::Result<bool> {
    let whole = open_whole(log)?.is_some_and(|db| examine(&db, log).is_some());
    Ok(whole || matches!(read(log)?, Found::Vote(_)))
}

/// The database, when all that says which entries there are can be relied on.
fn open_whole(log: &Path) -> io::Result<Option<DB>> {
    if !log.join("CURRENT").exists() || lacks_writes(log)? || damage_in_manifest(log)?.is_some() {
        return Ok(None);
    }
    if let Tail::Damaged { .. } = inspect(log)? {
        return Ok(None);
    }
    Ok(db::open_log_read_only(log).ok())
}

/// Finds out what is whole; nothing when the vote is not.
fn examine(db: &DB, log: &Path) -> Option<Whole> {
    let marks = marks(db).ok()?;
    let vote = match db.get_cf(marks, VOTE) {
        Ok(Some(vote)) => Some(Bytes::from(vote)),
        // One that is not there may have gone with what else is not.
        Ok(None) | Err(_) => match read(log) {
            Ok(Found::Vote(vote)) => vote,
            _ => return None,
        },
    };
    let unknown = Whole { vote: vote.clone(), purged: None, first: None, loss: Some(Loss::Unknown) };
    let purged = db.get_cf(marks, PURGED).ok().and_then(|row| row.map(|row| decode_purge(&row)).transpose().ok());
    let known = db.get_cf(marks, LOST).ok().and_then(|row| row.map(|row| decode_loss(&row)).transpose().ok());
    // It may have said that something was lost before.
    let Some(known) = known.filter(|known| *known != Some(Loss::Unknown)) else { return Some(unknown) };
    let Some((first, mut lost)) = readable_end(db, purged) else { return Some(unknown) };
    if let Some(Loss::Upto(index)) = known {
        lost = Some(lost.map_or(index, |lost| lost.max(index)));
    }
    Some(Whole { vote, purged: purged.flatten(), first, loss: lost.map(Loss::Upto) })
}

/// The first of the entries that read up to the log's end, and the last before them that does not; nothing when the end
/// is not known. `purged` is the mark of what was purged, if that reads.
fn readable_end(db: &DB, purged: Option<Option<(LogPosition, u64)>>) -> Option<(Option<u64>, Option<u64>)> {
    let start = purged.flatten().map_or(0, |(position, _)| position.index + 1);
    let mut first: Option<u64> = None;
    let mut broken = false;
    for row in db.iterator_opt(IteratorMode::From(&ENTRIES_END, Direction::Reverse), unkept()) {
        let entry = row.ok().and_then(|(key, value)| {
            let index = entry_index(&key)?;
            decode_entry(index, &value).ok().map(|_| index)
        });
        match (entry, first) {
            // Where the log ends is not known.
            (None, None) => return None,
            // What was purged may still be there.
            (Some(index), _) if index < start => break,
            (Some(index), next) if next.is_none_or(|next| index + 1 == next) => first = Some(index),
            _ => {
                broken = true;
                break;
            }
        }
    }
    match (first, purged) {
        (Some(first), None) => Some((Some(first), first.checked_sub(1))),
        (Some(first), Some(Some(_))) if first > start => Some((Some(first), Some(first - 1))),
        (Some(first), Some(None)) if broken => Some((Some(first), first.checked_sub(1))),
        (None, None) => None,
        (first, Some(_)) => Some((first, None)),
    }
}

fn unkept() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options
}

/// Writes the new log. It is durable when this returns.
fn make(dir: &Path, memory: &Memory, whole: &Whole, old: Option<&DB>) -> Result<(), LogError> {
    let failed = |error: rocksdb::Error| LogError::Open(format!("{}: {error}", dir.display()));
    let by_file = |error: io::Error| LogError::Open(format!("{}: {error}", dir.display()));
    let db = db::open_log(dir, memory).map_err(failed)?;
    let marks = marks(&db).map_err(LogError::Open)?;
    let mut batch = WriteBatch::default();
    if let Some(vote) = &whole.vote {
        batch.put_cf(marks, VOTE, vote);
    }
    if let Some(loss) = whole.loss {
        batch.put_cf(marks, LOST, encode_loss(loss));
    }
    let mut purged = whole.purged.filter(|_| whole.loss != Some(Loss::Unknown));
    if let (Some(old), Some(first)) = (old, whole.first) {
        let rows = old.iterator_opt(IteratorMode::From(&entry_key(first), Direction::Forward), unkept());
        for (next, row) in (first..).zip(rows) {
            let (key, value) = row.map_err(failed)?;
            let Some(index) = entry_index(&key).filter(|index| *index == next) else { break };
            if let (true, Some(Loss::Upto(lost))) = (index == first, whole.loss) {
                // The log begins behind what is lost; its position is not known before that is made good.
                let placed = decode_entry(index, &value)?;
                let offset = placed.end_offset.saturating_sub(placed.record.size());
                purged = Some((LogPosition { index: lost, term: 0, leader: 0 }, offset));
            }
            batch.put(&key, &value);
            if batch.size_in_bytes() > BATCH_BYTES {
                db.write(std::mem::take(&mut batch)).map_err(failed)?;
            }
        }
    }
    if let Some((position, offset)) = purged {
        batch.put_cf(marks, PURGED, encode_purge(position, offset));
    }
    let mut options = WriteOptions::default();
    options.set_sync(true);
    db.write_opt(batch, &options).map_err(failed)?;
    drop(VoteFile::open(dir, whole.vote.as_deref()).map_err(by_file)?);
    drop(db);
    files::sync_dir(dir).map_err(by_file)
}
