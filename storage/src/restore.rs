//! From a backup to a data directory in a new epoch, and to the certainty that a backup is whole.
//!
//! Knows where things are, not what is in them: the state's own part is `quilt_state::refound`, the membership and the
//! vote are given.

use std::path::{Path, PathBuf};
use std::sync::mpsc;

use bytes::Bytes;
use quilt_state::{Refounded, Refounding, Store, invariant, refound};

use crate::archive;
use crate::damage::Health;
use crate::db::{self, Memory, Presence};
use crate::files;
use crate::format::{self, Identity, Stored};
use crate::home::{self, Home, HomeError};
use crate::log::{LogEngine, LogError, LogPosition, RocksLog};
use crate::snapshot::{Manifest, SnapshotError, io_error, machine_state};
use crate::state::{RocksStore, failed};

/// What was found in a backup that was read to its end.
#[derive(Debug)]
pub struct Verified {
    /// What it says of itself; the content agrees.
    pub manifest: Manifest,
    /// What does not fit in the state, one sentence each.
    pub problems: Vec<String>,
}

/// Unpacks a backup into `scratch`, which must not exist and is removed again, sums every file, opens the state, takes
/// its hash anew and checks that its rows agree with each other.
///
/// # Errors
/// The backup is not whole, or a file cannot be read or written. Disagreement within the state is in the result.
pub fn verify(backup: &Path, scratch: &Path) -> Result<Verified, HomeError> {
    let result = unpacked(backup, scratch).and_then(|(manifest, store)| {
        let problems = invariant::violations(&store).map_err(|error| quilt_state::StoreError(error.to_string()))?;
        Ok(Verified { manifest, problems })
    });
    files::remove_dir(scratch).map_err(io_error(scratch))?;
    result
}

/// The state of a backup, opened in `dir`, and what the backup says of it.
fn unpacked(backup: &Path, dir: &Path) -> Result<(Manifest, RocksStore), HomeError> {
    let memory = Memory::default();
    let manifest = archive::unpack(backup, dir)?;
    let machine = machine_state(dir, &memory)?;
    let of = Stored { identity: Identity { cluster: manifest.cluster.clone(), replica: 0 }, epoch: manifest.epoch };
    let found = machine.map(|machine| Manifest::of(&machine, &of));
    if !found.as_ref().is_some_and(|found| found.same_state(&manifest)) {
        let describe = |manifest: &Manifest| format!("revision {} at {}", manifest.revision, manifest.id());
        return Err(HomeError::Snapshot(SnapshotError::Content {
            found: found.map_or_else(|| "no state".to_owned(), |found| describe(&found)),
            expected: describe(&manifest),
        }));
    }
    let db = db::open_state(dir, &memory, &db::block_cache(&memory), Presence::Required).map_err(failed)?;
    Ok((manifest, RocksStore::new(db, Health::unkept())))
}

/// A replica of a restored control plane.
pub struct Restoring<'a> {
    /// Whose data the directory will hold.
    pub identity: Identity,
    /// The new epoch.
    pub epoch: u64,
    /// How the state begins anew. The log begins behind the same position.
    pub refounding: Refounding<'a>,
    /// The agreement layer's vote, opaque here, of the position's term.
    pub vote: Bytes,
}

