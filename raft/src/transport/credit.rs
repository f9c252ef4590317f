//! Which append an answer of a peer is credited to.
//!
//! openraft judges by answers when a leader was last followed, for reads and for its lease. It credits an answer with
//! the time at which the *last* request was sent that ends where the answer matches. A request without entries, which
//! only tells a new commit index, ends where the one before it ended: so a late answer to the earlier would count as
//! one to the later, and a leader whom the others have long replaced would seem to be followed at this moment. Found by
//! the simulation, as a linearizable read that missed acknowledged writes.
//!
//! Here an answer is held back while a later request is on its way that it would be mistaken for: the answer to that
//! one says the same and more. And none is sent between an answer being given and openraft having dealt with it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Poll, Waker};

use futures::stream::{Stream, StreamExt, poll_fn};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use parking_lot::Mutex;

use crate::host::exhibit;
use crate::types::{LogId, TypeConfig};

/// What one stream of appends has under way.
#[derive(Default)]
pub(super) struct Credit {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where the requests end that were sent and not answered, in order.
    sent: VecDeque<Option<LogId>>,
    /// A request is being taken from openraft, on another thread perhaps.
    taking: bool,
    /// An answer was given, and openraft has not come back for the next.
    given: bool,
    /// Who waits for one or the other.
    taker: Option<Waker>,
    giver: Option<Waker>,
}

fn end(request: &AppendEntriesRequest<TypeConfig>) -> Option<LogId> {
    request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id)
}

impl Credit {
    /// The requests as they are to be sent; `first` was taken already.
    pub(super) fn requests<S>(
        self: &Arc<Self>,
        first: AppendEntriesRequest<TypeConfig>,
        mut input: S,
    ) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + use<S>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin,
    {
        self.state.lock().sent.push_back(end(&first));
        let credit = Arc::clone(self);
        let rest = poll_fn(move |cx| {
            {
                let mut state = credit.state.lock();
                if state.given {
                    state.taker = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                state.taking = true;
            }
            let next = input.poll_next_unpin(cx);
            let giver = {
                let mut state = credit.state.lock();
                state.taking = false;
                if let Poll::Ready(Some(request)) = &next {
                    state.sent.push_back(end(request));
                }
                state.giver.take()
            };
            if let Some(giver) = giver {
                giver.wake();
            }
            next
        });
        futures::stream::once(std::future::ready(first)).chain(rest)
    }

    /// The answers as openraft is to see them.
    pub(super) fn answers<S, E>(
        self: &Arc<Self>,
        mut answers: S,
    ) -> impl Stream<Item = Result<StreamAppendResult<TypeConfig>, E>> + Send + use<S, E>
    where
        S: Stream<Item = Result<StreamAppendResult<TypeConfig>, E>> + Send + Unpin,
        E: Send,
    {
        let credit = Arc::clone(self);
        let mut held = None;
        poll_fn(move |cx| {
            let taker = {
                let mut state = credit.state.lock();
                state.given = false;
                state.taker.take()
            };
            if let Some(taker) = taker {
                taker.wake();
            }
            loop {
                let answer = match held.take() {
                    Some(answer) => answer,
                    None => match answers.poll_next_unpin(cx) {
                        Poll::Ready(Some(answer)) => answer,
                        other => return other,
                    },
                };
                let mut state = credit.state.lock();
                if state.taking {
                    state.giver = Some(cx.waker().clone());
                    held = Some(answer);
                    return Poll::Pending;
                }
                state.sent.pop_front();
                let next = state.sent.front();
                if let Ok(Ok(matching)) = &answer
                    && next.is_some_and(|next| next <= matching)
                    && !exhibit!(LateAnswerCredited)
                {
                    continue;
                }
                state.given = true;
                if exhibit!(SubQuorumCommit)
                    && let (Ok(Ok(_)), Some(last)) = (&answer, state.sent.back())
                {
                    return Poll::Ready(Some(Ok(Ok(*last))));
                }
                return Poll::Ready(Some(answer));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use openraft::raft::StreamAppendError;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;
    use crate::types::{Entry, Vote, log_id};

    fn request(from: u64, to: u64) -> AppendEntriesRequest<TypeConfig> {
        use openraft::entry::RaftEntry;

        let entries = (from + 1..=to).map(|index| Entry::new_blank(log_id(1, index))).collect();
        let (vote, prev_log_id) = (Vote::new_committed(1, 1), Some(log_id(1, from)));
        AppendEntriesRequest { vote, prev_log_id, entries, leader_commit: None }
    }

    /// An answer is not given while a later request is under way that ends no further; the answer to that one is given
    /// in its place, whatever it says. Other answers are given at once, and nothing is sent until they are dealt with.
    #[tokio::test]
    async fn an_answer_counts_for_its_own_request_only() {
        let (ask, asked) = mpsc::unbounded_channel();
        let (answer, answered) = mpsc::unbounded_channel::<Result<StreamAppendResult<TypeConfig>, ()>>();
        let credit = Arc::new(Credit::default());
        let mut requests = credit.requests(request(1, 3), UnboundedReceiverStream::new(asked));
        let mut answers = credit.answers(UnboundedReceiverStream::new(answered));

        assert!(requests.next().await.is_some());
        ask.send(request(3, 3)).expect("taken");
        assert!(requests.next().await.is_some());
        answer.send(Ok(Ok(Some(log_id(1, 3))))).expect("heard");
        assert!(answers.next().now_or_never().is_none(), "the later request would be credited");
        let higher = StreamAppendError::HigherVote(Vote::new_committed(2, 2));
        answer.send(Ok(Err(higher.clone()))).expect("heard");
        assert_eq!(answers.next().await, Some(Ok(Err(higher))));

        ask.send(request(3, 4)).expect("taken");
        assert!(requests.next().now_or_never().is_none(), "the answer is not dealt with");
        assert!(answers.next().now_or_never().is_none());
        assert!(requests.next().await.is_some());
        ask.send(request(4, 6)).expect("taken");
        assert!(requests.next().await.is_some());
        answer.send(Ok(Ok(Some(log_id(1, 4))))).expect("heard");
        assert_eq!(answers.next().await, Some(Ok(Ok(Some(log_id(1, 4))))), "the later request ends further");
    }
}
