//! What clients saw: every request with its beginning and its end, every watch with all it delivered.
//!
//! A history is the only thing the [oracle](crate::oracle) judges by. It is written by the clients of
//! [`workload`](crate::workload), in one process and so on one monotonic clock, and says nothing of what servers believe.
//! It must not know what is right: no rule of the product stands here.

mod file;
mod recorder;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use file::{Damaged, load, save};
pub use recorder::{Pending, Recorder, Recording};

/// A revision of the control plane, as `resourceVersion` shows it.
pub type Revision = u64;

/// Microseconds since the history began.
pub type Micros = u64;

/// Place of an operation in [`History::operations`].
pub type OperationId = u64;

/// A set of objects of one kind, whose every change is watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collection {
    /// Its path, as `/api/v1/namespaces/x/configmaps`.
    pub path: String,
    /// Who changes it.
    pub writers: Writers,
}

/// Who changes a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Writers {
    /// The clients of this history only: whatever nobody wrote is a phantom.
    Ours,
    /// Controllers too: they may change what is not a value of ours.
    Shared,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Object {
    /// Place of its collection in [`History::collections`].
    pub collection: u16,
    /// `name`, or `namespace/name` where the collection spans namespaces.
    pub name: String,
}

/// One version of an object as an answer or an event showed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// `name`, or `namespace/name` where the collection spans namespaces.
    pub name: String,
    /// Its uid: another one is another object of the same name.
    pub uid: String,
    /// Its `resourceVersion`; 0 where the route shows none.
    pub revision: Revision,
    /// The value a client of ours wrote; empty where none did.
    pub value: String,
    /// The label `group`, which selectors choose by.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Hash of everything in it but kind and apiVersion.
    pub print: u64,
    /// What product invariants need of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
}

/// What product invariants need of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Facts {
    /// A v1 Pod.
    Pod {
        /// `spec.nodeName`.
        node: Option<String>,
        /// Sum of its containers' CPU requests, in thousandths.
        cpu_millis: u64,
        /// Sum of its containers' memory requests.
        memory_bytes: u64,
        /// Whether it has succeeded or failed and holds nothing any more.
        finished: bool,
        /// Whether it is being deleted.
        terminating: bool,
        /// The uid of its controller.
        owner: Option<String>,
        /// The uid of the Pod whose place it takes: the two never count twice.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<String>,
    },
    /// A v1 Node.
    Node {
        /// Allocatable CPU in thousandths; `None` where it reports none.
        cpu_millis: Option<u64>,
        /// Allocatable memory; `None` where it reports none.
        memory_bytes: Option<u64>,
        /// Allocatable pods; `None` where it reports none.
        pods: Option<u64>,
        /// `spec.podCIDR`.
        subnet: Option<String>,
    },
    /// An apps/v1 Deployment.
    Deployment {
        /// `spec.replicas`.
        replicas: u64,
        /// How many more there may be while it is rolled.
        surge: u64,
    },
    /// An apps/v1 `ReplicaSet`.
    ReplicaSet {
        /// The uid of its controller.
        owner: Option<String>,
        /// `spec.replicas`.
        replicas: u64,
    },
}

/// A label or field selector of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selector {
    /// `labelSelector=group=…`.
    Group(String),
    /// `fieldSelector=metadata.name=…`.
    Name(String),
}

