//! The watch hub: every replica's events, in order, shared by all watchers.
//!
//! One ring holds the newest transactions, bounded by bytes. A watcher is a cursor into it, not a queue: a slow one
//! costs nothing, and when the ring has moved on without it, it reads history from the state until it has caught up.
//! Watchers are woken by prefix: cluster, resource, namespace or exact key. The hub knows keys and revisions, no kinds.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use quilt_proto::{Event, KeyPrefix, Revision};
use tokio::sync::Notify;

use crate::applied::Applied;
use crate::error::WatchError;
use crate::host::{self, exhibit};
use crate::view::View;

/// Events given to a watcher at once, unless one transaction alone has more.
const BATCH_EVENTS: usize = 512;

/// History rows read at a time by a watcher that is catching up.
const HISTORY_EVENTS: usize = 512;

/// What an event costs besides its key and values.
const EVENT_OVERHEAD_BYTES: usize = 400;

/// Whole transactions, as one delivery.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The matching events in revision order.
    pub events: Vec<Arc<Event>>,
    /// Everything up to here has been delivered; always a transaction's last revision.
    pub upto: Revision,
}

struct Txn {
    end: Revision,
    events: Vec<Arc<Event>>,
    bytes: usize,
}

/// All watchers of one prefix.
struct Slot {
    /// Last transaction with an event under the prefix, or an upper bound of it.
    last_match: AtomicU64,
    /// The last stretch without a match. Who waits is carried over all that others have written meanwhile.
    latest: Stretch,
    /// The oldest one that reaches into the ring. Who was carried to its end meets all matches behind it there.
    oldest: Stretch,
    dropped: AtomicBool,
    wake: Notify,
}

/// Revisions behind `start`, up to and with `end`, of which none is under a prefix: who has everything of the prefix up to the start
/// has it up to the end, also where the ring begins between the two. Written and read with the ring locked.
#[derive(Default)]
struct Stretch {
    start: AtomicU64,
    end: AtomicU64,
}

impl Stretch {
    fn set(&self, start: u64, end: u64) {
        self.start.store(start, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
    }

    fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    fn carry(&self, position: u64) -> u64 {
        if position < self.start.load(Ordering::Relaxed) { position } else { position.max(self.end()) }
    }
}

impl Slot {
    fn new(head: Revision) -> Self {
        Self {
            // What happened under this prefix before is not known: assume the newest transaction touched it.
            last_match: AtomicU64::new(head.get()),
            latest: Stretch::default(),
            oldest: Stretch::default(),
            dropped: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// A transaction touches the prefix; `head` is where the ring ended before it was added with others, `floor` where it began.
    /// Says whether watchers have to be woken.
    fn touch(&self, end: Revision, head: Revision, floor: Revision) -> bool {
        let last = self.last_match.swap(end.get(), Ordering::Relaxed);
        if last <= head.get() {
            self.latest.set(last, head.get());
            if self.oldest.end() <= floor.get() {
                self.oldest.set(last, head.get());
            }
        }
        last < end.get()
    }

    /// Up to where a watcher has everything that has everything up to `position`.
    fn carry(&self, position: Revision) -> Revision {
        Revision::new(self.latest.carry(self.oldest.carry(position.get())))
    }
}

struct Ring {
    txns: VecDeque<Txn>,
    bytes: usize,
    /// Every transaction behind this one, up to `head`, is in the ring.
    floor: Revision,
    head: Revision,
    slots: HashMap<Bytes, Arc<Slot>>,
    stopped: bool,
}

impl Ring {
    /// All slots by prefix: where many are woken, in an order that does not change from run to run.
    fn in_order(&self) -> Vec<(Bytes, Arc<Slot>)> {
        let mut slots: Vec<_> = self.slots.iter().map(|(prefix, slot)| (prefix.clone(), Arc::clone(slot))).collect();
        slots.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        slots
    }
}

/// The hub of one replica.
pub(crate) struct Hub {
    ring: Mutex<Ring>,
    bytes_max: usize,
    applied: Arc<Applied>,
}

fn cost(event: &Event) -> usize {
    let value = |record: &Option<Arc<quilt_proto::Record>>| {
        record.as_ref().map_or(0, |record| record.value.len() + record.sealed.len())
    };
    EVENT_OVERHEAD_BYTES + event.key.bytes().len() + value(&event.record) + value(&event.previous)
}

/// Ends of the prefixes a watcher can have on a key: cluster, resource, namespace, the key itself.
fn prefix_ends(key: &[u8]) -> impl Iterator<Item = usize> + '_ {
    key.iter()
        .enumerate()
        .filter(|(_, byte)| **byte == 0)
        .enumerate()
        .filter(|(part, _)| *part != 1)
        .map(|(_, (at, _))| at + 1)
}

impl Hub {
    /// A hub that begins at the applied state: entries replayed after a restart are already behind it or come anew.
    pub(crate) fn new(applied: Arc<Applied>, bytes_max: usize) -> Self {
        let head = applied.horizon().revision;
        let ring = Ring { txns: VecDeque::new(), bytes: 0, floor: head, head, slots: HashMap::new(), stopped: false };
        Self { ring: Mutex::new(ring), bytes_max, applied }
    }

