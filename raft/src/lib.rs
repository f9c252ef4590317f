//! `quilt-raft`: agreement between replicas.
//!
//! The only crate that names openraft. What it offers upwards is [`Replica`]: exactly-once writes and linearizable
//! reads on every replica, watches that lose and repeat nothing, leadership with a fence. It must not know HTTP,
//! kinds or what a value means, and it stores nothing itself.
#![forbid(unsafe_code)]

mod admin;
mod answers;
mod applied;
mod ballot;
mod clock;
mod codec;
mod courier;
mod destination;
mod disk;
mod error;
mod history;
mod host;
mod housekeeping;
mod hub;
#[cfg(simulated)]
mod inspect;
mod leadership;
mod log_store;
mod membership;
mod one_piece;
mod proposer;
mod read;
mod rebuild;
mod recovery;
mod reign;
mod replica;
mod requests;
mod retention;
mod scan;
mod service;
mod settings;
mod snapshot;
mod space;
mod state_machine;
mod status;
#[cfg(any(test, simulated))]
mod storage_suite;
mod transport;
mod types;
mod view;

/// Messages between replicas, generated from `peer.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    unused_qualifications,
    elided_lifetimes_in_paths
)]
pub(crate) mod peer {
    tonic::include_proto!("quilt.peer.v1");
}

pub use admin::Admin;
pub use error::{AdminError, AskError, OpenError, ProposeError, ReadError, SilentVoter, UnsafeChange, WatchError};
pub use hub::{Batch, EventStream};
pub use leadership::{LeaderId, Leadership};
pub use one_piece::{OnePiece, Rows};
pub use rebuild::Repaired;
pub use recovery::{EpochName, Findings, NewEpoch, NoEpochName, RecoveryError, examine, replay, restore};
pub use replica::{Decision, DeletedRange, Options, Parts, Replica};
pub use scan::{ScanPace, Scanned};
pub use service::Handler;
pub use settings::Timing;
pub use snapshot::{SnapshotFailed, SnapshotHome, SnapshotSink, SnapshotSource, WantedFile};
pub use space::DISK_RESERVE;
pub use status::{Floor, History, Load, Member, Role, Status};
#[cfg(not(simulated))]
pub use transport::{Asking, answering, peer_name};
pub use transport::{Listener, PeerIdentity, TransportOptions};
pub use view::{Consistency, Limit, Page, View};

/// What only the simulation sees: the modelled host and network, and a look at what the agreement layer stores.
#[cfg(simulated)]
pub mod model {
    pub use crate::host::modelled::{Dice, Exhibit, Host, Moment, World, now_ns, sleep, watch, yield_now};
    pub use crate::inspect::{membership, vote};
    pub use crate::storage_suite::passes_on;
    pub use crate::transport::{Net, Weather};
}
