//! What can end an agent, in words a person can act on. Everything that a retry may cure is not here: it is retried.

use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

/// Why an agent could not start or had to stop.
#[derive(Debug, Error)]
pub enum AgentError {
    /// An option has a value that can never work.
    #[error("option {option}: {reason}")]
    Option {
        /// The option as it is written on the command line.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A file or directory of the agent could not be used.
    #[error("cannot use {}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file of the agent does not hold what it should.
    #[error("{} does not hold what it should: {reason}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Another agent uses the same data directory.
    #[error("data directory {} is in use by another agent", path.display())]
    DirectoryInUse {
        /// The directory.
        path: PathBuf,
    },
    /// The data directory holds a node of another cluster.
    #[error("data directory {} belongs to node \"{name}\" of cluster \"{cluster}\"", path.display())]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster it belongs to.
        cluster: String,
        /// The node it belongs to.
        name: String,
    },
    /// The log endpoint cannot listen.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// The agent has no identity yet and no join token to get one.
    #[error("this host is not a node yet and no join token was given")]
    JoinTokenMissing,
    /// The control plane refused the join token.
    #[error("the control plane refused the join token for cluster \"{cluster}\"")]
    JoinTokenRefused {
        /// The cluster asked for.
        cluster: String,
    },
    /// Another live node has this name.
    #[error("node name \"{name}\" is already in use in this cluster{}", if *.answer_was_lost { "; an earlier attempt of this agent got no answer and may be what holds it" } else { "" })]
    NameTaken {
        /// The name.
        name: String,
        /// Whether an earlier attempt may itself have taken the name.
        answer_was_lost: bool,
    },
    /// The control plane refused the registration for another reason.
    #[error("the control plane refused the registration ({status}): {message}")]
    RegistrationRefused {
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// The node was removed from its cluster while the agent ran.
    #[error("node \"{name}\" was removed from its cluster")]
    NodeRemoved {
        /// The node's name.
        name: String,
    },
}

impl AgentError {
    /// The exit code of a process that ends for this reason: 2 usage, 5 refused, 1 everything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Option { .. } | Self::JoinTokenMissing => 2,
            Self::JoinTokenRefused { .. }
            | Self::NameTaken { .. }
            | Self::RegistrationRefused { .. }
            | Self::OtherCluster { .. } => 5,
            Self::File { .. }
            | Self::Content { .. }
            | Self::DirectoryInUse { .. }
            | Self::Listen { .. }
            | Self::Tls(_)
            | Self::NodeRemoved { .. } => 1,
        }
    }

    /// What to do about it, when there is something to type.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::JoinTokenMissing => Some("create a join token for the cluster and pass it with --join-token-file"),
            Self::JoinTokenRefused { .. } => {
                Some("create a new join token: it is unknown, expired, used up or of another cluster")
            }
            Self::NameTaken { .. } => {
                Some("remove the old node (quiltd node delete, or kubectl delete node) or choose another --name")
            }
            Self::OtherCluster { .. } => Some("use another --data-dir for another cluster"),
            Self::NodeRemoved { .. } => {
                Some("start the agent again with a fresh --join-token-file to join as a new node")
            }
            Self::DirectoryInUse { .. } => Some("stop the other agent or use another --data-dir"),
            _ => None,
        }
    }

    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
