//! The peer service: accepts connections, checks who is at the other end, and hands requests to their owners.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use openraft::async_runtime::Select2;
use openraft::type_config::TypeConfigExt;
use quilt_proto::state::RegisterSession;
use quilt_proto::{ReplicaId, command};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::connection::{
    CLUSTER, CONNECTION_WINDOW_BYTES, EPOCH, FROM, KEEP_ALIVE, PEER_MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES, TO,
};
use super::stream::{PeerId, PeerStream};
use super::tls::{self, Tls};
use super::{Peers, convert, snapshot};
use crate::answers::Answers;
use crate::applied::Applied;
use crate::leadership::Leadership;
use crate::peer::control_server::{Control, ControlServer};
use crate::peer::data_server::{Data, DataServer};
use crate::peer::snapshot_transfer_server::{SnapshotTransfer, SnapshotTransferServer};
use crate::peer::{
    Answer, AppendReply, AppendRequest, AskReply, AskRequest, ForwardReply, ForwardRequest, PingReply, PingRequest,
    ReadIndexReply, ReadIndexRequest, SnapshotPart, SnapshotProgress, TransferReply, TransferRequest, VoteReply,
    VoteRequest, ask_reply, read_index_reply,
};
use crate::proposer::Proposer;
use crate::read::ReadIndex;
use crate::service::{Served, Services};
use crate::snapshot::SnapshotHome;
use crate::state_machine::Raft;
use crate::types::TypeConfig;

/// TLS handshakes under way at once.
const HANDSHAKES_MAX: usize = 64;
/// One TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a forwarded batch waits for a leader that has just been elected to become ready.
const GAIN_WAIT: Duration = Duration::from_millis(500);
/// How long a forwarded batch waits for its outcomes; its owner asks again well before.
const OUTCOME_WAIT: Duration = Duration::from_millis(1_500);
/// How long a peer's read index question waits for a quorum.
const READ_INDEX_WAIT: Duration = Duration::from_millis(500);

/// What the peer service needs of its replica.
pub(crate) struct Service {
    pub(crate) id: ReplicaId,
    pub(crate) cluster: String,
    pub(crate) epoch: u64,
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) answers: Arc<Answers>,
    pub(crate) services: Arc<Services>,
    pub(crate) reads: Arc<ReadIndex>,
    pub(crate) applied: Arc<Applied>,
    pub(crate) snapshots: Arc<dyn SnapshotHome>,
    pub(crate) leadership: watch::Receiver<Leadership>,
}

async fn handshake(tls: &Tls, socket: TcpStream) -> io::Result<PeerStream> {
    socket.set_nodelay(true)?;
    let accepting = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(socket));
    let stream = accepting.await.map_err(|_| io::Error::other("TLS handshake took too long"))??;
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let peer = leaf.and_then(tls::replica_of);
    let peer = peer.ok_or_else(|| io::Error::other("the peer's certificate names no replica"))?;
    Ok(PeerStream::new(stream, peer, None))
}

