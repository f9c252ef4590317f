//! [`Home`]: the data directory of one replica, opened as a whole.
//!
//! ```text
//! LOCK            held while a process uses the directory
//! identity        format, control plane, replica, epoch
//! log/            the raft log
//! state/CURRENT   the name of the state in use
//! state/<n>/      the state; any other number is a left-over and removed
//! state/DAMAGED   why the state in use is not gone on with
//! snapshots/<id>/ the newest snapshot
//! incoming/       pieces of a snapshot on its way in
//! members         who the members are, as last known
//! damaged/        the state that was last found damaged
//! damaged-log/    the log that was last found damaged
//! log.new/        the log that is about to take its place
//! ```
//!
//! Knows where things are, not what is in them.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use quilt_proto::state::MachineState;
use quilt_state::{Family, Store, StoreError};
use rocksdb::{Cache, ErrorKind};

use crate::damage::{self, Health};
use crate::db::{self, Memory, Presence};
use crate::files;
use crate::format::{self, FormatError, Identity, Stored};
use crate::log::{self, LogEngine, LogError, RocksLog, damage_in_manifest};
use crate::snapshot::{SnapshotError, Snapshots, io_error};
use crate::state::{RocksStore, failed};

/// What went wrong while a data directory was opened.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The directory is of another format or somebody else's.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The raft log does not open.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state does not open.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The snapshots cannot be taken over, or a file or directory could not be read or written.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Another process uses the directory.
    #[error("{0} is in use by another process: stop it, or choose another data directory")]
    InUse(PathBuf),
    /// Others may read the directory.
    #[error("{dir} can be read by others (mode {mode:o}): run chmod 700 {dir}")]
    Mode {
        /// The directory.
        dir: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A restore that has been done already.
    #[error(
        "{dir} holds the data of epoch {epoch} already: start the replica, or restore again without naming the epoch"
    )]
    Restored {
        /// The directory.
        dir: PathBuf,
        /// Its epoch.
        epoch: u64,
    },
    /// A restore into an epoch before the one the directory is in.
    #[error(
        "{dir} holds the data of epoch {found}, which is later than epoch {epoch}: begin again with a new epoch, on the \
         first replica without naming one; if that is not later either, set this host's clock right first"
    )]
    Backwards {
        /// The directory.
        dir: PathBuf,
        /// Its epoch.
        found: u64,
        /// The epoch asked for.
        epoch: u64,
    },
    /// The state is damaged, and no other has taken its place yet.
    #[error(
        "the state in {dir} is damaged: {reason}; start the replica: it takes another from its peers as soon as one of them \
         runs. Without peers see docs/operate/recovery.md"
    )]
    NoState {
        /// The directory.
        dir: PathBuf,
        /// What is damaged.
        reason: String,
    },
    /// Parts of the data are missing.
    #[error(
        "{dir} is not whole: {reason}; remove this replica from the control plane and join with an empty directory"
    )]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// What is missing.
        reason: String,
    },
}

/// The data directory of one replica, in use.
pub struct Home {
    /// The raft log.
    pub log: Arc<RocksLog>,
    /// The state machine's store.
    pub state: RocksStore,
    /// Its snapshots.
    pub snapshots: Snapshots,
    dir: PathBuf,
    stored: Stored,
    /// Released last.
    _lock: Arc<File>,
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Home").field("dir", &self.dir).field("identity", &self.stored.identity).finish_non_exhaustive()
    }
}

impl Home {
    /// Opens a data directory with the usual memory, making it when it is not there.
    ///
    /// # Errors
    /// See [`HomeError`]. Nothing is changed in a directory that is somebody else's.
    pub fn open(dir: &Path, identity: Identity) -> Result<Self, HomeError> {
        Self::open_with(dir, identity, Memory::default())
    }

