//! `quilt-controllers`: reconcilers that run on the leader, over its own applied state (architecture D12, D13).
//!
//! Each controller is a pure function `(view, key, occasion) → plan`; the runtime owns queues, back-off, leadership and
//! writes. This crate must not know HTTP, the API, the scheduler or the storage: all it sees is the replica's handle
//! and the object model.
#![forbid(unsafe_code)]

pub mod annotations;
pub mod ending;
pub mod entropy;
pub mod fields;
pub mod heartbeats;
pub mod moment;
pub mod object;
pub mod plan;
pub mod pods;
pub mod reconcile;
pub mod route;
pub mod runtime;
pub mod view;
#[cfg(test)]
mod world;

pub use heartbeats::Heartbeats;
pub use runtime::{Controllers, ForceError, Metrics};
