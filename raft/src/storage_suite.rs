//! openraft's own suite of what a log and a state machine must do: on the log in memory, on RocksDB, and in the
//! simulation on its modelled disk.
//!
//! The log is the real one. The state machine is the real one behind [`Carried`], which does what in a replica is the
//! transport's part, and stands in where the suite asks what a replica is never asked; each is explained there.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
#[cfg(test)]
use openraft::type_config::TypeConfigExt;
use openraft::{OptionalSend, RaftSnapshotBuilder, StorageError};
use quilt_state::{Machine, Store};
#[cfg(all(test, not(simulated)))]
use quilt_storage::{Home, Identity};
#[cfg(all(test, not(simulated)))]
use tempfile::TempDir;

use crate::applied::Applied;
use crate::clock::Clock;
use crate::hub::Hub;
use crate::log_store::LogStore;
use crate::replica::Parts;
use crate::requests::Requests;
use crate::snapshot::{SnapshotHome, SnapshotSink, SnapshotSource};
use crate::state_machine::{Builder, Listeners, SnapshotData, StateMachine};
use crate::types::{Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig, log_id};

/// A piece smaller than a snapshot, so that carrying takes several.
const PIECE_BYTES: usize = 512;

/// The real state machine, with the three things the suite takes for granted of one that stands alone.
///
/// A snapshot in its hands is `None` when it is one of a state to which nothing was ever applied.
struct Carried {
    machine: StateMachine,
    home: Arc<dyn SnapshotHome>,
}

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, Option<SnapshotData>>;

/// Brings a snapshot into another replica's home the way the transport does: manifest first, then the pieces that are
/// asked for.
pub(crate) fn carry(source: &dyn SnapshotSource, home: &dyn SnapshotHome) -> io::Result<Box<dyn SnapshotSink>> {
    let mut sink = home.receive(&source.manifest()).map_err(io::Error::other)?;
    for wanted in sink.wanted().map_err(io::Error::other)? {
        let mut offset = wanted.offset;
        loop {
            let piece = source.read(wanted.file, offset, PIECE_BYTES).map_err(io::Error::other)?;
            if piece.is_empty() {
                break;
            }
            sink.write(wanted.file, offset, &piece).map_err(io::Error::other)?;
            offset += piece.len() as u64;
        }
    }
    Ok(sink)
}

impl RaftStateMachine<TypeConfig> for Carried {
    type SnapshotData = Option<SnapshotData>;
    type SnapshotBuilder = CarriedBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        self.machine.applied_state().await
    }

    /// One case leaves an index out, which a log never does and the real state machine takes for a lost entry. Blank
    /// entries, which every leader may append, stand there instead.
    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut last = self.machine.applied_state().await?.0.map(|id| id.index);
        let mut filled: Vec<Result<EntryResponder<TypeConfig>, io::Error>> = Vec::new();
        for (entry, responder) in entries.collect::<Vec<_>>().await.into_iter().collect::<Result<Vec<_>, _>>()? {
            let id = entry.log_id();
            let missing = last.map_or(id.index, |last| last + 1)..id.index;
            filled.extend(missing.map(|index| Ok((Entry::new_blank(log_id(id.leader_id.term, index)), None))));
            last = Some(id.index);
            filled.push(Ok((entry, responder)));
        }
        self.machine.apply(stream::iter(filled)).await
    }

    async fn get_snapshot_builder(&mut self) -> CarriedBuilder {
        let applied = self.machine.applied_state().await.expect("the applied state is known").0;
        CarriedBuilder { applied, builder: self.machine.get_snapshot_builder().await }
    }

    /// The suite hands the sender's snapshot straight to the receiver. Between replicas it is carried over first.
    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Option<SnapshotData>) -> Result<(), io::Error> {
        let arrived = match snapshot.expect("the suite installs no empty snapshot") {
            SnapshotData::Own(source) => SnapshotData::Arrived(carry(&*source, &*self.home)?),
            arrived @ SnapshotData::Arrived(_) => arrived,
        };
        self.machine.install_snapshot(meta, arrived).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let newest = self.machine.get_current_snapshot().await?;
        Ok(newest.map(|own| Snapshot { meta: own.meta, snapshot: Some(own.snapshot) }))
    }
}

