//! Snapshots: the whole state at one log position, built as a checkpoint, sent file by file, installed whole.
//!
//! Building costs one flush and hard links. Files are named by checksum while they travel, so a second attempt sends
//! only what is missing. An install is prepared beside the running state and takes effect by one rename; a crash
//! before it leaves the old state, one after it the new, and [`crate::Home`] removes the rest when it opens.
//!
//! Knows nothing of who sends or asks; a stream is somebody else's.

mod manifest;
mod receive;

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use quilt_proto::state::MachineState;
use quilt_state::{Family, StoreError};
use rocksdb::Cache;

pub use manifest::{Manifest, ManifestError, ManifestFile};
pub use receive::SnapshotReceiver;

use crate::db::{self, Memory};
use crate::files;
use crate::format::Stored;
use crate::log::LogPosition;
use crate::state::{RocksStore, row};

const MANIFEST: &str = "manifest";
/// The members last noted, in the data directory.
const MEMBERS: &str = "members";
const DATA: &str = "data";
/// Ending of a snapshot that is being put together.
const UNFINISHED: &str = ".unfinished";

/// What went wrong with a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The state store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The manifest cannot be accepted.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The state holds nothing that could be sent.
    #[error("nothing has been applied yet: there is no state to make a snapshot of")]
    Empty,
    /// A chunk that does not belong where it came.
    #[error("snapshot file {file}: {reason}")]
    Chunk {
        /// The file's name.
        file: String,
        /// What does not fit.
        reason: String,
    },
    /// A file did not arrive as it was sent. It has been thrown away and may be sent again.
    #[error("snapshot file {file} has checksum {found}, expected {expected}")]
    Checksum {
        /// The file's name.
        file: String,
        /// What arrived.
        found: String,
        /// What was announced.
        expected: String,
    },
    /// The install was asked for before everything was there.
    #[error("snapshot file {0} has not arrived")]
    Incomplete(String),
    /// The files open, but hold another state than the manifest says.
    #[error("the snapshot holds {found}, and its manifest says {expected}")]
    Content {
        /// What the files hold.
        found: String,
        /// What was announced.
        expected: String,
    },
    /// A file that does not begin like a backup.
    #[error("{0} is not a backup of a control plane")]
    NoBackup(PathBuf),
    /// A backup that is not as long as its head says.
    #[error(
        "{path} has {found} bytes, and a whole backup of its content has {expected}: it was not written to its end"
    )]
    Length {
        /// The backup.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// What its head says.
        expected: u64,
    },
    /// Another snapshot began to arrive meanwhile.
    #[error("a newer snapshot transfer has taken over")]
    Superseded,
}

pub(crate) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> SnapshotError + use<> {
    let path = path.to_owned();
    move |source| SnapshotError::Io { path, source }
}

/// A complete snapshot on disk. Its files stay while anybody holds it, also after a newer one has replaced it.
#[derive(Debug)]
pub struct Snapshot {
    dir: PathBuf,
    manifest: Manifest,
    replaced: AtomicBool,
}

impl Snapshot {
    /// What it holds.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// A piece of one of its files; empty at the file's end.
    ///
    /// # Errors
    /// There is no such file, or it cannot be read.
    pub fn read(&self, file: usize, offset: u64, max_bytes: usize) -> Result<Bytes, SnapshotError> {
        let entry = self.manifest.file(file)?;
        let path = self.dir.join(DATA).join(&entry.name);
        let left = entry.size.saturating_sub(offset);
        let mut piece = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(max_bytes)];
        let opened = File::open(&path).map_err(io_error(&path))?;
        opened.read_exact_at(&mut piece, offset).map_err(io_error(&path))?;
        Ok(piece.into())
    }
}

impl Snapshot {
    fn path(&self, file: &ManifestFile) -> PathBuf {
        self.dir.join(DATA).join(&file.name)
    }

    /// Reads all of a file, and says what is wrong with it when it is not what was written.
    ///
    /// # Errors
    /// There is no such file.
    pub fn damage(&self, file: usize) -> Result<Option<String>, SnapshotError> {
        let file = self.manifest.file(file)?;
        let path = self.path(file);
        Ok(match files::checksum(&path) {
            Ok((found, _)) if found == file.sha256 => None,
            Ok(_) => Some(format!("{} has another checksum than its manifest says", path.display())),
            Err(error) => Some(format!("{}: {error}", path.display())),
        })
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if self.replaced.load(Ordering::Acquire)
            && let Err(error) = files::remove_dir(&self.dir)
        {
            tracing::warn!(%error, dir = %self.dir.display(), "an old snapshot stays until the next start");
        }
    }
}

