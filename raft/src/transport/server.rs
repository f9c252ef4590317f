//! The peer service: checks who is at the other end, and hands requests to their owners.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use openraft::type_config::TypeConfigExt;
use parking_lot::RwLock;
use quilt_proto::command;
use quilt_proto::state::RegisterSession;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::admission::Admission;
use super::connection::introduction;
use super::wire::PeerId;
use super::{Peers, convert, snapshot};
use crate::answers::Answers;
use crate::applied::Applied;
use crate::disk::Disk;
use crate::host::watch;
use crate::leadership::Leadership;
use crate::peer::data_server::Data;
use crate::peer::snapshot_transfer_server::SnapshotTransfer;
use crate::peer::{
    Answer, AppendReply, AppendRequest, AskReply, AskRequest, ForwardReply, ForwardRequest, Hello, SnapshotAsk,
    SnapshotPart, SnapshotProgress, ask_reply,
};
use crate::proposer::{Proposer, Shed};
use crate::read::ReadIndex;
use crate::service::{Served, Services};
use crate::snapshot::SnapshotHome;
use crate::state_machine::Raft;
use crate::types::TypeConfig;

/// How long a forwarded batch waits for a leader that has just been elected to become ready.
const GAIN_WAIT: Duration = Duration::from_millis(500);
/// How long a forwarded batch waits for its outcomes; its owner asks again well before.
const OUTCOME_WAIT: Duration = Duration::from_millis(1_500);

/// What the peer service needs of its replica.
pub(crate) struct Service {
    pub(crate) admission: Admission,
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) answers: Arc<Answers>,
    pub(crate) services: Arc<Services>,
    pub(crate) reads: Arc<ReadIndex>,
    pub(crate) applied: Arc<Applied>,
    pub(crate) disk: Arc<Disk>,
    pub(crate) about: Arc<RwLock<Bytes>>,
    pub(crate) snapshots: Arc<dyn SnapshotHome>,
    pub(crate) leadership: watch::Receiver<Leadership>,
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

impl Service {
    /// This replica's own number.
    pub(super) const fn id(&self) -> u64 {
        self.admission.id.0
    }

    /// Who asks, once it is certain that it is a peer of the same control plane that means this replica.
    pub(super) fn admit(&self, proven: Option<u64>, hello: &Hello) -> Result<u64, String> {
        let admitted = self.admission.judge(proven, hello);
        match &admitted {
            Ok(peer) => self.peers.note_heard(*peer),
            Err(reason) => tracing::warn!(peer = proven, reason, "a peer was refused"),
        }
        admitted
    }

    fn admit_request<T>(&self, request: &Request<T>) -> Result<u64, Status> {
        let proven = request.extensions().get::<PeerId>().map(|peer| peer.0);
        self.admit(proven, &introduction(request.metadata())).map_err(Status::permission_denied)
    }

    /// Waits a moment for a leadership that is just being gained.
    async fn gained(&self) -> bool {
        use openraft::async_runtime::watch::WatchReceiver as _;

        let mut leadership = self.leadership.clone();
        if leadership.borrow().held().is_some() {
            return true;
        }
        if self.raft.metrics().borrow_watched().current_leader != Some(self.id()) {
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

    type FetchStream = ReceiverStream<Result<SnapshotPart, Status>>;

    async fn fetch(&self, request: Request<Streaming<SnapshotAsk>>) -> Reply<Self::FetchStream> {
        self.admit_request(&request)?;
        let (parts, given) = mpsc::channel(4);
        TypeConfig::spawn(snapshot::offer(Arc::clone(&self.snapshots), request.into_inner(), parts));
        Ok(Response::new(ReceiverStream::new(given)))
    }

    async fn install(&self, request: Request<Streaming<SnapshotPart>>) -> Reply<Self::InstallStream> {
        self.admit_request(&request)?;
        let (said, progress) = mpsc::channel(4);
        let (raft, snapshots) = (self.raft.clone(), Arc::clone(&self.snapshots));
        TypeConfig::spawn(snapshot::receive(raft, snapshots, request.into_inner(), said));
        Ok(Response::new(ReceiverStream::new(progress)))
    }
}
