//! A snapshot on its way: announced by its manifest, asked for file by file, sent in pieces, installed at the end.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use openraft::type_config::TypeConfigExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::connection::Connection;
use super::convert;
use crate::peer::snapshot_ask::Ask;
use crate::peer::snapshot_part::Part;
use crate::peer::snapshot_progress::Progress;
use crate::peer::{
    SnapshotAsk, SnapshotHeader, SnapshotPart, SnapshotPiece, SnapshotProgress, SnapshotWanted, SnapshotWantedFile,
};
use crate::snapshot::{SnapshotFailed, SnapshotHome, SnapshotSink, SnapshotSource, WantedFile, blocking};
use crate::state_machine::{self, Raft, SnapshotData};
use crate::types::{TypeConfig, Vote};

/// One piece of a file.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces read ahead of what the connection has taken.
const PIECES_AHEAD: usize = 4;

/// Why a snapshot did not arrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The connection failed.
    #[error("{}", .0.message())]
    Status(Box<Status>),
    /// Reading it here failed.
    #[error(transparent)]
    Read(#[from] SnapshotFailed),
    /// The receiver refused it.
    #[error("the receiver says: {0}")]
    Refused(String),
}

impl From<Status> for SendError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

const fn part(part: Part) -> SnapshotPart {
    SnapshotPart { part: Some(part) }
}

/// Sends a snapshot; returns the receiver's vote once it is installed there, or was refused by a higher vote.
pub(crate) async fn send(
    connection: &Connection,
    vote: Vote,
    source: Arc<dyn SnapshotSource>,
    home: &Arc<dyn SnapshotHome>,
) -> Result<Vote, SendError> {
    let (parts, outgoing) = mpsc::channel(PIECES_AHEAD);
    let header = SnapshotHeader { vote: Some(convert::vote_out(&vote)), manifest: source.manifest() };
    // The receiver of the channel is right here.
    let _ = parts.send(part(Part::Header(header))).await;
    let mut client = connection.snapshots();
    let mut progress = client.install(ReceiverStream::new(outgoing)).await?.into_inner();
    tracing::info!(to = connection.id, bytes = source.bytes(), "sending a snapshot");
    while let Some(said) = progress.message().await? {
        connection.note_heard();
        match said.progress {
            Some(Progress::Wanted(wanted)) => feed(&parts, &source, home, wanted).await?,
            Some(Progress::Vote(vote)) => return Ok(convert::vote_in(Some(vote))),
            Some(Progress::Failed(text)) => return Err(SendError::Refused(text)),
            None => return Err(SendError::Refused("an answer this release does not know".into())),
        }
    }
    Err(SendError::Refused("the transfer ended without an answer".into()))
}

async fn feed(
    parts: &mpsc::Sender<SnapshotPart>,
    source: &Arc<dyn SnapshotSource>,
    home: &Arc<dyn SnapshotHome>,
    wanted: SnapshotWanted,
) -> Result<(), SendError> {
    for SnapshotWantedFile { file, mut offset } in wanted.files {
        // Whoever receives it would notice, and ask for the same file again and again.
        let (checked, keeper) = (Arc::clone(source), Arc::clone(home));
        let number = usize::try_from(file).unwrap_or(usize::MAX);
        blocking(move || match checked.damage(number)? {
            None => Ok(()),
            Some(what) => {
                keeper.renew(checked.position(), &what)?;
                Err(SnapshotFailed(format!("{what}; another one was made and will be sent")))
            }
        })
        .await?;
        loop {
            let (reading, number) = (Arc::clone(source), usize::try_from(file).unwrap_or(usize::MAX));
            let data = blocking(move || reading.read(number, offset, PIECE_BYTES)).await?;
            let length = data.len();
            // An empty file still has one piece, so that the receiver completes it.
            if length > 0 || offset == 0 {
                let piece = SnapshotPiece { file, offset, data };
                if parts.send(part(Part::Piece(piece))).await.is_err() {
                    return Ok(()); // the receiver has ended the call: its answer says why
                }
            }
            offset += length as u64;
            if length < PIECE_BYTES {
                break;
            }
        }
    }
    // As above.
    let _ = parts.send(part(Part::End(true))).await;
    Ok(())
}