/// The snapshots of one replica: the newest complete one, how it is built, and how one arrives.
#[derive(Clone, Debug)]
pub struct Snapshots {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) home: PathBuf,
    pub(crate) stored: Stored,
    pub(crate) memory: Memory,
    pub(crate) cache: SharedCache,
    pub(crate) store: RocksStore,
    newest: Mutex<Option<Arc<Snapshot>>>,
    /// Why there is no state.
    pub(crate) missing: Mutex<Option<String>>,
    /// One build at a time.
    building: Mutex<()>,
    /// The transfer that may write into the staging directory.
    pub(crate) transfer: Mutex<()>,
    pub(crate) transfers: AtomicU64,
}

/// RocksDB's cache has no `Debug` of its own.
#[derive(Clone)]
pub(crate) struct SharedCache(pub(crate) Cache);

impl std::fmt::Debug for SharedCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cache")
    }
}

/// Where snapshots are kept under a data directory.
pub(crate) fn kept(home: &Path) -> PathBuf {
    home.join("snapshots")
}

/// Where the files of an arriving snapshot are kept until they are all there.
pub(crate) fn staging(home: &Path) -> PathBuf {
    home.join("incoming")
}

impl Snapshots {
    /// Takes over what a data directory holds: keeps the newest complete snapshot, removes everything else.
    pub(crate) fn open(
        home: &Path,
        stored: Stored,
        memory: Memory,
        cache: Cache,
        store: RocksStore,
        missing: Option<String>,
    ) -> Result<Self, SnapshotError> {
        for dir in [kept(home), staging(home)] {
            files::create_dir(&dir).map_err(io_error(&dir))?;
        }
        let staging = staging(home);
        for name in files::names(&staging).map_err(io_error(&staging))? {
            let path = staging.join(name);
            std::fs::remove_file(&path).map_err(io_error(&path))?;
        }
        let newest = newest_complete(home, &stored)?;
        Ok(Self {
            shared: Arc::new(Shared {
                home: home.to_owned(),
                stored,
                memory,
                cache: SharedCache(cache),
                store,
                newest: Mutex::new(newest.map(Arc::new)),
                missing: Mutex::new(missing),
                building: Mutex::new(()),
                transfer: Mutex::new(()),
                transfers: AtomicU64::new(0),
            }),
        })
    }

    /// The newest complete snapshot.
    #[must_use]
    pub fn newest(&self) -> Option<Arc<Snapshot>> {
        self.shared.newest.lock().clone()
    }

    /// Makes a snapshot of the state as it is now; gives back the newest one when nothing was applied since. Blocks
    /// for a flush and for summing files that are new since the last snapshot.
    ///
    /// # Errors
    /// Nothing has been applied yet, or a file or the store failed. The newest snapshot stays what it was.
    pub fn build(&self) -> Result<Arc<Snapshot>, SnapshotError> {
        let _one = self.shared.building.lock();
        let newest = self.newest();
        let kept = kept(&self.shared.home);
        let unfinished = kept.join(format!("build{UNFINISHED}"));
        files::remove_dir(&unfinished).map_err(io_error(&unfinished))?;
        files::create_dir(&unfinished).map_err(io_error(&unfinished))?;
        let data = unfinished.join(DATA);
        self.shared.store.checkpoint(&data)?;
        let machine = machine_state(&data, &self.shared.memory)?.ok_or(SnapshotError::Empty)?;
        let mut manifest = Manifest::of(&machine, &self.shared.stored);
        if let Some(newest) = newest.filter(|newest| newest.manifest.same_state(&manifest)) {
            files::remove_dir(&unfinished).map_err(io_error(&unfinished))?;
            return Ok(newest);
        }
        for name in files::names(&data).map_err(io_error(&data))? {
            if Manifest::sends(&name) {
                manifest.files.push(self.describe(&data, name)?);
            }
        }
        self.keep(manifest, &unfinished)
    }

    /// Gives up the newest snapshot, of which a file is damaged, and makes another; one that is there already is given back.
    /// When the state has the same file, it is the state that is damaged.
    ///
    /// # Errors
    /// As [`Snapshots::build`]; or the state shares the damage.
    pub fn renew(&self, damaged: LogPosition, what: &str) -> Result<Arc<Snapshot>, SnapshotError> {
        let old = {
            let mut newest = self.shared.newest.lock();
            match newest.take_if(|newest| newest.manifest.position() == damaged) {
                Some(old) => old,
                None => {
                    drop(newest);
                    return self.build();
                }
            }
        };
        tracing::error!(what, "a snapshot is damaged; another is made");
        for file in 0..old.manifest.files.len() {
            let Some(damage) = old.damage(file)? else { continue };
            let file = old.manifest.file(file)?;
            let inode = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
            let shared = inode(&self.shared.store.path().join(&file.name));
            if shared.is_some() && shared == inode(&old.path(file)) {
                self.condemn(&format!("{damage}, and it is a file of the state as well"));
                return Err(SnapshotError::Store(StoreError(damage)));
            }
        }
        // Not left to whoever holds it last: the next one may come to stand in its place.
        files::remove_dir(&old.dir).map_err(io_error(&old.dir))?;
        self.build()
    }

