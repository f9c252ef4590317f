//! The calls of the service: each is one call of the replica and its translation.

use std::time::Duration;

use quilt_proto::{Compare, Key, Op, Record, Revision, Txn};
use quilt_raft::{Consistency, Decision, Limit, ProposeError, ReadError, Replica, View};
use tonic::{Request, Response, Status};

use super::credentials::Credentials;
use super::wire::kv_server::Kv;
use super::wire::{
    self, DeleteRangeReply, DeleteRangeRequest, DeleteReply, DeleteRequest, GetReply, GetRequest, KeyValue, PutReply,
    PutRequest, RangeReply, RangeRequest, WatchRequest,
};
use super::{place, watch};

/// How long a call waits for a leader and a quorum.
const DEADLINE: Duration = Duration::from_secs(10);
/// Keys of one page.
const PAGE_KEYS_MAX: u32 = 1_000;
/// Keys that one call may delete: as many as a transaction may write.
const DELETED_KEYS_MAX: u32 = 5_000;
/// Bytes of values of one page: below what gRPC clients take by default, with room for one more value.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// The service over one replica.
#[derive(Clone)]
pub(super) struct Service {
    replica: Replica,
    credentials: Credentials,
}

impl Service {
    pub(super) const fn new(replica: Replica, credentials: Credentials) -> Self {
        Self { replica, credentials }
    }

    async fn admit<T>(&self, request: Request<T>) -> Result<T, Status> {
        self.credentials.check(request.metadata().as_ref()).await?;
        Ok(request.into_inner())
    }

    async fn view(&self, consistency: i32, revision: u64) -> Result<View, Status> {
        let consistency = match wire::Consistency::try_from(consistency) {
            Ok(wire::Consistency::Linearizable) => Consistency::Linearizable,
            Ok(wire::Consistency::Stale) => Consistency::Stale,
            Err(_) => return Err(Status::invalid_argument(format!("consistency {consistency} is not known"))),
        };
        let view = self.replica.read(consistency, DEADLINE).await.map_err(|error| unread(&error))?;
        if revision == 0 { Ok(view) } else { view.at(Revision::new(revision)).map_err(|error| unread(&error)) }
    }

    async fn change(&self, expected: Option<Compare>, op: Op) -> Result<u64, Status> {
        let txn = Txn::new(expected.into_iter().collect(), vec![op]);
        match self.replica.propose(txn, DEADLINE).await {
            Ok(Decision::Applied { last, .. }) => Ok(last.get()),
            Ok(Decision::Rejected { mod_revision, .. }) => {
                Err(Status::failed_precondition(format!("the key is at revision {mod_revision}")))
            }
            Err(error) => Err(unwritten(error)),
        }
    }
}

fn overloaded(limit: &str) -> Status {
    Status::resource_exhausted(format!("too much is under way: {limit}"))
}

/// Why a write has no answer.
fn unwritten(error: ProposeError) -> Status {
    match error {
        ProposeError::Invalid(text) => Status::invalid_argument(text),
        ProposeError::Overloaded { limit } => overloaded(limit),
        ProposeError::Unknown => Status::unknown("whether the write took effect is not known"),
        not_applied @ (ProposeError::NotApplied | ProposeError::NotLeader | ProposeError::Stopped) => {
            Status::unavailable(not_applied.to_string())
        }
    }
}

/// Why a read or a watch has no answer.
pub(super) fn unread(error: &ReadError) -> Status {
    match error {
        ReadError::Compacted { .. } | ReadError::Ahead { .. } => Status::out_of_range(error.to_string()),
        ReadError::Storage(_) => Status::internal(error.to_string()),
        ReadError::Overloaded { limit } => overloaded(limit),
        ReadError::NoLeader | ReadError::Dropped | ReadError::Stopped => Status::unavailable(error.to_string()),
    }
}

/// One key as the client sees it.
pub(super) fn item(key: &Key, record: &Record) -> KeyValue {
    KeyValue {
        key: place::name(key).to_owned(),
        value: record.value.clone(),
        create_revision: record.create_revision,
        mod_revision: record.mod_revision,
    }
}

