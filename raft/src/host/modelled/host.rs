//! [`Host`]: one machine with one replica on it. Its tasks end together when it is killed, stand still while it is
//! paused, and see its clocks. Knows nothing of what the tasks do.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};

use openraft_rt::AsyncRuntime;
use openraft_rt_sim::SimRuntime;
use parking_lot::Mutex;
use tokio::sync::oneshot;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    static CURRENT: RefCell<Option<Host>> = const { RefCell::new(None) };
}

/// One machine, from start to end; a restarted one is another.
#[derive(Clone)]
pub struct Host {
    state: Arc<State>,
}

struct State {
    id: u64,
    dead: AtomicBool,
    paused: AtomicBool,
    /// By how many parts in a million its monotonic clock is fast.
    drift_ppm: AtomicI64,
    /// How far its wall clock is ahead.
    wall_offset_ms: AtomicI64,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    next: u64,
    slots: BTreeMap<u64, Arc<Slot>>,
}

#[derive(Default)]
struct Slot {
    work: Mutex<Option<Work>>,
    waker: Mutex<Option<Waker>>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {}", self.state.id)
    }
}

impl PartialEq for Host {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }
}

/// Puts a host in force while it lives.
struct Entered(Option<Host>);

fn enter(host: &Host) -> Entered {
    Entered(CURRENT.with(|current| current.borrow_mut().replace(host.clone())))
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with(|current| *current.borrow_mut() = self.0.take());
    }
}

impl Host {
    /// A machine that runs, with true clocks.
    #[must_use]
    pub fn new(id: u64) -> Self {
        let state = State {
            id,
            dead: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            drift_ppm: AtomicI64::new(0),
            wall_offset_ms: AtomicI64::new(0),
            tasks: Mutex::default(),
        };
        Self { state: Arc::new(state) }
    }

    /// The machine whose task is running; `None` in the simulation's own tasks.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.with(|current| current.borrow().clone())
    }

    /// The replica on it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.state.id
    }

    /// Whether it was killed.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state.dead.load(Ordering::Relaxed)
    }

    /// Whether it stands still.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.state.paused.load(Ordering::Relaxed)
    }

    /// Sets how wrong its monotonic clock runs. To be called before anything runs on it: a monotonic clock never jumps.
    pub fn set_drift_ppm(&self, ppm: i64) {
        self.state.drift_ppm.store(ppm, Ordering::Relaxed);
    }

    /// Sets how far its wall clock is ahead; a jump when it runs already.
    pub fn set_wall_offset_ms(&self, ms: i64) {
        self.state.wall_offset_ms.store(ms, Ordering::Relaxed);
    }

    pub(super) fn wall_offset_ms(&self) -> i64 {
        self.state.wall_offset_ms.load(Ordering::Relaxed)
    }

    fn rate(&self) -> i128 {
        1_000_000 + i128::from(self.state.drift_ppm.load(Ordering::Relaxed))
    }

    /// What its monotonic clock shows.
    pub(super) fn local_ns(&self, true_ns: u64) -> u64 {
        u64::try_from(i128::from(true_ns) * self.rate() / 1_000_000).unwrap_or(u64::MAX)
    }

    /// How long a time by its clock really takes; never too short.
    pub(super) fn true_span_ns(&self, local_ns: u64) -> u64 {
        let rate = self.rate();
        u64::try_from((i128::from(local_ns) * 1_000_000 + rate - 1) / rate).unwrap_or(u64::MAX)
    }

    /// To start tasks on it from elsewhere.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle { host: self.clone() }
    }

    /// Starts a task on it. On a dead machine it is dropped.
    pub fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (done, output) = oneshot::channel();
        if self.is_dead() {
            return JoinHandle { output };
        }
        let slot = Arc::new(Slot::default());
        let number = {
            let mut tasks = self.state.tasks.lock();
            tasks.next += 1;
            let number = tasks.next;
            tasks.slots.insert(number, Arc::clone(&slot));
            number
        };
        *slot.work.lock() = Some(Box::pin(async move {
            // Nobody may wait for it.
            let _ = done.send(work.await);
        }));
        drop(SimRuntime::spawn(Hosted { host: self.clone(), number, slot }));
        JoinHandle { output }
    }

    /// Ends all its tasks where they stand. Nothing of them runs any more, except what is dropped.
    pub fn kill(&self) {
        self.state.dead.store(true, Ordering::Relaxed);
        let slots = std::mem::take(&mut self.state.tasks.lock().slots);
        let _entered = enter(self);
        for slot in slots.into_values() {
            let work = slot.work.lock().take();
            drop(work);
            if let Some(waker) = slot.waker.lock().take() {
                waker.wake(); // so that the runtime forgets it
            }
        }
    }

    /// Lets all its tasks stand still: what wakes them is remembered.
    pub fn pause(&self) {
        self.state.paused.store(true, Ordering::Relaxed);
    }

    /// Lets them go on.
    pub fn resume(&self) {
        self.state.paused.store(false, Ordering::Relaxed);
        let slots: Vec<_> = self.state.tasks.lock().slots.values().cloned().collect();
        for slot in slots {
            let waker = slot.waker.lock().clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn forget(&self, number: u64) {
        self.state.tasks.lock().slots.remove(&number);
    }
}

/// Starts tasks on a host.
#[derive(Clone, Debug)]
pub struct Handle {
    host: Host,
}

impl Handle {
    /// The host.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.host.spawn(work)
    }
}

/// One task as the runtime holds it.
struct Hosted {
    host: Host,
    number: u64,
    slot: Arc<Slot>,
}

impl Future for Hosted {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.host.is_dead() {
            return Poll::Ready(());
        }
        *self.slot.waker.lock() = Some(cx.waker().clone());
        if self.host.is_paused() {
            return Poll::Pending;
        }
        let Some(mut work) = self.slot.work.lock().take() else { return Poll::Ready(()) };
        let _entered = enter(&self.host);
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx))) {
            Ok(Poll::Pending) => {
                if !self.host.is_dead() {
                    *self.slot.work.lock() = Some(work);
                }
                Poll::Pending
            }
            Ok(Poll::Ready(())) => {
                self.host.forget(self.number);
                Poll::Ready(())
            }
            Err(panic) => {
                self.host.forget(self.number);
                super::panicked(self.host.id(), &message(&*panic));
                Poll::Ready(())
            }
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".to_owned())
}

/// Why a task gave nothing.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the task ended without a result: its host was killed, or it panicked")]
pub struct Ended;

/// Waits for a task's output. Dropping it lets the task go on.
#[derive(Debug)]
pub struct JoinHandle<T> {
    output: oneshot::Receiver<T>,
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, Ended>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.output).poll(cx).map(|output| output.map_err(|_| Ended))
    }
}