    /// Adds what one apply did. Its rows are already readable.
    pub(crate) fn publish(&self, events: Vec<Arc<Event>>, dropped: &[String], head: Revision) {
        let mut woken: Vec<Arc<Slot>> = Vec::new();
        {
            let mut ring = self.ring.lock();
            let (before, floor) = (ring.head, ring.floor);
            let mut txn: Option<Txn> = None;
            for event in events {
                let end = event.txn_end;
                if !ring.slots.is_empty() {
                    for at in prefix_ends(event.key.bytes()) {
                        if let Some(slot) = ring.slots.get(&event.key.bytes()[..at])
                            && slot.touch(end, before, floor)
                        {
                            woken.push(Arc::clone(slot));
                        }
                    }
                }
                let bytes = cost(&event);
                ring.bytes += bytes;
                match &mut txn {
                    Some(open) if open.end == end => {
                        open.events.push(event);
                        open.bytes += bytes;
                    }
                    _ => {
                        let next = Txn { end, events: vec![event], bytes };
                        ring.txns.extend(txn.replace(next));
                    }
                }
            }
            ring.txns.extend(txn);
            ring.head = ring.head.max(head);
            while ring.bytes > self.bytes_max
                && let Some(oldest) = ring.txns.pop_front()
            {
                ring.bytes -= oldest.bytes;
                ring.floor = oldest.end;
            }
            for cluster in dropped {
                let Ok(prefix) = KeyPrefix::cluster(cluster) else { continue };
                for (watched, slot) in ring.in_order() {
                    if watched.starts_with(prefix.bytes()) {
                        slot.dropped.store(true, Ordering::Relaxed);
                        woken.push(slot);
                    }
                }
            }
        }
        for slot in woken {
            slot.wake.notify_waiters();
        }
    }

    /// A snapshot has replaced the state: what lies between was never seen here, so every cursor goes to history.
    pub(crate) fn reset(&self, head: Revision) {
        let slots = {
            let mut ring = self.ring.lock();
            ring.txns.clear();
            ring.bytes = 0;
            ring.head = ring.head.max(head);
            ring.floor = ring.head;
            for slot in ring.slots.values() {
                slot.last_match.store(ring.head.get(), Ordering::Relaxed);
            }
            ring.in_order()
        };
        for (_, slot) in slots {
            slot.wake.notify_waiters();
        }
    }

    /// Ends all watches.
    pub(crate) fn stop(&self) {
        let slots = {
            let mut ring = self.ring.lock();
            ring.stopped = true;
            ring.in_order()
        };
        for (_, slot) in slots {
            slot.wake.notify_waiters();
        }
    }

    /// Number of distinct prefixes watched.
    pub(crate) fn prefixes(&self) -> usize {
        self.ring.lock().slots.len()
    }

    /// Bytes of events held for watchers.
    pub(crate) fn bytes(&self) -> usize {
        self.ring.lock().bytes
    }

