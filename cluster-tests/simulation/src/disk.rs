//! The modelled disk of one machine: it outlives the replica, and keeps through a crash only what was synced.
//!
//! The log is a file of framed operations in sectors. What was written and not synced survives the death of the process;
//! when power goes, some first part of it does, cut at a sector, the last one perhaps torn. The state has no log of its
//! own: what was not flushed is gone with the process. Either may be ahead of the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use quilt_proto::state::{Change, MachineState, Record};
use quilt_raft_simulated::model::{self, Dice, Host, sleep};
use quilt_raft_simulated::{OnePiece, Parts, Rows, SnapshotSource};
use quilt_state::{Batch, Family, MemoryStore, Step, Store, StoreError, row};
use quilt_storage::{Bounds, Completion, LogEngine, LogError, LogPosition, LogRecord, MemoryLog};
use tokio::sync::Notify;

use crate::flaw::Flaw;
use crate::ledger::Ledger;
use crate::sight::{Changed, Mark, Sight};
use crate::snapshot::Snapshots;

/// What a disk writes whole, or not at all, or not quite.
const SECTOR_BYTES: usize = 512;
/// One write in so many fills the memory table, which is then flushed: small ones, usual ones, large ones.
const FLUSH_ONE_IN: [u64; 3] = [15, 100, 300];

/// How the disk behaves now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habit {
    /// A sync takes so long, least and most, in microseconds.
    pub(crate) sync_us: (u64, u64),
    /// The next sync fails.
    pub(crate) fail_next: bool,
}

/// One operation on the log file.
#[derive(Clone, PartialEq, prost::Message)]
struct Operation {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Append(Framed),
    #[prost(bytes = "bytes", tag = "2")]
    Vote(Bytes),
    /// The last index that stays, and one more.
    #[prost(uint64, tag = "3")]
    Truncate(u64),
    #[prost(message, tag = "4")]
    Purge(Framed),
    #[prost(bytes = "bytes", tag = "5")]
    Committed(Bytes),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Framed {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(uint64, tag = "3")]
    leader: u64,
    #[prost(bytes = "bytes", tag = "4")]
    payload: Bytes,
}

/// What a restart finds in the log.
#[derive(Clone, Default)]
struct Image {
    records: BTreeMap<u64, LogRecord>,
    purged: Option<LogPosition>,
    vote: Option<Bytes>,
    committed: Option<Bytes>,
}

impl Image {
    fn take(&mut self, kind: Kind) {
        match kind {
            Kind::Append(Framed { index, term, leader, payload }) => {
                self.records.insert(index, LogRecord { index, term, leader, payload });
            }
            Kind::Vote(vote) => self.vote = Some(vote),
            Kind::Truncate(end) => {
                self.records.split_off(&end);
            }
            Kind::Purge(Framed { index, term, leader, .. }) => {
                let beyond = u64::from(Flaw::PurgedTooFar.is_shown());
                self.records = self.records.split_off(&(index + 1 + beyond));
                self.purged = Some(LogPosition { index, term, leader });
            }
            Kind::Committed(committed) => self.committed = Some(committed),
        }
    }

    fn last(&self) -> Option<(u64, u64)> {
        let last = self.records.values().next_back().map(LogRecord::position).or(self.purged);
        last.map(|position| (position.index, position.term))
    }
}

fn frame(kind: Kind) -> Vec<u8> {
    let body = Operation { kind: Some(kind) }.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &xxhash_rust::xxh3::xxh3_64(&body).to_be_bytes(), &body].concat()
}

/// Takes one whole frame off the front, if there is one.
fn unframe(bytes: &[u8]) -> Option<(Kind, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<8>()?;
    let body = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    if xxhash_rust::xxh3::xxh3_64(body) != u64::from_be_bytes(*sum) {
        return None;
    }
    Some((Operation::decode(body).ok()?.kind?, &rest[body.len()..]))
}

struct State {
    /// Counts starts: what an earlier one still holds of the disk does nothing any more.
    boot: u64,
    habit: Habit,
    flush_one_in: u64,
    dice: Dice,
    synced: Image,
    /// Written behind that, and not synced.
    written: Vec<u8>,
    flushed: Rows,
    unflushed: Vec<Batch>,
    snapshot: Option<Arc<OnePiece>>,
    syncs: u64,
}

/// The disk of one machine.
#[derive(Clone)]
pub(crate) struct Disk {
    replica: u64,
    ledger: Arc<Ledger>,
    state: Arc<Mutex<State>>,
}

/// How a machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The process ends; what it had written is still in the machine's memory.
    Process,
    /// The machine ends.
    Power,
}

