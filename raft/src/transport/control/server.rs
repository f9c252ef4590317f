//! The accepting side of a control connection: one task that reads questions and writes answers as they come.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::future::{Either, select};
use futures::stream::{FuturesUnordered, StreamExt};
use openraft::async_runtime::Select2;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::RaftError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::type_config::TypeConfigExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::SILENCE_MAX;
use super::frame::{self, Reader};
use crate::clock::micros;
use crate::peer::control_frame::Body;
use crate::peer::{
    AppendReply, ControlFrame, PingReply, ReadIndexReply, RejoinReply, TransferReply, VoteReply, Welcome, append_reply,
    read_index_reply, rejoin_reply,
};
use crate::read::{Round, confirm};
use crate::transport::Service;
use crate::transport::convert;
use crate::transport::wire::PeerStream;
use crate::types::TypeConfig;

/// The first frame.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// Questions of one peer being answered at once; further ones wait in the socket.
const ANSWERING_MAX: usize = 1_024;
/// What an idle disk takes; a heartbeat is answered without waiting any longer.
const STORED_WITHIN: Duration = Duration::from_millis(1);
/// How long a peer's read index question waits for a quorum.
const READ_INDEX_WAIT: Duration = Duration::from_millis(500);

/// Serves one peer until its connection ends.
pub(crate) async fn serve(service: Arc<Service>, stream: PeerStream) {
    let peer = stream.peer();
    let (reading, mut writing) = tokio::io::split(stream);
    let mut reader = Reader::new(reading);
    let ended = match introduce(&service, peer, &mut reader, &mut writing).await {
        Ok(()) => answer(&service, peer, &mut reader, &mut writing).await,
        Err(error) => error,
    };
    tracing::debug!(peer, %ended, "a peer's control connection has ended");
}

async fn introduce(
    service: &Service,
    peer: u64,
    reader: &mut Reader<impl AsyncRead + Send + Unpin>,
    writing: &mut (impl AsyncWrite + Unpin),
) -> Result<(), io::Error> {
    let hello = TypeConfig::timeout(HELLO_TIMEOUT, reader.next()).await.map_err(io::Error::other)??;
    let Some(Body::Hello(hello)) = hello.body else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer does not introduce itself"));
    };
    let refused = service.admit(Some(peer), &hello).err();
    let welcome = Welcome { refused: refused.clone().unwrap_or_default() };
    write(writing, [ControlFrame { id: 0, body: Some(Body::Welcome(welcome)) }]).await?;
    match refused {
        None => Ok(()),
        Some(reason) => Err(io::Error::new(io::ErrorKind::PermissionDenied, reason)),
    }
}

async fn write(
    writing: &mut (impl AsyncWrite + Unpin),
    frames: impl IntoIterator<Item = ControlFrame>,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    frames.into_iter().for_each(|frame| frame::put(&mut buffer, &frame));
    writing.write_all(&buffer).await?;
    writing.flush().await
}

async fn answer(
    service: &Service,
    peer: u64,
    reader: &mut Reader<impl AsyncRead + Send + Unpin>,
    writing: &mut (impl AsyncWrite + Unpin),
) -> io::Error {
    let mut answering = FuturesUnordered::new();
    loop {
        let full = answering.len() >= ANSWERING_MAX;
        let next = async { if full { std::future::pending().await } else { reader.next().await } };
        let next = TypeConfig::timeout(SILENCE_MAX, next);
        let answered = async {
            match answering.next().await {
                Some(answered) => answered,
                None => std::future::pending().await,
            }
        };
        let step = match select(std::pin::pin!(answered), std::pin::pin!(next)).await {
            Either::Left((answered, _)) => Either::Left(answered),
            Either::Right((asked, _)) => Either::Right(asked),
        };
        match step {
            Either::Left(answered) => {
                if let Err(error) = write(writing, [answered]).await {
                    return error;
                }
            }
            Either::Right(Ok(Ok(frame))) => {
                service.peers.note_heard(peer);
                answering.push(reply(service, frame));
            }
            Either::Right(Ok(Err(error))) => return error,
            Either::Right(Err(_)) => return io::Error::new(io::ErrorKind::TimedOut, "the peer has fallen silent"),
        }
    }
}

async fn reply(service: &Service, question: ControlFrame) -> ControlFrame {
    let body = match question.body {
        Some(body) => decide(service, body).await.unwrap_or_else(Body::Failed),
        None => Body::Failed("a question this release does not know".into()),
    };
    ControlFrame { id: question.id, body: Some(body) }
}

/// Whether this replica's log is that of one that has just been made. The founding membership is entry 0 everywhere. A
/// candidate that has applied more knows that a majority held it, and that whoever holds nothing may have been among them.
///
/// Raft counts on what a voter said it had stored: with its vote, one that lost it could make a leader of a candidate
/// that lacks what was acknowledged (Ongaro, dissertation, section 3.8: a server that lost its state cannot safely rejoin
/// under its identity).
fn holds_nothing(service: &Service) -> bool {
    service.raft.metrics().borrow_watched().last_log_index.is_none_or(|index| index == 0)
}

