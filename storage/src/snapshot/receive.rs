//! [`SnapshotReceiver`]: takes a snapshot piece by piece and puts it in the place of the running state.
//!
//! Pieces go to a staging directory under the file's checksum. What arrived whole stays there when a transfer breaks
//! off, and the next one continues. Nothing of it is the state before the one rename in [`SnapshotReceiver::install`].

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quilt_state::StoreError;
use quilt_state::audit::audit;
use rocksdb::DB;

use super::{
    DATA, Manifest, ManifestFile, Shared, Snapshot, SnapshotError, Snapshots, UNFINISHED, io_error, kept, staging,
};
use crate::damage::Health;
use crate::db::{self, Presence};
use crate::state::RocksStore;
use crate::{files, home};

/// Ending of a file that has not arrived whole.
const PART: &str = ".part";

/// A snapshot on its way in.
pub struct SnapshotReceiver {
    snapshots: Snapshots,
    manifest: Manifest,
    transfer: u64,
    dir: PathBuf,
    /// The file that is being written, and how much of it is there.
    open: Option<(usize, File, u64)>,
    /// The state made of the files, with its name and directory, once it was read.
    verified: Option<(String, PathBuf, DB)>,
}

impl std::fmt::Debug for SnapshotReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotReceiver").field("manifest", &self.manifest).finish_non_exhaustive()
    }
}

/// The files of a snapshot in a directory of their own.
pub(super) struct Beside<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) dir: &'a Path,
}

impl Beside<'_> {
    /// Gives the files their names.
    pub(super) fn place(&self, from: impl Fn(&ManifestFile) -> PathBuf) -> Result<(), SnapshotError> {
        files::remove_dir(self.dir).map_err(io_error(self.dir))?;
        files::create_dir(self.dir).map_err(io_error(self.dir))?;
        for file in &self.manifest.files {
            let (from, to) = (from(file), self.dir.join(&file.name));
            if !from.exists() {
                return Err(SnapshotError::Incomplete(file.name.clone()));
            }
            if is_table(&file.name) {
                std::fs::hard_link(&from, &to).map_err(io_error(&to))?;
            } else {
                // A database may write to these; they must not be one with the kept snapshot's.
                let content = std::fs::read(&from).map_err(io_error(&from))?;
                files::replace(&to, &content).map_err(io_error(&to))?;
            }
        }
        files::sync_dir(self.dir).map_err(io_error(self.dir))
    }

    /// Opens the files, compares what they hold with what the manifest says, and reads every row: blocks with a wrong
    /// checksum and rows that do not add up to the hash are found before anybody relies on them.
    pub(super) fn verify(&self, shared: &Shared) -> Result<DB, SnapshotError> {
        let machine = super::machine_state(self.dir, &shared.memory)?;
        let found = machine.map(|machine| Manifest::of(&machine, &shared.stored));
        if !found.as_ref().is_some_and(|found| found.same_state(self.manifest)) {
            let describe = |manifest: &Manifest| format!("revision {} at {}", manifest.revision, manifest.id());
            return Err(SnapshotError::Content {
                found: found.map_or_else(|| "no state".to_owned(), |found| describe(&found)),
                expected: describe(self.manifest),
            });
        }
        let db = db::open_state_read_only(self.dir, &shared.memory).map_err(crate::state::failed)?;
        let audited = audit(&RocksStore::new(db, Health::unkept()));
        let audited = audited.map_err(|error| StoreError(format!("the snapshot is damaged: {error}")))?;
        if !audited.fits() {
            let of = |hash| format!("rows with the hash {hash}");
            return Err(SnapshotError::Content { found: of(audited.found), expected: of(audited.kept) });
        }
        let db = db::open_state(self.dir, &shared.memory, &shared.cache.0, Presence::Required);
        Ok(db.map_err(crate::state::failed)?)
    }
}

impl Shared {
    /// Makes a state that was put beside the one in use the one in use, as one step. One that failed is removed.
    pub(super) fn take_over(
        &self,
        opened: Result<DB, SnapshotError>,
        name: &str,
        dir: &Path,
    ) -> Result<(), SnapshotError> {
        let db = match opened {
            Ok(db) => db,
            Err(error) => {
                files::remove_dir(dir).map_err(io_error(dir))?;
                return Err(error);
            }
        };
        // From here on the new state is the one a restart finds.
        home::point_to_state(&self.home, name).map_err(io_error(dir))?;
        self.store.health().replaced().map_err(io_error(dir))?;
        *self.missing.lock() = None;
        retire(self.store.swap(db));
        Ok(())
    }
}

