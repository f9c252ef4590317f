//! `quilt-scheduler`: finds nodes for Pods, on the leader, over its own applied state (architecture D12, D13).
//!
//! `decide` is pure: `(snapshot, pod) → decision with reasons`. The runtime owns queue, leadership and writes. This
//! crate must not know HTTP, the API, the controllers or the storage.
#![forbid(unsafe_code)]

pub mod bind;
pub mod decide;
pub mod filter;
pub mod node;
pub mod pod;
pub mod resources;
pub mod runtime;
pub mod score;
pub mod snapshot;

#[cfg(test)]
mod tests;

pub use decide::{Decision, decide};
pub use runtime::{Metrics, Scheduler};
