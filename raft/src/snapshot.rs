//! Snapshots as the agreement layer needs them: something that is built, read in pieces by a sender, and put together
//! by a receiver. What is in the pieces is the storage's business.

use std::sync::Arc;

use bytes::Bytes;
use openraft::type_config::TypeConfigExt;
use parking_lot::Mutex;
use quilt_state::{Machine, MemoryStore, Position};
use quilt_storage::snapshot::SnapshotReceiver;
use quilt_storage::{Manifest, Snapshot, Snapshots};

use crate::one_piece::OnePiece;
use crate::types::TypeConfig;

/// A snapshot operation failed.
#[derive(Debug, thiserror::Error)]
#[error("snapshot: {0}")]
pub struct SnapshotFailed(pub String);

pub(crate) fn failed(error: impl std::fmt::Display) -> SnapshotFailed {
    SnapshotFailed(error.to_string())
}

/// Does on a blocking thread what reads or writes files.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotFailed> + Send + 'static,
) -> Result<T, SnapshotFailed> {
    TypeConfig::spawn_blocking(work).await.unwrap_or_else(|error| Err(failed(error)))
}

/// What is still to be sent of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedFile {
    /// Its number in the snapshot.
    pub file: usize,
    /// The offset to go on at.
    pub offset: u64,
}

/// A complete snapshot.
pub trait SnapshotSource: Send + Sync + 'static {
    /// Its description, opaque to the sender.
    fn manifest(&self) -> Bytes;
    /// Last log entry it covers.
    fn position(&self) -> Position;
    /// The membership in force there, as the state keeps it.
    fn membership(&self) -> Bytes;
    /// Total bytes, for progress.
    fn bytes(&self) -> u64;
    /// A piece of a file; empty at its end.
    ///
    /// # Errors
    /// The file cannot be read.
    fn read(&self, file: usize, offset: u64, bytes_max: usize) -> Result<Bytes, SnapshotFailed>;
    /// Reads all of a file, and says what in it is not what was written.
    ///
    /// # Errors
    /// There is no such file.
    fn damage(&self, _file: usize) -> Result<Option<String>, SnapshotFailed> {
        Ok(None)
    }
}

/// A snapshot on its way in.
pub trait SnapshotSink: Send + Sync + 'static {
    /// What has to be sent.
    ///
    /// # Errors
    /// What has arrived before cannot be read.
    fn wanted(&self) -> Result<Vec<WantedFile>, SnapshotFailed>;
    /// Last log entry it will cover.
    fn position(&self) -> Position;
    /// The membership in force there.
    fn membership(&self) -> Bytes;
    /// Takes a piece.
    ///
    /// # Errors
    /// It does not belong there, or cannot be written.
    fn write(&mut self, file: usize, offset: u64, piece: &[u8]) -> Result<(), SnapshotFailed>;
    /// Reads all that has arrived, so that a damaged one is refused before it takes the place of anything.
    ///
    /// # Errors
    /// It is not complete, or not what was announced.
    fn verify(&mut self) -> Result<(), SnapshotFailed> {
        Ok(())
    }
    /// Puts it in the place of the state, as one step.
    ///
    /// # Errors
    /// It is not complete or not what was announced; the state is what it was.
    fn install(self: Box<Self>) -> Result<(), SnapshotFailed>;
}

/// The snapshots of one replica.
pub trait SnapshotHome: Send + Sync + 'static {
    /// Makes a snapshot of the state as it is now.
    ///
    /// # Errors
    /// The store failed, or nothing was applied yet.
    fn build(&self) -> Result<Arc<dyn SnapshotSource>, SnapshotFailed>;
    /// Gives up the newest snapshot, which is damaged, if it is still the one at `position`, and makes another.
    ///
    /// # Errors
    /// The state shares the damage, or the store failed.
    fn renew(&self, _position: Position, _what: &str) -> Result<(), SnapshotFailed> {
        self.build().map(drop)
    }
    /// What was found damaged in the state, if anything was: the replica does not go on with it.
    fn damage(&self) -> Option<String> {
        None
    }
    /// Says that the state is damaged.
    fn condemn(&self, what: &str) {
        tracing::error!(what, "the state is damaged");
    }
    /// As [`SnapshotHome::condemn`], when nobody knows since when: snapshots of it are of no use either.
    fn distrust(&self, what: &str) {
        self.condemn(what);
    }
    /// Why there is no state to begin with, if there is none.
    fn missing(&self) -> Option<String> {
        None
    }
    /// Bytes that are free on the disk, and all that it has; `None` when nothing is kept there.
    fn space(&self) -> Option<(u64, u64)> {
        None
    }
    /// The members last noted.
    fn members(&self) -> Option<Bytes> {
        None
    }
    /// Notes the members where they are found without the state. Failing costs nothing now.
    fn note_members(&self, _members: &[u8]) {}
    /// The newest complete one.
    fn newest(&self) -> Option<Arc<dyn SnapshotSource>>;
    /// Begins to take one that another replica sends.
    ///
    /// # Errors
    /// It is not one for this replica.
    fn receive(&self, manifest: &[u8]) -> Result<Box<dyn SnapshotSink>, SnapshotFailed>;
}

