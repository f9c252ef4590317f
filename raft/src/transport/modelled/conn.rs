//! One connection: two lanes on which items arrive in order, late, or not at all. Like TCP, a lane loses nothing while its
//! connection stands; what does not get through for long ends the connection.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use openraft_rt_sim::SimSleep;
use parking_lot::Mutex;

use super::net::Net;
use crate::host::modelled::{Host, now_ns, sleep};

/// The product's keep-alives end a connection that is silent for as long.
const SILENCE_MAX_NS: u64 = 4_000_000_000;

/// What travels.
pub(super) enum Item {
    /// The beginning of an answer.
    Head(Box<http::response::Parts>),
    Data(Bytes),
    Trailers(Box<http::HeaderMap>),
    End,
}

/// The connection was reset, or has been silent for too long.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the connection was reset")]
pub(super) struct Broken;

#[derive(Default)]
struct Lane {
    items: VecDeque<(u64, Item)>,
    last_due: u64,
    /// After a cut nothing arrives before the sender has tried again.
    resume_at: u64,
    silent_since: Option<u64>,
    reader: Option<Waker>,
    reader_gone: bool,
    writer: Option<Waker>,
}

#[derive(Default)]
struct State {
    reset_at: Option<u64>,
    lanes: [Lane; 2],
}

/// A connection between two hosts. Lane 0 leads from the one that dialled to the other, lane 1 back.
pub(super) struct Conn {
    net: Arc<Net>,
    ends: [Host; 2],
    state: Mutex<State>,
}

/// One end of a connection.
pub(super) struct End {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
}

/// Connects two hosts.
pub(super) fn connect(net: &Arc<Net>, from: &Host, to: &Host) -> (End, End) {
    let conn = Arc::new(Conn { net: Arc::clone(net), ends: [from.clone(), to.clone()], state: Mutex::default() });
    net.add(&conn);
    let end = |write: usize| End {
        reader: Reader { conn: Arc::clone(&conn), lane: 1 - write, timer: None },
        writer: Writer { conn: Arc::clone(&conn), lane: write },
    };
    (end(0), end(1))
}

impl Conn {
    /// Sender and receiver of a lane.
    fn way(&self, lane: usize) -> (&Host, &Host) {
        let [first, second] = &self.ends;
        if lane == 0 { (first, second) } else { (second, first) }
    }

    /// Resets it at a time, if one of its ends is such.
    pub(super) fn reset_if(&self, at: u64, such: impl Fn(&Host) -> bool) {
        if self.ends.iter().any(such) {
            self.state.lock().reset_at.get_or_insert(at);
        }
    }

    /// A cut is over: senders try again at a time.
    pub(super) fn resume(&self, at: u64) {
        for lane in &mut self.state.lock().lanes {
            if lane.silent_since.is_some() {
                lane.resume_at = at;
            }
        }
    }

    pub(super) fn wake(&self) {
        let wakers: Vec<_> = {
            let mut state = self.state.lock();
            state.lanes.iter_mut().flat_map(|lane| [lane.reader.take(), lane.writer.take()]).flatten().collect()
        };
        for waker in wakers {
            waker.wake();
        }
    }
}

/// The receiving end of a lane.
pub(super) struct Reader {
    conn: Arc<Conn>,
    lane: usize,
    /// When to look again.
    timer: Option<(u64, Pin<Box<SimSleep>>)>,
}

impl Reader {
    /// The next item, once it has arrived. Behind the end there is only the end.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Item, Broken>> {
        let now = now_ns();
        let conn = &self.conn;
        let (from, to) = conn.way(self.lane);
        let blocked = conn.net.is_cut(from.id(), to.id());
        let silent = blocked || conn.net.is_cut(to.id(), from.id()) || from.is_dead() || from.is_paused();
        let mut state = conn.state.lock();
        let state = &mut *state;
        let lane = &mut state.lanes[self.lane];
        if silent {
            lane.silent_since.get_or_insert(now);
        } else {
            lane.silent_since = None;
        }
        let given_up = lane.silent_since.map(|since| since + SILENCE_MAX_NS);
        if let Some(at) = given_up.filter(|at| *at <= now) {
            // Also where a reset is on its way: it comes too late.
            state.reset_at = Some(state.reset_at.map_or(at, |reset| reset.min(at)));
        }
        if state.reset_at.is_some_and(|at| at <= now) {
            return Poll::Ready(Err(Broken));
        }
        let arrives = lane.items.front().filter(|_| !blocked).map(|(due, _)| (*due).max(lane.resume_at));
        if arrives.is_some_and(|at| at <= now) {
            if let Some((_, Item::End)) = lane.items.front() {
                return Poll::Ready(Ok(Item::End));
            }
            if let Some((_, item)) = lane.items.pop_front() {
                return Poll::Ready(Ok(item));
            }
        }
        lane.reader = Some(cx.waker().clone());
        let look_again = [arrives, given_up, state.reset_at].into_iter().flatten().min();
        if self.timer.as_ref().map(|(at, _)| *at) != look_again {
            self.timer = look_again.map(|at| (at, Box::pin(sleep(Duration::from_nanos(at.saturating_sub(now))))));
        }
        if let Some((_, timer)) = &mut self.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let writer = {
            let mut state = self.conn.state.lock();
            let lane = &mut state.lanes[self.lane];
            lane.reader_gone = true;
            lane.items.clear();
            lane.writer.take()
        };
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

/// The sending end of a lane.
pub(super) struct Writer {
    conn: Arc<Conn>,
    lane: usize,
}

impl Writer {
    /// Sends an item.
    pub(super) fn send(&self, item: Item) -> Result<(), Broken> {
        let (delay, resets) = self.conn.net.fare();
        let now = now_ns();
        let due = now + u64::try_from(delay.as_nanos()).unwrap_or(0);
        let reader = {
            let mut state = self.conn.state.lock();
            if resets {
                state.reset_at.get_or_insert(due);
            }
            if state.reset_at.is_some_and(|at| at <= now) {
                return Err(Broken);
            }
            let lane = &mut state.lanes[self.lane];
            if lane.reader_gone {
                return Err(Broken);
            }
            lane.last_due = lane.last_due.max(due);
            let due = lane.last_due;
            lane.items.push_back((due, item));
            if resets { None } else { lane.reader.take() }
        };
        if resets {
            self.conn.wake();
        }
        if let Some(reader) = reader {
            reader.wake();
        }
        Ok(())
    }

    /// Waits until nobody reads any more.
    pub(super) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.conn.state.lock();
        let lane = &mut state.lanes[self.lane];
        if lane.reader_gone {
            return Poll::Ready(());
        }
        lane.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A dead host says nothing; if only its process has ended, the network resets the connection.
        if !self.conn.way(self.lane).0.is_dead() {
            // The other side may have ended it before.
            let _ = self.send(Item::End);
        }
    }
}
