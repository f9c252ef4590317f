//! [`Link`]: one direction between two places: how it behaves now, and what has passed it.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// How a link behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// How long every byte is under way.
    pub delay: Duration,
    /// Up to so much longer, by chance; bytes stay in order.
    pub jitter: Duration,
    /// How much passes; everything when absent.
    pub bytes_per_second: Option<u64>,
    /// Whether anything passes.
    pub flow: Flow,
}

/// Whether anything passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// Yes.
    #[default]
    Open,
    /// No: bytes wait, as they do above TCP when packets are lost, and nobody is told.
    Stalled,
}

/// What was asked of all connections of a link, counted, so that each connection does it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Orders {
    pub(super) resets: u64,
    pub(super) half_closes: u64,
}

/// What has passed, and what was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Bytes handed on.
    pub bytes: u64,
    /// Bytes that had to wait because the link was stalled.
    pub held: u64,
    /// Connections that were dialled while it was stalled.
    pub dials_held: u64,
    /// Bytes that were delayed or throttled.
    pub slowed: u64,
    /// Connections that were reset.
    pub resets: u64,
    /// Connections of which this direction was closed.
    pub half_closes: u64,
    /// Bytes that were changed.
    pub corrupted: u64,
}

/// One direction between two places.
#[derive(Debug)]
pub struct Link {
    shape: watch::Sender<Shape>,
    orders: watch::Sender<Orders>,
    /// Bytes until the one to corrupt; negative when none is.
    corrupt_in: AtomicI64,
    bytes: AtomicU64,
    held: AtomicU64,
    dials_held: AtomicU64,
    slowed: AtomicU64,
    resets: AtomicU64,
    half_closes: AtomicU64,
    corrupted: AtomicU64,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            shape: watch::Sender::default(),
            orders: watch::Sender::default(),
            corrupt_in: AtomicI64::new(-1),
            bytes: AtomicU64::default(),
            held: AtomicU64::default(),
            dials_held: AtomicU64::default(),
            slowed: AtomicU64::default(),
            resets: AtomicU64::default(),
            half_closes: AtomicU64::default(),
            corrupted: AtomicU64::default(),
        }
    }
}

impl Link {
    /// Makes it behave so from now on.
    pub fn set(&self, shape: Shape) {
        self.shape.send_replace(shape);
    }

    /// Stalls it.
    pub fn stall(&self) {
        self.shape.send_modify(|shape| shape.flow = Flow::Stalled);
    }

    /// Makes it pass everything at once again.
    pub fn heal(&self) {
        self.corrupt_in.store(-1, Ordering::SeqCst);
        self.set(Shape::default());
    }

    /// Resets all its connections.
    pub fn reset(&self) {
        self.orders.send_modify(|orders| orders.resets += 1);
    }

    /// Closes this direction of all its connections; the other one stays open.
    pub fn half_close(&self) {
        self.orders.send_modify(|orders| orders.half_closes += 1);
    }

    /// Changes one byte, the n-th from now.
    pub fn corrupt(&self, after: u32) {
        self.corrupt_in.store(i64::from(after), Ordering::SeqCst);
    }

    /// How it behaves.
    #[must_use]
    pub fn shape(&self) -> Shape {
        *self.shape.borrow()
    }

    /// What has passed, and what was done.
    #[must_use]
    pub fn passed(&self) -> Passed {
        let load = |count: &AtomicU64| count.load(Ordering::SeqCst);
        Passed {
            bytes: load(&self.bytes),
            held: load(&self.held),
            dials_held: load(&self.dials_held),
            slowed: load(&self.slowed),
            resets: load(&self.resets),
            half_closes: load(&self.half_closes),
            corrupted: load(&self.corrupted),
        }
    }

    pub(super) fn shapes(&self) -> watch::Receiver<Shape> {
        self.shape.subscribe()
    }

    pub(super) fn orders(&self) -> watch::Receiver<Orders> {
        self.orders.subscribe()
    }

    /// Returns once something can pass.
    pub(super) async fn wait_open(&self) {
        let mut shapes = self.shapes();
        if shapes.borrow().flow == Flow::Stalled {
            self.dials_held.fetch_add(1, Ordering::SeqCst);
        }
        // The sender lives as long as this link does.
        let _open = shapes.wait_for(|shape| shape.flow == Flow::Open).await;
    }

    pub(super) fn note_held(&self, bytes: usize) {
        self.held.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    pub(super) fn note_slowed(&self, bytes: usize) {
        self.slowed.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    pub(super) fn note_reset(&self) {
        self.resets.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn note_half_close(&self) {
        self.half_closes.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts what passes, and changes the byte that was to be changed if it is among them.
    pub(super) fn pass(&self, bytes: &mut [u8]) {
        let count = bytes.len() as u64;
        self.bytes.fetch_add(count, Ordering::SeqCst);
        if self.corrupt_in.load(Ordering::Relaxed) < 0 {
            return;
        }
        let before = self.corrupt_in.fetch_sub(i64::try_from(count).unwrap_or(i64::MAX), Ordering::SeqCst);
        let Ok(at) = usize::try_from(before) else { return };
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 0x20;
            self.corrupted.fetch_add(1, Ordering::SeqCst);
            self.corrupt_in.store(-1, Ordering::SeqCst);
        }
    }
}