    /// As [`Home::open`], with other memory budgets.
    ///
    /// # Errors
    /// As [`Home::open`].
    pub fn open_with(dir: &Path, identity: Identity, memory: Memory) -> Result<Self, HomeError> {
        let lock = lock(dir)?;
        let log_dir = dir.join("log");
        log::finish(dir).map_err(io_error(&log_dir))?;
        let stored = match format::read(dir)? {
            Some(stored) => {
                format::expect(dir, &stored, &identity)?;
                stored
            }
            None if log_dir.exists() => {
                return Err(HomeError::Damaged { dir: dir.into(), reason: "its identity file is missing".into() });
            }
            None => {
                let stored = Stored { identity, epoch: 0 };
                format::write(dir, &stored)?;
                stored
            }
        };
        // The log is made after the pointer: without a log this is a first start, perhaps the second try of one.
        if !log_dir.exists() && !pointer(dir).exists() {
            first_state(dir)?;
        }
        files::create_dir(&log_dir).map_err(io_error(&log_dir))?;
        files::sync_dir(dir).map_err(io_error(dir))?;
        let log = match RocksLog::open(&log_dir, &memory) {
            Err(LogError::Lost { reason, .. }) => {
                tracing::error!(reason, "the log is damaged; what is whole of it is gone on with");
                log::salvage(dir, &memory, &reason)?;
                RocksLog::open(&log_dir, &memory)?
            }
            opened => opened?,
        };
        let lock = Arc::new(lock);
        log.hold(Arc::clone(&lock));
        let log = Arc::new(log);
        let lossless = log.loss().is_none();
        let never_voted = lossless && log.vote().is_none() && log.bounds().last.is_none();
        let presence = if never_voted { Presence::Create } else { Presence::Required };
        let cache = db::block_cache(&memory);
        let opening = Opening { dir, memory, cache, presence };
        let (state, missing) = match opening.state()? {
            Opened::Whole(state) => {
                // Otherwise there is nothing to compare with, until what was lost is made good.
                if lossless {
                    check_together(dir, &*log, &state)?;
                }
                (state, None)
            }
            // What was promised is forgotten as well: to come back under the same number would break it.
            Opened::Lost(reason) if never_voted => return Err(HomeError::Damaged { dir: dir.into(), reason }),
            Opened::Lost(why) => {
                tracing::error!(why, "the state cannot be gone on with");
                (opening.instead(&why)?, Some(why))
            }
        };
        let lost = missing.is_some();
        let Opening { memory, cache, .. } = opening;
        let snapshots = Snapshots::open(dir, stored.clone(), memory, cache, state.clone(), missing)?;
        if lost {
            snapshots.restore_own(log.bounds().purged.map(|purged| purged.index))?;
        }
        Ok(Self { log, state, snapshots, dir: dir.to_owned(), stored, _lock: lock })
    }

    /// Makes an empty directory that of a new replica of a control plane which is in `epoch`. One that is this replica's
    /// already is left as it is.
    ///
    /// # Errors
    /// See [`HomeError`]. Nothing is changed in a directory that is somebody else's.
    pub fn prepare(dir: &Path, identity: Identity, epoch: u64) -> Result<(), HomeError> {
        let _lock = lock(dir)?;
        match format::read(dir)? {
            Some(stored) => format::expect(dir, &stored, &identity)?,
            None => format::write(dir, &Stored { identity, epoch })?,
        }
        Ok(())
    }

    /// Whose data a directory holds; nothing when it holds none yet. Does not need the lock.
    ///
    /// # Errors
    /// The identity file cannot be read or is of a newer format.
    pub fn identity_of(dir: &Path) -> Result<Option<Identity>, HomeError> {
        Ok(format::read(dir)?.map(|stored| stored.identity))
    }

    /// Whose data this is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.stored.identity
    }

    /// How often the control plane was restored; replicas of an older epoch are fenced.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.stored.epoch
    }

    /// What a tool that needs the state is told when there is none that can be gone on with.
    ///
    /// # Errors
    /// There is none.
    pub fn require_state(&self) -> Result<(), HomeError> {
        match self.snapshots.missing() {
            None => Ok(()),
            Some(reason) => Err(HomeError::NoState { dir: self.dir.clone(), reason }),
        }
    }

    /// Whether the state or the log in a directory that is not in use was found damaged: the next start makes it anew, or
    /// whole again.
    #[must_use]
    pub fn is_condemned(dir: &Path) -> bool {
        damage::marked(dir).is_ok_and(|mark| mark.is_some()) || log::mark_of(&dir.join("log")).is_some()
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// What is the replica's data in a data directory. Its identity first: without it nothing else is taken for whole.
pub(crate) const DATA: [&str; 5] = ["identity", "log", "state", "snapshots", "incoming"];

/// Takes the directory for this process.
pub(crate) fn lock(dir: &Path) -> Result<File, HomeError> {
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent).map_err(io_error(parent))?;
    }
    files::create_dir(dir).map_err(io_error(dir))?;
    let mode = std::fs::metadata(dir).map_err(io_error(dir))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        // Made by hand for us and still empty: ours to close. With data in it somebody has opened it.
        if !files::names(dir).map_err(io_error(dir))?.is_empty() {
            return Err(HomeError::Mode { dir: dir.into(), mode });
        }
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(io_error(dir))?;
    }
    let path = dir.join("LOCK");
    let lock = files::create_file(&path).map_err(io_error(&path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(HomeError::InUse(dir.into())),
        Err(TryLockError::Error(source)) => Err(io_error(&path)(source).into()),
    }
}

pub(crate) fn states(home: &Path) -> PathBuf {
    home.join("state")
}

pub(crate) fn pointer(home: &Path) -> PathBuf {
    states(home).join("CURRENT")
}

fn state_name(number: u64) -> String {
    format!("{number:010}")
}

/// The state of a data directory as it was found.
enum Opened {
    Whole(RocksStore),
    /// It is damaged, or not there; why.
    Lost(String),
}

/// How the state is opened.
struct Opening<'a> {
    dir: &'a Path,
    memory: Memory,
    cache: Cache,
    presence: Presence,
}