/// Makes a data directory out of a backup. What the directory held of a replica before is moved to
/// `DIR/before-<epoch>`, never removed. Files that are not the replica's data stay where they are.
///
/// Everything is made beside the old data and moved to its place at the end, so a restore that was broken off is simply
/// begun again.
///
/// # Errors
/// The backup is damaged, the directory is in use or of this epoch or a later one, or a file cannot be read or written.
pub fn restore(backup: &Path, dir: &Path, restoring: &Restoring<'_>) -> Result<Refounded, HomeError> {
    let _lock = home::lock(dir)?;
    if let Some(stored) = format::read(dir)? {
        format::expect(dir, &stored, &restoring.identity)?;
        if stored.epoch == restoring.epoch {
            return Err(HomeError::Restored { dir: dir.to_owned(), epoch: stored.epoch });
        }
        // Its revisions may reach beyond that epoch's: some would be handed out twice.
        if stored.epoch > restoring.epoch {
            let (found, epoch) = (stored.epoch, restoring.epoch);
            return Err(HomeError::Backwards { dir: dir.to_owned(), found, epoch });
        }
    }
    let beside = dir.join("restoring");
    files::remove_dir(&beside).map_err(io_error(&beside))?;
    files::create_dir(&beside).map_err(io_error(&beside))?;
    let refounded = build(backup, &beside, restoring)?;
    set_aside(dir, restoring.epoch)?;
    for name in home::DATA.iter().rev() {
        let (from, to) = (beside.join(name), dir.join(name));
        // Of a restore in the same epoch that was broken off: the data from before is aside.
        files::remove_dir(&to).map_err(io_error(&to))?;
        std::fs::rename(&from, &to).map_err(io_error(&to))?;
        files::sync_dir(dir).map_err(io_error(dir))?;
    }
    files::remove_dir(&beside).map_err(io_error(&beside))?;
    Ok(refounded)
}

/// A whole data directory of the new epoch.
fn build(backup: &Path, dir: &Path, restoring: &Restoring<'_>) -> Result<Refounded, HomeError> {
    let state = home::first_state(dir)?;
    let (manifest, store) = unpacked(backup, &state)?;
    if manifest.cluster != restoring.identity.cluster {
        let (found, expected) = (manifest.cluster, restoring.identity.cluster.clone());
        return Err(SnapshotError::Manifest(crate::snapshot::ManifestError::Foreign { found, expected }).into());
    }
    let broken = |error: quilt_state::ApplyError| quilt_state::StoreError(error.to_string());
    let refounded = refound(&store, &restoring.refounding).map_err(broken)?;
    store.flush()?;
    drop(store);
    begin_log(&dir.join("log"), restoring)?;
    format::write(dir, &Stored { identity: restoring.identity.clone(), epoch: restoring.epoch })?;
    // Opened once as a replica opens it; and the log begins behind entries nobody has: others need a snapshot.
    Home::open(dir, restoring.identity.clone())?.snapshots.build()?;
    Ok(refounded)
}

/// A log that is empty up to the position and voted in its term.
fn begin_log(dir: &Path, restoring: &Restoring<'_>) -> Result<(), HomeError> {
    files::create_dir(dir).map_err(io_error(dir))?;
    let log = RocksLog::open(dir, &Memory::default())?;
    let (done, durable) = mpsc::channel();
    let position = restoring.refounding.position;
    let purged = done.clone();
    let position = LogPosition { index: position.index, term: position.term, leader: position.leader };
    // A receiver that is gone has its answer.
    log.purge(position, Box::new(move |result| drop(purged.send(result))));
    log.save_vote(restoring.vote.clone(), Box::new(move |result| drop(done.send(result))));
    for _ in 0..2 {
        durable.recv().map_err(|_| LogError::Stopped("it ended".into()))??;
    }
    Ok(())
}

/// Moves a replica's data out of the way.
fn set_aside(dir: &Path, epoch: u64) -> Result<(), HomeError> {
    let aside = aside(dir, epoch);
    for name in home::DATA {
        let (from, to) = (dir.join(name), aside.join(name));
        if from.exists() && !to.exists() {
            files::create_dir(&aside).map_err(io_error(&aside))?;
            std::fs::rename(&from, &to).map_err(io_error(&to))?;
            files::sync_dir(&aside).map_err(io_error(&aside))?;
        }
    }
    Ok(files::sync_dir(dir).map_err(io_error(dir))?)
}

/// Where a restore moves what was there before.
#[must_use]
pub fn aside(dir: &Path, epoch: u64) -> PathBuf {
    dir.join(format!("before-{epoch}"))
}
