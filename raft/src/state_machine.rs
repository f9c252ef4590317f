//! openraft's state machine over [`quilt_state::Machine`]: applies committed entries in batches and tells everybody who
//! waits, always in the same order: rows, horizon, watchers, own requests, the leader's answers.

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use quilt_proto::Outcome;
use quilt_state::{Machine, Payload, Position, Store};

use crate::answers::Answers;
use crate::applied::{Applied, Mark};
use crate::ballot::MILESTONE;
use crate::clock::Clock;
use crate::codec;
use crate::history::Written;
use crate::host::exhibit;
use crate::hub::Hub;
use crate::recovery;
use crate::requests::Requests;
use crate::snapshot::{SnapshotHome, SnapshotSink, SnapshotSource};
use crate::types::{LogId, Reply, SnapshotMeta, StoredMembership, TypeConfig, log_id};

pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// Entries applied as one batch at most: bounds how long readers of the newest state wait for the batch.
const BATCH_ENTRIES: usize = 64;

/// A snapshot in openraft's hands: one of ours to send, or one that has arrived to install.
pub(crate) enum SnapshotData {
    Own(Arc<dyn SnapshotSource>),
    Arrived(Box<dyn SnapshotSink>),
}

/// Everybody apply talks to.
pub(crate) struct Listeners {
    pub(crate) applied: Arc<Applied>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) answers: Arc<Answers>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) written: Arc<Written>,
}

/// Bytes of entries applied right where they arrive. More would keep heartbeats waiting, so it is applied on another
/// thread, which is worth its wake-up then.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// The replicated state machine of one replica.
pub(crate) struct StateMachine {
    /// Away only while a batch is applied; gone for good when that panicked.
    applier: Option<Box<Applier>>,
    home: Arc<dyn SnapshotHome>,
}

/// What applies: the machine, and everybody it talks to.
struct Applier {
    machine: Machine<dyn Store>,
    listeners: Listeners,
}

