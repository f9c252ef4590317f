//! The leader's side of a write: gathers commands into raft entries and stamps their time.
//!
//! Batching is open-ended: while proposals are in flight the next one gathers. Each entry is fenced to the leadership
//! it was stamped under, so cluster time can never go back in the log and a former leader appends nothing.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use openraft::impls::ProgressResponder;
use openraft::type_config::TypeConfigExt;
use parking_lot::Mutex;
use prost::Message;
use quilt_proto::state::Acknowledge;
use quilt_proto::{Command, Entry, Txn, command};
use tokio::sync::{Notify, oneshot};

use crate::clock::Clock;
use crate::codec;
use crate::host::watch;
use crate::leadership::{LeaderId, Leadership};
use crate::requests::Requests;
use crate::space::{DISK_RESERVE, Space};
use crate::state_machine::Raft;
use crate::types::{TypeConfig, committed_leader};

/// Bytes of one raft entry.
pub(crate) const ENTRY_BYTES_MAX: usize = 16 << 20;
/// Commands in one raft entry.
pub(crate) const ENTRY_COMMANDS_MAX: usize = 4_096;
/// Commands waiting on the leader.
const QUEUE_COMMANDS_MAX: usize = 65_536;
/// Bytes waiting on the leader.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Proposals in flight: one being replicated while the one before is applied, and one on its way in.
const IN_FLIGHT_MAX: usize = 3;

/// Bytes of background writes waiting on the leader.
const BACKGROUND_BYTES_MAX: usize = 4 << 20;
/// Bytes of background writes in one entry: what a proposal that comes right behind it may have to wait for.
const BACKGROUND_ENTRY_BYTES_MAX: usize = 64 << 10;
/// Bytes of background writes a second.
const BACKGROUND_BYTES_PER_SECOND: u64 = 1 << 20;

type Key = (u64, u64);
type Instant = openraft::alias::InstantOf<TypeConfig>;

/// Why a command was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    NotLeader,
    /// The limit of this name is reached.
    Overloaded(&'static str),
}

/// Requests of a batch there was no room for. This leader has not taken them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shed {
    pub(crate) sequences: Vec<u64>,
    /// The limit that was reached.
    pub(crate) limit: &'static str,
}

const QUEUE_COMMANDS: &str = "QUEUE_COMMANDS_MAX";
const QUEUE_BYTES: &str = "QUEUE_BYTES_MAX";

/// The limit a leader has named; one of a later release is known as the leader's queue.
pub(crate) fn limit_named(name: &str) -> &'static str {
    [QUEUE_COMMANDS, QUEUE_BYTES, DISK_RESERVE].into_iter().find(|known| *known == name).unwrap_or("the leader's queue")
}

struct Item {
    command: Command,
    bytes: usize,
    key: Option<Key>,
    fence: Option<LeaderId>,
    done: Option<oneshot::Sender<bool>>,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    /// What is proposed only while nothing else waits or is under way.
    background: VecDeque<Item>,
    background_bytes: usize,
    /// When the next background entry may go, by their budget.
    background_at: Option<Instant>,
    /// Requests queued or proposed: asking again for one of these adds nothing.
    known: HashSet<Key>,
    /// Per session: what its owner has acknowledged, and what of that is in the log.
    acknowledged: BTreeMap<u64, (u64, u64)>,
    /// An entry is wanted only for its time stamp.
    advance_time: bool,
}

/// The queue of the leader, and the task that empties it.
pub(crate) struct Proposer {
    queue: Mutex<Queue>,
    wake: Notify,
    leadership: watch::Receiver<Leadership>,
    space: Space,
}

struct Proposal {
    entry: Entry,
    keys: Vec<Key>,
    done: Vec<oneshot::Sender<bool>>,
}

impl Proposer {
    pub(crate) fn new(leadership: watch::Receiver<Leadership>, space: Space) -> Self {
        Self { queue: Mutex::default(), wake: Notify::new(), leadership, space }
    }

    fn leads(&self) -> Result<LeaderId, Refused> {
        self.leadership.borrow().held().ok_or(Refused::NotLeader)
    }

