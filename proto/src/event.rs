//! [`Event`]: one object change as watchers see it. Made by apply or read back from history; both give equal values.

use std::sync::Arc;

use crate::key::Key;
use crate::revision::Revision;
use crate::state::Record;

/// What happened to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The key did not exist before.
    Create,
    /// A version replaced another.
    Update,
    /// The key was deleted, or its time to live ran out.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The change's own revision.
    pub revision: Revision,
    /// Last revision of its transaction. Events up to there belong together and are delivered together.
    pub txn_end: Revision,
    /// The key that changed.
    pub key: Key,
    /// What happened.
    pub kind: EventKind,
    /// The new version; `None` exactly for [`EventKind::Delete`].
    pub record: Option<Arc<Record>>,
    /// The version before; `None` exactly for [`EventKind::Create`].
    pub previous: Option<Arc<Record>>,
}
