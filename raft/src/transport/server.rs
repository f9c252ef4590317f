//! The peer service: accepts connections, checks who is at the other end, and hands requests to their owners.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::Either;
use openraft::type_config::TypeConfigExt;
use parking_lot::RwLock;
use quilt_proto::state::RegisterSession;
use quilt_proto::{ReplicaId, command};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinError;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::connection::{
    CLUSTER, CONNECTION_WINDOW_BYTES, EPOCH, FROM, KEEP_ALIVE, PEER_MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES, TO,
};
use super::stream::{PeerId, PeerStream};
use super::tls::{self, Tls};
use super::{Peers, control, convert, snapshot};
use crate::answers::Answers;
use crate::applied::Applied;
use crate::leadership::Leadership;
use crate::peer::data_server::{Data, DataServer};
use crate::peer::snapshot_transfer_server::{SnapshotTransfer, SnapshotTransferServer};
use crate::peer::{
    Answer, AppendReply, AppendRequest, AskReply, AskRequest, ForwardReply, ForwardRequest, Hello, SnapshotPart,
    SnapshotProgress, ask_reply,
};
use crate::proposer::{Proposer, Shed};
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
    pub(crate) about: Arc<RwLock<Bytes>>,
    pub(crate) snapshots: Arc<dyn SnapshotHome>,
    pub(crate) leadership: watch::Receiver<Leadership>,
}

async fn handshake(acceptor: TlsAcceptor, socket: TcpStream) -> io::Result<PeerStream> {
    let accepting = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket));
    let stream = accepting.await.map_err(|_| io::Error::other("TLS handshake took too long"))??;
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let peer = leaf.and_then(tls::replica_of);
    let peer = peer.ok_or_else(|| io::Error::other("the peer's certificate names no replica"))?;
    Ok(PeerStream::new(stream, peer, None))
}

/// Accepts peers until the replica stops. Control connections are served by the threads this runs on, all others by
/// those of `data`.
pub(crate) async fn listen(
    listener: std::net::TcpListener,
    tls: Arc<Tls>,
    service: Arc<Service>,
    data: tokio::runtime::Handle,
) -> Result<(), String> {
    let listener = TcpListener::from_std(listener).map_err(|error| error.to_string())?;
    let (accepted, incoming) = mpsc::channel(16);
    let serving = data.spawn(serve(Arc::clone(&service), incoming));
    let accepting = accept(listener, Acceptor { tls, service, data, accepted });
    let (accepting, serving) = (std::pin::pin!(accepting), std::pin::pin!(serving));
    match futures::future::select(accepting, serving).await {
        Either::Left(((), _)) => Err("accepting has ended".into()),
        Either::Right((ended, _)) => outcome(ended),
    }
}

/// How serving ended. A task is cancelled only by the end of its threads, which is the replica's own stop.
fn outcome(ended: Result<Result<(), String>, JoinError>) -> Result<(), String> {
    match ended {
        Ok(served) => served,
        Err(ended) if ended.is_cancelled() => Ok(()),
        Err(panicked) => Err(panicked.to_string()),
    }
}

#[derive(Clone)]
struct Acceptor {
    tls: Arc<Tls>,
    service: Arc<Service>,
    data: tokio::runtime::Handle,
    accepted: mpsc::Sender<io::Result<PeerStream>>,
}

async fn accept(listener: TcpListener, acceptor: Acceptor) {
    let permits = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Out of descriptors, most likely: others will close some.
                tracing::warn!(%error, "accepting a peer connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        tokio::spawn(acceptor.clone().begin(socket, permit));
    }
}

impl Acceptor {
    async fn begin(self, socket: TcpStream, permit: tokio::sync::OwnedSemaphorePermit) {
        if let Err(error) = self.sort(socket, permit).await {
            tracing::info!(%error, "a peer connection was refused");
        }
    }

    /// Looks at the first byte and brings the connection to the threads that serve it.
    async fn sort(self, mut socket: TcpStream, permit: tokio::sync::OwnedSemaphorePermit) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let mut first = [0];
        let peeked = tokio::time::timeout(HANDSHAKE_TIMEOUT, socket.peek(&mut first));
        if peeked.await.map_err(|_| io::Error::other("nothing came"))?? == 0 {
            return Ok(()); // a look whether somebody listens
        }
        if first == [control::PREFACE] {
            socket.read_exact(&mut first).await?;
            let stream = handshake(self.tls.control_acceptor(), socket).await?;
            drop(permit);
            control::serve(self.service, stream).await;
            return Ok(());
        }
        let socket = socket.into_std()?;
        let Self { tls, data, accepted, .. } = self;
        let shaken = data.spawn(async move {
            let stream = handshake(tls.data_acceptor(), TcpStream::from_std(socket)?).await?;
            drop(permit);
            // Closed when the replica stops.
            let _ = accepted.send(Ok(stream)).await;
            Ok(())
        });
        shaken.await.map_err(io::Error::other)?
    }
}