fn put(rows: &mut Rows, batch: &Batch) {
    for write in &batch.writes {
        let family = rows.entry(write.family).or_default();
        match &write.value {
            Some(value) => drop(family.insert(write.key.clone(), value.clone())),
            None => drop(family.remove(&write.key)),
        }
    }
}

fn machine_row(rows: &Rows) -> Option<MachineState> {
    MachineState::decode(rows.get(&Family::Meta)?.get(row::MACHINE)?.clone()).ok()
}

fn mark(state: &MachineState) -> Mark {
    Mark {
        index: state.applied_index,
        term: state.applied_term,
        revision: state.revision,
        cluster_ms: state.cluster_time_ms,
        hash: (state.hash_high, state.hash_low),
    }
}

impl Disk {
    pub(crate) fn new(replica: u64, dice: Dice, ledger: Arc<Ledger>) -> Self {
        let state = State {
            boot: 0,
            habit: Habit { sync_us: (100, 1_000), fail_next: false },
            flush_one_in: *dice.child(2).pick(&FLUSH_ONE_IN).expect("there are some"),
            dice,
            synced: Image::default(),
            written: Vec::new(),
            flushed: Rows::new(),
            unflushed: Vec::new(),
            snapshot: None,
            syncs: 0,
        };
        Self { replica, ledger, state: Arc::new(Mutex::new(state)) }
    }

    /// Changes how it behaves.
    pub(crate) fn set_habit(&self, habit: Habit) {
        self.state.lock().habit = habit;
    }

    /// The memory table is full: what was applied so far is flushed.
    pub(crate) fn flush_state(&self) {
        Rocks::flush_all(&mut self.state.lock());
    }

    /// The machine or its process ends. To be called before its tasks are dropped.
    pub(crate) fn crash(&self, end: End) {
        let mut state = self.state.lock();
        let state = &mut *state;
        state.boot += 1;
        let unflushed = std::mem::take(&mut state.unflushed);
        if Flaw::AppliedIndexApart.is_shown() {
            for mut batch in unflushed {
                batch.writes.retain(|write| write.key != row::MACHINE);
                put(&mut state.flushed, &batch);
            }
        }
        let mut bytes = std::mem::take(&mut state.written);
        if end == End::Power {
            let kept = usize::try_from(state.dice.between(0, bytes.len() as u64)).unwrap_or(0);
            let kept = if state.dice.percent(50) { kept / SECTOR_BYTES * SECTOR_BYTES } else { kept };
            bytes.truncate(kept);
            // The last sector may have been on its way.
            if state.dice.percent(30) {
                let from = bytes.len().saturating_sub(SECTOR_BYTES);
                let torn = usize::try_from(state.dice.between(from as u64, bytes.len() as u64)).unwrap_or(from);
                bytes[torn..].fill(0);
            }
        }
        // A file system that took the bytes keeps them; recovery cuts what is not whole.
        let mut rest = &bytes[..];
        while let Some((kind, behind)) = unframe(rest) {
            state.synced.take(kind);
            rest = behind;
        }
        if Flaw::TailCutTooFar.is_shown() {
            // A whole record is taken for a torn one.
            state.synced.records.pop_last();
        }
    }

    /// What a restart finds, opened on a host.
    pub(crate) fn boot(&self, host: &Host) -> Parts {
        let (log, store, boot) = {
            let mut state = self.state.lock();
            state.boot += 1;
            let log = MemoryLog::new();
            let unheard = || -> Completion { Box::new(|_| {}) };
            let image = &state.synced;
            if let Some(vote) = &image.vote {
                log.save_vote(vote.clone(), unheard());
            }
            if let Some(committed) = &image.committed {
                log.save_committed(committed.clone());
            }
            if let Some(purged) = image.purged {
                log.purge(purged, unheard());
            }
            log.append(image.records.values().cloned().collect(), unheard());
            let store = MemoryStore::new();
            store.load(state.flushed.clone());
            let vote = image.vote.as_ref().and_then(|vote| model::vote(vote));
            let found = machine_row(&state.flushed).as_ref().map(mark);
            let held: Vec<_> = image.records.values().map(|record| (record.index, record.term)).collect();
            let (replica, bounds) = (self.replica, log.bounds());
            self.ledger.see(&Sight::Booted { replica, vote, bounds, log: &held, mark: found });
            (log, store, state.boot)
        };
        let log =
            Arc::new(Log { disk: self.clone(), boot, visible: log, queue: Mutex::default(), wake: Notify::new() });
        drop(host.spawn(Arc::clone(&log).write_behind()));
        let store = Arc::new(Rocks { disk: self.clone(), boot, visible: store });
        Parts { store: Arc::clone(&store) as Arc<dyn Store>, log, snapshots: Arc::new(Snapshots::new(store)) }
    }

