//! Bytes of what the agreement layer itself stores: votes, log ids, memberships and the frame of entries.
//!
//! The small fixed records are bincode behind a version byte; nothing else may use bincode, which cannot carry grown
//! structs. Entries are protobuf behind a tag byte.

use bytes::{BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use prost::Message;
use quilt_storage::LogRecord;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::types::{Entry, EntryBytes, LogId, Membership, Vote, log_id};

/// Version of the bincode records.
const VERSION: u8 = 1;

/// No record comes near this; it bounds what damaged bytes can make the decoder allocate.
const RECORD_BYTES_MAX: usize = 1 << 20;

const TAG_BLANK: u8 = 0;
const TAG_ENTRY: u8 = 1;
const TAG_MEMBERSHIP: u8 = 2;

/// Stored or received bytes that are not what they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    /// Written by another version of the format.
    #[error("record of {what} has version {found}, this release reads version {VERSION}")]
    Version {
        /// Which record.
        what: &'static str,
        /// Its version byte.
        found: u8,
    },
    /// Not decodable.
    #[error("record of {what} is damaged: {reason}")]
    Damaged {
        /// Which record.
        what: &'static str,
        /// What the decoder says.
        reason: String,
    },
}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

const fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<RECORD_BYTES_MAX>()
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = vec![VERSION];
    bincode::serde::encode_into_std_write(value, &mut bytes, config())
        .expect("votes, log ids and memberships are plain data, and writing to a vector cannot fail");
    bytes.into()
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    let damaged = |reason: String| CodecError::Damaged { what, reason };
    let (version, body) = bytes.split_first().ok_or_else(|| damaged("empty".into()))?;
    if *version != VERSION {
        return Err(CodecError::Version { what, found: *version });
    }
    let (value, read) =
        bincode::serde::decode_from_slice(body, config()).map_err(|error| damaged(error.to_string()))?;
    if read == body.len() { Ok(value) } else { Err(damaged(format!("{} bytes too many", body.len() - read))) }
}

pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    encode(vote)
}

pub(crate) fn decode_vote(bytes: &[u8]) -> Result<Vote, CodecError> {
    decode("vote", bytes)
}

pub(crate) fn encode_log_id(id: &LogId) -> Bytes {
    encode(id)
}

pub(crate) fn decode_log_id(bytes: &[u8]) -> Result<LogId, CodecError> {
    decode("log id", bytes)
}

/// A membership together with the log id it was made at, as the state keeps it.
pub(crate) fn encode_membership_at(id: &LogId, membership: &Membership) -> Bytes {
    encode(&(id, membership))
}

/// The reverse of [`encode_membership_at`].
pub(crate) fn decode_membership_at(bytes: &[u8]) -> Result<(LogId, Membership), CodecError> {
    decode("membership", bytes)
}

/// An entry's commands, framed for the log.
pub(crate) fn encode_entry(entry: &quilt_proto::Entry) -> EntryBytes {
    let mut bytes = BytesMut::with_capacity(1 + entry.encoded_len());
    bytes.put_u8(TAG_ENTRY);
    entry.encode(&mut bytes).expect("the buffer was sized for the entry");
    EntryBytes(bytes.freeze())
}

/// The commands of a framed entry. Keys and values are slices of `bytes`, not copies.
pub(crate) fn decode_entry(bytes: &EntryBytes) -> Result<quilt_proto::Entry, CodecError> {
    let damaged = |reason: String| CodecError::Damaged { what: "entry", reason };
    if bytes.0.first() != Some(&TAG_ENTRY) {
        return Err(damaged("not tagged as an entry".into()));
    }
    quilt_proto::Entry::decode(bytes.0.slice(1..)).map_err(|error| damaged(error.to_string()))
}

/// What the log stores of an entry besides its position.
pub(crate) fn encode_payload(entry: &Entry) -> Bytes {
    match &entry.payload {
        EntryPayload::Blank => Bytes::from_static(&[TAG_BLANK]),
        EntryPayload::Normal(bytes) => bytes.0.clone(),
        EntryPayload::Membership(membership) => [&[TAG_MEMBERSHIP][..], &encode(membership)].concat().into(),
    }
}

/// The entry at a position whose payload was stored or received.
pub(crate) fn decode_payload(term: u64, index: u64, payload: Bytes) -> Result<Entry, CodecError> {
    let payload = match payload.first() {
        Some(&TAG_BLANK) => EntryPayload::Blank,
        Some(&TAG_ENTRY) => EntryPayload::Normal(EntryBytes(payload)),
        Some(&TAG_MEMBERSHIP) => EntryPayload::Membership(decode("membership", &payload[1..])?),
        other => return Err(CodecError::Damaged { what: "entry", reason: format!("unknown tag {other:?}") }),
    };
    Ok(Entry { log_id: log_id(term, index), payload })
}

/// The log record of an entry.
pub(crate) fn to_record(entry: &Entry) -> LogRecord {
    // With one leader a term the term alone names the leader, so the record's leader stays 0.
    LogRecord { index: entry.log_id.index, term: *entry.log_id.leader_id, leader: 0, payload: encode_payload(entry) }
}

/// The reverse of [`to_record`].
pub(crate) fn from_record(record: LogRecord) -> Result<Entry, CodecError> {
    decode_payload(record.term, record.index, record.payload)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::types::Node;

    /// Each record survives the round trip, and a foreign version byte is named instead of misread.
    #[test]
    fn records_round_trip_and_versions_are_checked() {
        let vote = Vote::new_committed(7, 3);
        assert_eq!(decode_vote(&encode_vote(&vote)).expect("own record"), vote);
        let id = log_id(4, 99);
        assert_eq!(decode_log_id(&encode_log_id(&id)).expect("own record"), id);
        let membership = Membership::new_with_defaults(vec![BTreeSet::from([1, 2])], []);
        let bytes = encode_membership_at(&id, &membership);
        assert_eq!(decode_membership_at(&bytes).expect("own record"), (id, membership.clone()));

        let mut foreign = encode_vote(&vote).to_vec();
        foreign[0] = 9;
        assert!(matches!(decode_vote(&foreign), Err(CodecError::Version { found: 9, .. })));
        assert!(decode_vote(&encode_vote(&vote)[..2]).is_err());

        let entry = Entry { log_id: id, payload: EntryPayload::Membership(membership) };
        assert_eq!(from_record(to_record(&entry)).expect("own record"), entry);
        let nodes = Membership::new(
            vec![BTreeSet::from([1])],
            [(1, Node::new("a:1"))].into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        );
        assert!(nodes.is_ok());
    }
}
