//! Between openraft's messages and ours.

use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse,
};

use crate::codec::{self, CodecError};
use crate::peer;
use crate::types::{LogId, TypeConfig, Vote, log_id};

pub(crate) fn vote_out(vote: &Vote) -> peer::Vote {
    peer::Vote { term: vote.leader_id.term, voted_for: vote.leader_id.voted_for, committed: vote.committed }
}

pub(crate) fn vote_in(vote: Option<peer::Vote>) -> Vote {
    let vote = vote.unwrap_or_default();
    if vote.committed { Vote::new_committed(vote.term, vote.voted_for) } else { Vote::new(vote.term, vote.voted_for) }
}

pub(crate) fn id_out(id: &LogId) -> peer::LogId {
    peer::LogId { term: id.leader_id.term, index: id.index }
}

pub(crate) fn id_in(id: peer::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub(crate) fn vote_request_out(request: &VoteRequest<TypeConfig>, receiver_is_known: bool) -> peer::VoteRequest {
    peer::VoteRequest {
        vote: Some(vote_out(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(id_out),
        leadership_transfer: request.leadership_transfer,
        receiver_is_known,
    }
}

pub(crate) fn vote_request_in(request: peer::VoteRequest) -> VoteRequest<TypeConfig> {
    let mut vote = VoteRequest::new(vote_in(request.vote), request.last_log_id.map(id_in));
    vote.leadership_transfer = request.leadership_transfer;
    vote
}

pub(crate) fn vote_reply_out(reply: &VoteResponse<TypeConfig>) -> peer::VoteReply {
    peer::VoteReply {
        vote: Some(vote_out(&reply.vote)),
        granted: reply.vote_granted,
        last_log_id: reply.last_log_id.as_ref().map(id_out),
    }
}

pub(crate) fn vote_reply_in(reply: peer::VoteReply) -> VoteResponse<TypeConfig> {
    VoteResponse::new(vote_in(reply.vote), reply.last_log_id.map(id_in), reply.granted)
}

pub(crate) fn append_out(request: &AppendEntriesRequest<TypeConfig>) -> peer::AppendRequest {
    let entry = |entry: &crate::types::Entry| peer::LogEntry {
        term: entry.log_id.leader_id.term,
        index: entry.log_id.index,
        payload: codec::encode_payload(entry),
    };
    peer::AppendRequest {
        vote: Some(vote_out(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(id_out),
        entries: request.entries.iter().map(entry).collect(),
        leader_commit: request.leader_commit.as_ref().map(id_out),
    }
}

pub(crate) fn append_in(request: peer::AppendRequest) -> Result<AppendEntriesRequest<TypeConfig>, CodecError> {
    let entries = request.entries.into_iter();
    let entries = entries.map(|entry| codec::decode_payload(entry.term, entry.index, entry.payload));
    Ok(AppendEntriesRequest {
        vote: vote_in(request.vote),
        prev_log_id: request.prev_log_id.map(id_in),
        entries: entries.collect::<Result<_, _>>()?,
        leader_commit: request.leader_commit.map(id_in),
    })
}

pub(crate) fn append_reply_out(result: &StreamAppendResult<TypeConfig>) -> peer::AppendReply {
    use peer::append_reply::Result as Reply;

    let reply = match result {
        Ok(matching) => Reply::Matching(peer::Matching { log_id: matching.as_ref().map(id_out) }),
        Err(StreamAppendError::Conflict(id)) => Reply::Conflict(id_out(id)),
        Err(StreamAppendError::HigherVote(vote)) => Reply::HigherVote(vote_out(vote)),
    };
    peer::AppendReply { result: Some(reply) }
}

/// `None` when the reply says nothing this release understands.
pub(crate) fn append_reply_in(reply: peer::AppendReply) -> Option<StreamAppendResult<TypeConfig>> {
    use peer::append_reply::Result as Reply;

    Some(match reply.result? {
        Reply::Matching(matching) => Ok(matching.log_id.map(id_in)),
        Reply::Conflict(id) => Err(StreamAppendError::Conflict(id_in(id))),
        Reply::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_in(Some(vote)))),
    })
}

pub(crate) fn transfer_out(request: &TransferLeaderRequest<TypeConfig>, slow_disk: bool) -> peer::TransferRequest {
    peer::TransferRequest {
        from_leader: Some(vote_out(request.from_leader())),
        to: *request.to_node_id(),
        last_log_id: request.last_log_id().map(id_out),
        slow_disk,
    }
}

pub(crate) fn transfer_in(request: peer::TransferRequest) -> TransferLeaderRequest<TypeConfig> {
    TransferLeaderRequest::new(vote_in(request.from_leader), request.to, request.last_log_id.map(id_in))
}
