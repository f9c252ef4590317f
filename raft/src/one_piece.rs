//! [`OnePiece`]: a snapshot of a state that is kept in memory: all of its rows as one file. Knows nothing of where the rows come
//! from and where they go.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use quilt_state::{Family, Position};
use xxhash_rust::xxh3::xxh3_64;

use crate::snapshot::{SnapshotFailed, SnapshotSink, SnapshotSource, WantedFile, failed};

/// All rows of a state.
pub type Rows = BTreeMap<Family, BTreeMap<Bytes, Bytes>>;

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
    /// The checksum of its content.
    #[prost(uint64, tag = "5")]
    sum: u64,
}

impl Manifest {
    const fn position(&self) -> Position {
        Position { index: self.index, term: self.term, leader: 0 }
    }
}

/// A complete snapshot.
#[derive(Debug)]
pub struct OnePiece {
    manifest: Manifest,
    content: Bytes,
}

impl OnePiece {
    /// That of a state at a position, under a membership.
    #[must_use]
    pub fn of(rows: Rows, position: Position, membership: Bytes) -> Self {
        let mut content = Content::default();
        for (family, rows) in rows {
            let family = Family::ALL.iter().position(|known| *known == family).unwrap_or_default();
            let family = u32::try_from(family).unwrap_or_default();
            content.rows.extend(rows.into_iter().map(|(key, value)| Row { family, key, value }));
        }
        let content = Bytes::from(content.encode_to_vec());
        let Position { index, term, .. } = position;
        let (bytes, sum) = (content.len() as u64, xxh3_64(&content));
        Self { manifest: Manifest { index, term, membership, bytes, sum }, content }
    }

    fn rows(&self) -> Result<Rows, SnapshotFailed> {
        let mut rows = Rows::new();
        for Row { family, key, value } in Content::decode(self.content.clone()).map_err(failed)?.rows {
            let family = usize::try_from(family).ok().and_then(|at| Family::ALL.get(at));
            let family = family.ok_or_else(|| failed("a family that nobody knows"))?;
            rows.entry(*family).or_default().insert(key, value);
        }
        Ok(rows)
    }

    /// Begins to take one that was announced by `manifest`; `install` puts it in the place of the state, as one step.
    ///
    /// # Errors
    /// It is announced by something else.
    pub fn receive(
        manifest: &[u8],
        install: impl FnOnce(Self, Rows) + Send + Sync + 'static,
    ) -> Result<Box<dyn SnapshotSink>, SnapshotFailed> {
        let manifest = Manifest::decode(manifest).map_err(failed)?;
        Ok(Box::new(Sink { manifest, content: Vec::new(), install: Box::new(install) }))
    }
}

impl SnapshotSource for OnePiece {
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
        let end = start.saturating_add(bytes_max).min(self.content.len());
        Ok(self.content.slice(start..end))
    }
}

/// One on its way in; nothing of it is anywhere else before it is whole.
struct Sink {
    manifest: Manifest,
    content: Vec<u8>,
    install: Box<dyn FnOnce(OnePiece, Rows) + Send + Sync>,
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
        if self.content.len() as u64 != self.manifest.bytes {
            return Err(failed("pieces are missing"));
        }
        if xxh3_64(&self.content) != self.manifest.sum {
            return Err(failed("it is not what was announced"));
        }
        let whole = OnePiece { manifest: self.manifest, content: self.content.into() };
        let rows = whole.rows()?;
        (self.install)(whole, rows);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> OnePiece {
        let row = (Bytes::from_static(b"key"), Bytes::from_static(b"value"));
        let rows = Rows::from([(Family::ALL[0], BTreeMap::from([row]))]);
        OnePiece::of(rows, Position { index: 7, term: 2, leader: 0 }, Bytes::from_static(b"members"))
    }

    /// What arrives is installed when it is what was announced, and never when a byte of it is another one.
    #[test]
    fn a_changed_byte_is_not_installed() {
        let piece = small();
        let content = piece.read(0, 0, usize::MAX).expect("its content");
        for changed in std::iter::once(None).chain((0..content.len()).map(Some)) {
            let (installed, arrived) = std::sync::mpsc::channel();
            let mut sink = OnePiece::receive(&piece.manifest(), move |_, rows| installed.send(rows).expect("heard"))
                .expect("a manifest");
            let mut sent = content.to_vec();
            if let Some(at) = changed {
                sent[at] ^= 1;
            }
            sink.write(0, 0, &sent).expect("a piece that follows");
            assert_eq!(sink.install().is_ok(), changed.is_none(), "byte {changed:?}");
            assert_eq!(arrived.try_recv().ok(), changed.is_none().then(|| piece.rows().expect("its rows")));
        }
    }
}
