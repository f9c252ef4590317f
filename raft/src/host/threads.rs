//! [`Threads`]: a replica's own threads, apart from those of whoever uses it (architecture D8).
//!
//! One thread does nothing but agree: `RaftCore`, votes, heartbeats, read index. Nothing that takes long may run there, or
//! a busy replica looks like a dead one; and since everything that happens 25 times a second happens on one thread, an
//! idle replica wakes no second one. The log and snapshots travel on the data threads, a large apply runs on a blocking
//! one, and the log writer has its own.

use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

/// How long the threads may take to end.
const END: Duration = Duration::from_secs(5);

/// Threads that end with the replica.
pub(crate) struct Threads {
    control: Option<Runtime>,
    data: Option<Runtime>,
}

impl Threads {
    pub(crate) fn start(data: usize) -> std::io::Result<Self> {
        let start = |name: &str, threads| {
            Builder::new_multi_thread().worker_threads(threads).thread_name(name).enable_all().build()
        };
        Ok(Self { control: Some(start("raft", 1)?), data: Some(start("raft-data", data.max(1))?) })
    }

    /// Where agreement runs.
    pub(crate) fn control(&self) -> Handle {
        self.control.as_ref().expect("taken only at the end").handle().clone()
    }

    /// Where the log and snapshots travel.
    pub(crate) fn data(&self) -> Handle {
        self.data.as_ref().expect("taken only at the end").handle().clone()
    }

    /// Waits until the threads have ended. Must not be called on one of them, nor where waiting is forbidden.
    pub(crate) fn end(mut self) {
        // Peers first: nothing new comes in while agreement ends.
        for runtime in [self.data.take(), self.control.take()].into_iter().flatten() {
            runtime.shutdown_timeout(END);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        for runtime in [self.data.take(), self.control.take()].into_iter().flatten() {
            runtime.shutdown_background();
        }
    }
}