/// What is still to be sent of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its number in the manifest.
    pub file: usize,
    /// The offset to go on at.
    pub offset: u64,
}

impl SnapshotReceiver {
    pub(super) fn begin(snapshots: Snapshots, manifest: Manifest) -> Result<Self, SnapshotError> {
        let shared = snapshots.shared();
        let _lock = shared.transfer.lock();
        let transfer = shared.transfers.fetch_add(1, Ordering::SeqCst) + 1;
        let dir = staging(&shared.home);
        // What another snapshot left and this one does not need.
        for name in files::names(&dir).map_err(io_error(&dir))? {
            let sum = name.strip_suffix(PART).unwrap_or(&name);
            if !manifest.files.iter().any(|file| file.checksum() == sum) {
                let path = dir.join(&name);
                std::fs::remove_file(&path).map_err(io_error(&path))?;
            }
        }
        drop(_lock);
        Ok(Self { snapshots, manifest, transfer, dir, open: None, verified: None })
    }

    /// What the snapshot will hold.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What has to be sent, in the order in which it is best sent. Files that arrived before are not in it.
    ///
    /// # Errors
    /// The staging directory cannot be read.
    pub fn wanted(&self) -> Result<Vec<Wanted>, SnapshotError> {
        let mut wanted = BTreeMap::new();
        for (number, file) in self.manifest.files.iter().enumerate() {
            if self.staged(file).exists() {
                continue;
            }
            let part = self.part(file);
            let offset = std::fs::metadata(&part).map_or(0, |found| found.len());
            // A part longer than the file cannot be of it.
            let offset = if offset > file.size { 0 } else { offset };
            // Two files with the same content travel once.
            wanted.entry(file.sha256.clone()).or_insert(Wanted { file: number, offset });
        }
        let mut wanted: Vec<Wanted> = wanted.into_values().collect();
        wanted.sort_by_key(|wanted| wanted.file);
        Ok(wanted)
    }

    /// Takes a piece of a file. When the last one is there, the file is summed, synced and kept.
    ///
    /// # Errors
    /// The piece does not follow, the file is not what was announced (it is thrown away), a file cannot be written, or
    /// a newer transfer has begun.
    pub fn write(&mut self, number: usize, offset: u64, piece: &[u8]) -> Result<(), SnapshotError> {
        let snapshots = self.snapshots.clone();
        let _lock = self.lock(&snapshots)?;
        let file = self.manifest.file(number)?.clone();
        let refuse = |reason: String| SnapshotError::Chunk { file: file.name.clone(), reason };
        let part = self.part(&file);
        let (mut opened, at) = match self.open.take() {
            Some((open, opened, at)) if open == number => (opened, at),
            _ => open_part(&part, offset)?,
        };
        if at != offset {
            return Err(refuse(format!("a piece at {offset} does not follow what ends at {at}")));
        }
        let end = at + piece.len() as u64;
        if end > file.size {
            return Err(refuse(format!("a piece ends at {end}, behind its end at {}", file.size)));
        }
        opened.write_all(piece).map_err(io_error(&part))?;
        if end < file.size {
            self.open = Some((number, opened, end));
            return Ok(());
        }
        opened.sync_all().map_err(io_error(&part))?;
        drop(opened);
        let (found, _) = files::checksum(&part).map_err(io_error(&part))?;
        if found != file.sha256 {
            std::fs::remove_file(&part).map_err(io_error(&part))?;
            return Err(SnapshotError::Checksum {
                file: file.name.clone(),
                found: hex::encode(found),
                expected: file.checksum(),
            });
        }
        let staged = self.staged(&file);
        std::fs::rename(&part, &staged).map_err(io_error(&staged))
    }

