//! Short constructors for the generated messages, so that a transaction reads like a sentence.

use bytes::Bytes;

use crate::key::{Key, KeyPrefix};
use crate::revision::Revision;
use crate::state::{Compare, Delete, DeleteRange, Op, Outcome, Put, Txn, compare, op, outcome};

impl Compare {
    /// The key's latest version is exactly `revision`.
    #[must_use]
    pub fn at(key: &Key, revision: Revision) -> Self {
        Self { key: key.bytes().clone(), condition: Some(compare::Condition::ModRevision(revision.get())) }
    }

    /// The key does not exist.
    #[must_use]
    pub fn absent(key: &Key) -> Self {
        Self { key: key.bytes().clone(), condition: Some(compare::Condition::ModRevision(0)) }
    }

    /// The key exists, at any revision.
    #[must_use]
    pub fn exists(key: &Key) -> Self {
        Self { key: key.bytes().clone(), condition: Some(compare::Condition::Exists(true)) }
    }
}

impl From<Put> for Op {
    fn from(put: Put) -> Self {
        Self { kind: Some(op::Kind::Put(put)) }
    }
}

impl Op {
    /// Stores `value` at `key` just as it is: no revision is written into it, nothing is sealed, and it does not expire.
    #[must_use]
    pub fn put(key: &Key, value: impl Into<Bytes>) -> Self {
        Put { key: key.bytes().clone(), value: value.into(), ..Put::default() }.into()
    }

    /// Deletes `key`; deleting an absent key changes nothing but takes its revision.
    #[must_use]
    pub fn delete(key: &Key) -> Self {
        Self { kind: Some(op::Kind::Delete(Delete { key: key.bytes().clone() })) }
    }

    /// Deletes up to `limit` keys under `prefix`, in key order; the outcome says whether some are left.
    #[must_use]
    pub fn delete_under(prefix: &KeyPrefix, limit: u32) -> Self {
        Self::delete_range(prefix.bytes().clone(), prefix.end(), limit)
    }

    /// Deletes up to `limit` keys with `from <= key < to`, in key order; the outcome says whether some are left.
    #[must_use]
    pub const fn delete_range(from: Bytes, to: Bytes, limit: u32) -> Self {
        Self { kind: Some(op::Kind::DeleteRange(DeleteRange { from, to, limit })) }
    }

    /// The one key this operation writes; empty for one that writes a range, or has no kind (a malformed message).
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match &self.kind {
            Some(op::Kind::Put(put)) => &put.key,
            Some(op::Kind::Delete(delete)) => &delete.key,
            Some(op::Kind::DeleteRange(_)) | None => &[],
        }
    }
}

impl Txn {
    /// A transaction of `compares` and `ops`; request id and expiry are filled in by whoever proposes it.
    #[must_use]
    pub const fn new(compares: Vec<Compare>, ops: Vec<Op>) -> Self {
        Self { request_id: None, expires_at_ms: 0, compares, ops }
    }
}

impl From<outcome::Result> for Outcome {
    fn from(result: outcome::Result) -> Self {
        Self { result: Some(result) }
    }
}

impl From<Txn> for crate::state::Command {
    fn from(txn: Txn) -> Self {
        Self { kind: Some(crate::state::command::Kind::Txn(txn)) }
    }
}
