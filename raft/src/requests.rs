//! This replica's own requests between being asked and being answered.
//!
//! A request is answered by the local apply of its entry, which also gives read-your-writes here; or by the leader's
//! word when this replica lags. It is called *not applied* only on proof from the log: the entry stream has passed the
//! point behind which it can have no effect, and it was not there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use openraft::type_config::TypeConfigExt;
use parking_lot::Mutex;
use prost::Message;
use quilt_proto::{Outcome, RequestId, Txn, outcome};
use quilt_state::{Machine, RequestOutcome, Store};
use tokio::sync::{Notify, oneshot};

use crate::applied::Mark;
use crate::error::ProposeError;
use crate::host::{self, exhibit, watch};
use crate::leadership::LeaderId;
use crate::types::TypeConfig;

type Instant = openraft::alias::InstantOf<TypeConfig>;

/// Requests of one replica waiting at once.
pub(crate) const REQUESTS_MAX: usize = 16_384;
/// Bytes of requests of one replica waiting at once.
pub(crate) const REQUEST_BYTES_MAX: usize = 64 << 20;
/// One transaction, encoded: below a raft entry's limit with room for what surrounds it.
pub(crate) const TXN_ENCODED_BYTES_MAX: usize = 15 << 20;
/// A request without an answer is sent again after this.
const RESEND_AFTER: Duration = Duration::from_millis(200);
/// How often open requests are looked through for such.
const RESEND_LOOK: Duration = Duration::from_millis(50);
/// How long an answer from the leader waits for the local apply.
const LOCAL_APPLY_WAIT: Duration = Duration::from_millis(250);
/// How long a fate still unknown at the deadline is pursued.
const PURSUE: Duration = Duration::from_secs(20);

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// Apply decided.
    Outcome(Outcome),
    /// Proven without effect, for ever.
    NotApplied,
    /// Proven without effect: its leadership ended first.
    NotLeader,
    /// The leader had no room for it and it was never sent before: without effect, for ever.
    Overloaded(&'static str),
    /// Nobody can tell.
    Unknown,
}

struct Open {
    txn: Arc<Txn>,
    bytes: usize,
    reply: oneshot::Sender<Answer>,
    fence: Option<LeaderId>,
    deadline: Instant,
    /// When it was last sent.
    sent: Option<Instant>,
    /// Whether it stands in the line of those to be sent.
    due: bool,
    /// How often it was sent.
    sends: u32,
    /// The leader's word, and when it came.
    told: Option<(Outcome, Instant)>,
}

struct Table {
    /// The session requests are numbered in; `None` until it is registered, or after it was closed.
    session: Option<u64>,
    /// The session this replica is trying to register.
    candidate: u64,
    next: u64,
    open: BTreeMap<u64, Open>,
    bytes: usize,
    /// Requests to be sent, in order, so that sending some does not look through all that are open.
    due: VecDeque<u64>,
    /// Towards which leadership requests were last sent.
    sent_to: u64,
    /// When open requests are looked through again for those to send anew.
    look_at: Instant,
    /// The log up to here has been looked through for our requests.
    seen: Mark,
    stopped: bool,
}

/// What to send to the leader.
pub(crate) struct Outgoing {
    pub(crate) session: u64,
    /// The owner has the outcome of everything below.
    pub(crate) answered_below: u64,
    pub(crate) txns: Vec<(Arc<Txn>, Option<LeaderId>)>,
}

/// The table of open requests.
pub(crate) struct Requests {
    table: Mutex<Table>,
    /// Something may have to be sent.
    pub(crate) wake: Notify,
    session: watch::Sender<Option<u64>>,
}

fn new_session() -> u64 {
    // 64 random bits; zero means "none" on the wire.
    host::random_u64().max(1)
}

impl Requests {
    pub(crate) fn new(seen: Mark) -> Self {
        let table = Table {
            session: None,
            candidate: new_session(),
            next: 1,
            open: BTreeMap::new(),
            bytes: 0,
            due: VecDeque::new(),
            sent_to: 0,
            look_at: TypeConfig::now(),
            seen,
            stopped: false,
        };
        Self { table: Mutex::new(table), wake: Notify::new(), session: watch::Sender::new(None) }
    }

    /// The registered session, as it comes and goes.
    pub(crate) fn session(&self) -> watch::Receiver<Option<u64>> {
        self.session.subscribe()
    }

    /// The session to register, unless one is.
    pub(crate) fn to_register(&self) -> Option<u64> {
        let table = self.table.lock();
        (table.session.is_none() && !table.stopped).then_some(table.candidate)
    }

    /// Whether requests wait for an answer.
    pub(crate) fn any(&self) -> bool {
        !self.table.lock().open.is_empty()
    }

    /// Requests that wait for an answer.
    #[cfg(all(test, not(simulated)))]
    pub(crate) fn open(&self) -> usize {
        self.table.lock().open.len()
    }