async fn accept(listener: TcpListener, tls: Arc<Tls>, accepted: mpsc::Sender<io::Result<PeerStream>>) {
    let permits = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let (socket, closed) = (std::pin::pin!(listener.accept()), std::pin::pin!(accepted.closed()));
        let socket = match TypeConfig::select2(socket, closed).await {
            Select2::Second(()) => return,
            Select2::First(Ok((socket, _))) => socket,
            Select2::First(Err(error)) => {
                // Out of descriptors, most likely: others will close some.
                tracing::warn!(%error, "accepting a peer connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (tls, accepted) = (Arc::clone(&tls), accepted.clone());
        tokio::spawn(async move {
            let _permit = permit;
            match handshake(&tls, socket).await {
                Ok(stream) => {
                    // Closed when the replica stops.
                    let _ = accepted.send(Ok(stream)).await;
                }
                Err(error) => tracing::info!(%error, "a peer connection was refused"),
            }
        });
    }
}

/// Serves peers until the replica stops.
pub(crate) async fn serve(listener: std::net::TcpListener, tls: Arc<Tls>, service: Service) -> Result<(), String> {
    let listener = TcpListener::from_std(listener).map_err(|error| error.to_string())?;
    let (accepted, incoming) = mpsc::channel(16);
    tokio::spawn(accept(listener, tls, accepted));
    let service = Arc::new(service);
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_service(
            ControlServer::from_arc(Arc::clone(&service))
                .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX),
        )
        .add_service(
            DataServer::from_arc(Arc::clone(&service))
                .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX),
        )
        .add_service(
            SnapshotTransferServer::from_arc(service)
                .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX),
        )
        .serve_with_incoming(ReceiverStream::new(incoming))
        .await
        .map_err(|error| error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

impl Service {
    /// Who asks, once it is certain that it is a peer of the same control plane that means this replica.
    fn admit<T>(&self, request: &Request<T>) -> Result<u64, Status> {
        let text = |key: &str| request.metadata().get(key).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let number = |key: &str| text(key).parse::<u64>().ok();
        let proven = request.extensions().get::<PeerId>().map(|peer| peer.0);
        let refuse = |reason: String| {
            tracing::warn!(peer = proven, reason, "a peer request was refused");
            Status::permission_denied(reason)
        };
        if text(CLUSTER) != self.cluster {
            return Err(refuse(format!("this is control plane {}, not {}", self.cluster, text(CLUSTER))));
        }
        if number(EPOCH) != Some(self.epoch) {
            let reason = format!("this control plane is at epoch {}, you are at {}", self.epoch, text(EPOCH));
            return Err(refuse(format!("{reason}: one side was restored from a backup and the other was not")));
        }
        if number(TO) != Some(self.id.0) {
            return Err(refuse(format!("this is replica {}, not {}", self.id, text(TO))));
        }
        match proven {
            Some(peer) if number(FROM) == Some(peer) => {
                self.peers.note_heard(peer);
                Ok(peer)
            }
            _ => Err(refuse(format!("the certificate does not belong to replica {}", text(FROM)))),
        }
    }

    /// Waits a moment for a leadership that is just being gained.
    async fn gained(&self) -> bool {
        use openraft::async_runtime::watch::WatchReceiver as _;

        let mut leadership = self.leadership.clone();
        if leadership.borrow().held().is_some() {
            return true;
        }
        if self.raft.metrics().borrow_watched().current_leader != Some(self.id.0) {
            return false;
        }
        let gained = async { leadership.wait_for(|now| now.held().is_some()).await.is_ok() };
        TypeConfig::timeout(GAIN_WAIT, gained).await.unwrap_or(false)
    }

    async fn outcomes(&self, request: ForwardRequest) -> Vec<Answer> {
        let expected = request.txns.len();
        let mut answers = Vec::with_capacity(expected);
        if expected == 0 {
            return answers;
        }
        let mut waiting = self.answers.expect(request.txns.iter().filter_map(|txn| txn.request_id));
        let txns = request.txns.into_iter().map(|txn| (txn, None));
        if let Err(refused) = self.proposer.submit(request.session, request.answered_below, txns) {
            tracing::debug!(?refused, "a forwarded batch was not wholly taken");
        }
        let mut leadership = self.leadership.clone();
        leadership.mark_unchanged();
        {
            let collect = async {
                while answers.len() < expected
                    && let Some((sequence, outcome)) = waiting.next().await
                {
                    answers.push(Answer { sequence, outcome: Some(outcome) });
                }
            };
            let (collect, lost) = (std::pin::pin!(collect), std::pin::pin!(leadership.changed()));
            // Whatever is missing is asked for again by its owner.
            let _ = TypeConfig::timeout(OUTCOME_WAIT, TypeConfig::select2(collect, lost)).await;
        }
        answers
    }
}

type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Control for Service {
    async fn vote(&self, request: Request<VoteRequest>) -> Reply<VoteReply> {
        self.admit(&request)?;
        let reply = self.raft.vote(convert::vote_request_in(request.into_inner())).await.map_err(stopped)?;
        Ok(Response::new(convert::vote_reply_out(&reply)))
    }

    async fn pre_vote(&self, request: Request<VoteRequest>) -> Reply<VoteReply> {
        self.admit(&request)?;
        let reply = self.raft.pre_vote(convert::vote_request_in(request.into_inner())).await.map_err(stopped)?;
        Ok(Response::new(convert::vote_reply_out(&reply)))
    }

    async fn heartbeat(&self, request: Request<AppendRequest>) -> Reply<AppendReply> {
        self.admit(&request)?;
        let request = convert::append_in(request.into_inner());
        let request = request.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut replies = std::pin::pin!(self.raft.stream_append(futures::stream::iter([request])));
        match replies.next().await {
            Some(Ok(result)) => Ok(Response::new(convert::append_reply_out(&result))),
            Some(Err(error)) => Err(stopped(error)),
            None => Err(stopped("the agreement layer has ended")),
        }
    }

    async fn transfer_leader(&self, request: Request<TransferRequest>) -> Reply<TransferReply> {
        self.admit(&request)?;
        let request = convert::transfer_in(request.into_inner());
        let done = self.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        let refused = done.err().map(|error| error.to_string()).unwrap_or_default();
        Ok(Response::new(TransferReply { refused }))
    }

    async fn read_index(&self, request: Request<ReadIndexRequest>) -> Reply<ReadIndexReply> {
        use openraft::async_runtime::watch::WatchReceiver as _;

        self.admit(&request)?;
        let leader = self.raft.metrics().borrow_watched().current_leader;
        let result = if leader == Some(self.id.0) {
            match TypeConfig::timeout(READ_INDEX_WAIT, self.reads.index()).await {
                Ok(Some(index)) => read_index_reply::Result::ReadIndex(index),
                Ok(None) => return Err(stopped("too many reads are waiting")),
                Err(_) => return Err(Status::deadline_exceeded("no quorum confirmed the leadership in time")),
            }
        } else {
            read_index_reply::Result::NotLeader(leader.unwrap_or(0))
        };
        Ok(Response::new(ReadIndexReply { result: Some(result) }))
    }

    async fn ping(&self, request: Request<PingRequest>) -> Reply<PingReply> {
        self.admit(&request)?;
        let mark = self.applied.mark();
        Ok(Response::new(PingReply {
            term: mark.term,
            applied_index: mark.index,
            revision: mark.revision.get(),
            hash_high: mark.hash.0,
            hash_low: mark.hash.1,
        }))
    }
}

type Replies<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Data for Service {
    type AppendStream = Replies<AppendReply>;

    async fn append(&self, request: Request<Streaming<AppendRequest>>) -> Reply<Self::AppendStream> {
        let from = self.admit(&request)?;
        let peers = Arc::clone(&self.peers);
        // A broken stream or a damaged message ends the requests; the leader opens a new stream.
        let requests = tokio_stream::StreamExt::map_while(request.into_inner(), move |message| {
            peers.note_heard(from);
            message.ok().and_then(|message| {
                convert::append_in(message).inspect_err(|error| tracing::error!(%error, from, "append")).ok()
            })
        });
        let replies = self.raft.stream_append(requests).map(|result| match result {
            Ok(result) => Ok(convert::append_reply_out(&result)),
            Err(error) => Err(stopped(error)),
        });
        Ok(Response::new(replies.boxed()))
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Reply<ForwardReply> {
        use openraft::async_runtime::watch::WatchReceiver as _;

        let from = self.admit(&request)?;
        let request = request.into_inner();
        if !self.gained().await {
            let leader = self.raft.metrics().borrow_watched().current_leader;
            return Ok(Response::new(ForwardReply { leader: leader.unwrap_or(0), ..ForwardReply::default() }));
        }
        if request.register_for != 0 {
            if request.register_for != from {
                return Err(Status::permission_denied("a replica registers only its own sessions"));
            }
            let open = RegisterSession { session: request.session, replica: from };
            // Asked for again until it shows in the sender's own log.
            let _ = self.proposer.command(command::Kind::RegisterSession(open));
        }
        if request.advance_time {
            // As above.
            let _ = self.proposer.advance_time();
        }
        let answers = self.outcomes(request).await;
        Ok(Response::new(ForwardReply { leader: 0, accepted: true, answers }))
    }

    async fn ask(&self, request: Request<AskRequest>) -> Reply<AskReply> {
        self.admit(&request)?;
        let AskRequest { service, body } = request.into_inner();
        let result = if self.gained().await {
            match self.services.answer(&service, body).await {
                Served::Body(body) => ask_reply::Result::Body(body),
                Served::Failed(text) => ask_reply::Result::Failed(text),
                Served::NotLeader => ask_reply::Result::NotLeader(true),
                Served::Unknown => ask_reply::Result::UnknownService(true),
            }
        } else {
            ask_reply::Result::NotLeader(true)
        };
        Ok(Response::new(AskReply { result: Some(result) }))
    }
}

#[tonic::async_trait]
impl SnapshotTransfer for Service {
    type InstallStream = ReceiverStream<Result<SnapshotProgress, Status>>;

    async fn install(&self, request: Request<Streaming<SnapshotPart>>) -> Reply<Self::InstallStream> {
        self.admit(&request)?;
        let (said, progress) = mpsc::channel(4);
        let (raft, snapshots) = (self.raft.clone(), Arc::clone(&self.snapshots));
        tokio::spawn(snapshot::receive(raft, snapshots, request.into_inner(), said));
        Ok(Response::new(ReceiverStream::new(progress)))
    }
}
