//! The roster: which replicas were ever let in, under which numbers, and the tokens and authorities that let more in.
//!
//! Who *votes* is raft's own knowledge and only its; the roster keeps a number from being used twice, which raft cannot
//! (a replica that comes back empty under its old number could vote twice in one term), and holds the queue of those
//! that still have to become voters. Must not know HTTP or certificates.

mod authorities;
mod tokens;

use std::time::Duration;

use quilt_proto::{Compare, Key, KeyPrefix, Op, ReplicaId, Revision};
use quilt_raft::{Limit, ProposeError, ReadError, Replica, View};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::authn::credential::{TENANT_RANGE_GROUP, tenant_range};
use crate::commit::{Plan, Refusal, settle};
use crate::query::DryRun;
use crate::store::put_record;

pub use authorities::{Authorities, PemPair};
pub(crate) use tokens::RESOURCE as REPLICA_TOKENS;
pub use tokens::{NewToken, TokenFacts};

const RESOURCE: &str = "replicas";
/// A control plane has a handful of replicas; numbers of those that left add up slowly.
const ALL: Limit = Limit { records: 10_000, bytes: 16 << 20 };

/// How far a replica has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Let in by a token; the leader makes it a learner, waits, and makes it a voter.
    Joining,
    /// A member; whether it votes is raft's to say.
    Member,
    /// Gone for good.
    Removed,
}

/// One replica of the roster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number.
    pub id: u64,
    /// Where its peers reach it, `HOST:PORT`.
    pub address: String,
    /// How far it has come.
    pub standing: Standing,
    /// When it came into this standing, in seconds since the Unix epoch.
    pub since: u64,
    /// Of one that joined by a token: digests of the token and of its public key, by which it may ask again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined_by: Option<JoinedBy>,
}

/// What a replica joined by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinedBy {
    /// SHA-256 of the token, hexadecimal.
    pub token: String,
    /// SHA-256 of the replica's public key, hexadecimal.
    pub key: String,
}

/// Why the roster was not changed.
#[derive(Debug, thiserror::Error)]
pub enum RosterError {
    /// The state could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The change could not be written.
    #[error(transparent)]
    Propose(ProposeError),
    /// Others kept changing the same entries.
    #[error("the roster was not changed before the deadline")]
    Deadline,
    /// The number was used before.
    #[error("number {id} belonged to a replica that was removed and is never used again; the next free one is {next}")]
    NumberUsed {
        /// The number.
        id: u64,
        /// The lowest that never was used.
        next: u64,
    },
    /// The token opens nothing, or not any more.
    #[error("the replica token is unknown, used up, expired or revoked")]
    Token,
    /// Another replica has this address.
    #[error("replica {id} is reached at {address} already")]
    AddressTaken {
        /// Which.
        id: u64,
        /// The address.
        address: String,
    },
    /// There is nothing of that name.
    #[error("there is no replica token {0}")]
    NoToken(String),
    /// What is stored cannot be used here.
    #[error("{0}")]
    Stored(String),
}

impl From<ProposeError> for RosterError {
    fn from(error: ProposeError) -> Self {
        Self::Propose(error)
    }
}

impl Refusal for RosterError {}

/// The roster of one control plane.
#[derive(Clone, Debug)]
pub struct Roster {
    replica: Replica,
    deadline: Duration,
}

impl Roster {
    /// The roster as it is reached through `replica`, every call within `deadline`.
    #[must_use]
    pub const fn new(replica: Replica, deadline: Duration) -> Self {
        Self { replica, deadline }
    }

    /// Every entry, in no order.
    ///
    /// # Errors
    /// See [`RosterError`].
    pub fn entries(view: &View) -> Result<Vec<Entry>, RosterError> {
        Ok(stored(view)?.into_iter().map(|(_, _, entry)| entry).collect())
    }

    /// The prefix under which entries change.
    #[must_use]
    pub fn prefix() -> Option<KeyPrefix> {
        KeyPrefix::resource("", TENANT_RANGE_GROUP, RESOURCE).ok()
    }