    /// Whether a start is still the present one.
    fn is(&self, boot: u64) -> bool {
        self.state.lock().boot == boot
    }
}

/// The log as one start of a replica sees it.
struct Log {
    disk: Disk,
    boot: u64,
    visible: MemoryLog,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    bytes: Vec<u8>,
    /// What a planted bug writes behind the next sync.
    late: Vec<u8>,
    waiting: Vec<Completion>,
    stopped: Option<Arc<str>>,
}

impl Log {
    /// The writer: writes what waits, syncs, and tells.
    async fn write_behind(self: Arc<Self>) {
        loop {
            while self.queue.lock().waiting.is_empty() {
                self.wake.notified().await;
            }
            let (bytes, waiting) = {
                let mut queue = self.queue.lock();
                let bytes = std::mem::take(&mut queue.bytes);
                queue.bytes = std::mem::take(&mut queue.late);
                (bytes, std::mem::take(&mut queue.waiting))
            };
            let waiting = if Flaw::AckBeforeSync.is_shown() {
                waiting.into_iter().for_each(|done| done(Ok(())));
                Vec::new()
            } else {
                waiting
            };
            let (takes, fails) = {
                let mut state = self.disk.state.lock();
                if state.boot != self.boot {
                    return;
                }
                state.written.extend_from_slice(&bytes);
                let (least, most) = state.habit.sync_us;
                (state.dice.between(least, most), std::mem::take(&mut state.habit.fail_next))
            };
            sleep(Duration::from_micros(takes)).await;
            if fails && Flaw::FailedSyncIgnored.is_shown() {
                // The pages count as clean now.
                self.disk.state.lock().written.clear();
            } else if fails {
                let reason: Arc<str> = "the modelled disk failed a sync".into();
                let mut queue = self.queue.lock();
                queue.stopped = Some(Arc::clone(&reason));
                let later = std::mem::take(&mut queue.waiting);
                drop(queue);
                for done in waiting.into_iter().chain(later) {
                    done(Err(LogError::Stopped(Arc::clone(&reason))));
                }
                return;
            }
            let last = {
                let mut state = self.disk.state.lock();
                let state = &mut *state;
                if state.boot != self.boot {
                    return;
                }
                let written = std::mem::take(&mut state.written);
                let mut rest = &written[..];
                while let Some((kind, behind)) = unframe(rest) {
                    state.synced.take(kind);
                    rest = behind;
                }
                state.syncs += 1;
                state.synced.last()
            };
            self.disk.ledger.see(&Sight::Synced { replica: self.disk.replica, last });
            let mut told = waiting;
            if Flaw::CompletedOutOfOrder.is_shown() {
                told.append(&mut self.queue.lock().waiting);
            }
            for done in told {
                done(Ok(()));
            }
        }
    }

    /// Makes a change visible and queues it.
    fn change(
        &self,
        done: Option<Completion>,
        frames: impl IntoIterator<Item = Kind>,
        visible: impl FnOnce(&MemoryLog, Completion),
    ) -> bool {
        if !self.disk.is(self.boot) {
            return false; // nobody is there any more to hear of it
        }
        if let Some(reason) = self.queue.lock().stopped.clone() {
            if let Some(done) = done {
                done(Err(LogError::Stopped(reason)));
            }
            return false;
        }
        let refused = Arc::new(Mutex::new(None));
        let heard = Arc::clone(&refused);
        visible(&self.visible, Box::new(move |result| *heard.lock() = result.err()));
        let refused = refused.lock().take();
        if let Some(error) = refused {
            if let Some(done) = done {
                done(Err(error));
            }
            return false;
        }
        let mut queue = self.queue.lock();
        for kind in frames {
            queue.bytes.extend(frame(kind));
        }
        let wakes = done.is_some();
        queue.waiting.extend(done);
        drop(queue);
        if wakes {
            self.wake.notify_one();
        }
        true
    }
}

fn framed(record: &LogRecord) -> Framed {
    let LogRecord { index, term, leader, payload } = record;
    Framed { index: *index, term: *term, leader: *leader, payload: payload.clone() }
}

impl LogEngine for Log {
    fn append(&self, records: Vec<LogRecord>, done: Completion) {
        let before = self.visible.bounds().last.map(|last| (last.index, last.term));
        let frames: Vec<_> = records.iter().map(|record| Kind::Append(framed(record))).collect();
        let seen = records.clone();
        if self.change(Some(done), frames, |log, done| log.append(records, done)) {
            self.disk.ledger.see(&Sight::Appended { replica: self.disk.replica, before, records: &seen });
        }
    }