    pub(crate) fn watch(self: &Arc<Self>, prefix: KeyPrefix, from: Revision) -> EventStream {
        let slot = {
            let mut ring = self.ring.lock();
            let head = ring.head;
            Arc::clone(ring.slots.entry(prefix.bytes().clone()).or_insert_with(|| Arc::new(Slot::new(head))))
        };
        let from = if exhibit!(DuplicateOnResume) { Revision::new(from.get().saturating_sub(1)) } else { from };
        EventStream { hub: Arc::clone(self), slot, prefix, position: from, admitted: false }
    }
}

/// One watch: every change under a prefix behind a revision, in order, each once.
pub struct EventStream {
    hub: Arc<Hub>,
    slot: Arc<Slot>,
    prefix: KeyPrefix,
    position: Revision,
    /// Whether the starting revision has been checked against floor and deletion.
    admitted: bool,
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EventStream of {:?} at {}", self.prefix, self.position)
    }
}

/// What a look at the ring gave.
enum Look {
    Found(Batch),
    /// Nothing new; wait.
    Idle,
    /// The ring begins behind the cursor.
    Behind,
}

impl EventStream {
    /// The next matching transactions. Dropping the future loses nothing.
    ///
    /// # Errors
    /// See [`WatchError`]; the watch is over then.
    pub async fn next(&mut self) -> Result<Batch, WatchError> {
        let slot = Arc::clone(&self.slot);
        loop {
            let mut woken = std::pin::pin!(slot.wake.notified());
            woken.as_mut().enable();
            self.admit()?;
            match self.look()? {
                Look::Found(batch) => return Ok(batch),
                Look::Idle => woken.await,
                Look::Behind if exhibit!(EventsDropped) => self.position = self.hub.ring.lock().head,
                Look::Behind => {
                    if let Some(batch) = self.read_history()? {
                        return Ok(batch);
                    }
                    host::yield_now().await;
                }
            }
        }
    }

    /// A transaction boundary up to which everything matching has been delivered. Moves on without events too.
    #[must_use]
    pub fn position(&self) -> Revision {
        let ring = self.hub.ring.lock();
        if exhibit!(BookmarkAhead) {
            return self.position.max(ring.head);
        }
        let quiet = self.admitted && self.slot.last_match.load(Ordering::Relaxed) <= self.position.get();
        if quiet { self.position.max(ring.head) } else { self.position }
    }

    /// The newest revision that watches of this replica are told of, ours among them: whatever was answered before is
    /// not above it.
    #[must_use]
    pub fn head(&self) -> Revision {
        self.hub.ring.lock().head
    }

    /// Refuses a start below the floor even where the ring could still serve it: the floor in force is the promise.
    fn admit(&mut self) -> Result<(), WatchError> {
        if self.admitted {
            return Ok(());
        }
        let horizon = self.hub.applied.horizon();
        let cluster = self.prefix.cluster_part();
        if horizon.dropped.contains(cluster) {
            return Err(WatchError::Dropped);
        }
        let floor = horizon.floor(cluster);
        if self.position < floor {
            return Err(WatchError::Compacted { floor });
        }
        self.admitted = true;
        Ok(())
    }

    fn look(&mut self) -> Result<Look, WatchError> {
        let ring = self.hub.ring.lock();
        if ring.stopped {
            return Err(WatchError::Stopped);
        }
        if self.slot.dropped.load(Ordering::Relaxed) {
            return Err(WatchError::Dropped);
        }
        if ring.head <= self.position {
            return Ok(Look::Idle);
        }
        if self.slot.last_match.load(Ordering::Relaxed) <= self.position.get() {
            self.position = ring.head;
            return Ok(Look::Idle);
        }
        self.position = self.slot.carry(self.position);
        if self.position < ring.floor {
            return Ok(Look::Behind);
        }
        let from = self.position;
        let start = ring.txns.partition_point(|txn| txn.end <= from);
        let mut events = Vec::new();
        let mut upto = ring.head;
        for txn in ring.txns.range(start..) {
            if events.len() >= BATCH_EVENTS || exhibit!(TxnSplit) && !events.is_empty() {
                break;
            }
            let matching = txn.events.iter().filter(|event| event.revision > from && self.prefix.contains(&event.key));
            let before = events.len();
            events.extend(matching.cloned());
            if events.len() > before {
                upto = txn.end;
            }
            if exhibit!(TxnSplit) && events.len() > 1 {
                events.truncate(1);
                upto = events[0].revision;
                break;
            }
        }
        if events.is_empty() {
            self.position = ring.head;
            return Ok(Look::Idle);
        }
        self.position = upto;
        Ok(Look::Found(Batch { events, upto }))
    }

