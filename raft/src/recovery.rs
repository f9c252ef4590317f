//! Offline work on the data of a replica that is not running: what it knows of agreement, replaying its log to the
//! end, and beginning a new epoch with given voters from a backup.
//!
//! A restore and a recovery from a lost quorum are the same step: a backup, of which all that was agreed on since is
//! given up, becomes the state that a new membership starts from. Whoever belongs to an older epoch is refused by it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use openraft::EntryPayload;
use quilt_proto::{Key, ReplicaId, Revision};
use quilt_state::{Input, Machine, Payload, Position, Refounded, Refounding};
use quilt_storage::{Home, HomeError, Identity, LogEngine, Manifest, Restoring};
use xxhash_rust::xxh3::xxh3_64;

use crate::codec;
use crate::types::{Entry, Membership, Node, Vote, log_id};

/// Entries applied as one batch.
const BATCH_ENTRIES: u64 = 256;

/// Why offline work was not done.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The data directory or the backup cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// What is stored is not what it should be.
    #[error("the data is damaged: {0}")]
    Damaged(String),
    /// The voters given are no membership.
    #[error("{0}")]
    Members(String),
    /// This host's clock is behind the backup.
    #[error(
        "epoch {epoch} would not be behind the backup's epoch {of_backup} and revision {revision}: \
         this host's clock is behind, set it right first"
    )]
    Clock {
        /// The epoch asked for.
        epoch: u64,
        /// The backup's.
        of_backup: u64,
        /// The backup's revision.
        revision: u64,
    },
    /// An epoch that was made from another backup.
    #[error(
        "epoch {epoch} was not made from this backup: every replica of a restored control plane needs the same file"
    )]
    OtherBackup {
        /// The epoch asked for.
        epoch: EpochName,
    },
}

fn damaged(error: impl fmt::Display) -> RecoveryError {
    RecoveryError::Damaged(error.to_string())
}

/// What a replica's data says about agreement.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Findings {
    /// The replica.
    pub replica: u64,
    /// Its control plane.
    pub cluster: String,
    /// Its epoch.
    pub epoch: u64,
    /// Highest term it has voted in.
    pub term: u64,
    /// Term of the last entry of its log.
    pub last_term: u64,
    /// Index of the last entry of its log.
    pub last_index: u64,
    /// Highest index it knew to be committed; entries behind it may have been committed by others.
    pub committed_index: u64,
    /// Index applied to its state.
    pub applied_index: u64,
    /// Revision of its state.
    pub revision: u64,
    /// Members as of its state, with their peer addresses.
    pub members: BTreeMap<u64, String>,
    /// Those of them who vote.
    pub voters: BTreeSet<u64>,
}

/// Reads what a replica's data says about agreement. Changes nothing.
///
/// # Errors
/// The data is damaged.
pub fn examine(home: &Home) -> Result<Findings, RecoveryError> {
    let machine = Machine::open(Arc::new(home.state.clone())).map_err(damaged)?;
    let position = machine.position().unwrap_or_default();
    let mut membership = match machine.membership() {
        bytes if bytes.is_empty() => Membership::default(),
        bytes => codec::decode_membership_at(bytes).map_err(damaged)?.1,
    };
    let bounds = home.log.bounds();
    // A log that has lost something is of no use here: what is certain is what was applied.
    let held = bounds.last.filter(|_| home.log.loss().is_none());
    let last = held.map_or((position.term, position.index), |last| (last.term, last.index));
    // A membership counts from the moment it is in the log.
    for_each_entry(home, machine.position().map(|position| position.index), |entry| {
        if let EntryPayload::Membership(newer) = entry.payload {
            membership = newer;
        }
        Ok(())
    })?;
    let vote = home.log.vote().map(|bytes| codec::decode_vote(&bytes)).transpose().map_err(damaged)?;
    let committed = home.log.committed().map(|bytes| codec::decode_log_id(&bytes)).transpose().map_err(damaged)?;
    Ok(Findings {
        replica: home.identity().replica,
        cluster: home.identity().cluster.clone(),
        epoch: home.epoch(),
        term: vote.map_or(0, |vote| vote.leader_id.term),
        last_term: last.0,
        last_index: last.1,
        committed_index: committed.map_or(0, |id| id.index).max(position.index),
        applied_index: position.index,
        revision: machine.horizon().revision.get(),
        members: membership.nodes().map(|(id, node)| (*id, node.addr.clone())).collect(),
        voters: membership.voter_ids().collect(),
    })
}

/// Applies every entry of the log to the state, known to be committed or not, and makes a snapshot of it. Returns how
/// many there were.
///
/// Only where the quorum is lost for good: an entry that no majority had is kept by this.
///
/// # Errors
/// The data is damaged, or cannot be written.
pub fn replay(home: &Home) -> Result<u64, RecoveryError> {
    let mut machine = Machine::open(Arc::new(home.state.clone())).map_err(damaged)?;
    let from = machine.position().map(|position| position.index);
    let mut inputs = Vec::new();
    let mut applied = 0;
    for_each_entry(home, from, |entry| {
        inputs.push(input(&entry)?);
        applied += 1;
        if inputs.len() as u64 >= BATCH_ENTRIES {
            machine.apply(&std::mem::take(&mut inputs)).map_err(damaged)?;
        }
        Ok(())
    })?;
    if !inputs.is_empty() {
        machine.apply(&inputs).map_err(damaged)?;
    }
    home.snapshots.build().map_err(HomeError::from)?;
    Ok(applied)
}