#[tonic::async_trait]
impl Kv for Service {
    type WatchStream = watch::Replies;

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutReply>, Status> {
        let PutRequest { key, value, expected_revision } = self.admit(request).await?;
        let key = place::key(&key)?;
        let expected = expected_revision.map(|revision| match revision {
            0 => Compare::absent(&key),
            revision => Compare::at(&key, Revision::new(revision)),
        });
        let revision = self.change(expected, Op::put(&key, value)).await?;
        Ok(Response::new(PutReply { revision }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteReply>, Status> {
        let DeleteRequest { key, expected_revision } = self.admit(request).await?;
        let key = place::key(&key)?;
        if expected_revision == Some(0) {
            return Err(Status::invalid_argument("expected_revision is 0: an absent key is not deleted"));
        }
        let expected = expected_revision.map(|revision| Compare::at(&key, Revision::new(revision)));
        let revision = self.change(expected, Op::delete(&key)).await?;
        Ok(Response::new(DeleteReply { revision }))
    }

    async fn delete_range(&self, request: Request<DeleteRangeRequest>) -> Result<Response<DeleteRangeReply>, Status> {
        let DeleteRangeRequest { prefix, from, limit } = self.admit(request).await?;
        let limit = if limit == 0 { DELETED_KEYS_MAX } else { limit.min(DELETED_KEYS_MAX) };
        let (begin, end) = place::beginning(&prefix)?;
        let begin = if from.is_empty() { begin } else { begin.max(place::key(&from)?.bytes().clone()) };
        if begin >= end {
            return Err(Status::invalid_argument("from lies behind the keys that begin with prefix"));
        }
        let txn = Txn::new(Vec::new(), vec![Op::delete_range(begin, end, limit)]);
        let (last, ranges) = match self.replica.propose(txn, DEADLINE).await {
            Ok(Decision::Applied { last, ranges, .. }) => (last, ranges),
            Ok(Decision::Rejected { .. }) => return Err(Status::internal("rejected without a compare")),
            Err(error) => return Err(unwritten(error)),
        };
        let mut reply = DeleteRangeReply { revision: last.get(), ..DeleteRangeReply::default() };
        for range in ranges {
            reply.deleted = range.deleted;
            if let Some(next) = range.next {
                let next = Key::from_bytes(next).map_err(|error| Status::internal(error.to_string()))?;
                place::name(&next).clone_into(&mut reply.next);
            }
        }
        Ok(Response::new(reply))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetReply>, Status> {
        let GetRequest { key, consistency, revision } = self.admit(request).await?;
        let key = place::key(&key)?;
        let view = self.view(consistency, revision).await?;
        let record = view.get(&key).map_err(|error| unread(&error))?;
        let item = record.map(|record| item(&key, &record));
        Ok(Response::new(GetReply { item, revision: view.revision().get() }))
    }

    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeReply>, Status> {
        let RangeRequest { prefix, after, limit, consistency, revision } = self.admit(request).await?;
        let limit = if limit == 0 { PAGE_KEYS_MAX } else { limit.min(PAGE_KEYS_MAX) };
        let limit = Limit { records: usize::try_from(limit).unwrap_or(usize::MAX), bytes: PAGE_BYTES_MAX };
        let view = self.view(consistency, revision).await?;
        let (items, more) = page(&view, &prefix, &after, limit)?;
        Ok(Response::new(RangeReply { items, more, revision: view.revision().get() }))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let WatchRequest { what, after_revision } = self.admit(request).await?;
        let from = match after_revision {
            0 => self.view(wire::Consistency::Linearizable.into(), 0).await?.revision(),
            revision => Revision::new(revision),
        };
        Ok(Response::new(watch::open(&self.replica, what, from)?))
    }
}

/// Keys under a prefix behind one, and whether more may follow.
fn page(view: &View, prefix: &str, after: &str, limit: Limit) -> Result<(Vec<KeyValue>, bool), Status> {
    let mut items = Vec::new();
    let begins = if after < prefix { prefix } else { after };
    let begins = if begins.is_empty() { None } else { Some(place::key(begins)?) };
    // A scan goes on behind a key, but the first key of the prefix may be the prefix itself.
    if let Some(key) = begins.as_ref().filter(|_| after < prefix)
        && let Some(record) = view.get(key).map_err(|error| unread(&error))?
    {
        items.push(item(key, &record));
    }
    let left = Limit { records: limit.records - items.len(), ..limit };
    if left.records == 0 {
        return Ok((items, true));
    }
    let page = view.scan(&place::all(), begins.as_ref(), left).map_err(|error| unread(&error))?;
    let found = page.records.len();
    let under = page.records.iter().take_while(|(key, _)| place::name(key).starts_with(prefix));
    let before = items.len();
    items.extend(under.map(|(key, record)| item(key, record)));
    let more = page.more && items.len() - before == found;
    Ok((items, more))
}
