//! Snapshots on the modelled disk: all rows of the flushed state, sent as one file. Kept through every crash once whole.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use quilt_raft_simulated::{SnapshotFailed, SnapshotHome, SnapshotSink, SnapshotSource, WantedFile};
use quilt_state::{Family, Position};

use crate::disk::{Rocks, Rows};
use crate::flaw::Flaw;

fn failed(error: impl std::fmt::Display) -> SnapshotFailed {
    SnapshotFailed(error.to_string())
}

#[derive(Clone, PartialEq, prost::Message)]
struct Content {
    #[prost(message, repeated, tag = "1")]
    rows: Vec<Row>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Row {
    #[prost(uint32, tag = "1")]
    family: u32,
    #[prost(bytes = "bytes", tag = "2")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Manifest {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(bytes = "bytes", tag = "3")]
    membership: Bytes,
    #[prost(uint64, tag = "4")]
    bytes: u64,
    #[prost(uint64, tag = "5")]
    sum: u64,
}

impl Manifest {
    const fn position(&self) -> Position {
        Position { index: self.index, term: self.term, leader: 0 }
    }
}

/// A complete snapshot.
pub(crate) struct Kept {
    manifest: Manifest,
    content: Bytes,
}

impl SnapshotSource for Kept {
    fn manifest(&self) -> Bytes {
        self.manifest.encode_to_vec().into()
    }

    fn position(&self) -> Position {
        self.manifest.position()
    }

    fn membership(&self) -> Bytes {
        self.manifest.membership.clone()
    }

    fn bytes(&self) -> u64 {
        self.manifest.bytes
    }

    fn read(&self, _file: usize, offset: u64, bytes_max: usize) -> Result<Bytes, SnapshotFailed> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.content.len());
        Ok(self.content.slice(start..start.saturating_add(bytes_max).min(self.content.len())))
    }
}

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
        let (rows, machine) = self.store.checkpoint().ok_or_else(|| failed("nothing has been applied yet"))?;
        let mut content = Content::default();
        for (family, rows) in rows {
            if family == Family::Sessions && Flaw::SessionsNotInSnapshot.is_shown() {
                continue;
            }
            let family = Family::ALL.iter().position(|known| *known == family).unwrap_or_default();
            let family = u32::try_from(family).unwrap_or_default();
            content.rows.extend(rows.into_iter().map(|(key, value)| Row { family, key, value }));
        }
        let content = Bytes::from(content.encode_to_vec());
        let manifest = Manifest {
            index: machine.applied_index,
            term: machine.applied_term,
            membership: if Flaw::MembershipNotInSnapshot.is_shown() { Bytes::new() } else { machine.membership },
            bytes: content.len() as u64,
            sum: xxhash_rust::xxh3::xxh3_64(&content),
        };
        let kept = Arc::new(Kept { manifest, content });
        self.store.keep(Arc::clone(&kept));
        Ok(kept)
    }

    fn newest(&self) -> Option<Arc<dyn SnapshotSource>> {
        Some(self.store.kept()?)
    }

    fn receive(&self, manifest: &[u8]) -> Result<Box<dyn SnapshotSink>, SnapshotFailed> {
        let manifest = Manifest::decode(manifest).map_err(failed)?;
        Ok(Box::new(Sink { manifest, content: Vec::new(), store: Arc::clone(&self.store) }))
    }
}

/// A snapshot on its way in; nothing of it is on the disk before it is whole.
struct Sink {
    manifest: Manifest,
    content: Vec<u8>,
    store: Arc<Rocks>,
}

impl SnapshotSink for Sink {
    fn wanted(&self) -> Result<Vec<WantedFile>, SnapshotFailed> {
        let held = self.content.len() as u64;
        Ok(if held >= self.manifest.bytes { Vec::new() } else { vec![WantedFile { file: 0, offset: held }] })
    }

    fn position(&self) -> Position {
        self.manifest.position()
    }

    fn membership(&self) -> Bytes {
        self.manifest.membership.clone()
    }

    fn write(&mut self, _file: usize, offset: u64, piece: &[u8]) -> Result<(), SnapshotFailed> {
        if offset != self.content.len() as u64 || offset + piece.len() as u64 > self.manifest.bytes {
            return Err(failed(format!("a piece at {offset} does not follow")));
        }
        self.content.extend_from_slice(piece);
        Ok(())
    }

    fn install(self: Box<Self>) -> Result<(), SnapshotFailed> {
        let content = Bytes::from(self.content);
        let whole = content.len() as u64 == self.manifest.bytes;
        if !whole || xxhash_rust::xxh3::xxh3_64(&content) != self.manifest.sum {
            return Err(failed("it is not what was announced"));
        }
        let mut rows = Rows::new();
        for row in Content::decode(content.clone()).map_err(failed)?.rows {
            let family = usize::try_from(row.family).ok().and_then(|at| Family::ALL.get(at));
            let family = family.ok_or_else(|| failed("a family that nobody knows"))?;
            rows.entry(*family).or_default().insert(row.key, row.value);
        }
        self.store.replace(&rows, Arc::new(Kept { manifest: self.manifest, content }));
        Ok(())
    }
}
