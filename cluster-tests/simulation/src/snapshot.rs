//! Snapshots on the modelled disk: all rows of the flushed state. Kept through every crash once whole.

use std::sync::Arc;

use bytes::Bytes;
use quilt_raft_simulated::{OnePiece, SnapshotFailed, SnapshotHome, SnapshotSink, SnapshotSource};
use quilt_state::{Family, Position};

use crate::disk::Rocks;
use crate::flaw::Flaw;

/// The snapshots of one start of a replica.
pub(crate) struct Snapshots {
    store: Arc<Rocks>,
}

impl Snapshots {
    pub(crate) const fn new(store: Arc<Rocks>) -> Self {
        Self { store }
    }
}

impl SnapshotHome for Snapshots {
    fn build(&self) -> Result<Arc<dyn SnapshotSource>, SnapshotFailed> {
        let nothing = || SnapshotFailed("nothing has been applied yet".into());
        let (mut rows, machine) = self.store.checkpoint().ok_or_else(nothing)?;
        if Flaw::SessionsNotInSnapshot.is_shown() {
            rows.remove(&Family::Sessions);
        }
        let membership = if Flaw::MembershipNotInSnapshot.is_shown() { Bytes::new() } else { machine.membership };
        let position = Position { index: machine.applied_index, term: machine.applied_term, leader: 0 };
        let kept = Arc::new(OnePiece::of(rows, position, membership));
        self.store.keep(Arc::clone(&kept));
        Ok(kept)
    }

    fn newest(&self) -> Option<Arc<dyn SnapshotSource>> {
        Some(self.store.kept()?)
    }

    fn receive(&self, manifest: &[u8]) -> Result<Box<dyn SnapshotSink>, SnapshotFailed> {
        let store = Arc::clone(&self.store);
        OnePiece::receive(manifest, move |snapshot, rows| store.replace(&rows, Arc::new(snapshot)))
    }
}
