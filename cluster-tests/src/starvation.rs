//! [`Canary`]: how long what is timed had to wait for this host: for a processor, and for its disk. A bound on time is held against what
//! is left, so that neighbours who take the processors fail nobody, and a control plane that stands still on an idle host is found out.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::fs::{self, OpenOptions};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::rig::Rig;

/// Between two syncs of the canary's own.
const PAUSE: Duration = Duration::from_millis(20);
/// A sync that takes no longer is an ordinary one.
const SYNC: Duration = Duration::from_millis(20);

/// Between two looks at what is waited for.
const LOOK: Duration = Duration::from_millis(25);

/// One more election may be owed to a host that withholds processors or its disk for so long.
const SILENT: Duration = Duration::from_secs(2);

/// A processor that is shared makes a bound so many times as long at most.
const SLOWER_MAX: u32 = 32;
/// The same for a bound that is long by itself.
const PATIENT_MAX: u32 = 4;

/// What the host withheld from the processes looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Withheld {
    /// How long their threads, all together, ran.
    pub(crate) ran: Duration,
    /// How long they were ready to run and had no processor.
    pub(crate) waited: Duration,
    /// How long syncs of the canary took beyond what is ordinary.
    pub(crate) disk: Duration,
}

impl Display for Withheld {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { ran, waited, disk } = self;
        write!(f, "processors for {waited:?} beside {ran:?} of running, and the disk for {disk:?}")
    }
}

impl Withheld {
    /// So many times a long bound is waited for at most: processors and the disk stretch it each by itself.
    pub(crate) const PATIENT_LONGEST: u32 = PATIENT_MAX * 4;

    /// What a time that was measured meanwhile would have been with processors and a disk of one's own: processes that waited three times
    /// as long as they ran were four times slower. `most` bounds that: whatever stands still for longer is found out on the busiest host.
    pub(crate) fn without(self, elapsed: Duration, most: u32) -> Duration {
        let slower = (self.ran + self.waited).as_secs_f64() / self.ran.as_secs_f64().max(1e-3);
        let left = elapsed.saturating_sub(self.disk).max(elapsed / 4);
        left.div_f64(slower.clamp(1.0, f64::from(most)))
    }

    /// As [`Withheld::without`], for what is answered in an instant when all is well.
    pub(crate) fn soon(self, elapsed: Duration) -> Duration {
        self.without(elapsed, SLOWER_MAX)
    }

    /// What a part of that time would have been, if the host withheld as much of each.
    pub(crate) fn share(self, part: Duration, elapsed: Duration) -> Duration {
        part.mul_f64(self.at_last(elapsed).as_secs_f64() / elapsed.as_secs_f64().max(1e-3))
    }

    /// Whether it took more than half of a time from what was measured meanwhile.
    pub(crate) fn starved(self, elapsed: Duration) -> bool {
        self.soon(elapsed) < elapsed / 2
    }

    /// Elections that are owed to what the host withheld meanwhile: a leader that has no processor for so long sends nobody a word.
    pub(crate) fn elections(self, elapsed: Duration) -> u64 {
        elapsed.saturating_sub(self.at_last(elapsed)).as_secs() / SILENT.as_secs()
    }

    /// As [`Withheld::without`], for what is given up after a long time.
    pub(crate) fn at_last(self, elapsed: Duration) -> Duration {
        self.without(elapsed, PATIENT_MAX)
    }
}

/// Nanoseconds each thread has run, and waited for a processor, so far.
type Waits = BTreeMap<(u32, String), (u64, u64)>;

/// Looks while something is timed.
#[derive(Debug)]
pub(crate) struct Canary {
    before: Waits,
    stop: Arc<AtomicBool>,
    /// Microseconds by which syncs were late.
    late: Arc<AtomicU64>,
    file: PathBuf,
}

impl Canary {
    /// Begins to look at these processes and the harness's own, and at the disk of `directory`.
    ///
    /// # Errors
    /// When nothing can be written there.
    pub(crate) fn start(directory: &Path, pids: &[u32]) -> Result<Self> {
        let file = directory.join("canary");
        let mut written = OpenOptions::new().write(true).create(true).truncate(true).open(&file)?;
        let (stop, late) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&late));
        std::thread::Builder::new().name("canary".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                let done = written.rewind().and_then(|()| written.write_all(&[1; 4096]));
                if done.and_then(|()| written.sync_data()).is_err() {
                    break;
                }
                let late = began.elapsed().saturating_sub(SYNC);
                counted.fetch_add(u64::try_from(late.as_micros()).unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(PAUSE);
            }
        })?;
        Ok(Self { before: waits(pids), stop, late, file })
    }

    /// What was withheld from these processes since.
    pub(crate) fn withheld(&self, pids: &[u32]) -> Withheld {
        let (mut ran, mut waited) = (0, 0);
        for (thread, now) in waits(pids) {
            let before = self.before.get(&thread).copied().unwrap_or_default();
            ran += now.0.saturating_sub(before.0);
            waited += now.1.saturating_sub(before.1);
        }
        let (ran, waited) = (Duration::from_nanos(ran), Duration::from_nanos(waited));
        Withheld { ran, waited, disk: Duration::from_micros(self.late.load(Ordering::Relaxed)) }
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _not_there = fs::remove_file(&self.file);
    }
}