fn failed(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

fn unfinished() -> io::Error {
    failed("an apply has not come to its end")
}

fn stored_membership(bytes: &[u8]) -> Result<StoredMembership, io::Error> {
    if bytes.is_empty() {
        return Ok(StoredMembership::default());
    }
    let (id, membership) = codec::decode_membership_at(bytes)?;
    Ok(StoredMembership::new(Some(id), membership))
}

/// What openraft has to know of a snapshot.
pub(crate) fn meta(position: Position, membership: &[u8]) -> Result<SnapshotMeta, io::Error> {
    Ok(SnapshotMeta {
        last_log_id: Some(log_id(position.term, position.index)),
        last_membership: stored_membership(membership)?,
    })
}

impl StateMachine {
    pub(crate) fn new(machine: Machine<dyn Store>, home: Arc<dyn SnapshotHome>, listeners: Listeners) -> Self {
        Self { applier: Some(Box::new(Applier { machine, listeners })), home }
    }

    fn applier(&mut self) -> Result<&mut Applier, io::Error> {
        self.applier.as_deref_mut().ok_or_else(unfinished)
    }

    async fn apply_batch(&mut self, batch: Vec<EntryResponder<TypeConfig>>) -> Result<(), io::Error> {
        let bytes = |(entry, _): &EntryResponder<TypeConfig>| match &entry.payload {
            EntryPayload::Normal(bytes) => bytes.0.len(),
            EntryPayload::Blank | EntryPayload::Membership(_) => 0,
        };
        if batch.iter().map(bytes).sum::<usize>() <= INLINE_BYTES_MAX {
            return self.applier()?.apply(batch);
        }
        self.elsewhere(move |applier| applier.apply(batch)).await
    }

    /// Lets the applier work on another thread.
    async fn elsewhere(
        &mut self,
        work: impl FnOnce(&mut Applier) -> Result<(), io::Error> + Send + 'static,
    ) -> Result<(), io::Error> {
        let mut applier = self.applier.take().ok_or_else(unfinished)?;
        let working = TypeConfig::spawn_blocking(move || {
            let result = work(&mut applier);
            (applier, result)
        });
        let (applier, result) = working.await.map_err(failed)?;
        self.applier = Some(applier);
        result
    }
}

impl Applier {
    fn mark(&self) -> Mark {
        self.listeners.applied.mark()
    }

    fn apply(&mut self, batch: Vec<EntryResponder<TypeConfig>>) -> Result<(), io::Error> {
        let mut inputs = Vec::with_capacity(batch.len());
        let mut responders = Vec::with_capacity(batch.len());
        for (entry, responder) in batch {
            let input = recovery::input(&entry)?;
            #[cfg(simulated)]
            let input = crate::host::modelled::impure(input);
            inputs.push(input);
            responders.push((entry.log_id.index, responder));
        }
        let Some(term) = inputs.last().map(|input| input.position.term) else { return Ok(()) };
        let listeners = &self.listeners;
        listeners.applied.herald(inputs.iter().filter_map(|input| match &input.payload {
            Payload::Entry(entry) => Some(entry),
            Payload::Blank | Payload::Membership(_) => None,
        }));
        let mut done = self.machine.apply(&inputs).map_err(failed)?;
        let horizon = self.machine.horizon();
        listeners.clock.applied(horizon.cluster_time_ms);
        let revision = horizon.revision;
        listeners.applied.publish(horizon, term, self.machine.hash().halves());
        listeners.written.note(&done.events);
        listeners.hub.publish(std::mem::take(&mut done.events), &done.dropped, revision);
        listeners.requests.applied(&done.outcomes, self.mark(), &self.machine);
        listeners.answers.applied(&done.outcomes);
        let mut outcomes = done.outcomes.into_iter().peekable();
        for (index, responder) in responders {
            let mut own: Vec<Outcome> = Vec::new();
            while let Some(outcome) = outcomes.next_if(|outcome| outcome.index == index) {
                own.push(outcome.outcome);
            }
            if let Some(responder) = responder {
                responder.send(Reply { outcomes: Arc::new(own) });
            }
        }
        Ok(())
    }

    /// Puts a snapshot in the place of the state.
    fn install(&mut self, sink: Box<dyn SnapshotSink>, last: Option<LogId>) -> Result<(), io::Error> {
        let listeners = &self.listeners;
        let revision = {
            let _replacing = listeners.applied.replacing();
            sink.install().map_err(failed)?;
            let store = Arc::clone(self.machine.store());
            let audit = Arc::clone(self.machine.audit());
            self.machine = Machine::open(Arc::clone(&store)).map_err(failed)?.with_audit(audit);
            let horizon = self.machine.horizon();
            let term = self.machine.position().unwrap_or_default().term;
            listeners.clock.applied(horizon.cluster_time_ms);
            let revision = horizon.revision;
            listeners.applied.replace(store, horizon, term, self.machine.hash().halves());
            revision
        };
        tracing::info!(?last, %revision, "installed a snapshot");
        if !exhibit!(GapAfterSnapshot) {
            listeners.hub.reset(revision);
        }
        listeners.requests.installed(self.mark(), &self.machine);
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        // Only durable positions are told here: this is called while opening, before anything was applied.
        let machine = &self.applier()?.machine;
        let applied = machine.position().map(|position| log_id(position.term, position.index));
        Ok((applied, stored_membership(machine.membership())?))
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut batches = entries.ready_chunks(BATCH_ENTRIES);
        while let Some(batch) = batches.next().await {
            let mut batch = batch.into_iter().collect::<Result<Vec<_>, _>>()?;
            // A batch ends with a milestone, so that every replica knows its hash there.
            while let Some(at) = batch.iter().position(|(entry, _)| entry.log_id.index.is_multiple_of(MILESTONE)) {
                let rest = batch.split_off(at + 1);
                self.apply_batch(std::mem::replace(&mut batch, rest)).await?;
            }
            if !batch.is_empty() {
                self.apply_batch(batch).await?;
            }
        }
        Ok(())
    }

    /// A snapshot of nothing is put off: to openraft a builder that fails is a broken store, and it would stop. One that it
    /// cannot do without is tried nevertheless, and fails: the state that it believes in is not there.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        let empty = self.applier.as_ref().is_some_and(|applier| applier.machine.position().is_none());
        if empty && !force {
            return None;
        }
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { home: Arc::clone(&self.home) }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> Result<(), io::Error> {
        let SnapshotData::Arrived(sink) = snapshot else {
            // A kept snapshot is a flushed checkpoint, so the state can never be behind it.
            return Err(failed("the state is behind its own snapshot: the data directory is not whole"));
        };
        let last = meta.last_log_id;
        self.elsewhere(move |applier| applier.install(sink, last)).await
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::alias::SnapshotOf<TypeConfig, SnapshotData>>, io::Error> {
        let Some(source) = self.home.newest() else { return Ok(None) };
        let meta = meta(source.position(), &source.membership())?;
        Ok(Some(openraft::Snapshot { meta, snapshot: SnapshotData::Own(source) }))
    }
}

/// Builds a snapshot beside apply.
pub(crate) struct Builder {
    home: Arc<dyn SnapshotHome>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<openraft::alias::SnapshotOf<TypeConfig, SnapshotData>, io::Error> {
        let home = Arc::clone(&self.home);
        let source = TypeConfig::spawn_blocking(move || home.build()).await?.map_err(failed)?;
        let meta = meta(source.position(), &source.membership())?;
        Ok(openraft::Snapshot { meta, snapshot: SnapshotData::Own(source) })
    }
}
