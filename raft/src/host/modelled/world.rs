//! [`World`]: the one thread, its virtual time and its seed. Knows hosts, not what runs on them.

use std::cell::RefCell;
use std::future::Future;
use std::time::Duration;

use openraft_rt::AsyncRuntime;
use openraft_rt_sim::{SimInstant, SimRuntime, SimSleep};

use super::dice::Dice;
use super::host::Host;

/// Where wall clocks stand when a simulation begins: some day in 2025.
const WALL_MS: u64 = 1_750_000_000_000;

struct Present {
    dice: Dice,
    ground: Host,
    panics: Vec<String>,
}

thread_local! {
    static PRESENT: RefCell<Option<Present>> = const { RefCell::new(None) };
}

/// A simulated world: everything in it follows from its seed.
#[derive(Debug)]
pub struct World {
    runtime: SimRuntime,
}

impl World {
    /// The world of a seed. There is one at a time on a thread.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let dice = Dice::new(seed).child(1);
        let present = Present { dice, ground: Host::new(0), panics: Vec::new() };
        PRESENT.with(|here| *here.borrow_mut() = Some(present));
        Self { runtime: SimRuntime::with_seed(seed) }
    }

    /// Runs to the end of `what`.
    pub fn run<T>(&mut self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(what)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Tasks are dropped by the runtime, after this; they draw nothing any more.
        PRESENT.with(|here| {
            if let Some(present) = here.borrow().as_ref() {
                present.ground.kill();
            }
        });
    }
}

fn with<T>(look: impl FnOnce(&mut Present) -> T) -> Option<T> {
    PRESENT.with(|here| here.borrow_mut().as_mut().map(look))
}

/// A draw from the world's own stream.
pub(super) fn draw(draw: impl FnOnce(&mut Dice) -> u64) -> u64 {
    with(|present| draw(&mut present.dice)).unwrap_or_default()
}

/// Where the simulation's own tasks run.
pub(super) fn ground() -> Host {
    with(|present| present.ground.clone()).expect("a world is made before anything runs in it")
}

/// A task of a host has panicked.
pub(crate) fn panicked(host: u64, message: &str) {
    with(|present| present.panics.push(format!("host {host}: {message}")));
}

impl World {
    /// What has panicked since this was last asked.
    #[must_use]
    pub fn panics() -> Vec<String> {
        with(|present| std::mem::take(&mut present.panics)).unwrap_or_default()
    }
}

/// Virtual nanoseconds since the world began, by no host's clock.
#[must_use]
pub fn now_ns() -> u64 {
    SimInstant::try_now().map_or(0, |now| u64::try_from(now.elapsed_since_start().as_nanos()).unwrap_or(u64::MAX))
}

/// Waits, by no host's clock.
#[must_use]
pub fn sleep(span: Duration) -> SimSleep {
    SimRuntime::sleep(span)
}

/// Milliseconds since the Unix epoch by the current host's clock.
pub(crate) fn wall_ms() -> u64 {
    let true_ms = WALL_MS + now_ns() / 1_000_000;
    let offset = Host::current().map_or(0, |host| host.wall_offset_ms());
    true_ms.saturating_add_signed(offset)
}

/// 64 bits of the world's chance.
pub(crate) fn random_u64() -> u64 {
    draw(Dice::bits)
}

/// Lets other tasks run first.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