/// One step of a transfer that a peer has to take.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// Asks a peer for its state, which must cover `index`, and takes in all of it. It is neither looked at nor installed.
pub(crate) async fn fetch(
    connection: &Connection,
    index: u64,
    home: Arc<dyn SnapshotHome>,
) -> Result<Box<dyn SnapshotSink>, SnapshotFailed> {
    let failed = |error: &dyn std::fmt::Display| SnapshotFailed(error.to_string());
    let (asks, outgoing) = mpsc::channel(2);
    // The receiver of the channel is right here, and has room for both.
    let _ = asks.send(SnapshotAsk { ask: Some(Ask::Index(index)) }).await;
    let mut client = connection.snapshots();
    let called = TypeConfig::timeout(STEP_TIMEOUT, client.fetch(ReceiverStream::new(outgoing))).await;
    let called = called.map_err(|late| failed(&late))?;
    let mut parts = called.map_err(|status| failed(&status.message()))?.into_inner();
    let mut sink: Option<Box<dyn SnapshotSink>> = None;
    loop {
        let next = TypeConfig::timeout(STEP_TIMEOUT, parts.message()).await.map_err(|late| failed(&late))?;
        let next = next.map_err(|status| failed(&status.message()))?;
        match (next.and_then(|next| next.part), sink.take()) {
            (Some(Part::Header(header)), None) => {
                let home = Arc::clone(&home);
                let begun = blocking(move || home.receive(&header.manifest)).await?;
                let files = begun.wanted()?.into_iter().map(wanted_out).collect();
                let wanted = SnapshotAsk { ask: Some(Ask::Wanted(SnapshotWanted { files })) };
                // The peer may have gone away; the next read shows it.
                let _ = asks.send(wanted).await;
                sink = Some(begun);
            }
            (Some(Part::Piece(piece)), Some(mut begun)) => {
                let written = blocking(move || {
                    let file = usize::try_from(piece.file).unwrap_or(usize::MAX);
                    begun.write(file, piece.offset, &piece.data)?;
                    Ok(begun)
                });
                sink = Some(written.await?);
            }
            (Some(Part::End(_)), Some(complete)) => return Ok(complete),
            _ => return Err(SnapshotFailed("the transfer ended before the snapshot did".into())),
        }
    }
}

/// Gives this replica's state to a peer that has lost its own.
pub(crate) async fn offer(
    home: Arc<dyn SnapshotHome>,
    mut asks: Streaming<SnapshotAsk>,
    parts: mpsc::Sender<Result<SnapshotPart, Status>>,
) {
    let (inner, mut outgoing) = mpsc::channel(PIECES_AHEAD);
    let answers = parts.clone();
    // Pieces are made for either way of sending; here they are replies.
    let passing = TypeConfig::spawn(async move {
        while let Some(part) = outgoing.recv().await {
            if answers.send(Ok(part)).await.is_err() {
                return;
            }
        }
    });
    let given = give(home, &mut asks, &inner).await;
    drop(inner);
    // It ends with what was sent.
    let _ = passing.await;
    if let Err(error) = given {
        tracing::warn!(%error, "a peer asked for this replica's state and did not get it");
        // The peer may have gone away.
        let _ = parts.send(Err(Status::unavailable(error.to_string()))).await;
    }
}

