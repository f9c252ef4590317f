//! openraft's network over the peers' connections: votes and heartbeats on control, the log on data, states on
//! snapshots.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::poll_fn;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::TypeConfigExt;
use openraft::{OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};

use super::connection::Connection;
use super::credit::Credit;
use super::{PeerError, Peers, answer, convert, snapshot};
use crate::applied::Applied;
use crate::disk::Disk;
use crate::host;
use crate::peer::AppendReply;
use crate::peer::control_frame::Body;
use crate::retention::OnTheirWay;
use crate::snapshot::SnapshotHome;
use crate::state_machine::SnapshotData;
use crate::types::{Node, TypeConfig, Vote};

/// Opening an append stream: a message there and back.
const OPEN_STREAM_TIMEOUT: Duration = Duration::from_secs(2);

/// Makes clients of peers.
pub(crate) struct Network {
    pub(crate) id: u64,
    pub(crate) peers: Arc<Peers>,
    pub(crate) applied: Arc<Applied>,
    pub(crate) disk: Arc<Disk>,
    pub(crate) snapshots: Arc<dyn SnapshotHome>,
    pub(crate) on_their_way: Arc<OnTheirWay>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Log,
    Heartbeat,
}

/// A client of one peer, for one of openraft's workers.
pub(crate) struct Client {
    id: u64,
    target: u64,
    address: String,
    role: Role,
    peers: Arc<Peers>,
    applied: Arc<Applied>,
    disk: Arc<Disk>,
    snapshots: Arc<dyn SnapshotHome>,
    on_their_way: Arc<OnTheirWay>,
}

impl Network {
    fn client(&self, target: u64, node: &Node, role: Role) -> Client {
        let (peers, applied, disk) = (Arc::clone(&self.peers), Arc::clone(&self.applied), Arc::clone(&self.disk));
        let (snapshots, on_their_way) = (Arc::clone(&self.snapshots), Arc::clone(&self.on_their_way));
        let address = node.addr.clone();
        Client { id: self.id, target, address, role, peers, applied, disk, snapshots, on_their_way }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, node: &Node) -> Client {
        self.client(target, node, Role::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Node) -> Client {
        self.client(target, node, Role::Heartbeat)
    }
}

type Rpc<T> = Result<T, RPCError<TypeConfig>>;

impl Client {
    fn connection(&self) -> Rpc<Arc<Connection>> {
        self.peers
            .connect(self.target, &self.address)
            .ok_or_else(|| Unreachable::from_string(PeerError::Unknown(self.target)).into())
    }

    /// Asks over the control connection.
    async fn control(&self, question: Body, action: RPCTypes, option: &RPCOption) -> Rpc<Body> {
        let timeout = option.hard_ttl();
        let asked = self.connection()?.control(question, timeout).await;
        asked.map_err(|error| self.failed(action, timeout, &error))
    }

    fn vote_request(&self, rpc: &VoteRequest<TypeConfig>) -> crate::peer::VoteRequest {
        // A session of the target's would show it too, but only once it has come to have one: what it acknowledged before that
        // counts as much.
        convert::vote_request_out(rpc, self.applied.mark().index > 0)
    }

    fn failed(&self, action: RPCTypes, timeout: Duration, error: &PeerError) -> RPCError<TypeConfig> {
        match error {
            PeerError::Timeout(_) => Timeout { action, id: self.id, target: self.target, timeout }.into(),
            PeerError::Failed { status, .. } => self.status(status),
            other => Unreachable::new(other).into(),
        }
    }

    fn status(&self, status: &tonic::Status) -> RPCError<TypeConfig> {
        match status.code() {
            // Not there, or not the one it should be: trying again at once is of no use.
            tonic::Code::Unavailable | tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => {
                Unreachable::new(status).into()
            }
            _ => NetworkError::new(status).into(),
        }
    }
}

/// A peer that came back without what it had acknowledged.
#[derive(Debug, thiserror::Error)]
#[error(
    "replica {id} has lost its log: it had acknowledged entry {index} and does not hold it; it gets nothing more under this \
     number: remove it, and let it join anew with an empty directory"
)]
struct LostLog {
    id: u64,
    index: u64,
}