    /// Takes a session's requests, as many as there is room for. Those already queued or proposed are not taken twice.
    pub(crate) fn submit(
        &self,
        session: u64,
        answered_below: u64,
        txns: impl IntoIterator<Item = (Txn, Option<LeaderId>)>,
    ) -> Result<Option<Shed>, Refused> {
        self.leads()?;
        let mut queue = self.queue.lock();
        let ack = queue.acknowledged.entry(session).or_default();
        ack.0 = ack.0.max(answered_below);
        let mut shed: Option<Shed> = None;
        for (txn, fence) in txns {
            let bytes = txn.encoded_len() + 16;
            let key = txn.request_id.map(|id| (id.session, id.sequence));
            if key.is_some_and(|key| queue.known.contains(&key)) {
                continue;
            }
            let limit = if queue.items.len() >= QUEUE_COMMANDS_MAX {
                Some(QUEUE_COMMANDS)
            } else if queue.bytes + bytes > QUEUE_BYTES_MAX {
                Some(QUEUE_BYTES)
            } else {
                self.space.admits(&txn).err()
            };
            if let Some(limit) = limit {
                let shed = shed.get_or_insert_with(|| Shed { sequences: Vec::new(), limit });
                shed.sequences.extend(key.map(|(_, sequence)| sequence));
                continue;
            }
            queue.known.extend(key);
            queue.bytes += bytes;
            let command = Command { kind: Some(command::Kind::Txn(txn)) };
            queue.items.push_back(Item { command, bytes, key, fence, done: None });
        }
        drop(queue);
        self.wake.notify_one();
        Ok(shed)
    }

    /// Takes one of the leader's own commands. The receiver tells whether it was applied; a closed one means unknown.
    pub(crate) fn command(&self, kind: command::Kind) -> Result<oneshot::Receiver<bool>, Refused> {
        let leader = self.leads()?;
        let command = Command { kind: Some(kind) };
        let bytes = command.encoded_len() + 16;
        let (done, receiver) = oneshot::channel();
        let mut queue = self.queue.lock();
        if queue.items.len() >= QUEUE_COMMANDS_MAX {
            return Err(Refused::Overloaded(QUEUE_COMMANDS));
        }
        queue.bytes += bytes;
        queue.items.push_back(Item { command, bytes, key: None, fence: Some(leader), done: Some(done) });
        drop(queue);
        self.wake.notify_one();
        Ok(receiver)
    }

    /// Takes a write nobody waits for: proposed when nothing else is, within a budget, and lost with the leadership. The
    /// receiver is told when it was applied.
    pub(crate) fn background(&self, txn: Txn, leader: LeaderId) -> Result<oneshot::Receiver<bool>, Refused> {
        if self.leads()? != leader {
            return Err(Refused::NotLeader);
        }
        self.space.admits(&txn).map_err(Refused::Overloaded)?;
        let bytes = txn.encoded_len() + 16;
        let mut queue = self.queue.lock();
        if queue.background_bytes + bytes > BACKGROUND_BYTES_MAX {
            return Err(Refused::Overloaded("BACKGROUND_BYTES_MAX"));
        }
        let (done, receiver) = oneshot::channel();
        let command = Command { kind: Some(command::Kind::Txn(txn)) };
        queue.background_bytes += bytes;
        queue.background.push_back(Item { command, bytes, key: None, fence: Some(leader), done: Some(done) });
        drop(queue);
        self.wake.notify_one();
        Ok(receiver)
    }

    /// The next background entry, if its time has come. To be asked for only while nothing is in flight.
    fn take_background(&self, leader: LeaderId, now: Instant) -> Option<Proposal> {
        let mut queue = self.queue.lock();
        if !queue.items.is_empty() || queue.background_at.is_some_and(|at| now < at) {
            return None;
        }
        let mut proposal = Proposal { entry: Entry::default(), keys: Vec::new(), done: Vec::new() };
        let mut bytes = 0;
        while bytes < BACKGROUND_ENTRY_BYTES_MAX
            && let Some(item) = queue.background.pop_front()
        {
            queue.background_bytes -= item.bytes;
            if item.fence == Some(leader) {
                bytes += item.bytes;
                proposal.entry.commands.push(item.command);
                proposal.done.extend(item.done);
            }
        }
        let pause = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(1_000) / BACKGROUND_BYTES_PER_SECOND;
        queue.background_at = Some(now + Duration::from_millis(pause));
        (!proposal.entry.commands.is_empty()).then_some(proposal)
    }

    /// When to ask for a background entry.
    fn background_due(&self) -> Option<Instant> {
        let queue = self.queue.lock();
        if queue.background.is_empty() { None } else { Some(queue.background_at.unwrap_or_else(TypeConfig::now)) }
    }