    /// Puts the snapshot in the place of the state, and keeps it as the newest snapshot. Blocks. The caller makes sure
    /// that nothing is applied meanwhile and reads its state anew afterwards.
    ///
    /// # Errors
    /// Files are missing, or the state in them is not the one announced: the running state is then what it was. After
    /// an error of a file either state may be in use; the caller stops, and a restart finds one of them whole.
    pub fn install(mut self) -> Result<Arc<Snapshot>, SnapshotError> {
        let snapshots = self.snapshots.clone();
        let _lock = self.lock(&snapshots)?;
        self.open = None;
        let shared = snapshots.shared();
        let (name, dir, db) = match self.verified.take() {
            Some(verified) => verified,
            None => self.open_beside(&snapshots)?,
        };
        shared.take_over(Ok(db), &name, &dir)?;
        let snapshot = self.keep_as_snapshot()?;
        for file in &self.manifest.files {
            let staged = self.staged(file);
            match std::fs::remove_file(&staged) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io_error(&staged)(error)),
                _ => {}
            }
        }
        Ok(snapshot)
    }

    /// Puts the files beside the state, opens them and reads every row, so that [`SnapshotReceiver::install`] has nothing
    /// to do but to take over. Blocks for as long as that takes.
    ///
    /// # Errors
    /// As [`SnapshotReceiver::install`]; the running state is what it was.
    pub fn verify(&mut self) -> Result<(), SnapshotError> {
        let snapshots = self.snapshots.clone();
        let _lock = self.lock(&snapshots)?;
        self.open = None;
        self.verified = None;
        self.verified = Some(self.open_beside(&snapshots)?);
        Ok(())
    }

    fn open_beside(&self, snapshots: &Snapshots) -> Result<(String, PathBuf, DB), SnapshotError> {
        let shared = snapshots.shared();
        let (name, dir) = home::next_state(&shared.home).map_err(io_error(&shared.home))?;
        let beside = Beside { manifest: &self.manifest, dir: &dir };
        let opened = beside.place(|file| self.staged(file)).and_then(|()| beside.verify(shared));
        match opened {
            Ok(db) => Ok((name, dir, db)),
            Err(error) => {
                files::remove_dir(&dir).map_err(io_error(&dir))?;
                Err(error)
            }
        }
    }

    fn keep_as_snapshot(&self) -> Result<Arc<Snapshot>, SnapshotError> {
        let unfinished = kept(&self.snapshots.shared().home).join(format!("received{UNFINISHED}"));
        files::remove_dir(&unfinished).map_err(io_error(&unfinished))?;
        files::create_dir(&unfinished).map_err(io_error(&unfinished))?;
        let data = unfinished.join(DATA);
        Beside { manifest: &self.manifest, dir: &data }.place(|file| self.staged(file))?;
        self.snapshots.keep(self.manifest.clone(), &unfinished)
    }

    /// The right to touch the staging directory, if this is still the transfer that has it.
    fn lock<'a>(&self, snapshots: &'a Snapshots) -> Result<parking_lot::MutexGuard<'a, ()>, SnapshotError> {
        let shared = snapshots.shared();
        let lock = shared.transfer.lock();
        if shared.transfers.load(Ordering::SeqCst) == self.transfer { Ok(lock) } else { Err(SnapshotError::Superseded) }
    }

    fn staged(&self, file: &ManifestFile) -> PathBuf {
        self.dir.join(file.checksum())
    }

    fn part(&self, file: &ManifestFile) -> PathBuf {
        self.dir.join(file.checksum() + PART)
    }
}

/// Tables never change once written, so they can be shared by links.
fn is_table(name: &str) -> bool {
    name.ends_with(".sst")
}

/// Opens a part to go on at `offset`; one that begins anew is emptied.
fn open_part(path: &Path, offset: u64) -> Result<(File, u64), SnapshotError> {
    if offset == 0 {
        return Ok((files::create_file(path).map_err(io_error(path))?, 0));
    }
    let opened = OpenOptions::new().append(true).mode(0o600).open(path).map_err(io_error(path))?;
    let length = opened.metadata().map_err(io_error(path))?.len();
    Ok((opened, length))
}

/// How long a reader may still be in the old state; a scan is a millisecond's work.
const READERS_LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// Closes a state that was replaced and removes it, once the last reader has left it. One that does not get there is
/// removed at the next start.
fn retire(mut old: Arc<DB>) {
    let path = old.path().to_owned();
    old.cancel_all_background_work(true);
    let step = Duration::from_millis(2);
    let mut waited = Duration::ZERO;
    loop {
        match Arc::try_unwrap(old) {
            Ok(db) => {
                drop(db);
                break;
            }
            Err(held) if waited < READERS_LEAVE_WITHIN => {
                old = held;
                std::thread::sleep(step);
                waited += step;
            }
            Err(_) => {
                tracing::warn!(path = %path.display(), "a replaced state is still read; it is removed at the next start");
                return;
            }
        }
    }
    if let Err(error) = files::remove_dir(&path) {
        tracing::warn!(%error, path = %path.display(), "a replaced state is removed at the next start");
    }
}