    fn save_vote(&self, vote: Bytes, done: Completion) {
        let (seen, replica) = (model::vote(&vote), self.disk.replica);
        let ledger = Arc::clone(&self.disk.ledger);
        let done: Completion = Box::new(move |result| {
            if let (Ok(()), Some((term, candidate, _))) = (&result, seen) {
                ledger.see(&Sight::Promised { replica, term, candidate });
            }
            done(result);
        });
        // The order of what is seen is that of what is said.
        let voted = seen.map(|(term, candidate, leads)| Sight::Voted { replica, term, candidate, leads });
        let frames = [Kind::Vote(vote.clone())];
        let taken = if Flaw::VoteNotSynced.is_shown() {
            if self.change(None, frames, |log, done| log.save_vote(vote, done)) {
                voted.inspect(|voted| self.disk.ledger.see(voted));
                done(Ok(()));
            }
            return;
        } else if Flaw::VoteReordered.is_shown() {
            self.queue.lock().late.extend(frame(Kind::Vote(vote.clone())));
            self.change(Some(done), [], |log, done| log.save_vote(vote, done))
        } else {
            self.change(Some(done), frames, |log, done| log.save_vote(vote, done))
        };
        voted.filter(|_| taken).inspect(|voted| self.disk.ledger.see(voted));
    }

    fn truncate_after(&self, index: Option<u64>, done: Completion) {
        let frames = [Kind::Truncate(index.map_or(0, |index| index + 1))];
        if self.change(Some(done), frames, |log, done| log.truncate_after(index, done)) {
            self.disk.ledger.see(&Sight::Truncated { replica: self.disk.replica, after: index });
        }
    }

    fn purge(&self, upto: LogPosition, done: Completion) {
        let LogPosition { index, term, leader } = match self.visible.bounds().last {
            Some(last) if Flaw::PurgePastDurable.is_shown() => last,
            _ => upto,
        };
        let frames = [Kind::Purge(Framed { index, term, leader, payload: Bytes::new() })];
        if self.change(Some(done), frames, |log, done| log.purge(upto, done)) {
            let covered = self.disk.state.lock().snapshot.as_ref().map(|kept| kept.position().index);
            self.disk.ledger.see(&Sight::Purged { replica: self.disk.replica, upto: upto.index, covered });
        }
    }

    fn save_committed(&self, committed: Bytes) {
        self.change(None, [Kind::Committed(committed.clone())], |log, _| log.save_committed(committed));
    }

    fn read(&self, range: std::ops::Range<u64>) -> Result<Vec<LogRecord>, LogError> {
        self.visible.read(range)
    }

    fn read_limited(&self, range: std::ops::Range<u64>, max_bytes: u64) -> Result<Vec<LogRecord>, LogError> {
        self.visible.read_limited(range, max_bytes)
    }

    fn bounds(&self) -> Bounds {
        self.visible.bounds()
    }

    fn vote(&self) -> Option<Bytes> {
        self.visible.vote()
    }

    fn committed(&self) -> Option<Bytes> {
        self.visible.committed()
    }

    fn bytes(&self) -> u64 {
        self.visible.bytes()
    }

    fn pending_bytes(&self) -> u64 {
        self.queue.lock().bytes.len() as u64
    }

    fn purgeable(&self, keep_bytes: u64) -> Result<Option<u64>, LogError> {
        self.visible.purgeable(keep_bytes)
    }

    fn syncs(&self) -> u64 {
        self.disk.state.lock().syncs
    }
}

/// The state as one start of a replica sees it.
pub(crate) struct Rocks {
    disk: Disk,
    boot: u64,
    visible: MemoryStore,
}

impl Rocks {
    fn flush_all(state: &mut State) {
        for batch in std::mem::take(&mut state.unflushed) {
            put(&mut state.flushed, &batch);
        }
    }

    /// Everything that is flushed, the membership, and the position it stands at.
    pub(crate) fn checkpoint(&self) -> Option<(Rows, MachineState)> {
        let mut state = self.disk.state.lock();
        if state.boot != self.boot {
            return None;
        }
        Self::flush_all(&mut state);
        let machine = machine_row(&state.flushed)?;
        Some((state.flushed.clone(), machine))
    }

    pub(crate) fn kept(&self) -> Option<Arc<OnePiece>> {
        self.disk.state.lock().snapshot.clone()
    }