    /// Takes a request in. `session` is the one the caller saw registered.
    pub(crate) fn begin(
        &self,
        session: u64,
        mut txn: Txn,
        expires_at_ms: u64,
        deadline: Duration,
        fence: Option<LeaderId>,
    ) -> Result<oneshot::Receiver<Answer>, ProposeError> {
        let mut table = self.table.lock();
        if table.stopped {
            return Err(ProposeError::Stopped);
        }
        if table.session != Some(session) {
            // Closed between being seen and now; nothing was sent.
            return Err(ProposeError::NotApplied);
        }
        let sequence = table.next;
        txn.request_id = Some(RequestId { session, sequence });
        txn.expires_at_ms = expires_at_ms;
        let bytes = txn.encoded_len();
        if bytes > TXN_ENCODED_BYTES_MAX {
            let text = format!("transaction of {bytes} bytes is over the limit of {TXN_ENCODED_BYTES_MAX} bytes");
            return Err(ProposeError::Invalid(text));
        }
        if table.open.len() >= REQUESTS_MAX {
            return Err(ProposeError::Overloaded { limit: "REQUESTS_MAX" });
        }
        if table.bytes + bytes > REQUEST_BYTES_MAX {
            return Err(ProposeError::Overloaded { limit: "REQUEST_BYTES_MAX" });
        }
        table.next += 1;
        table.bytes += bytes;
        let (reply, answer) = oneshot::channel();
        let deadline = TypeConfig::now() + deadline;
        let open =
            Open { txn: Arc::new(txn), bytes, reply, fence, deadline, sent: None, due: true, sends: 0, told: None };
        table.open.insert(sequence, open);
        table.due.push_back(sequence);
        drop(table);
        self.wake.notify_one();
        Ok(answer)
    }

    /// What is due towards the current leadership: never sent, sent to an earlier one, or long without an answer.
    pub(crate) fn take_due(&self, leadership: u64, count_max: usize, bytes_max: usize) -> Option<Outgoing> {
        let mut table = self.table.lock();
        let session = table.session?;
        let now = TypeConfig::now();
        let table = &mut *table;
        if leadership != table.sent_to || now >= table.look_at {
            table.line_up(now, leadership != table.sent_to);
            table.sent_to = leadership;
            table.look_at = now + RESEND_LOOK;
        }
        let mut answered_below = table.open.keys().next().copied().unwrap_or(table.next);
        if exhibit!(OutcomeForgotten) {
            answered_below = table.next;
        }
        let mut txns = Vec::new();
        let mut bytes = 0;
        while let Some(sequence) = table.due.front() {
            // Answered while it stood in line.
            let Some(open) = table.open.get_mut(sequence).filter(|open| open.told.is_none()) else {
                table.due.pop_front();
                continue;
            };
            if !txns.is_empty() && (txns.len() >= count_max || bytes + open.bytes > bytes_max) {
                break;
            }
            bytes += open.bytes;
            open.sent = Some(now);
            open.due = false;
            open.sends = open.sends.saturating_add(1);
            let mut txn = Arc::clone(&open.txn);
            if exhibit!(ExpiryIgnored) {
                Arc::make_mut(&mut txn).expires_at_ms = 0;
            }
            if exhibit!(DedupeDropped)
                && let Some(id) = &mut Arc::make_mut(&mut txn).request_id
            {
                id.sequence += u64::from(open.sends - 1) << 40;
            }
            txns.push((txn, open.fence));
            table.due.pop_front();
        }
        (!txns.is_empty()).then_some(Outgoing { session, answered_below, txns })
    }

    /// The leader says how a request ended. Local apply will confirm it, or has.
    pub(crate) fn told(&self, session: u64, sequence: u64, outcome: Outcome) {
        // An invalid outcome can also mean "this session is closed"; only the local log tells which.
        if matches!(outcome.result, None | Some(outcome::Result::Invalid(_))) {
            return;
        }
        let mut table = self.table.lock();
        if table.session == Some(session)
            && let Some(open) = table.open.get_mut(&sequence)
        {
            open.told.get_or_insert_with(|| (outcome, TypeConfig::now()));
        }
    }

    /// The leader dropped a fenced request before it was appended.
    pub(crate) fn refused(&self, session: u64, sequence: u64) {
        let mut table = self.table.lock();
        if table.session == Some(session) {
            table.answer(sequence, Answer::NotLeader);
        }
    }

    /// The leader had no room for a request. What was sent only this once is settled by that; what may have been taken
    /// before, here or by another leader, is sent again.
    pub(crate) fn shed(&self, session: u64, sequence: u64, limit: &'static str) {
        let mut table = self.table.lock();
        if table.session == Some(session) && table.open.get(&sequence).is_some_and(|open| open.sends == 1) {
            table.answer(sequence, Answer::Overloaded(limit));
        }
    }