    /// Name, size and checksum of a file; the checksum of a file that the newest snapshot shares is not taken again.
    fn describe(&self, data: &Path, name: String) -> Result<ManifestFile, SnapshotError> {
        let path = data.join(&name);
        let found = std::fs::metadata(&path).map_err(io_error(&path))?;
        if let Some(newest) = self.newest()
            && let Some(known) = newest.manifest.files.iter().find(|file| file.name == name)
        {
            let shared = newest.dir.join(DATA).join(&name);
            let same =
                std::fs::metadata(&shared).is_ok_and(|other| (other.dev(), other.ino()) == (found.dev(), found.ino()));
            if same {
                return Ok(known.clone());
            }
        }
        let (sha256, size) = files::checksum(&path).map_err(io_error(&path))?;
        Ok(ManifestFile { name, size, sha256: sha256.into() })
    }

    /// Completes a snapshot put together in `unfinished` and makes it the newest one, unless one of a later position is
    /// there.
    pub(crate) fn keep(&self, manifest: Manifest, unfinished: &Path) -> Result<Arc<Snapshot>, SnapshotError> {
        let path = unfinished.join(MANIFEST);
        files::replace(&path, &manifest.encode()).map_err(io_error(&path))?;
        let data = unfinished.join(DATA);
        files::sync_dir(&data).map_err(io_error(&data))?;
        let kept = kept(&self.shared.home);
        let dir = kept.join(manifest.id());
        let mut newest = self.shared.newest.lock();
        // One that arrived while this one was built may be ahead of it.
        if let Some(newest) = newest.as_ref().filter(|newest| newest.manifest.position() >= manifest.position()) {
            files::remove_dir(unfinished).map_err(io_error(unfinished))?;
            return Ok(newest.clone());
        }
        files::remove_dir(&dir).map_err(io_error(&dir))?;
        std::fs::rename(unfinished, &dir).map_err(io_error(&dir))?;
        files::sync_dir(&kept).map_err(io_error(&kept))?;
        let snapshot = Arc::new(Snapshot { dir, manifest, replaced: AtomicBool::new(false) });
        if let Some(old) = newest.replace(snapshot.clone()) {
            old.replaced.store(true, Ordering::Release);
        }
        Ok(snapshot)
    }

    /// What was found damaged in the state, if anything was. Such a state is not gone on with; the next start makes it anew.
    #[must_use]
    pub fn damage(&self) -> Option<String> {
        self.shared.store.health().damage()
    }

    /// The state is not what it should be, by the judgement of somebody who compared it.
    pub fn condemn(&self, what: &str) {
        self.shared.store.health().condemn(what);
    }

    /// As [`Snapshots::condemn`], when nobody knows since when: what this replica has kept is given up as well.
    pub fn distrust(&self, what: &str) {
        self.condemn(what);
        if let Some(own) = self.shared.newest.lock().take() {
            own.replaced.store(true, Ordering::Release);
        }
    }

