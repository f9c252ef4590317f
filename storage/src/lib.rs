//! `quilt-storage`: the memory of a replica.
//!
//! Two RocksDB databases under one data directory: the raft log, synced by one ordered writer, and the state, which
//! has no log of its own and is made durable by flushes and by replay of the raft log. Beside them snapshots, which
//! are checkpoints of the state that another replica installs whole.
//!
//! This crate must not know openraft, the network or Kubernetes kinds. It stores records and rows; what they mean is
//! decided above.
#![forbid(unsafe_code)]

mod archive;
mod check;
mod damage;
mod db;
mod family;
mod files;
mod format;
mod home;
pub mod log;
mod newest;
mod restore;
pub mod snapshot;
mod state;

pub use archive::{inspect as inspect_backup, pieces as backup};
pub use check::{Remedy, Report, check};
pub use db::Memory;
pub use format::{FORMAT, FormatError, Identity};
pub use home::{Home, HomeError};
pub use log::{Bounds, Completion, LogEngine, LogError, LogPosition, LogRecord, Loss, MemoryLog, RocksLog};
pub use restore::{Restoring, Verified, aside, restore, verify as verify_backup};
pub use snapshot::{Manifest, Snapshot, SnapshotError, SnapshotReceiver, Snapshots};
pub use state::RocksStore;