    /// Entries have been applied here; called in log order, after their rows became readable.
    pub(crate) fn applied<S: Store + ?Sized>(&self, outcomes: &[RequestOutcome], mark: Mark, machine: &Machine<S>) {
        let mut table = self.table.lock();
        if let Some(session) = table.session {
            for RequestOutcome { request_id, outcome, .. } in outcomes {
                let Some(id) = request_id.filter(|id| id.session == session) else { continue };
                let invalid = matches!(outcome.result, None | Some(outcome::Result::Invalid(_)));
                if invalid && !machine.session_is_open(session) {
                    continue; // refused because the session is closed: handled for all of them below
                }
                table.answer(id.sequence, Answer::Outcome(outcome.clone()));
            }
        }
        table.seen = mark;
        self.settle_session(&mut table, machine, &Answer::NotApplied);
    }

    /// A snapshot has replaced the state: outcomes of entries never seen here are in its session table.
    pub(crate) fn installed<S: Store + ?Sized>(&self, mark: Mark, machine: &Machine<S>) {
        let mut table = self.table.lock();
        if let Some(session) = table.session {
            let open: Vec<u64> = table.open.keys().copied().collect();
            for sequence in open {
                if let Some(outcome) = machine.outcome(RequestId { session, sequence }) {
                    table.answer(sequence, Answer::Outcome(outcome));
                }
            }
        }
        table.seen = mark;
        // A session closed behind the snapshot took its outcomes with it.
        self.settle_session(&mut table, machine, &Answer::Unknown);
    }

    /// Notices that the session was registered or closed.
    fn settle_session<S: Store + ?Sized>(&self, table: &mut Table, machine: &Machine<S>, rest: &Answer) {
        match table.session {
            None if machine.session_is_open(table.candidate) => {
                table.session = Some(table.candidate);
                table.next = 1;
                self.session.send_replace(table.session);
                self.wake.notify_one();
            }
            Some(session) if !machine.session_is_open(session) => {
                // Another process registered under this replica's id. Nothing of the old session can be applied any
                // more, and what was applied before has been answered above.
                tracing::error!(session, "this replica's session was closed by another incarnation");
                table.session = None;
                table.due.clear();
                table.candidate = new_session();
                self.session.send_replace(None);
                let open: Vec<u64> = table.open.keys().copied().collect();
                for sequence in open {
                    table.answer(sequence, rest.clone());
                }
                self.wake.notify_one();
            }
            _ => {}
        }
    }

    /// Answers what time or the log has decided. Returns whether a request past its deadline needs cluster time to
    /// move before its fate is proven.
    pub(crate) fn settle(&self, cluster_time_ms: u64) -> bool {
        let mut table = self.table.lock();
        let now = TypeConfig::now();
        let seen = table.seen;
        let mut answers = Vec::new();
        let mut stuck = false;
        for (sequence, open) in &table.open {
            if let Some((outcome, at)) = &open.told {
                if now >= *at + LOCAL_APPLY_WAIT {
                    answers.push((*sequence, told(outcome)));
                }
                continue;
            }
            if let Some(fence) = open.fence
                && seen.term > fence.term
            {
                // An entry of a later term has been applied: nothing of the fenced term can follow it.
                answers.push((*sequence, Answer::NotLeader));
            } else if open.sent.is_some() && seen.cluster_time_ms >= open.txn.expires_at_ms {
                // Whatever is applied from here on is applied at or after its expiry, and it was not there before.
                answers.push((*sequence, Answer::NotApplied));
            } else if now >= open.deadline {
                if open.sent.is_none() {
                    answers.push((*sequence, Answer::NotApplied));
                } else if now >= open.deadline + PURSUE {
                    answers.push((*sequence, Answer::Unknown));
                } else {
                    stuck |= cluster_time_ms >= open.txn.expires_at_ms;
                }
            }
        }
        for (sequence, answer) in answers {
            table.answer(sequence, answer);
        }
        stuck
    }

    /// The replica stops: nobody will learn more here.
    pub(crate) fn stop(&self) {
        let mut table = self.table.lock();
        table.stopped = true;
        for (_, open) in std::mem::take(&mut table.open) {
            let answer = if open.sent.is_none() { Answer::NotApplied } else { Answer::Unknown };
            // A caller that has gone does not mind.
            let _ = open.reply.send(answer);
        }
        table.bytes = 0;
    }
}

/// An outcome on the leader's word.
fn told(outcome: &Outcome) -> Answer {
    Answer::Outcome(outcome.clone())
}

impl Table {
    /// Puts requests in line that have to be sent again: to a new leadership all of them, else those long without an
    /// answer.
    fn line_up(&mut self, now: Instant, all: bool) {
        for (sequence, open) in &mut self.open {
            let again = match open.sent {
                None => false,
                // A fenced request goes out once: its leadership either appended it or never will.
                Some(_) if open.fence.is_some() => false,
                Some(at) => all || now >= at + RESEND_AFTER,
            };
            if again && !open.due && open.told.is_none() {
                open.due = true;
                self.due.push_back(*sequence);
            }
        }
    }

    fn answer(&mut self, sequence: u64, answer: Answer) {
        if let Some(open) = self.open.remove(&sequence) {
            self.bytes -= open.bytes;
            // A caller that has gone does not mind.
            let _ = open.reply.send(answer);
        }
    }
}