/// Serves everything but control.
async fn serve(service: Arc<Service>, incoming: mpsc::Receiver<io::Result<PeerStream>>) -> Result<(), String> {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
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
    pub(super) fn admit(&self, proven: Option<u64>, hello: &Hello) -> Result<u64, String> {
        let refuse = |reason: String| {
            tracing::warn!(peer = proven, reason, "a peer was refused");
            reason
        };
        let Hello { cluster, epoch, from, to } = hello;
        if *cluster != self.cluster {
            return Err(refuse(format!("this is control plane {}, not {cluster}", self.cluster)));
        }
        if *epoch != self.epoch {
            let reason = format!("this control plane is at epoch {}, you are at {epoch}", self.epoch);
            return Err(refuse(format!("{reason}: one side was restored from a backup and the other was not")));
        }
        if *to != self.id.0 {
            return Err(refuse(format!("this is replica {}, not {to}", self.id)));
        }
        match proven {
            Some(peer) if peer == *from => {
                self.peers.note_heard(peer);
                Ok(peer)
            }
            _ => Err(refuse(format!("the certificate does not belong to replica {from}"))),
        }
    }

    fn admit_request<T>(&self, request: &Request<T>) -> Result<u64, Status> {
        let text = |key: &str| request.metadata().get(key).and_then(|value| value.to_str().ok()).unwrap_or_default();
        // No replica has the number 0, and no epoch is the largest.
        let number = |key: &str, none: u64| text(key).parse().unwrap_or(none);
        let hello = Hello {
            cluster: text(CLUSTER).to_owned(),
            epoch: number(EPOCH, u64::MAX),
            from: number(FROM, 0),
            to: number(TO, 0),
        };
        let proven = request.extensions().get::<PeerId>().map(|peer| peer.0);
        self.admit(proven, &hello).map_err(Status::permission_denied)
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

    async fn outcomes(&self, request: ForwardRequest) -> ForwardReply {
        let mut reply = ForwardReply { accepted: true, ..ForwardReply::default() };
        if request.txns.is_empty() {
            return reply;
        }
        let mut expected = request.txns.len();
        let mut waiting = self.answers.expect(request.txns.iter().filter_map(|txn| txn.request_id));
        let txns = request.txns.into_iter().map(|txn| (txn, None));
        match self.proposer.submit(request.session, request.answered_below, txns) {
            Ok(None) => {}
            Ok(Some(Shed { sequences, limit })) => {
                expected = expected.saturating_sub(sequences.len());
                reply.overloaded = sequences;
                limit.clone_into(&mut reply.limit);
            }
            // Lost just now: their owner asks the next leader.
            Err(refused) => tracing::debug!(?refused, "a forwarded batch was not taken"),
        }
        let mut leadership = self.leadership.clone();
        leadership.mark_unchanged();
        {
            let collect = async {
                while reply.answers.len() < expected
                    && let Some((sequence, outcome)) = waiting.next().await
                {
                    reply.answers.push(Answer { sequence, outcome: Some(outcome) });
                }
            };
            let (collect, lost) = (std::pin::pin!(collect), std::pin::pin!(leadership.changed()));
            // Whatever is missing is asked for again by its owner.
            let _ = TypeConfig::timeout(OUTCOME_WAIT, TypeConfig::select2(collect, lost)).await;
        }
        reply
    }
}

type Reply<T> = Result<Response<T>, Status>;

type Replies<T> = Pin<Box<dyn futures::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Data for Service {
    type AppendStream = Replies<AppendReply>;

    async fn append(&self, request: Request<Streaming<AppendRequest>>) -> Reply<Self::AppendStream> {
        let from = self.admit_request(&request)?;
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

        let from = self.admit_request(&request)?;
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
        Ok(Response::new(answers))
    }

    async fn ask(&self, request: Request<AskRequest>) -> Reply<AskReply> {
        self.admit_request(&request)?;
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
        self.admit_request(&request)?;
        let (said, progress) = mpsc::channel(4);
        let (raft, snapshots) = (self.raft.clone(), Arc::clone(&self.snapshots));
        tokio::spawn(snapshot::receive(raft, snapshots, request.into_inner(), said));
        Ok(Response::new(ReceiverStream::new(progress)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threads that end take serving along without that being a failure; what fails by itself stays one.
    #[test]
    fn an_orderly_stop_is_no_failure() {
        let ours = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let threads = tokio::runtime::Runtime::new().expect("a runtime");
        let failing = threads.spawn(async { Err("no descriptor is left".to_owned()) });
        assert_eq!(outcome(ours.block_on(failing)), Err("no descriptor is left".into()));
        let panicking = threads.spawn(async { panic!("a bug") });
        assert!(outcome(ours.block_on(panicking)).is_err());
        let serving = threads.spawn(std::future::pending());
        threads.shutdown_background();
        assert_eq!(outcome(ours.block_on(serving)), Ok(()));
    }
}