    /// Puts a fresh time stamp into the log soon.
    pub(crate) fn advance_time(&self) -> Result<(), Refused> {
        self.leads()?;
        self.queue.lock().advance_time = true;
        self.wake.notify_one();
        Ok(())
    }

    /// Commands waiting to be proposed.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.lock().items.len()
    }

    /// Requests queued or proposed.
    #[cfg(all(test, not(simulated)))]
    pub(crate) fn known(&self) -> usize {
        self.queue.lock().known.len()
    }

    fn take(&self, leader: LeaderId, requests: &Requests) -> Option<Proposal> {
        let mut queue = self.queue.lock();
        if queue.items.is_empty() && !queue.advance_time {
            return None;
        }
        queue.advance_time = false;
        let mut proposal = Proposal { entry: Entry::default(), keys: Vec::new(), done: Vec::new() };
        for (session, (latest, logged)) in &mut queue.acknowledged {
            if *latest > *logged {
                *logged = *latest;
                let ack = Acknowledge { session: *session, answered_below: *latest };
                proposal.entry.commands.push(Command { kind: Some(command::Kind::Acknowledge(ack)) });
            }
        }
        let mut bytes = 0;
        while let Some(next) = queue.items.front() {
            let full = proposal.entry.commands.len() >= ENTRY_COMMANDS_MAX || bytes + next.bytes > ENTRY_BYTES_MAX;
            if full && bytes > 0 {
                break;
            }
            let Some(item) = queue.items.pop_front() else { break };
            queue.bytes -= item.bytes;
            if item.fence.is_some_and(|fence| fence != leader) {
                // Asked for under a leadership that has ended; it was never appended.
                if let Some(key) = item.key {
                    queue.known.remove(&key);
                    requests.refused(key.0, key.1);
                }
                continue;
            }
            bytes += item.bytes;
            proposal.entry.commands.push(item.command);
            proposal.keys.extend(item.key);
            proposal.done.extend(item.done);
        }
        Some(proposal)
    }

    /// Drops what waits: this replica does not lead. Owners ask the next leader.
    fn clear(&self, requests: &Requests) {
        let mut queue = self.queue.lock();
        // The background goes with the rest: dropping it tells who waits.
        let Queue { items, .. } = std::mem::take(&mut *queue);
        drop(queue);
        for Item { key, fence, .. } in items {
            if let (Some((session, sequence)), Some(_)) = (key, fence) {
                requests.refused(session, sequence);
            }
        }
    }

    /// Proposes until the replica stops.
    pub(crate) async fn run(self: Arc<Self>, raft: Raft, clock: Arc<Clock>, requests: Arc<Requests>) {
        let mut leadership = self.leadership.clone();
        let mut in_flight = FuturesUnordered::new();
        loop {
            let held = leadership.borrow_and_update().held();
            match held {
                None => self.clear(&requests),
                Some(leader) => {
                    while in_flight.len() < IN_FLIGHT_MAX {
                        let next = self.take(leader, &requests);
                        let next = match next {
                            None if in_flight.is_empty() => self.take_background(leader, TypeConfig::now()),
                            next => next,
                        };
                        let Some(mut proposal) = next else { break };
                        (proposal.entry.at_ms, proposal.entry.wall_ms) = clock.stamp();
                        let bytes = codec::encode_entry(&proposal.entry);
                        let (responder, result) = ProgressResponder::complete_only();
                        let request = raft.write(bytes).responder(responder);
                        if request.with_leader(committed_leader(leader.term)).await.is_err() {
                            return;
                        }
                        let Proposal { keys, done, .. } = proposal;
                        in_flight.push(async move { (matches!(result.await, Ok(Ok(_))), keys, done) });
                    }
                }
            }
            let quiet = in_flight.is_empty();
            let finished = async {
                match in_flight.next().await {
                    Some(finished) => finished,
                    None => std::future::pending().await,
                }
            };
            let finished = std::pin::pin!(finished);
            let woken = std::pin::pin!(self.wake.notified());
            let changed = std::pin::pin!(leadership.changed());
            // With something in flight, its end is what the background waits for.
            let background = self.background_due().filter(|_| held.is_some() && quiet);
            let due = std::pin::pin!(async {
                match background {
                    Some(at) => TypeConfig::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            });
            use openraft::async_runtime::Select4;
            match TypeConfig::select4(finished, changed, woken, due).await {
                Select4::First((applied, keys, done)) => {
                    let mut queue = self.queue.lock();
                    for key in keys {
                        queue.known.remove(&key);
                    }
                    drop(queue);
                    for done in done {
                        // Whoever asked may have stopped waiting. An entry that was not applied now may still be.
                        if applied {
                            let _ = done.send(true);
                        }
                    }
                }
                Select4::Second(Err(_)) => return,
                Select4::Second(Ok(())) | Select4::Third(()) | Select4::Fourth(()) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use quilt_proto::{Key, Op, ReplicaId};

    use super::*;
    use crate::applied::Mark;

    const LEADER: LeaderId = LeaderId { term: 3, replica: ReplicaId(1) };

    fn leading() -> (Proposer, watch::Sender<Leadership>) {
        let (sender, leadership) = watch::channel(Leadership::Leader(LEADER));
        (Proposer::new(leadership, Space::default()), sender)
    }

    fn txn(bytes: usize) -> Txn {
        let key = Key::new("c", "", "events", "default", "a").expect("valid");
        Txn::new(Vec::new(), vec![Op::put(&key, vec![b'x'; bytes])])
    }

    /// The background goes only when nothing else waits, in small entries, within its budget of bytes; its queue has a
    /// limit, which is named, and it does not outlive its leadership.
    #[tokio::test]
    async fn the_background_is_never_in_the_way() {
        let (proposer, leadership) = leading();
        let requests = Requests::new(Mark::default());
        let first = proposer.background(txn(60 << 10), LEADER).expect("taken");
        let _second = proposer.background(txn(60 << 10), LEADER).expect("taken");
        let _third = proposer.background(txn(60 << 10), LEADER).expect("taken");
        proposer.submit(7, 0, [(txn(10), None)]).expect("taken");
        let now = TypeConfig::now();
        assert!(proposer.take_background(LEADER, now).is_none(), "something of weight waits");
        assert_eq!(proposer.take(LEADER, &requests).map(|proposal| proposal.entry.commands.len()), Some(1));
        let entry = proposer.take_background(LEADER, now).expect("nothing else waits");
        assert_eq!(entry.entry.commands.len(), 2, "an entry stays small");
        assert!(proposer.take_background(LEADER, now).is_none(), "the budget is spent");
        let due = proposer.background_due().expect("one waits");
        assert!(due > now + Duration::from_millis(100) && due < now + Duration::from_millis(200), "{due:?}");
        let refused = std::iter::repeat_with(|| proposer.background(txn(1 << 20), LEADER)).take(9).last();
        assert!(matches!(refused, Some(Err(Refused::Overloaded("BACKGROUND_BYTES_MAX")))), "{refused:?}");
        let later = LeaderId { term: 4, ..LEADER };
        leadership.send_replace(Leadership::Leader(later));
        assert!(proposer.take_background(later, due).is_none(), "it belonged to an earlier leadership");
        assert_eq!(proposer.queue.lock().background_bytes, 0);
        drop(entry);
        assert!(first.await.is_err(), "and who waits is told");
    }

    /// A full queue takes nothing more, says which requests it left and which limit it reached, and still knows those it
    /// has taken; when it empties, what was left is taken.
    #[tokio::test]
    async fn a_full_queue_names_its_limit() {
        let (proposer, _leadership) = leading();
        let requests = Requests::new(Mark::default());
        let numbered = |from: u64, to: u64, bytes: usize| {
            (from..to).map(move |sequence| {
                let request_id = Some(quilt_proto::RequestId { session: 7, sequence });
                (Txn { request_id, ..txn(bytes) }, None)
            })
        };
        let most = QUEUE_COMMANDS_MAX as u64;
        assert_eq!(proposer.submit(7, 0, numbered(1, most + 1, 1)), Ok(None));
        let again = proposer.submit(7, 0, numbered(most, most + 3, 1));
        let left = Shed { sequences: vec![most + 1, most + 2], limit: "QUEUE_COMMANDS_MAX" };
        assert_eq!(again, Ok(Some(left)));
        assert_eq!(proposer.waiting(), QUEUE_COMMANDS_MAX);
        while proposer.take(LEADER, &requests).is_some() {}
        assert_eq!(proposer.submit(7, 0, numbered(most + 1, most + 3, 1)), Ok(None));
        let large = proposer.submit(7, 0, numbered(most + 3, most + 9, 15 << 20)).expect("leads").expect("some left");
        assert_eq!((large.sequences.len(), large.limit), (2, "QUEUE_BYTES_MAX"));
    }
}