async fn decide(service: &Service, question: Body) -> Result<Body, String> {
    let raft = &service.raft;
    let text = |error: &dyn std::fmt::Display| error.to_string();
    Ok(match question {
        Body::Heartbeat(request) => {
            let request = convert::append_in(request).map_err(|error| text(&error))?;
            let prev = request.prev_log_id;
            let result = match beat(service, request).await.map_err(|error| text(&error))? {
                AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_) => {
                    service.disk.note_followed();
                    Some(append_reply::Result::Matching(crate::peer::Matching { log_id: None }))
                }
                AppendEntriesResponse::Conflict => {
                    prev.as_ref().map(convert::id_out).map(append_reply::Result::Conflict)
                }
                AppendEntriesResponse::HigherVote(vote) => {
                    Some(append_reply::Result::HigherVote(convert::vote_out(&vote)))
                }
            };
            Body::AppendReply(AppendReply { result })
        }
        Body::Vote(request) | Body::PreVote(request) if request.receiver_is_known && holds_nothing(service) => {
            tracing::error!(
                "this replica has been at work in this control plane and holds nothing of it any more: it votes for nobody \
                 until a leader has brought it up; if none does, remove it and let it join anew under a new number"
            );
            let vote = Some(convert::vote_out(&raft.metrics().borrow_watched().vote));
            Body::VoteReply(VoteReply { vote, granted: false, last_log_id: None })
        }
        Body::Vote(request) => {
            let reply = raft.vote(convert::vote_request_in(request)).await.map_err(|error| text(&error))?;
            Body::VoteReply(convert::vote_reply_out(&reply))
        }
        Body::PreVote(request) => {
            let reply = raft.pre_vote(convert::vote_request_in(request)).await.map_err(|error| text(&error))?;
            Body::VoteReply(convert::vote_reply_out(&reply))
        }
        Body::Transfer(request) => {
            if request.slow_disk {
                service.disk.note_handover();
            }
            let request = convert::transfer_in(request);
            let done = raft.handle_transfer_leader(request).await.map_err(|error| text(&error))?;
            let refused = done.err().map(|error| error.to_string()).unwrap_or_default();
            Body::TransferReply(TransferReply { refused })
        }
        Body::ReadIndex(_) => Body::ReadIndexReply(ReadIndexReply { result: Some(read_index(service).await?) }),
        Body::Rejoin(_) => Body::RejoinReply(RejoinReply { result: Some(rejoin(service).await?) }),
        Body::Ping(_) => {
            let mark = service.applied.mark();
            let (milestone_index, milestone_hash) = service.applied.milestones().last().copied().unwrap_or_default();
            Body::PingReply(PingReply {
                term: mark.term,
                applied_index: mark.index,
                revision: mark.revision.get(),
                hash_high: mark.hash.0,
                hash_low: mark.hash.1,
                about: service.about.read().clone(),
                milestone_index,
                milestone_hash_high: milestone_hash.0,
                milestone_hash_low: milestone_hash.1,
                log_sync_us: service.disk.sync().map_or(0, micros),
                disk_is_slow: service.disk.is_slow(),
            })
        }
        _ => return Err("not a question".into()),
    })
}

/// Takes a heartbeat, and does not keep its sender waiting for the disk.
///
/// openraft answers it when all that was appended before is durable. With a busy disk, or a stalled one, that is long
/// after the leader has stopped waiting, and a leader that no quorum answers falls silent: an election, for nothing. A
/// heartbeat asks less. Whether this replica still follows is known as soon as openraft has dealt with it, and no crash
/// changes that where the leader's vote is durable; what is stored is told by the answers to appends alone.
async fn beat(
    service: &Service,
    request: AppendEntriesRequest<TypeConfig>,
) -> Result<AppendEntriesResponse<TypeConfig>, RaftError<TypeConfig>> {
    let (raft, vote) = (&service.raft, request.vote);
    let mut answered = std::pin::pin!(raft.append_entries(request));
    let follows = std::pin::pin!(async {
        TypeConfig::sleep(STORED_WITHIN).await;
        // This question comes behind the heartbeat: openraft has dealt with that one when it answers.
        let known = raft.with_raft_state(move |state| *state.vote_ref() == vote).await;
        matches!(known, Ok(true)) && service.disk.holds_vote(&vote)
    });
    match TypeConfig::select2(answered.as_mut(), follows).await {
        Select2::First(answer) => answer,
        Select2::Second(true) => Ok(AppendEntriesResponse::Success),
        Select2::Second(false) => answered.await,
    }
}

/// What a replica that has lost its log, its process of before included, must hold before it is counted on. A quorum answers
/// this leader after it was asked, and whoever asks is not among them: it runs no agreement. So no other leader can have made
/// use, nor can make any, of an acknowledgement that the one who asks has forgotten, but for entries that are here.
async fn rejoin(service: &Service) -> Result<rejoin_reply::Result, String> {
    let leader = service.raft.server_metrics().borrow_watched().current_leader;
    if leader != Some(service.id()) {
        return Ok(rejoin_reply::Result::NotLeader(leader.unwrap_or(0)));
    }
    match confirm(&service.raft).await {
        Ok(_) => {}
        Err(Round::Failed) => return Err("no quorum of the others confirmed the leadership in time".into()),
        Err(Round::Stopped) => return Err("the replica has stopped".into()),
    }
    let last = service.raft.with_raft_state(|state| state.log_ids.last().map(|id| id.index)).await;
    Ok(rejoin_reply::Result::LastLogIndex(last.map_err(|error| error.to_string())?.unwrap_or(0)))
}

async fn read_index(service: &Service) -> Result<read_index_reply::Result, String> {
    use openraft::async_runtime::watch::WatchReceiver as _;

    let leader = service.raft.server_metrics().borrow_watched().current_leader;
    if leader != Some(service.id()) {
        return Ok(read_index_reply::Result::NotLeader(leader.unwrap_or(0)));
    }
    match TypeConfig::timeout(READ_INDEX_WAIT, service.reads.index()).await {
        Ok(Ok(index)) => Ok(read_index_reply::Result::ReadIndex(index)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no quorum confirmed the leadership in time".into()),
    }
}