impl Opening<'_> {
    /// Opens the state in use, and removes what an interrupted install left beside it. Without one nothing is removed.
    fn state(&self) -> Result<Opened, HomeError> {
        let states = states(self.dir);
        files::create_dir(&states).map_err(io_error(&states))?;
        if let Some(why) = damage::marked(self.dir).map_err(io_error(&states))? {
            return Ok(Opened::Lost(why));
        }
        let path = pointer(self.dir);
        let Some(content) = files::read_if_present(&path).map_err(io_error(&path))? else {
            return Ok(Opened::Lost("state/CURRENT is missing".into()));
        };
        let name = String::from_utf8_lossy(&content).trim().to_owned();
        if name.parse::<u64>().is_err() || !states.join(&name).is_dir() {
            return Ok(Opened::Lost(format!("state/CURRENT names {name:?}, which is not there")));
        }
        let state = states.join(&name);
        if let Some(damage) = damage_in_manifest(&state).map_err(io_error(&state))? {
            return Ok(Opened::Lost(damage));
        }
        let db = match db::open_state(&state, &self.memory, &self.cache, self.presence) {
            Ok(db) => db,
            Err(error) if is_lost(&error) => {
                return Ok(Opened::Lost(format!("{} does not open: {error}", state.display())));
            }
            Err(error) => return Err(failed(error).into()),
        };
        let store = RocksStore::new(db, Health::of(self.dir));
        // Read here, where damage in it only means that there is another state to take.
        let machine = store.get(Family::Meta, quilt_state::row::MACHINE).map(Option::unwrap_or_default);
        match machine.map(MachineState::decode) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Ok(Opened::Lost(format!("the machine's row does not decode: {error}"))),
            Err(error) => return Ok(Opened::Lost(error.to_string())),
        }
        for other in files::names(&states).map_err(io_error(&states))? {
            let dir = states.join(&other);
            if other != name && dir.is_dir() {
                tracing::info!(dir = %dir.display(), "removing a state that is not in use");
                files::remove_dir(&dir).map_err(io_error(&dir))?;
            }
        }
        Ok(Opened::Whole(store))
    }

    /// Sets a lost state aside and opens an empty one that no start takes for the state: something to put another in the
    /// place of.
    fn instead(&self, why: &str) -> Result<RocksStore, HomeError> {
        let states = states(self.dir);
        damage::mark(self.dir, why).map_err(io_error(&states))?;
        if let Some(aside) = damage::set_aside(self.dir).map_err(io_error(&states))? {
            tracing::warn!(dir = %aside.display(), "the damaged state is kept there until the next one, or until it is removed");
        }
        let (_, empty) = next_state(self.dir).map_err(io_error(&states))?;
        files::create_dir(&empty).map_err(io_error(&empty))?;
        let db = db::open_state(&empty, &self.memory, &self.cache, Presence::Create).map_err(failed)?;
        Ok(RocksStore::new(db, Health::of(self.dir)))
    }
}

/// Whether the files of a database are not whole. A full disk, a missing right or another process are something else.
fn is_lost(error: &rocksdb::Error) -> bool {
    error.kind() == ErrorKind::InvalidArgument || damage::is_damage(error)
}

/// The directory of a first state, empty.
pub(crate) fn first_state(home: &Path) -> Result<PathBuf, HomeError> {
    let states = states(home);
    files::create_dir(&states).map_err(io_error(&states))?;
    let name = state_name(1);
    let dir = states.join(&name);
    files::remove_dir(&dir).map_err(io_error(&dir))?;
    files::create_dir(&dir).map_err(io_error(&dir))?;
    point_to_state(home, &name).map_err(io_error(&states))?;
    Ok(dir)
}

/// Name and directory for a state that is to replace the one in use.
pub(crate) fn next_state(home: &Path) -> io::Result<(String, PathBuf)> {
    let states = states(home);
    let highest = files::names(&states)?.iter().filter_map(|name| name.parse::<u64>().ok()).max();
    let name = state_name(highest.unwrap_or(0) + 1);
    let dir = states.join(&name);
    Ok((name, dir))
}

/// Makes a state the one in use, as one step.
pub(crate) fn point_to_state(home: &Path, name: &str) -> io::Result<()> {
    files::sync_dir(&states(home))?;
    files::replace(&pointer(home), format!("{name}\n").as_bytes())
}

/// The log and the state must be of one life: a state without the vote that it was made under, or one that ends before
/// the log begins, cannot go on safely.
fn check_together(dir: &Path, log: &dyn LogEngine, state: &RocksStore) -> Result<(), HomeError> {
    let row = state.get(Family::Meta, quilt_state::row::MACHINE)?.unwrap_or_default();
    let machine =
        MachineState::decode(row).map_err(|error| StoreError(format!("the machine's row does not decode: {error}")))?;
    let damaged = |reason: String| Err(HomeError::Damaged { dir: dir.into(), reason });
    let bounds = log.bounds();
    if machine.applied_index > 0 && bounds.last.is_none() && log.vote().is_none() {
        return damaged(format!("its state ends at log entry {}, and its log is empty", machine.applied_index));
    }
    match bounds.purged {
        Some(purged) if machine.applied_index < purged.index => damaged(format!(
            "its state ends at log entry {}, and its log begins behind entry {}",
            machine.applied_index, purged.index
        )),
        _ => Ok(()),
    }
}