    /// Notes a replica that was added by hand.
    ///
    /// # Errors
    /// See [`RosterError`]; [`RosterError::NumberUsed`] when it had been removed.
    pub async fn enlist(&self, id: ReplicaId, address: &str) -> Result<(), RosterError> {
        let since = self.now_secs();
        self.write(|view| {
            let all = stored(view)?;
            match all.iter().find(|(_, _, entry)| entry.id == id.0) {
                Some((_, _, entry)) if entry.standing == Standing::Removed => {
                    Err(RosterError::NumberUsed { id: id.0, next: next_free(&all, []) })
                }
                Some(_) => Ok(Plan::Unchanged(())),
                None => {
                    let key = key(id.0)?;
                    let entry = Entry {
                        id: id.0,
                        address: address.to_owned(),
                        standing: Standing::Member,
                        since,
                        joined_by: None,
                    };
                    Ok(Plan::commit(vec![Compare::absent(&key)], vec![put(&key, &entry)], ()))
                }
            }
        })
        .await
    }

    /// Notes that a replica is where it was to be: it votes, or it is gone for good.
    ///
    /// # Errors
    /// See [`RosterError`].
    pub async fn settle(&self, id: ReplicaId, standing: Standing) -> Result<(), RosterError> {
        let since = self.now_secs();
        self.write(|view| {
            let all = stored(view)?;
            let (key, compare, entry) = match all.into_iter().find(|(_, _, entry)| entry.id == id.0) {
                Some((_, _, entry)) if entry.standing == standing => return Ok(Plan::Unchanged(())),
                // What has been removed in the meantime stays so.
                Some((_, _, entry)) if entry.standing == Standing::Removed => return Ok(Plan::Unchanged(())),
                Some((key, revision, entry)) => {
                    let compare = Compare::at(&key, revision);
                    (key, compare, Entry { standing, since, ..entry })
                }
                None => {
                    let key = key(id.0)?;
                    let compare = Compare::absent(&key);
                    (key, compare, Entry { id: id.0, address: String::new(), standing, since, joined_by: None })
                }
            };
            Ok(Plan::commit(vec![compare], vec![put(&key, &entry)], ()))
        })
        .await
    }

    fn now_secs(&self) -> u64 {
        self.replica.wall_ms() / 1000
    }

    async fn write<T>(&self, plan: impl FnMut(&View) -> Result<Plan<T>, RosterError>) -> Result<T, RosterError> {
        let until = Instant::now() + self.deadline;
        let done = settle(&self.replica, until, DryRun::Off, plan, || RosterError::Deadline).await?;
        Ok(done.answer)
    }
}

fn key(id: u64) -> Result<Key, RosterError> {
    tenant_range(RESOURCE, "", &id.to_string()).ok_or_else(|| RosterError::Stored("no key for a number".into()))
}

fn put(key: &Key, entry: &Entry) -> Op {
    put_record(key, &serde_json::json!(entry))
}

fn stored(view: &View) -> Result<Vec<(Key, Revision, Entry)>, RosterError> {
    let prefix = Roster::prefix().ok_or_else(|| RosterError::Stored("no prefix".into()))?;
    let page = view.scan(&prefix, None, ALL)?;
    let entry = |(key, record): (Key, quilt_proto::Record)| {
        let entry = serde_json::from_slice(&record.value)
            .map_err(|error| RosterError::Stored(format!("an entry of the roster is damaged: {error}")))?;
        Ok((key, Revision::new(record.mod_revision), entry))
    };
    page.records.into_iter().map(entry).collect()
}

/// The lowest number above every one that is or was used; `members` are those raft knows.
fn next_free(all: &[(Key, Revision, Entry)], members: impl IntoIterator<Item = u64>) -> u64 {
    let used = all.iter().map(|(_, _, entry)| entry.id).chain(members);
    used.max().unwrap_or(0) + 1
}

#[cfg(test)]
mod tests;
