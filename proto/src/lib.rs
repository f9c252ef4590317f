//! `quilt-proto`: the words of the control plane.
//!
//! Ids, revisions, keys, commands, outcomes, records and events, as values. Everything that crosses a crate boundary
//! below the API is spelled here once. This crate must not know time sources, randomness, IO or async, and depends
//! on nothing else of ours.
#![forbid(unsafe_code)]

pub mod event;
pub mod id;
pub mod key;
pub mod revision;

/// Messages of `state.proto`: what is replicated and stored.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod state {
    include!(concat!(env!("OUT_DIR"), "/quilt.state.v1.rs"));
}

pub use event::{Event, EventKind};
pub use id::{ClusterId, ReplicaId};
pub use key::{Key, KeyError, KeyPrefix};
pub use revision::Revision;
pub use state::{
    Applied, Command, Compare, Entry, Op, Outcome, Put, Record, Rejected, RequestId, Txn, command, compare, op, outcome,
};

mod build;
