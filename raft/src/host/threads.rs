//! [`Threads`]: a replica's own threads, apart from those of whoever uses it (architecture D8).
//!
//! One thread does nothing but agree: `RaftCore`, votes, heartbeats, read index, and the log on its way to and from peers.
//! Nothing that takes long may run there, or a busy replica looks like a dead one. Since a write passes through it from
//! end to end, each step finds the next one on the same thread and wakes no other; and since everything that happens 25
//! times a second happens there, an idle replica wakes no second one. Snapshots travel on a thread apart, a large apply
//! runs on a blocking one, and the log writer has its own ([decision 24](../../../docs/decisions)).

use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

/// How long the threads may take to end.
const END: Duration = Duration::from_secs(5);

/// Threads that end with the replica.
pub(crate) struct Threads {
    control: Option<Runtime>,
    apart: Option<Runtime>,
}

impl Threads {
    pub(crate) fn start() -> std::io::Result<Self> {
        let start = |name: &str| Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build();
        Ok(Self { control: Some(start("raft")?), apart: Some(start("raft-snapshots")?) })
    }

    /// Where agreement runs.
    pub(crate) fn control(&self) -> Handle {
        self.control.as_ref().expect("taken only at the end").handle().clone()
    }

    /// Where snapshots travel.
    pub(crate) fn apart(&self) -> Handle {
        self.apart.as_ref().expect("taken only at the end").handle().clone()
    }

    /// Waits until the threads have ended. Must not be called on one of them, nor where waiting is forbidden.
    pub(crate) fn end(mut self) {
        // Peers first: nothing new comes in while agreement ends.
        for runtime in [self.apart.take(), self.control.take()].into_iter().flatten() {
            runtime.shutdown_timeout(END);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for runtime in [self.apart.take(), self.control.take()].into_iter().flatten() {
            runtime.shutdown_background();
        }
    }
}