async fn give(
    home: Arc<dyn SnapshotHome>,
    asks: &mut Streaming<SnapshotAsk>,
    parts: &mpsc::Sender<SnapshotPart>,
) -> Result<(), SendError> {
    let first = asks.next().await.transpose()?.and_then(|first| first.ask);
    let Some(Ask::Index(index)) = first else {
        return Err(SendError::Refused("asking for a state begins with a log entry".into()));
    };
    let source = {
        let home = Arc::clone(&home);
        blocking(move || home.build()).await?
    };
    let covered = source.position().index;
    if covered < index {
        return Err(SendError::Refused(format!("the state here ends at log entry {covered}, {index} is needed")));
    }
    tracing::info!(bytes = source.bytes(), index = covered, "a peer has lost its state and takes this replica's");
    let header = SnapshotHeader { vote: None, manifest: source.manifest() };
    // Whether the peer is still there shows below.
    let _ = parts.send(part(Part::Header(header))).await;
    match asks.next().await.transpose()?.and_then(|next| next.ask) {
        Some(Ask::Wanted(wanted)) => feed(parts, &source, &home, wanted).await,
        _ => Err(SendError::Refused("the transfer ended before files were asked for".into())),
    }
}

/// Takes a snapshot in and installs it. What was said last ends the call.
pub(crate) async fn receive(
    raft: Raft,
    home: Arc<dyn SnapshotHome>,
    mut parts: Streaming<SnapshotPart>,
    said: mpsc::Sender<Result<SnapshotProgress, Status>>,
) {
    let last = match take(&raft, home, &mut parts, &said).await {
        Ok(vote) => Progress::Vote(convert::vote_out(&vote)),
        Err(SendError::Status(status)) => {
            // The sender is gone; the files that came whole stay for its next attempt.
            tracing::warn!(error = status.message(), "a snapshot broke off on its way in");
            return;
        }
        Err(error) => {
            tracing::warn!(%error, "a snapshot was not installed");
            Progress::Failed(error.to_string())
        }
    };
    // The sender may have gone away.
    let _ = said.send(Ok(SnapshotProgress { progress: Some(last) })).await;
}

async fn take(
    raft: &Raft,
    home: Arc<dyn SnapshotHome>,
    parts: &mut Streaming<SnapshotPart>,
    said: &mpsc::Sender<Result<SnapshotProgress, Status>>,
) -> Result<Vote, SendError> {
    let first = parts.next().await.transpose()?;
    let Some(Part::Header(header)) = first.and_then(|first| first.part) else {
        return Err(SendError::Refused("a snapshot begins with its header".into()));
    };
    let vote = convert::vote_in(header.vote);
    let mut sink = blocking(move || home.receive(&header.manifest)).await?;
    let wanted = sink.wanted()?.into_iter().map(wanted_out).collect();
    let wanted = Progress::Wanted(SnapshotWanted { files: wanted });
    // The sender may have gone away; the next read shows it.
    let _ = said.send(Ok(SnapshotProgress { progress: Some(wanted) })).await;
    loop {
        match parts.next().await.transpose()?.and_then(|next| next.part) {
            Some(Part::Piece(piece)) => {
                sink = blocking(move || {
                    let file = usize::try_from(piece.file).unwrap_or(usize::MAX);
                    sink.write(file, piece.offset, &piece.data)?;
                    Ok(sink)
                })
                .await?;
            }
            Some(Part::End(_)) => break,
            Some(Part::Header(_)) | None => {
                return Err(SendError::Refused("the transfer ended before the snapshot did".into()));
            }
        }
    }
    // Before anybody relies on it, and before readers have to wait for it to take the state's place.
    sink = blocking(move || {
        sink.verify()?;
        Ok(sink)
    })
    .await?;
    let meta = state_machine::meta(sink.position(), &sink.membership());
    let meta = meta.map_err(|error| SnapshotFailed(error.to_string()))?;
    let snapshot = openraft::Snapshot { meta, snapshot: SnapshotData::Arrived(sink) };
    let installed = raft.install_full_snapshot(vote, snapshot).await;
    Ok(installed.map_err(|error| SendError::Refused(error.to_string()))?.vote)
}

fn wanted_out(wanted: WantedFile) -> SnapshotWantedFile {
    SnapshotWantedFile { file: u32::try_from(wanted.file).unwrap_or(u32::MAX), offset: wanted.offset }
}
