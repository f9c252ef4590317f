//! A value that is watched, with tokio's interface. tokio wakes those who wait in an order it draws by chance; here it is
//! the order in which they began to wait.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

/// All senders, or all receivers, are gone.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("channel closed")]
pub struct RecvError(());

#[derive(Debug)]
struct Shared<T> {
    value: RwLock<(T, u64)>,
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    next: u64,
    queue: VecDeque<(u64, Waker)>,
    senders: usize,
}

impl<T> Shared<T> {
    fn wake_all(&self) {
        let queue = std::mem::take(&mut self.waiters.lock().queue);
        for (_, waker) in queue {
            waker.wake();
        }
    }
}

/// The side that changes the value.
#[derive(Debug)]
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// The side that watches.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// The value, held still.
#[derive(Debug)]
pub struct Ref<'a, T>(RwLockReadGuard<'a, (T, u64)>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.0
    }
}

/// A sender and its first receiver.
#[must_use]
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    /// A sender that nobody watches yet.
    #[must_use]
    pub fn new(value: T) -> Self {
        let waiters = Mutex::new(Waiters { senders: 1, ..Waiters::default() });
        Self { shared: Arc::new(Shared { value: RwLock::new((value, 0)), waiters }) }
    }

    /// Somebody who watches from now on.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<T> {
        let seen = self.shared.value.read().1;
        Receiver { shared: Arc::clone(&self.shared), seen }
    }

    /// The value.
    #[must_use]
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.value.read())
    }

    /// Changes the value and tells all when `change` says that it did.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let changed = {
            let mut value = self.shared.value.write();
            let changed = change(&mut value.0);
            value.1 += u64::from(changed);
            changed
        };
        if changed {
            self.shared.wake_all();
        }
        changed
    }

    /// Changes the value and tells all.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Replaces the value and tells all.
    pub fn send_replace(&self, value: T) -> T {
        let mut value = value;
        self.send_modify(|held| std::mem::swap(held, &mut value));
        value
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.waiters.lock().senders -= 1;
        self.shared.wake_all();
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

/// Takes a waiter out of the queue when it stops waiting.
struct Waiting<'a, T> {
    shared: &'a Shared<T>,
    number: Option<u64>,
}

impl<T> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.shared.waiters.lock().queue.retain(|(waiting, _)| *waiting != number);
        }
    }
}

impl<T> Receiver<T> {
    /// The value.
    #[must_use]
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.value.read())
    }

    /// The value, which counts as seen.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.value.read();
        self.seen = value.1;
        Ref(value)
    }

    /// The value as it is counts as seen.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.value.read().1;
    }

    /// Waits for a value that was not seen.
    ///
    /// # Errors
    /// All senders are gone.
    pub async fn changed(&mut self) -> Result<(), RecvError> {
        let shared = Arc::clone(&self.shared);
        let mut waiting = Waiting { shared: &shared, number: None };
        std::future::poll_fn(|cx| {
            let version = shared.value.read().1;
            if version != self.seen {
                self.seen = version;
                return Poll::Ready(Ok(()));
            }
            let mut waiters = shared.waiters.lock();
            if waiters.senders == 0 {
                return Poll::Ready(Err(RecvError(())));
            }
            let number = match waiting.number {
                Some(number) => number,
                None => {
                    waiters.next += 1;
                    waiters.next
                }
            };
            waiting.number = Some(number);
            match waiters.queue.iter_mut().find(|(waiting, _)| *waiting == number) {
                Some((_, waker)) => waker.clone_from(cx.waker()),
                None => waiters.queue.push_back((number, cx.waker().clone())),
            }
            Poll::Pending
        })
        .await
    }

    /// Waits until the value is as wanted.
    ///
    /// # Errors
    /// All senders are gone.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, RecvError> {
        loop {
            let found = {
                let value = self.shared.value.read();
                self.seen = value.1;
                wanted(&value.0)
            };
            if found {
                return Ok(Ref(self.shared.value.read()));
            }
            self.changed().await?;
        }
    }
}