impl Selector {
    /// Whether an object of this name and group is chosen.
    #[must_use]
    pub fn chooses(&self, name: &str, group: &str) -> bool {
        match self {
            Self::Group(wanted) => group == wanted,
            Self::Name(wanted) => name.rsplit('/').next() == Some(wanted),
        }
    }
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Freshness {
    /// No `resourceVersion`: everything acknowledged before.
    Latest,
    /// `resourceVersion=0` or `consistency=stale`: any, but of one replica never going back.
    Any,
    /// `resourceVersion=N`: at least that.
    AtLeast(Revision),
    /// `resourceVersion=N&resourceVersionMatch=Exact`: that snapshot.
    Exactly(Revision),
}

/// Which page of a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Page {
    /// All of it.
    Whole,
    /// The first page.
    First,
    /// The one behind the page that this operation got.
    Behind(OperationId),
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// POST of an object with this value.
    Create {
        /// Which.
        object: Object,
        /// The value written, unique in the history unless the request repeats an earlier one under its key.
        value: String,
        /// The `Idempotency-Key` it was sent with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<String>,
    },
    /// PUT of an object with this value.
    Update {
        /// Which.
        object: Object,
        /// The value written, unique in the history.
        value: String,
        /// The `resourceVersion` it must have.
        expected: Option<Revision>,
    },
    /// PATCH of an object to this value, whatever it was.
    Patch {
        /// Which.
        object: Object,
        /// The value written, unique in the history.
        value: String,
    },
    /// DELETE of an object.
    Delete {
        /// Which.
        object: Object,
        /// The `resourceVersion` it must have.
        expected: Option<Revision>,
    },
    /// GET of an object.
    Get {
        /// Which.
        object: Object,
        /// How fresh.
        freshness: Freshness,
    },
    /// GET of a collection.
    List {
        /// Which.
        collection: u16,
        /// Of which only these.
        selector: Option<Selector>,
        /// How fresh.
        freshness: Freshness,
        /// Which page of it.
        page: Page,
    },
    /// POST of a join token with so many uses.
    IssueToken {
        /// Its name in the history.
        token: String,
        /// How often it may be used.
        uses: u64,
        /// For how long, in seconds; `None` where that outlasts any run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_secs: Option<u64>,
    },
    /// POST register with a join token.
    Join {
        /// The token's name in the history.
        token: String,
        /// The node's name.
        node: String,
    },
}

impl Request {
    /// The object it is about, when it is about one.
    #[must_use]
    pub fn object(&self) -> Option<&Object> {
        match self {
            Self::Create { object, .. }
            | Self::Update { object, .. }
            | Self::Patch { object, .. }
            | Self::Delete { object, .. }
            | Self::Get { object, .. } => Some(object),
            Self::List { .. } | Self::IssueToken { .. } | Self::Join { .. } => None,
        }
    }

    /// The value it writes, when it writes one.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        match self {
            Self::Create { value, .. } | Self::Update { value, .. } | Self::Patch { value, .. } => Some(value),
            _ => None,
        }
    }

    /// Whether it changes anything.
    #[must_use]
    pub fn writes(&self) -> bool {
        !matches!(self, Self::Get { .. } | Self::List { .. })
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The object as it was answered.
    Object(Seen),
    /// It is done; of what was deleted the uid, where the answer told it.
    Done {
        /// The uid of what was acted on.
        uid: String,
    },
    /// A list, or a page of one.
    Items {
        /// The snapshot's revision.
        revision: Revision,
        /// What is in it, in the order shown.
        items: Vec<Seen>,
        /// Whether there is a page behind it.
        more: bool,
    },
    /// A status that is no success.
    Refused {
        /// The HTTP status.
        code: u16,
        /// The reason it gave: Kubernetes' `reason` or Quilt's `error_code`.
        reason: String,
    },
    /// No answer, or half of one, or an answer that leaves it open: it may or may not have happened, or yet happen.
    Unknown {
        /// What was seen instead.
        why: String,
    },
}

impl Outcome {
    /// Whether it is a success.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        matches!(self, Self::Object(_) | Self::Done { .. } | Self::Items { .. })
    }
}

/// One request of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Its place in the history.
    pub id: OperationId,
    /// Who asked.
    pub client: u16,
    /// Which replica.
    pub replica: u16,
    /// Before the first byte was sent.
    pub invoked: Micros,
    /// After the last byte was read, or the client gave up.
    pub returned: Micros,
    /// What was asked.
    pub request: Request,
    /// What came of it.
    pub outcome: Outcome,
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// Behind this revision: where the last connection of this watch ended, or as a client chose.
    Behind(Revision),
    /// Behind the revision of this list.
    BehindList(OperationId, Revision),
    /// With the present state, marked at its end (`sendInitialEvents`).
    InitialEvents,
}