    pub(crate) fn keep(&self, snapshot: Arc<OnePiece>) {
        let mut state = self.disk.state.lock();
        if state.boot == self.boot {
            state.snapshot = Some(snapshot);
        }
    }

    /// Puts other rows in the place of all, as one step.
    pub(crate) fn replace(&self, rows: &Rows, snapshot: Arc<OnePiece>) {
        {
            let mut state = self.disk.state.lock();
            if state.boot != self.boot {
                return;
            }
            state.unflushed.clear();
            state.flushed.clone_from(rows);
            if Flaw::HalfInstalled.is_shown() {
                state.flushed.remove(&Family::Changes);
                state.flushed.remove(&Family::Versions);
            }
            state.snapshot = Some(snapshot);
        }
        self.visible.load(rows.clone());
        if let Some(machine) = machine_row(rows) {
            self.disk.ledger.see(&Sight::Installed { replica: self.disk.replica, mark: mark(&machine) });
        }
    }

    fn show(&self, batch: &Batch) {
        let mut machine = None;
        let mut records = BTreeMap::new();
        let mut changes = BTreeMap::new();
        for write in &batch.writes {
            let Some(value) = &write.value else { continue };
            match write.family {
                Family::Meta if write.key == row::MACHINE => machine = MachineState::decode(value.clone()).ok(),
                Family::Versions => {
                    if let Some((_, revision)) = row::split_version(&write.key) {
                        let record = Record::decode(value.clone()).ok().filter(|_| !value.is_empty());
                        records.insert(revision.get(), record);
                    }
                }
                Family::Changes => {
                    if let (Some((_, revision)), Ok(change)) =
                        (row::split_change(&write.key), Change::decode(value.clone()))
                    {
                        changes.insert(revision.get(), change);
                    }
                }
                _ => {}
            }
        }
        let Some(machine) = machine else { return };
        let changes: Vec<_> = changes
            .into_iter()
            .map(|(revision, change)| {
                let record = records.get(&revision).cloned().flatten();
                let expires_ms = record.as_ref().map_or(0, |record| record.expires_at_ms);
                let value = record.map(|record| record.value);
                let (kind, txn_end) = (change.kind(), change.txn_end);
                let previous = change.previous_revision;
                (revision, Changed { key: change.key, value, expires_ms, kind, previous, txn_end })
            })
            .collect();
        let voters = model::membership(&machine.membership).unwrap_or_default();
        let voters: Vec<Vec<u64>> = voters.into_iter().map(|set| set.into_iter().collect()).collect();
        let (replica, mark) = (self.disk.replica, mark(&machine));
        self.disk.ledger.see(&Sight::Applied { replica, mark, changes: &changes, voters: &voters });
    }
}

impl Store for Rocks {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.visible.get(family, key)
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Step,
    ) -> Result<(), StoreError> {
        self.visible.scan(family, from, to, visit)
    }

    fn first_version(&self, places: &[Bytes], visit: &mut dyn FnMut(usize, &[u8]) -> Step) -> Result<(), StoreError> {
        self.visible.first_version(places, visit)
    }

    fn write(&self, batch: &Batch) -> Result<(), StoreError> {
        let lost;
        let batch = if Flaw::WriteSkipped.is_shown() && self.disk.state.lock().dice.below(200) == 0 {
            let kept = batch.writes.iter().filter(|write| write.family == Family::Meta).cloned().collect();
            lost = Batch { writes: kept };
            &lost
        } else {
            batch
        };
        {
            let mut state = self.disk.state.lock();
            if state.boot != self.boot {
                return Err(StoreError("the machine is gone".into()));
            }
            state.unflushed.push(batch.clone());
            let one_in = state.flush_one_in;
            if state.dice.below(one_in) == 0 {
                Self::flush_all(&mut state);
            }
        }
        self.visible.write(batch)?;
        self.show(batch);
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        let mut state = self.disk.state.lock();
        if state.boot == self.boot {
            Self::flush_all(&mut state);
        }
        Ok(())
    }

    fn persisted(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let state = self.disk.state.lock();
        Ok(state.flushed.get(&family).and_then(|rows| rows.get(key)).cloned())
    }
}

/// Runs openraft's log-store suite on the modelled disk.
///
/// # Errors
/// What the first case that fails says.
pub fn suite() -> Result<(), String> {
    let mut world = model::World::new(1);
    world.run(async {
        let ledger = Arc::new(Ledger::silent());
        let host = Host::new(1);
        let dice = Dice::new(1);
        model::passes_on(move || Disk::new(1, dice.clone(), Arc::clone(&ledger)).boot(&host)).await
    })
}