struct CarriedBuilder {
    applied: Option<LogId>,
    builder: Builder,
}

impl RaftSnapshotBuilder<TypeConfig> for CarriedBuilder {
    type SnapshotData = Option<SnapshotData>;

    /// To look at the log alone, some cases of the suite purge it over a state to which nothing was applied, and then
    /// openraft asks for a snapshot of that state. A replica purges only what its state holds, so for it the same
    /// picture means that the state was lost; a snapshot of nothing would cover that up and be sent to others, so the
    /// real builder refuses. Here the empty snapshot is given that the cases expect.
    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        if self.applied.is_none() {
            let refused = self.builder.build_snapshot().await.err().map(|error| error.to_string());
            assert!(refused.is_some_and(|error| error.contains("nothing has been applied yet")));
            return Ok(Snapshot { meta: SnapshotMeta::default(), snapshot: None });
        }
        let own = self.builder.build_snapshot().await?;
        Ok(Snapshot { meta: own.meta, snapshot: Some(own.snapshot) })
    }
}

fn stores(parts: Parts) -> (LogStore, Carried) {
    let machine: Machine<dyn Store> = Machine::open(parts.store.clone()).expect("an empty state opens");
    let applied = Arc::new(Applied::new(parts.store, machine.horizon(), 0, (0, 0)));
    let listeners = Listeners {
        hub: Arc::new(Hub::new(Arc::clone(&applied), 1 << 20)),
        requests: Arc::new(Requests::new(applied.mark())),
        answers: Arc::default(),
        clock: Arc::new(Clock::new(0)),
        applied,
        written: Arc::default(),
    };
    let home = Arc::clone(&parts.snapshots);
    let machine = StateMachine::new(machine, parts.snapshots, listeners);
    (LogStore::new(parts.log, Arc::default()), Carried { machine, home })
}

#[cfg(simulated)]
struct On<F>(F);

#[cfg(simulated)]
impl<F: Fn() -> Parts + Send + Sync> StoreBuilder<TypeConfig, LogStore, Carried> for On<F> {
    async fn build(&self) -> Result<((), LogStore, Carried), StorageError<TypeConfig>> {
        let (log, state) = stores((self.0)());
        Ok(((), log, state))
    }
}

/// Runs the suite on stores that are made anew for every case.
///
/// # Errors
/// What the first case that fails says.
#[cfg(simulated)]
pub async fn passes_on(parts: impl Fn() -> Parts + Send + Sync) -> Result<(), String> {
    Suite::test_all(On(parts)).await.map_err(|error| error.to_string())
}

#[cfg(test)]
struct OnMemory;

#[cfg(test)]
impl StoreBuilder<TypeConfig, LogStore, Carried> for OnMemory {
    async fn build(&self) -> Result<((), LogStore, Carried), StorageError<TypeConfig>> {
        let (log, state) = stores(Parts::memory());
        Ok(((), log, state))
    }
}

#[cfg(all(test, not(simulated)))]
struct OnDisk;

#[cfg(all(test, not(simulated)))]
impl StoreBuilder<TypeConfig, LogStore, Carried, (TempDir, Home)> for OnDisk {
    async fn build(&self) -> Result<((TempDir, Home), LogStore, Carried), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let identity = Identity { cluster: "suite".into(), replica: 1 };
        let home = Home::open(&dir.path().join("data"), identity).expect("a fresh directory opens");
        let (log, state) = stores(Parts::of(&home));
        Ok(((dir, home), log, state))
    }
}

/// The suite passes on the log in memory. One of its cases starts over a state that contradicts the log (openraft #1892).
#[test]
fn openraft_suite_on_memory() {
    TypeConfig::run(async { Suite::test_all(OnMemory).await }).expect("the suite passes");
}

/// The suite passes on RocksDB, the case of openraft #1892 included.
#[cfg(not(simulated))]
#[test]
fn openraft_suite_on_rocksdb() {
    TypeConfig::run(async { Suite::test_all(OnDisk).await }).expect("the suite passes");
}