/// What an event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// `ADDED`.
    Added,
    /// `MODIFIED`.
    Modified,
    /// `DELETED`.
    Deleted,
}

/// One line of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Line {
    /// A change.
    Event {
        /// Of which kind.
        kind: EventKind,
        /// The object shown.
        seen: Seen,
        /// Hash of the object's bytes as they came.
        bytes: u64,
    },
    /// How far the watch has come.
    Bookmark {
        /// Everything up to here was delivered.
        revision: Revision,
        /// Whether it ends the initial events.
        initial_end: bool,
    },
    /// An error inside the stream.
    Error {
        /// Its status.
        code: u16,
        /// What it says.
        message: String,
    },
}

/// One line, and when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// When it was read.
    pub at: Micros,
    /// What it says.
    pub line: Line,
}

/// How one connection of a watch ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// The server ended it in order.
    Closed,
    /// It broke.
    Broken(String),
    /// The client left, here or with the end of the run.
    Left,
    /// It never began: this status.
    Refused {
        /// The HTTP status.
        code: u16,
        /// What it says.
        message: String,
    },
}

/// One connection of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Through which replica.
    pub replica: u16,
    /// When it was asked for.
    pub opened: Micros,
    /// Where it begins.
    pub start: Start,
    /// What it showed.
    pub frames: Vec<Frame>,
    /// How it ended.
    pub end: End,
    /// When.
    pub ended: Micros,
}

/// How the client of a watch reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reader {
    /// As fast as it can, always through the same replica.
    Pinned,
    /// As fast as it can, through any.
    Roaming,
    /// With long pauses.
    Slow,
}

/// A watch of one client: connections one behind the other, each going on where the last one ended unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Its place in [`History::streams`].
    pub id: u32,
    /// What it watches: place in [`History::collections`].
    pub collection: u16,
    /// Of which only these.
    pub selector: Option<Selector>,
    /// How it reads.
    pub reader: Reader,
    /// Its connections in order.
    pub connections: Vec<Connection>,
    /// A revision that it was to reach before the run ended, and was given time for.
    pub awaited: Option<Revision>,
}

/// Several changes that were one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// The request that made them, where it was one of ours.
    pub operation: Option<OperationId>,
    /// Those of its revisions that are known, in order.
    pub revisions: Vec<Revision>,
}

/// A moment at which an operator began a new epoch: whoever stands at a lower revision is told to begin anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// When, at the earliest.
    pub begun: Micros,
    /// The first revision of it; those before are not gone on with.
    pub revision: Revision,
}

/// All that the clients of one run saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// What the run was made from.
    pub seed: u64,
    /// The collections that were written and watched.
    pub collections: Vec<Collection>,
    /// Every request, in the order in which they were begun.
    pub operations: Vec<Operation>,
    /// Every watch.
    pub streams: Vec<Stream>,
    /// Changes known to belong together.
    pub transactions: Vec<Transaction>,
    /// What an operator did meanwhile that clients are told of.
    pub epochs: Vec<Epoch>,
    /// What the harness wants told with the verdict, by what it is about.
    pub notes: BTreeMap<String, String>,
}

impl History {
    /// Requests that were answered with a success.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.operations.iter().filter(|operation| operation.outcome.succeeded()).count()
    }

    /// The request of this number.
    #[must_use]
    pub fn operation(&self, id: OperationId) -> Option<&Operation> {
        let place = self.operations.binary_search_by_key(&id, |operation| operation.id).ok()?;
        self.operations.get(place)
    }

    /// Whether a new epoch had begun by then, and this revision is of one before.
    #[must_use]
    pub fn is_of_an_epoch_before(&self, revision: Revision, by: Micros) -> bool {
        self.epochs.iter().any(|epoch| epoch.begun <= by && revision < epoch.revision)
    }

    /// Events that all watches delivered.
    #[must_use]
    pub fn events(&self) -> usize {
        let frames = self.streams.iter().flat_map(|stream| &stream.connections).flat_map(|one| &one.frames);
        frames.filter(|frame| matches!(frame.line, Line::Event { .. })).count()
    }
}
