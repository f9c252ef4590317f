//! The simulation's host: openraft's simulated runtime, in which every replica is a [`Host`] of its own that can be
//! killed, paused, and given clocks that run wrong. One thread, virtual time, and every draw from one seed.

mod dice;
mod exhibit;
mod host;
mod impure;
mod instant;
mod runtime;
pub mod watch;
mod world;

pub use dice::Dice;
pub use exhibit::Exhibit;
pub(crate) use host::Handle;
pub use host::Host;
pub(crate) use host::JoinHandle;
pub(crate) use impure::impure;
pub use instant::Moment;
pub(crate) use runtime::Runtime;
pub use world::{World, now_ns, sleep, yield_now};
pub(crate) use world::{panicked, random_u64, wall_ms};

/// A replica's threads: here all of its tasks, which end with its host.
pub(crate) struct Threads {
    host: Host,
}

impl Threads {
    /// Those of the host this is called on.
    pub(crate) fn start() -> std::io::Result<Self> {
        Host::current().map(|host| Self { host }).ok_or_else(|| std::io::Error::other("a replica runs on a host"))
    }

    pub(crate) fn control(&self) -> Handle {
        self.host.handle()
    }

    pub(crate) fn apart(&self) -> Handle {
        self.host.handle()
    }

    pub(crate) fn end(self) {
        drop(self);
    }
}