    /// Why there is no state to begin with, if there is none: one has to be taken from another replica.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        self.shared.missing.lock().clone()
    }

    /// Bytes that are free on the disk of the data directory, and all that it has.
    #[must_use]
    pub fn space(&self) -> Option<(u64, u64)> {
        let of = rustix::fs::statvfs(&self.shared.home).ok()?;
        Some((of.f_bavail.saturating_mul(of.f_frsize), of.f_blocks.saturating_mul(of.f_frsize)))
    }

    /// The members last noted, opaque here.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn members(&self) -> Result<Option<Bytes>, SnapshotError> {
        let path = self.shared.home.join(MEMBERS);
        Ok(files::read_if_present(&path).map_err(io_error(&path))?.map(Bytes::from))
    }

    /// Notes who the members are, where it is found without the state.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note_members(&self, members: &[u8]) -> Result<(), SnapshotError> {
        let path = self.shared.home.join(MEMBERS);
        files::replace(&path, members).map_err(io_error(&path))
    }

    /// Makes the state anew from the newest snapshot of this replica, if that is whole and its log goes on from there.
    /// A snapshot that does not serve is removed: its tables may be those of the damaged state.
    pub(crate) fn restore_own(&self, purged_index: Option<u64>) -> Result<bool, SnapshotError> {
        let Some(own) = self.newest() else { return Ok(false) };
        let enough = purged_index.is_none_or(|purged| own.manifest.index >= purged);
        let restored = if enough { self.place_own(&own) } else { Err(SnapshotError::Empty) };
        match restored {
            Ok(()) => {
                tracing::warn!(index = own.manifest.index, "the state was made anew from this replica's own snapshot");
                Ok(true)
            }
            Err(error) => {
                tracing::warn!(%error, "this replica's own snapshot cannot take the place of the state");
                *self.shared.newest.lock() = None;
                own.replaced.store(true, Ordering::Release);
                Ok(false)
            }
        }
    }

    fn place_own(&self, own: &Snapshot) -> Result<(), SnapshotError> {
        let data = own.dir.join(DATA);
        for file in &own.manifest.files {
            let path = data.join(&file.name);
            let (found, _) = files::checksum(&path).map_err(io_error(&path))?;
            if found != file.sha256 {
                let (file, expected) = (file.name.clone(), file.checksum());
                return Err(SnapshotError::Checksum { file, found: hex::encode(found), expected });
            }
        }
        let (name, dir) = crate::home::next_state(&self.shared.home).map_err(io_error(&self.shared.home))?;
        let beside = receive::Beside { manifest: &own.manifest, dir: &dir };
        let opened = beside.place(|file| data.join(&file.name)).and_then(|()| beside.verify(&self.shared));
        self.shared.take_over(opened, &name, &dir)
    }

    /// Begins to take a snapshot that another replica sends. A transfer begun earlier ends.
    ///
    /// # Errors
    /// The snapshot is not one for this replica, or the staging directory cannot be prepared.
    pub fn receive(&self, manifest: Manifest) -> Result<SnapshotReceiver, SnapshotError> {
        manifest.accept(&self.shared.stored)?;
        SnapshotReceiver::begin(self.clone(), manifest)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

/// The machine's own row in a database of the state that nobody else has open.
pub(crate) fn machine_state(dir: &Path, memory: &Memory) -> Result<Option<MachineState>, SnapshotError> {
    let db = db::open_state_read_only(dir, memory).map_err(crate::state::failed)?;
    let Some(bytes) = row(&db, Family::Meta, quilt_state::row::MACHINE)? else { return Ok(None) };
    let machine = MachineState::decode(bytes);
    Ok(Some(machine.map_err(|error| StoreError(format!("the machine's row does not decode: {error}")))?))
}

/// Files of complete snapshots that are not what their manifest says, a sentence each. Changes nothing.
pub(crate) fn damaged_files(home: &Path) -> io::Result<Vec<String>> {
    let kept = kept(home);
    let mut damaged = Vec::new();
    if !kept.is_dir() {
        return Ok(damaged);
    }
    for name in files::names(&kept)? {
        let dir = kept.join(&name);
        let Some(content) = files::read_if_present(&dir.join(MANIFEST))? else { continue };
        let manifest = match Manifest::decode(&content) {
            Ok(manifest) => manifest,
            Err(error) => {
                damaged.push(format!("{}: {error}", dir.join(MANIFEST).display()));
                continue;
            }
        };
        for file in &manifest.files {
            let path = dir.join(DATA).join(&file.name);
            match files::checksum(&path) {
                Ok((found, _)) if found == file.sha256 => {}
                Ok(_) => damaged.push(format!("{} has another checksum than its manifest says", path.display())),
                Err(error) => damaged.push(format!("{}: {error}", path.display())),
            }
        }
    }
    Ok(damaged)
}

/// Finds the newest complete snapshot and removes all others.
fn newest_complete(home: &Path, stored: &Stored) -> Result<Option<Snapshot>, SnapshotError> {
    let kept = kept(home);
    let mut newest: Option<Snapshot> = None;
    for name in files::names(&kept).map_err(io_error(&kept))? {
        let dir = kept.join(&name);
        let path = dir.join(MANIFEST);
        let manifest = if name.ends_with(UNFINISHED) {
            None
        } else {
            let content = files::read_if_present(&path).map_err(io_error(&path))?;
            content.and_then(|content| Manifest::decode(&content).ok()).filter(|m| m.accept(stored).is_ok())
        };
        let Some(manifest) = manifest else {
            files::remove_dir(&dir).map_err(io_error(&dir))?;
            continue;
        };
        // Names ascend with the position, so a later one is newer.
        if let Some(older) = newest.replace(Snapshot { dir, manifest, replaced: AtomicBool::new(false) }) {
            older.replaced.store(true, Ordering::Release);
        }
    }
    Ok(newest)
}