const fn position_of(manifest: &Manifest) -> Position {
    Position { index: manifest.index, term: manifest.term, leader: manifest.leader }
}

impl SnapshotSource for Snapshot {
    fn manifest(&self) -> Bytes {
        Self::manifest(self).encode()
    }

    fn position(&self) -> Position {
        position_of(Self::manifest(self))
    }

    fn membership(&self) -> Bytes {
        Self::manifest(self).membership.clone()
    }

    fn bytes(&self) -> u64 {
        Self::manifest(self).size()
    }

    fn read(&self, file: usize, offset: u64, bytes_max: usize) -> Result<Bytes, SnapshotFailed> {
        Self::read(self, file, offset, bytes_max).map_err(failed)
    }

    fn damage(&self, file: usize) -> Result<Option<String>, SnapshotFailed> {
        Self::damage(self, file).map_err(failed)
    }
}

impl SnapshotSink for SnapshotReceiver {
    fn wanted(&self) -> Result<Vec<WantedFile>, SnapshotFailed> {
        let wanted = Self::wanted(self).map_err(failed)?;
        Ok(wanted.into_iter().map(|wanted| WantedFile { file: wanted.file, offset: wanted.offset }).collect())
    }

    fn position(&self) -> Position {
        position_of(self.manifest())
    }

    fn membership(&self) -> Bytes {
        self.manifest().membership.clone()
    }

    fn write(&mut self, file: usize, offset: u64, piece: &[u8]) -> Result<(), SnapshotFailed> {
        Self::write(self, file, offset, piece).map_err(failed)
    }

    fn verify(&mut self) -> Result<(), SnapshotFailed> {
        Self::verify(self).map_err(failed)
    }

    fn install(self: Box<Self>) -> Result<(), SnapshotFailed> {
        Self::install(*self).map(drop).map_err(failed)
    }
}

impl SnapshotHome for Snapshots {
    fn build(&self) -> Result<Arc<dyn SnapshotSource>, SnapshotFailed> {
        Ok(Self::build(self).map_err(failed)?)
    }

    fn renew(&self, position: Position, what: &str) -> Result<(), SnapshotFailed> {
        Self::renew(self, position, what).map(drop).map_err(failed)
    }

    fn damage(&self) -> Option<String> {
        Self::damage(self)
    }

    fn condemn(&self, what: &str) {
        Self::condemn(self, what);
    }

    fn distrust(&self, what: &str) {
        Self::distrust(self, what);
    }

    fn missing(&self) -> Option<String> {
        Self::missing(self)
    }

    fn space(&self) -> Option<(u64, u64)> {
        Self::space(self)
    }

    fn members(&self) -> Option<Bytes> {
        let read = Self::members(self).inspect_err(|error| tracing::warn!(%error, "reading who the members are"));
        read.ok().flatten()
    }

    fn note_members(&self, members: &[u8]) {
        if let Err(error) = Self::note_members(self, members) {
            tracing::warn!(%error, "noting who the members are");
        }
    }

    fn newest(&self) -> Option<Arc<dyn SnapshotSource>> {
        Some(Self::newest(self)?)
    }

    fn receive(&self, manifest: &[u8]) -> Result<Box<dyn SnapshotSink>, SnapshotFailed> {
        let manifest = Manifest::decode(manifest).map_err(failed)?;
        Ok(Box::new(Self::receive(self, manifest).map_err(failed)?))
    }
}

/// Snapshots of a [`MemoryStore`].
pub(crate) struct MemorySnapshots {
    store: Arc<MemoryStore>,
    newest: Arc<Mutex<Option<Arc<OnePiece>>>>,
}

impl MemorySnapshots {
    pub(crate) fn new(store: Arc<MemoryStore>) -> Self {
        Self { store, newest: Arc::default() }
    }
}

impl SnapshotHome for MemorySnapshots {
    fn build(&self) -> Result<Arc<dyn SnapshotSource>, SnapshotFailed> {
        let rows = self.store.dump();
        let copy = Arc::new(MemoryStore::new());
        copy.load(rows.clone());
        let machine = Machine::open(copy).map_err(failed)?;
        let position = machine.position().ok_or_else(|| failed("nothing has been applied yet"))?;
        let snapshot = Arc::new(OnePiece::of(rows, position, machine.membership().clone()));
        *self.newest.lock() = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    fn newest(&self) -> Option<Arc<dyn SnapshotSource>> {
        let newest: Arc<dyn SnapshotSource> = self.newest.lock().clone()?;
        Some(newest)
    }

    fn receive(&self, manifest: &[u8]) -> Result<Box<dyn SnapshotSink>, SnapshotFailed> {
        let (store, newest) = (Arc::clone(&self.store), Arc::clone(&self.newest));
        OnePiece::receive(manifest, move |snapshot, rows| {
            store.load(rows);
            *newest.lock() = Some(Arc::new(snapshot));
        })
    }
}