/// Visits the entries of the log behind an index; all of them without one, and none of a log that has lost some.
fn for_each_entry(
    home: &Home,
    behind: Option<u64>,
    mut visit: impl FnMut(Entry) -> Result<(), RecoveryError>,
) -> Result<(), RecoveryError> {
    let bounds = home.log.bounds();
    let Some(last) = bounds.last.filter(|_| home.log.loss().is_none()) else { return Ok(()) };
    // The very first entry of a log has index 0.
    let mut next = behind.max(bounds.purged.map(|purged| purged.index)).map_or(0, |index| index + 1);
    while next <= last.index {
        let end = (next + BATCH_ENTRIES).min(last.index + 1);
        for record in home.log.read(next..end).map_err(damaged)? {
            visit(codec::from_record(record).map_err(damaged)?)?;
        }
        next = end;
    }
    Ok(())
}

/// What the machine is given of an entry.
pub(crate) fn input(entry: &Entry) -> Result<Input, codec::CodecError> {
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank,
        EntryPayload::Normal(bytes) => Payload::Entry(codec::decode_entry(bytes)?),
        EntryPayload::Membership(membership) => {
            Payload::Membership(codec::encode_membership_at(&entry.log_id, membership))
        }
    };
    let position = Position { index: entry.log_id.index, term: entry.log_id.leader_id.term, leader: 0 };
    Ok(Input { position, payload })
}

impl From<codec::CodecError> for RecoveryError {
    fn from(error: codec::CodecError) -> Self {
        damaged(error)
    }
}

/// An epoch as people hand it from replica to replica, `NUMBER-BACKUP`: which one, and which backup it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochName {
    /// Its number: the moment it was named, in microseconds since the Unix epoch.
    pub number: u64,
    backup: u32,
}

impl EpochName {
    /// The epoch that begins with `backup`, by its number: wall-clock time in microseconds where a restore begins one, or what it is known
    /// to be.
    ///
    /// Such a number only grows, two restores of one backup a microsecond apart differ, and as a revision it lies ahead of all
    /// that an older epoch can have handed out: that one began at its own microsecond and would have had to write in each
    /// since. Below 2^53 until the year 2255.
    #[must_use]
    pub fn of(number: u64, backup: &Manifest) -> Self {
        Self { number, backup: mark(backup) }
    }
}

/// Equal for backups of the same state only, whichever replica they were taken from.
fn mark(backup: &Manifest) -> u32 {
    let Manifest { epoch, revision, index, term, hash_high, hash_low, .. } = backup;
    let bytes = [epoch, revision, index, term, hash_high, hash_low].map(|part| part.to_be_bytes()).concat();
    let [a, b, c, d, ..] = xxh3_64(&bytes).to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

impl fmt::Display for EpochName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}", self.number, self.backup)
    }
}

/// What was given is no [`EpochName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an epoch is given as the first restore printed it, for example 1795340000123456-1c9fe3a0")]
pub struct NoEpochName;

impl FromStr for EpochName {
    type Err = NoEpochName;

    fn from_str(text: &str) -> Result<Self, NoEpochName> {
        let (number, backup) = text.split_once('-').ok_or(NoEpochName)?;
        let number = number.parse().map_err(|_| NoEpochName)?;
        let name = Self { number, backup: u32::from_str_radix(backup, 16).map_err(|_| NoEpochName)? };
        // Written in one way only.
        if name.to_string() == text { Ok(name) } else { Err(NoEpochName) }
    }
}

/// Which control plane begins with a backup.
pub struct NewEpoch<'a> {
    /// The replica whose data directory is made.
    pub identity: Identity,
    /// Which one, see [`EpochName::of`]; the same for every replica.
    pub epoch: EpochName,
    /// All voters and their peer addresses; the same for every replica.
    pub voters: BTreeMap<ReplicaId, String>,
    /// Keys that must not come back.
    pub forget: &'a dyn Fn(&Key) -> bool,
}

/// Makes a data directory that begins a new epoch with the state of a backup. Every voter makes its own, from the same
/// backup with the same epoch and voters; they are then started as usual. See [`quilt_storage::restore`].
///
/// # Errors
/// See [`RecoveryError`]. The directory is what it was.
pub fn restore(backup: &Path, dir: &Path, new: &NewEpoch<'_>) -> Result<Refounded, RecoveryError> {
    let manifest = quilt_storage::inspect_backup(backup).map_err(HomeError::from)?;
    if new.epoch.backup != mark(&manifest) {
        return Err(RecoveryError::OtherBackup { epoch: new.epoch });
    }
    let epoch = new.epoch.number;
    if epoch <= manifest.epoch || epoch <= manifest.revision {
        let (of_backup, revision) = (manifest.epoch, manifest.revision);
        return Err(RecoveryError::Clock { epoch, of_backup, revision });
    }
    if !new.voters.contains_key(&ReplicaId(new.identity.replica)) {
        return Err(RecoveryError::Members(format!("the voters do not name replica {} itself", new.identity.replica)));
    }
    let voters: BTreeSet<u64> = new.voters.keys().map(|id| id.0).collect();
    let nodes: BTreeMap<u64, Node> = new.voters.iter().map(|(id, at)| (id.0, Node::new(at.clone()))).collect();
    let membership = Membership::new(vec![voters], nodes).map_err(|error| RecoveryError::Members(error.to_string()))?;
    // One further than the old log and term, so that neither goes back.
    let position = Position { index: manifest.index + 1, term: manifest.term + 1, leader: 0 };
    let id = log_id(position.term, position.index);
    let restoring = Restoring {
        identity: new.identity.clone(),
        epoch,
        refounding: Refounding {
            revision: Revision::new(epoch),
            position,
            membership: codec::encode_membership_at(&id, &membership),
            forget: new.forget,
        },
        // Nobody's: the first election of the new epoch is for the next term.
        vote: codec::encode_vote(&Vote::new(position.term, 0)),
    };
    Ok(quilt_storage::restore(backup, dir, &restoring)?)
}