    /// One page of history; `None` when it held nothing for this watch.
    fn read_history(&mut self) -> Result<Option<Batch>, WatchError> {
        let view = View::newest(&self.hub.applied);
        let (events, upto) = view.changes(self.prefix.cluster_part(), self.position, HISTORY_EVENTS)?;
        self.position = self.position.max(upto);
        let events: Vec<_> =
            events.into_iter().filter(|event| self.prefix.contains(&event.key)).map(Arc::new).collect();
        Ok((!events.is_empty()).then_some(Batch { events, upto }))
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        let mut ring = self.hub.ring.lock();
        // One reference is the table's, one is ours: nobody else watches this prefix. New watchers need the lock.
        if Arc::strong_count(&self.slot) <= 2 {
            ring.slots.remove(self.prefix.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use openraft::type_config::TypeConfigExt;
    use quilt_proto::{EventKind, Key};
    use quilt_state::Horizon;

    use super::*;
    use crate::replica::Parts;
    use crate::types::TypeConfig;

    /// Events that fit into the ring.
    const RING_EVENTS: u64 = 20;

    /// A hub with a small ring whose clusters keep no history: what the ring does not hold is gone.
    struct Busy {
        applied: Arc<Applied>,
        hub: Arc<Hub>,
        at: u64,
    }

    impl Busy {
        fn new() -> Self {
            let horizon = Horizon { revision: Revision::new(10), ..Horizon::default() };
            let applied = Arc::new(Applied::new(Parts::memory().store, horizon, 0, (0, 0)));
            let bytes_max = usize::try_from(RING_EVENTS).expect("few") * (EVENT_OVERHEAD_BYTES + 40);
            Self { hub: Arc::new(Hub::new(Arc::clone(&applied), bytes_max)), applied, at: 10 }
        }

        fn happen(&mut self, resource: &str) -> u64 {
            self.at += 1;
            let revision = Revision::new(self.at);
            let floors = Arc::new(BTreeMap::from([("default".to_owned(), self.at)]));
            self.applied.publish(Horizon { revision, floors, ..Horizon::default() }, 0, (0, 0));
            let key = Key::new("default", "", resource, "default", "a").expect("valid");
            let (kind, record) = (EventKind::Create, Some(Arc::default()));
            let event = Event { revision, txn_end: revision, key, kind, record, previous: None };
            self.hub.publish(vec![Arc::new(event)], &[], revision);
            self.at
        }

        /// So much of something else that nothing of before is left in the ring.
        fn turn_over(&mut self) {
            for _ in 0..2 * RING_EVENTS {
                self.happen("configmaps");
            }
        }

        async fn watch(&self) -> EventStream {
            let prefix = KeyPrefix::resource("default", "", "secrets").expect("valid");
            let mut watch = self.hub.watch(prefix, Revision::new(self.at));
            let idle = TypeConfig::timeout(Duration::from_millis(5), watch.next()).await;
            assert!(idle.is_err(), "{idle:?}");
            watch
        }
    }

    fn revisions(batch: &Batch) -> Vec<u64> {
        batch.events.iter().map(|event| event.revision.get()).collect()
    }

    /// A watch of what seldom changes has not fallen behind because much else has happened meanwhile, however often.
    #[tokio::test]
    async fn a_quiet_watch_does_not_fall_behind() {
        let mut busy = Busy::new();
        let mut watch = busy.watch().await;
        for _ in 0..4 {
            busy.turn_over();
            let first = busy.happen("secrets");
            assert_eq!(revisions(&watch.next().await.expect("not behind")), [first]);
        }
        // It need not look at once: what has matched since is in the ring.
        busy.turn_over();
        let first = busy.happen("secrets");
        busy.happen("configmaps");
        let second = busy.happen("secrets");
        busy.happen("configmaps");
        assert_eq!(revisions(&watch.next().await.expect("not behind")), [first, second]);
    }

    /// One that has left a change unread for longer than ring and history go back is told so, and not that nothing was.
    #[tokio::test]
    async fn what_was_missed_is_not_taken_for_quiet() {
        let mut busy = Busy::new();
        let mut watch = busy.watch().await;
        busy.turn_over();
        busy.happen("secrets");
        busy.turn_over();
        busy.happen("secrets");
        let floor = Revision::new(busy.at);
        assert_eq!(watch.next().await.err(), Some(WatchError::Compacted { floor }));
    }
}
