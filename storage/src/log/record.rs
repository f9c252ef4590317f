//! Rows of the log database: their keys and their encoding. Knows nothing of when they are written.

use bytes::Bytes;
use prost::Message;

use super::{LogError, LogPosition, LogRecord, Loss};

/// Row of the vote.
pub(super) const VOTE: &[u8] = b"vote";
/// Row of the committed mark.
pub(super) const COMMITTED: &[u8] = b"committed";
/// Row of the last purged position.
pub(super) const PURGED: &[u8] = b"purged";

/// Row of what was lost, there until it is made good.
pub(super) const LOST: &[u8] = b"lost";

/// Key of an entry's row.
pub(super) const fn entry_key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

/// First key behind all entries.
pub(super) const ENTRIES_END: [u8; 9] = [0xff; 9];

/// Index of an entry's row.
pub(super) fn entry_index(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.try_into().ok()?))
}

/// An entry as stored.
#[derive(Clone, PartialEq, Message)]
struct StoredEntry {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    leader: u64,
    /// Bytes of the log up to the end of this entry, over its whole life: differences are sizes.
    #[prost(uint64, tag = "3")]
    end_offset: u64,
    #[prost(bytes = "bytes", tag = "4")]
    payload: Bytes,
}

/// The last purged position as stored.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct StoredPurge {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(uint64, tag = "3")]
    leader: u64,
    #[prost(uint64, tag = "4")]
    end_offset: u64,
}

/// What was lost, as stored.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct StoredLoss {
    /// Absent: nobody knows.
    #[prost(uint64, optional, tag = "1")]
    upto: Option<u64>,
}

/// A record and where in the log's bytes it ends.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) record: LogRecord,
    pub(super) end_offset: u64,
}

pub(super) fn encode_entry(placed: &Placed, into: &mut Vec<u8>) {
    into.clear();
    let record = &placed.record;
    StoredEntry {
        term: record.term,
        leader: record.leader,
        end_offset: placed.end_offset,
        payload: record.payload.clone(),
    }
    .encode_raw(into);
}

pub(super) fn decode_entry(index: u64, bytes: &[u8]) -> Result<Placed, LogError> {
    let stored = StoredEntry::decode(bytes)
        .map_err(|error| LogError::Damaged { what: index.to_string(), reason: error.to_string() })?;
    let StoredEntry { term, leader, end_offset, payload } = stored;
    Ok(Placed { record: LogRecord { index, term, leader, payload }, end_offset })
}

pub(super) fn encode_purge(upto: LogPosition, end_offset: u64) -> Vec<u8> {
    StoredPurge { index: upto.index, term: upto.term, leader: upto.leader, end_offset }.encode_to_vec()
}

pub(super) fn decode_purge(bytes: &[u8]) -> Result<(LogPosition, u64), LogError> {
    let stored = StoredPurge::decode(bytes)
        .map_err(|error| LogError::Damaged { what: "of the last purge".into(), reason: error.to_string() })?;
    let upto = LogPosition { index: stored.index, term: stored.term, leader: stored.leader };
    Ok((upto, stored.end_offset))
}

pub(super) fn encode_loss(loss: Loss) -> Vec<u8> {
    let upto = match loss {
        Loss::Upto(index) => Some(index),
        Loss::Unknown => None,
    };
    StoredLoss { upto }.encode_to_vec()
}

pub(super) fn decode_loss(bytes: &[u8]) -> Result<Loss, LogError> {
    let stored = StoredLoss::decode(bytes)
        .map_err(|error| LogError::Damaged { what: "of what was lost".into(), reason: error.to_string() })?;
    Ok(stored.upto.map_or(Loss::Unknown, Loss::Upto))
}