/// As [`within`](crate::wait::within), with a limit for what the host does not withhold from the replicas.
///
/// # Errors
/// When nothing was found in time.
pub(crate) async fn within<T, F>(limit: Duration, rig: &Rig, what: &str, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let canary = Canary::start(rig.directory(), &rig.pids())?;
    let started = Instant::now();
    loop {
        let reason = match look().await {
            Ok(found) => return Ok(found),
            Err(reason) => reason,
        };
        let (elapsed, withheld) = (started.elapsed(), canary.withheld(&rig.pids()));
        ensure!(
            withheld.at_last(elapsed) <= limit,
            "not within {limit:?}: {what}, but not after {elapsed:?}, of which the host withheld {withheld}: {reason:#}"
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// Of every thread of these processes, and of this one.
fn waits(pids: &[u32]) -> Waits {
    let mut waits = Waits::new();
    for pid in pids.iter().copied().chain([std::process::id()]) {
        let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for thread in threads.flatten() {
            let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            let mut words = text.split_whitespace().filter_map(|word| word.parse().ok());
            if let (Some(ran), Some(waited)) = (words.next(), words.next()) {
                waits.insert((pid, thread.file_name().to_string_lossy().into_owned()), (ran, waited));
            }
        }
    }
    waits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who had to wait for a processor three times as long as it ran was four times slower; a disk that stands still is taken off; neither
    /// excuses everything.
    #[test]
    fn what_was_withheld_is_taken_off() {
        let seconds = Duration::from_secs;
        let busy = Withheld { ran: seconds(1), waited: seconds(3), disk: seconds(0) };
        assert_eq!(busy.soon(seconds(8)), seconds(2));
        let idle = Withheld { ran: seconds(2), waited: seconds(0), disk: seconds(1) };
        assert_eq!(idle.soon(seconds(3)), seconds(2));
        let starved = Withheld { ran: seconds(0), waited: seconds(1_000), disk: seconds(1_000) };
        assert_eq!(starved.soon(seconds(128)), seconds(1));
        assert_eq!(starved.at_last(seconds(128)), seconds(8));
        assert_eq!(busy.share(seconds(2), seconds(8)), Duration::from_millis(500));
        assert_eq!(Withheld::default().share(seconds(2), seconds(8)), seconds(2));
    }

    /// Elections are owed to a host that withholds, one for every two seconds of that, and none to one that does not.
    #[test]
    fn elections_are_owed_to_a_busy_host_only() {
        let seconds = Duration::from_secs;
        let busy = Withheld { ran: seconds(1), waited: seconds(3), disk: seconds(0) };
        assert_eq!(busy.elections(seconds(8)), 3);
        assert!(busy.starved(seconds(8)));
        let idle = Withheld { ran: seconds(20), waited: seconds(1), disk: seconds(0) };
        assert_eq!(idle.elections(seconds(8)), 0);
        assert!(!idle.starved(seconds(8)));
        assert_eq!(Withheld::default().elections(seconds(60)), 0);
    }

    /// Threads that share a processor are seen to have waited for it.
    #[test]
    fn waiting_for_a_processor_is_seen() {
        let directory = tempfile::tempdir().expect("a directory");
        let canary = Canary::start(directory.path(), &[]).expect("it starts");
        let began = Instant::now();
        // More threads than processors, none of which gives its own up: each waits for three quarters of the time.
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) * 4;
        let busy: Vec<_> = (0..count)
            .map(|_| {
                std::thread::spawn(move || {
                    while began.elapsed() < Duration::from_millis(500) {
                        std::hint::spin_loop();
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(400));
        let withheld = canary.withheld(&[]);
        for busy in busy {
            busy.join().expect("it ends");
        }
        assert!(withheld.waited > withheld.ran, "{withheld:?}");
        assert!(withheld.soon(Duration::from_secs(8)) < Duration::from_secs(4), "{withheld:?}");
    }
}
