//! `quilt-state`: the replicated state machine. Pure and deterministic.
//!
//! [`Machine::apply`] is a function of (state, entry) and of nothing else:
//!
//! 1. **Time enters with the entry.** Expiry knows only cluster time ([`quilt_proto::Entry::at_ms`]).
//! 2. **Chance enters with the command.** Nothing is drawn here.
//! 3. **Effects leave as values.** Apply returns outcomes and events; nobody is notified inside.
//! 4. **Order is explicit.** Ordered maps only; no floats, no hash order, no `usize` in stored forms.
//! 5. **A rejection is a result** and takes its log index on every replica alike. A store error stops the replica.
//! 6. **One batch.** Changes, applied position, membership, sessions and hash are written together; replay from any
//!    flushed point gives the same bytes.
//! 7. **Exactly once.** A repeated request id gets the first outcome; after `expires_at` a transaction is a no-op.
//! 8. **Old logs stay readable.** Messages only grow.
//!
//! This crate must not know kinds, HTTP, openraft, RocksDB, clocks, randomness, files, threads or async.
//!
//! ```
//! use std::sync::Arc;
//! use quilt_proto::{Compare, Entry, Key, Op, Put, Txn};
//! use quilt_state::{Input, Machine, MemoryStore, Payload, Position};
//!
//! let mut machine = Machine::open(Arc::new(MemoryStore::new()))?;
//! let key = Key::new("default", "", "configmaps", "default", "a")?;
//! let put = Put { key: key.bytes().clone(), value: r#"{"metadata":{"resourceVersion":""}}"#.into(), splice_at: 32, ..Put::default() };
//! let txn = Txn::new(vec![Compare::absent(&key)], vec![put.into()]);
//! let entry = Entry { at_ms: 1, wall_ms: 1, commands: vec![txn.into()] };
//! let applied = machine.apply(&[Input { position: Position { index: 1, term: 1, leader: 1 }, payload: Payload::Entry(entry) }])?;
//! let stored = applied.events[0].record.as_ref().expect("a put has a record");
//! assert_eq!(stored.value, r#"{"metadata":{"resourceVersion":"1"}}"#);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![deny(
    clippy::float_arithmetic,
    clippy::float_cmp,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::iter_over_hash_type
)]

mod apply;
pub mod audit;
mod hash;
pub mod horizon;
pub mod invariant;
pub mod limits;
mod machine;
mod memory;
mod pending;
mod recent;
mod refound;
pub mod row;
mod session;
pub mod store;
pub mod view;

pub use audit::{Audit, Audited, Stride};
pub use hash::StateHash;
pub use horizon::Horizon;
pub use machine::{Applied, ApplyError, Input, Machine, Payload, Position, RequestOutcome, persisted_position};
pub use memory::MemoryStore;
pub use refound::{Refounded, Refounding, refound};
pub use store::{Batch, Family, Step, Store, StoreError, Write};
pub use view::{Expiring, Limit, Page, View, ViewError};
