//! Brings this replica's requests to whoever leads, and again, until they are answered. Also registers the session.
//!
//! The same bytes keep their request id however often they are sent; the state machine takes each id once.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use openraft::async_runtime::Select4;
use openraft::type_config::TypeConfigExt;
use quilt_proto::state::RegisterSession;
use quilt_proto::{Txn, command};

use crate::clock::Clock;
use crate::host::watch;
use crate::leadership::{LeaderId, Leadership};
use crate::peer::ForwardRequest;
use crate::proposer::{ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX, Proposer, Shed, limit_named};
use crate::requests::{Outgoing, Requests};
use crate::transport::Peers;
use crate::types::TypeConfig;

/// Looks through open requests this often: for resends, deadlines and proofs.
const TICK: Duration = Duration::from_millis(50);
/// While nothing is open.
const IDLE_TICK: Duration = Duration::from_secs(5);
/// An unregistered session is offered again after this.
const REGISTER_AGAIN: Duration = Duration::from_millis(200);
/// How long one forwarded batch is waited for. Its requests are sent again well before.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(2);
/// Batches on their way to the leader at once; further requests gather meanwhile.
const FORWARDS_MAX: usize = 4;

/// Who leads, for a sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Destination {
    /// Counts changes of leadership, so that everything is sent anew after each.
    pub(crate) generation: u64,
    /// The leader, once it takes requests; `None` while there is none.
    pub(crate) leader: Option<u64>,
}

pub(crate) struct Courier {
    pub(crate) id: u64,
    pub(crate) requests: Arc<Requests>,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) destination: watch::Receiver<Destination>,
    pub(crate) leadership: watch::Receiver<Leadership>,
}

impl Courier {
    pub(crate) async fn run(mut self) {
        let mut under_way = FuturesUnordered::new();
        let mut generation = 0;
        let mut registered_at = None;
        let mut settle_at = TypeConfig::now();
        loop {
            let to = *self.destination.borrow_and_update();
            if to.generation != generation {
                generation = to.generation;
                // Their requests are due again; an answer of the old leader may still come by local apply.
                under_way.clear();
                registered_at = None;
            }
            let now = TypeConfig::now();
            let mut stuck = false;
            if now >= settle_at {
                stuck = self.requests.settle(self.clock.now_ms());
                settle_at = now + TICK;
            }
            let mut register = None;
            if let Some(session) = self.requests.to_register()
                && registered_at.is_none_or(|at| TypeConfig::now() >= at + REGISTER_AGAIN)
            {
                registered_at = Some(TypeConfig::now());
                register = Some(session);
            }
            if let Some(leader) = to.leader {
                if register.is_some() || stuck {
                    under_way.push(self.send(leader, register, stuck, None));
                }
                while under_way.len() < FORWARDS_MAX
                    && let Some(batch) = self.requests.take_due(generation, ENTRY_COMMANDS_MAX, ENTRY_BYTES_MAX)
                {
                    under_way.push(self.send(leader, None, false, Some(batch)));
                }
            }
            let waiting = self.requests.any() || self.requests.to_register().is_some();
            let tick = if waiting { TICK } else { IDLE_TICK };
            let finished = async {
                if under_way.next().await.is_none() {
                    std::future::pending::<()>().await;
                }
            };
            let woken = async { self.requests.wake.notified().await };
            let changed = self.destination.changed();
            let (finished, woken, changed) = (std::pin::pin!(finished), std::pin::pin!(woken), std::pin::pin!(changed));
            if let Select4::Second(Err(_)) =
                TypeConfig::select4(finished, changed, woken, std::pin::pin!(TypeConfig::sleep(tick))).await
            {
                return;
            }
        }
    }

    /// Sends one batch, and notes what comes back. Owns what it needs, so that it can outlive this round.
    fn send(
        &self,
        leader: u64,
        register: Option<u64>,
        advance_time: bool,
        batch: Option<Outgoing>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let local = leader == self.id;
        let (requests, proposer, peers) =
            (Arc::clone(&self.requests), Arc::clone(&self.proposer), Arc::clone(&self.peers));
        let (id, held) = (self.id, self.leadership.borrow().held());
        async move {
            if local {
                send_here(id, &requests, &proposer, register, advance_time, batch);
                return;
            }
            let (session, request) = to_request(id, held, &requests, register, advance_time, batch);
            match peers.forward(leader, request, FORWARD_TIMEOUT).await {
                Ok(reply) => {
                    for answer in reply.answers {
                        if let Some(outcome) = answer.outcome {
                            requests.told(session, answer.sequence, outcome);
                        }
                    }
                    let limit = limit_named(&reply.limit);
                    reply.overloaded.into_iter().for_each(|sequence| requests.shed(session, sequence, limit));
                    requests.wake.notify_one();
                }
                Err(error) => tracing::debug!(%error, leader, "forwarding failed; the requests are sent again"),
            }
        }
    }
}

fn send_here(
    id: u64,
    requests: &Requests,
    proposer: &Proposer,
    register: Option<u64>,
    advance_time: bool,
    batch: Option<Outgoing>,
) {
    // Refusals need no care here: what is not taken is sent again, or its owner is told at once.
    if let Some(session) = register {
        let _ = proposer.command(command::Kind::RegisterSession(RegisterSession { session, replica: id }));
    }
    if advance_time {
        let _ = proposer.advance_time();
    }
    if let Some(batch) = batch {
        let txns = batch.txns.iter().map(|(txn, fence)| (Txn::clone(txn), *fence));
        if let Ok(Some(Shed { sequences, limit })) = proposer.submit(batch.session, batch.answered_below, txns) {
            sequences.into_iter().for_each(|sequence| requests.shed(batch.session, sequence, limit));
        }
    }
}

fn to_request(
    id: u64,
    held: Option<LeaderId>,
    requests: &Requests,
    register: Option<u64>,
    advance_time: bool,
    batch: Option<Outgoing>,
) -> (u64, ForwardRequest) {
    let mut request = ForwardRequest { advance_time, ..ForwardRequest::default() };
    if let Some(session) = register {
        request.session = session;
        request.register_for = id;
    }
    if let Some(batch) = batch {
        request.session = batch.session;
        request.answered_below = batch.answered_below;
        for (txn, fence) in batch.txns {
            match (fence, txn.request_id) {
                // A fenced request never leaves this replica: its leadership has ended.
                (Some(fence), Some(id)) if held != Some(fence) => requests.refused(id.session, id.sequence),
                (Some(_), _) => {}
                (None, _) => request.txns.push(Txn::clone(&txn)),
            }
        }
    }
    (request.session, request)
}
