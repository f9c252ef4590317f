//! Chaos: scenarios in which a real control plane is worked on by clients and broken in named ways, and a verdict one can trust.
//!
//! [`scenario`] is the table of what there is, [`run`] does one of it, [`report`] tells what came of all. What clients saw is judged by the
//! [oracle](crate::oracle), whether a fault took effect by the [fault](crate::fault) itself; a run without load, or whose fault did not
//! happen, is void and proves nothing.

pub mod command;
pub mod coverage;
mod judge;
pub mod memory;
pub mod progress;
pub mod report;
pub mod run;
pub mod scenario;
mod settle;
pub mod soak;
mod timeline;
mod verdict;
