//! [`Recorder`]: where clients write down what they see, from many tasks at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::{
    Collection, Connection, End, Epoch, Frame, History, Line, Micros, Operation, OperationId, Outcome, Reader, Request,
    Revision, Selector, Start, Stream, Transaction,
};

/// Collects one history. Clones write to the same one.
#[derive(Debug, Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    next: AtomicU64,
    history: Mutex<History>,
    /// Begun and not ended: what they become when the run ends before them.
    open: Mutex<std::collections::BTreeMap<OperationId, Operation>>,
}

/// A request under way. Dropped without an answer it becomes one whose outcome is unknown.
#[derive(Debug)]
pub struct Pending {
    shared: Arc<Shared>,
    id: OperationId,
}

/// A watch under way.
#[derive(Debug, Clone)]
pub struct Recording {
    shared: Arc<Shared>,
    stream: usize,
}

impl Recorder {
    /// An empty history that begins now.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let history = History { seed, ..History::default() };
        Self {
            shared: Arc::new(Shared {
                began: Instant::now(),
                next: AtomicU64::new(0),
                history: Mutex::new(history),
                open: Mutex::default(),
            }),
        }
    }

    /// Names a collection; its place is what objects refer to.
    #[must_use]
    pub fn collection(&self, collection: Collection) -> u16 {
        let mut history = self.shared.history();
        history.collections.push(collection);
        u16::try_from(history.collections.len() - 1).expect("a run has a handful of collections")
    }

    /// A request is about to be sent.
    #[must_use]
    pub fn invoke(&self, client: u16, replica: u16, request: Request) -> Pending {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let invoked = self.shared.now();
        let outcome = Outcome::Unknown { why: "the run ended before an answer".into() };
        let operation = Operation { id, client, replica, invoked, returned: invoked, request, outcome };
        self.shared.open().insert(id, operation);
        Pending { shared: Arc::clone(&self.shared), id }
    }

    /// A watch is about to be opened.
    #[must_use]
    pub fn stream(&self, collection: u16, selector: Option<Selector>, reader: Reader) -> Recording {
        let mut history = self.shared.history();
        let id = u32::try_from(history.streams.len()).expect("a run has some hundred watches");
        history.streams.push(Stream { id, collection, selector, reader, connections: Vec::new(), awaited: None });
        Recording { shared: Arc::clone(&self.shared), stream: id as usize }
    }

    /// These changes were one transaction.
    pub fn transaction(&self, operation: OperationId, revisions: Vec<Revision>) {
        self.shared.history().transactions.push(Transaction { operation: Some(operation), revisions });
    }

    /// An operator began a new epoch: not before this moment, and with this revision.
    pub fn epoch(&self, begun: Instant, revision: Revision) {
        let begun = begun.saturating_duration_since(self.shared.began);
        let begun = u64::try_from(begun.as_micros()).unwrap_or(u64::MAX);
        self.shared.history().epochs.push(Epoch { begun, revision });
    }

    /// Something to be told with the verdict.
    pub fn note(&self, about: &str, what: String) {
        self.shared.history().notes.insert(about.to_owned(), what);
    }

    /// Microseconds since the history began.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.shared.now()
    }

    /// Requests begun so far.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.shared.next.load(Ordering::Relaxed)
    }

    /// Requests under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.shared.open().len()
    }

    /// The history up to now; what is still under way is in it with an unknown outcome. Nothing may be recorded afterwards.
    #[must_use]
    pub fn finish(&self) -> History {
        let now = self.shared.now();
        let open = std::mem::take(&mut *self.shared.open());
        let mut history = std::mem::take(&mut *self.shared.history());
        history.operations.extend(open.into_values().map(|operation| Operation { returned: now, ..operation }));
        history.operations.sort_by_key(|operation| operation.id);
        history
    }
}

impl Shared {
    fn now(&self) -> Micros {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> std::sync::MutexGuard<'_, std::collections::BTreeMap<OperationId, Operation>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// Its place in the history.
    #[must_use]
    pub fn id(&self) -> OperationId {
        self.id
    }

    /// It has ended.
    pub fn returned(self, outcome: Outcome) -> OperationId {
        self.end(outcome);
        self.id
    }

    fn end(&self, outcome: Outcome) {
        let returned = self.shared.now();
        let operation = self.shared.open().remove(&self.id);
        if let Some(operation) = operation {
            self.shared.history().operations.push(Operation { returned, outcome, ..operation });
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.end(Outcome::Unknown { why: "the client gave up".into() });
    }
}

impl Recording {
    /// Another connection is asked for.
    pub fn connect(&self, replica: u16, start: Start) {
        let opened = self.shared.now();
        self.with(|stream| {
            let connection =
                Connection { replica, opened, start, frames: Vec::new(), end: End::Left, ended: Micros::MAX };
            stream.connections.push(connection);
        });
    }

    /// It has shown a line.
    pub fn line(&self, line: Line) {
        let at = self.shared.now();
        self.with(|stream| {
            if let Some(connection) = stream.connections.last_mut() {
                connection.frames.push(Frame { at, line });
            }
        });
    }

    /// It has ended.
    pub fn end(&self, end: End) {
        let now = self.shared.now();
        self.with(|stream| {
            if let Some(connection) = stream.connections.last_mut() {
                connection.end = end;
                connection.ended = now;
            }
        });
    }

    /// Its client leaves, if the connection has not ended before.
    pub fn leave(&self) {
        let now = self.shared.now();
        self.with(|stream| {
            if let Some(connection) = stream.connections.last_mut().filter(|last| last.ended == Micros::MAX) {
                connection.ended = now;
            }
        });
    }

    /// It has to come to this revision.
    pub fn awaits(&self, revision: Revision) {
        self.with(|stream| stream.awaited = Some(revision));
    }

    fn with(&self, change: impl FnOnce(&mut Stream)) {
        // After the end of the run there is no such stream.
        if let Some(stream) = self.shared.history().streams.get_mut(self.stream) {
            change(stream);
        }
    }
}