/// Says so once a term.
fn lost_log(connection: &Connection, term: u64, index: u64) -> RPCError<TypeConfig> {
    let lost = LostLog { id: connection.id, index };
    if !connection.has_lost_log(term) {
        tracing::error!(error = %lost, "a peer is not what it was");
    }
    connection.note_lost_log(term);
    Unreachable::new(&lost).into()
}

fn unexpected() -> RPCError<TypeConfig> {
    NetworkError::from_string("a reply this release does not know").into()
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        let (connection, term) = (self.connection()?, rpc.vote.leader_id.term);
        let (before, end) = (rpc.prev_log_id.as_ref(), rpc.entries.last().map(|entry| &entry.log_id));
        let (before, end) = (before.map(|id| id.index), end.or(before).map(|id| id.index));
        if connection.has_lost_log(term) {
            return Err(Unreachable::from_string(format!("replica {} has lost its log", self.target)).into());
        }
        let question = Body::Heartbeat(convert::append_out(&rpc));
        let reply = match self.control(question, RPCTypes::AppendEntries, &option).await? {
            Body::AppendReply(reply) => convert::append_reply_in(reply),
            _ => None,
        };
        match reply {
            Some(Ok(_)) => {
                if let Some(end) = end {
                    connection.note_acknowledged(term, end);
                }
                Ok(AppendEntriesResponse::Success)
            }
            Some(Err(StreamAppendError::Conflict(_))) => match before {
                Some(before) if connection.has_acknowledged(term, before) => Err(lost_log(&connection, term, before)),
                _ => Ok(AppendEntriesResponse::Conflict),
            },
            Some(Err(StreamAppendError::HigherVote(vote))) => Ok(AppendEntriesResponse::HigherVote(vote)),
            None => Err(unexpected()),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Rpc<BoxStream<'s, Rpc<StreamAppendResult<TypeConfig>>>>>
    where
        S: futures::Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.role == Role::Heartbeat {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            let mut input = input;
            // openraft pauses after failures before it gives a request, and nowhere else: who opened the stream first
            // would dial a dead peer without end.
            let Some(first) = input.next().await else { return Ok(futures::stream::empty().boxed()) };
            let connection = self.connection()?;
            let mut client = connection.data();
            // openraft reads the log before it asks whether it still leads; by then a new leader may have cut the log, or put
            // a snapshot in its place.
            let (vote, disk) = (first.vote, Arc::clone(&self.disk));
            let input = poll_fn(move |cx| {
                if disk.has_voted_beyond(&vote) {
                    return Poll::Ready(None);
                }
                input.poll_next_unpin(cx)
            });
            let term = Arc::new(AtomicU64::new(0));
            let leads = Arc::clone(&term);
            let credit = Arc::new(Credit::default());
            let requests = credit.requests(first, input).then(move |request| {
                leads.store(request.vote.leader_id.term, Ordering::Relaxed);
                async move {
                    // Only that more is committed: whoever waits here for just that is to be answered first.
                    if request.entries.is_empty() {
                        host::yield_now().await;
                    }
                    convert::append_out(&request)
                }
            });
            // No deadline of its own on the stream: it lives as long as there is something to replicate, and the
            // connection's keep-alive notices a peer that has fallen silent.
            let opened = answer(self.target, OPEN_STREAM_TIMEOUT, client.append(requests)).await;
            let replies = opened.map_err(|error| self.failed(RPCTypes::AppendEntries, OPEN_STREAM_TIMEOUT, &error))?;
            let this = &*self;
            let results = replies.map(move |reply: Result<AppendReply, tonic::Status>| {
                let reply = reply.map_err(|status| this.status(&status))?;
                connection.note_heard();
                let result = convert::append_reply_in(reply).ok_or_else(unexpected)?;
                let term = term.load(Ordering::Relaxed);
                match &result {
                    Ok(Some(matched)) => connection.note_acknowledged(term, matched.index),
                    // openraft takes this for impossible; the peer must not be counted on in any case.
                    Err(StreamAppendError::Conflict(at)) if connection.has_acknowledged(term, at.index) => {
                        return Err(lost_log(&connection, term, at.index));
                    }
                    _ => {}
                }
                Ok(result)
            });
            Ok(credit.answers(results).boxed())
        })
    }

    async fn vote(&mut self, rpc: VoteRequest<TypeConfig>, option: RPCOption) -> Rpc<VoteResponse<TypeConfig>> {
        let question = Body::Vote(self.vote_request(&rpc));
        match self.control(question, RPCTypes::Vote, &option).await? {
            Body::VoteReply(reply) => Ok(convert::vote_reply_in(reply)),
            _ => Err(unexpected()),
        }
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<TypeConfig>, option: RPCOption) -> Rpc<VoteResponse<TypeConfig>> {
        let question = Body::PreVote(self.vote_request(&rpc));
        match self.control(question, RPCTypes::Vote, &option).await? {
            Body::VoteReply(reply) => Ok(convert::vote_reply_in(reply)),
            _ => Err(unexpected()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let SnapshotData::Own(source) = snapshot.snapshot else {
            return Err(NetworkError::from_string("a snapshot on its way in cannot be sent on").into());
        };
        let connection = self.connection()?;
        let timeout = option.hard_ttl();
        let covered = snapshot.meta.last_log_id.as_ref().map_or(0, |id| id.index);
        let _sending = self.on_their_way.begin(self.target, covered);
        let sending = TypeConfig::timeout(timeout, snapshot::send(&connection, vote, source, &self.snapshots));
        let (cancel, sending) = (std::pin::pin!(cancel), std::pin::pin!(sending));
        match futures::future::select(cancel, sending).await {
            futures::future::Either::Left((closed, _)) => Err(closed.into()),
            futures::future::Either::Right((Ok(Ok(vote)), _)) => Ok(SnapshotResponse::new(vote)),
            futures::future::Either::Right((Ok(Err(error)), _)) => {
                tracing::warn!(%error, target = self.target, "sending a snapshot failed; it goes on where it broke off");
                Err(match error {
                    snapshot::SendError::Status(status) => self.status(&status).into(),
                    other => NetworkError::new(&other).into(),
                })
            }
            futures::future::Either::Right((Err(_), _)) => {
                let action = RPCTypes::InstallSnapshot;
                Err(Timeout { action, id: self.id, target: self.target, timeout }.into())
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let question = Body::Transfer(convert::transfer_out(&request, self.disk.is_handing_over()));
        let Body::TransferReply(reply) = self.control(question, RPCTypes::TransferLeader, &option).await? else {
            return Err(unexpected());
        };
        if reply.refused.is_empty() {
            return Ok(Ok(()));
        }
        tracing::info!(target = self.target, reason = reply.refused, "leadership transfer refused");
        Ok(Err(TransferLeaderError::LogNotFlushed { expected: request.last_log_id().copied(), actual: None }))
    }
}

#[cfg(test)]
mod tests {
    use quilt_state::{Horizon, MemoryStore};

    use super::*;
    use crate::snapshot::MemorySnapshots;
    use crate::types::log_id;

    /// A peer is not dialled before openraft gives a request for it, which is where it pauses after failures; without
    /// one nothing is opened at all.
    #[tokio::test]
    async fn a_dead_peer_is_dialled_no_more_often_than_asked() {
        let peers = Arc::new(Peers::default());
        let applied = Applied::new(Arc::new(MemoryStore::new()), Horizon::default(), 0, (0, 0));
        let snapshots = Arc::new(MemorySnapshots::new(Arc::new(MemoryStore::new())));
        let mut network = Network {
            id: 1,
            peers,
            applied: Arc::new(applied),
            disk: Arc::default(),
            snapshots,
            on_their_way: Arc::default(),
        };
        let mut client = network.new_client(2, &Node::new("127.0.0.1:1")).await;
        let option = || RPCOption::new(Duration::from_secs(1));
        let paused = futures::stream::pending::<AppendEntriesRequest<TypeConfig>>();
        let waiting = TypeConfig::timeout(Duration::from_millis(20), client.stream_append(paused, option()));
        assert!(waiting.await.is_err(), "it fails before there is anything to send");
        let request = AppendEntriesRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: None,
            entries: Vec::new(),
            leader_commit: Some(log_id(1, 1)),
        };
        let one = futures::stream::iter([request]);
        assert!(matches!(client.stream_append(one, option()).await, Err(RPCError::Unreachable(_))));
        let nothing = futures::stream::iter(Vec::new());
        let mut answers = client.stream_append(nothing, option()).await.expect("nothing to send is no failure");
        assert!(answers.next().await.is_none());
    }
}
