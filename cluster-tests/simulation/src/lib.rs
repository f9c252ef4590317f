//! The simulation: whole control planes of `quilt-raft` and `quilt-state` in one thread, in virtual time, from one seed.
//!
//! [`run`] gives each seed a world of replicas on modelled hosts, disks and links, breaks them in every way a [`Plan`]
//! drew from the seed, and shows everything that happens to the invariants, one a file in `invariant/`. First safety under
//! faults; then everything is healed, and the control plane has to work again. The same seed gives the same trace.
//!
//! It must not know what is above `quilt-raft`, and reads no clock but its own.
#![forbid(unsafe_code)]

mod campaign;
mod claim;
mod client;
mod disk;
mod fault;
mod flaw;
pub mod invariant;
mod ledger;
pub mod museum;
mod node;
mod operator;
mod pace;
mod plan;
pub mod seeds;
mod sight;
mod snapshot;
mod tally;
mod trace;
mod watcher;
mod world;

pub use campaign::{Report, Sum, Verdict, replay, run};
pub use disk::suite;
pub use fault::Strike;
pub use ledger::Violation;
pub use pace::Pace;
pub use plan::Plan;
pub use tally::Tally;
pub use world::{Options, simulate};

/// Virtual microseconds of the world that runs on this thread.
#[must_use]
pub fn now_us() -> u64 {
    quilt_raft_simulated::model::now_ns() / 1_000
}
