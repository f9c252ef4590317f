//! Why a replica could not do what it was asked. One enum per call; none of them knows HTTP.

use quilt_proto::{ReplicaId, Revision};

/// Why [`crate::Replica::propose`] has no decision to give.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Proven: the transaction was not applied and never will be.
    #[error("the transaction was not applied and never will be")]
    NotApplied,
    /// It may have been applied or may still be: the caller must not claim either.
    #[error("it is unknown whether the transaction was applied")]
    Unknown,
    /// A queue is full; nothing was sent.
    #[error("too much is waiting: limit {limit} is reached")]
    Overloaded {
        /// Name of the limit.
        limit: &'static str,
    },
    /// The transaction itself is not acceptable.
    #[error("invalid transaction: {0}")]
    Invalid(String),
    /// [`crate::Replica::propose_local`] only: that leadership has ended and the transaction was not applied.
    #[error("not the leader any more")]
    NotLeader,
    /// The replica is shutting down or has failed.
    #[error("the replica has stopped")]
    Stopped,
}

/// Why a read has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader confirmed the read within its deadline.
    #[error("no leader could be reached")]
    NoLeader,
    /// Too many reads are waiting; this one was not begun.
    #[error("too much is waiting: limit {limit} is reached")]
    Overloaded {
        /// Name of the limit.
        limit: &'static str,
    },
    /// History at that revision has been compacted.
    #[error("history below revision {floor} is gone")]
    Compacted {
        /// The oldest revision that can be read.
        floor: Revision,
    },
    /// The revision asked for has not been reached here.
    #[error("revision {current} is the newest here")]
    Ahead {
        /// The newest revision here.
        current: Revision,
    },
    /// The cluster was deleted.
    #[error("the cluster was deleted")]
    Dropped,
    /// The state could not be read.
    #[error("reading the state: {0}")]
    Storage(String),
    /// The replica is shutting down or has failed.
    #[error("the replica has stopped")]
    Stopped,
}

/// Why a watch has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// History from the watch's position on has been compacted.
    #[error("history below revision {floor} is gone")]
    Compacted {
        /// The oldest revision that can be watched from.
        floor: Revision,
    },
    /// The cluster was deleted.
    #[error("the cluster was deleted")]
    Dropped,
    /// The replica is shutting down or has failed.
    #[error("the replica has stopped")]
    Stopped,
    /// History could not be read.
    #[error("reading history: {0}")]
    Storage(String),
}

impl From<ReadError> for WatchError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Compacted { floor } => Self::Compacted { floor },
            ReadError::Dropped => Self::Dropped,
            ReadError::Stopped => Self::Stopped,
            other => Self::Storage(other.to_string()),
        }
    }
}

/// Why the leader did not answer a service request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No leader answered within the deadline.
    #[error("no leader could be reached")]
    NoLeader,
    /// The leader does not offer this service.
    #[error("the leader offers no service '{0}'")]
    Unknown(String),
    /// The service refused or failed.
    #[error("{0}")]
    Failed(String),
    /// Request or answer is larger than a peer message may be.
    #[error("message of {bytes} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The replica is shutting down or has failed.
    #[error("the replica has stopped")]
    Stopped,
}

/// Why a change of the control plane itself did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// Another replica leads, or none does: ask there, or later.
    #[error("not the leader; the leader is {}", leader.map_or_else(|| "unknown".into(), |id| id.to_string()))]
    NotLeader {
        /// Who leads, if known.
        leader: Option<ReplicaId>,
    },
    /// There is no such replica.
    #[error("no replica {id}: the members are {}", listed(members))]
    UnknownMember {
        /// Who was asked for.
        id: ReplicaId,
        /// Who is there.
        members: Vec<ReplicaId>,
    },
    /// The voters that would be left could not agree on anything.
    #[error("{0}")]
    Unsafe(UnsafeChange),
    /// The change is not possible now.
    #[error("refused: {0}")]
    Refused(String),
    /// It was started but did not finish in time; asking again is safe.
    #[error("not finished in time: {0}")]
    Timeout(String),
    /// Proposing it failed.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The replica is shutting down or has failed.
    #[error("the replica has stopped")]
    Stopped,
}

/// A change of voters after which nothing could be written any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsafeChange {
    /// The voter that was to go.
    pub id: ReplicaId,
    /// Voters that would be left.
    pub left: u64,
    /// How many of them answer the leader.
    pub reachable: u64,
    /// How many of them must, for a majority.
    pub needed: u64,
    /// Those that do not.
    pub silent: Vec<SilentVoter>,
}

/// A voter that does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SilentVoter {
    /// Which.
    pub id: ReplicaId,
    /// Milliseconds since it last answered this leader; `None` when it never did.
    pub silent_ms: Option<u64>,
}

impl std::fmt::Display for UnsafeChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, left, reachable, needed, silent } = self;
        write!(f, "without replica {id}, {reachable} of {left} voters would remain reachable and {needed} are needed")?;
        for SilentVoter { id, silent_ms } in silent {
            match silent_ms {
                Some(ms) => write!(f, "; replica {id} has not been heard from for {} s", ms / 1000)?,
                None => write!(f, "; replica {id} has not been heard from")?,
            }
        }
        Ok(())
    }
}

fn listed(members: &[ReplicaId]) -> String {
    members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Why a replica cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its own threads could not be started.
    #[error("starting the runtime: {0}")]
    Runtime(#[source] std::io::Error),
    /// A setting contradicts another.
    #[error("settings: {0}")]
    Settings(String),
    /// The state or the log cannot be used.
    #[error("storage: {0}")]
    Storage(String),
    /// The state or the log is damaged, and nobody is known who could make it good.
    #[error(
        "the data is damaged: {reason}. No peer is known to take another state from: name the members, or restore a backup \
         (docs/operate/recovery.md)"
    )]
    NoState {
        /// What is damaged.
        reason: String,
    },
    /// Keys or certificates cannot be used.
    #[error("peer certificates: {0}")]
    Tls(String),
    /// The peer address cannot be listened on.
    #[error("listening for peers: {0}")]
    Listen(#[source] std::io::Error),
}
