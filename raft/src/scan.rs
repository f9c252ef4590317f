//! Reads the whole state and the whole log, slowly and again and again, and compares the state with the hash that apply
//! keeps: what rots on a disk is found before it is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::type_config::TypeConfigExt;
use parking_lot::Mutex;
use quilt_state::{ApplyError, Audit, Family, Step, Stride};
use quilt_storage::{LogEngine, LogError};

use crate::applied::Applied;
use crate::clock;
use crate::host;
use crate::snapshot::SnapshotHome;
use crate::types::TypeConfig;

/// How much of a disk's and a processor's time the scan may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanPace {
    /// Bytes read at a time; apply waits while they are read.
    pub page_bytes: usize,
    /// Pause between two pages.
    pub page_pause: Duration,
    /// Pause between the end of one scan and the begin of the next.
    pub pause: Duration,
}

impl Default for ScanPace {
    fn default() -> Self {
        // 4 MiB a second: two hours for 30 GiB, and about two hundredths of a core meanwhile.
        Self { page_bytes: 1 << 20, page_pause: Duration::from_millis(250), pause: Duration::from_secs(600) }
    }
}

/// What the last whole scan found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Scanned {
    /// When it came to its end, in milliseconds since the Unix epoch.
    pub finished_ms: u64,
    /// How long it took.
    pub took_ms: u64,
    /// Log entry at which it did.
    pub applied_index: u64,
    /// Rows whose hash was taken.
    pub rows: u64,
    /// Log entries that were read.
    pub log_entries: u64,
    /// Whether their sum is the hash that apply keeps.
    pub fits: bool,
}

#[derive(Clone)]
pub(crate) struct Scan {
    pub(crate) applied: Arc<Applied>,
    pub(crate) audit: Arc<Audit>,
    pub(crate) snapshots: Arc<dyn SnapshotHome>,
    pub(crate) log: Arc<dyn LogEngine>,
    pub(crate) pace: ScanPace,
    pub(crate) last: Arc<Mutex<Option<Scanned>>>,
    /// Bytes of rows and entries read since the replica was opened.
    pub(crate) read: Arc<AtomicU64>,
}

impl Scan {
    /// Scans until the replica stops, or the state is found damaged, which stops it.
    pub(crate) async fn run(self) {
        loop {
            TypeConfig::sleep(self.pace.pause).await;
            if let Err(error) = self.scan().await {
                // Damage is kept where it was met; the replica stops because of that.
                tracing::error!(%error, "the state could not be read to its end");
            }
            if self.snapshots.damage().is_some() || self.log.damage().is_some() {
                return;
            }
        }
    }

    async fn scan(&self) -> Result<(), ApplyError> {
        use openraft::Instant as _;

        let began = TypeConfig::now();
        let log_entries = self.log().await?;
        for family in [Family::Changes, Family::Expiry, Family::Meta] {
            let mut from = Vec::new();
            while let Some(next) = self.blocking(move |scan| scan.page(family, &from)).await? {
                from = next;
                TypeConfig::sleep(self.pace.page_pause).await;
            }
        }
        loop {
            let stride = self.blocking(|scan| scan.audit.step(&*scan.applied.state().0, scan.pace.page_bytes)).await?;
            self.read.fetch_add(self.pace.page_bytes as u64, Ordering::Relaxed);
            match stride {
                Stride::More => TypeConfig::sleep(self.pace.page_pause).await,
                // What has just been installed was read as it came in.
                Stride::Replaced => return Ok(()),
                Stride::Done(audited) => {
                    let scanned = Scanned {
                        finished_ms: host::wall_ms(),
                        took_ms: clock::millis(began.elapsed()),
                        applied_index: audited.applied_index,
                        rows: audited.rows,
                        log_entries,
                        fits: audited.fits(),
                    };
                    tracing::debug!(?scanned, "the state was read to its end");
                    *self.last.lock() = Some(scanned);
                    if !audited.fits() {
                        self.snapshots.condemn(&format!(
                            "its rows at log entry {} have the hash {}, and {} was kept",
                            audited.applied_index, audited.found, audited.kept
                        ));
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Reads all entries that are there now, for the checksums of their blocks. Says how many there were.
    async fn log(&self) -> Result<u64, ApplyError> {
        let bounds = self.log.bounds();
        let end = bounds.last.map_or(0, |last| last.index + 1);
        let mut next = bounds.purged.map_or(0, |purged| purged.index + 1);
        let mut entries = 0;
        while next < end {
            let read =
                self.blocking(move |scan| Ok(scan.log.read_limited(next..end, scan.pace.page_bytes as u64))).await?;
            match read {
                Ok(records) => {
                    let bytes: u64 = records.iter().map(quilt_storage::LogRecord::size).sum();
                    self.read.fetch_add(bytes, Ordering::Relaxed);
                    let Some(last) = records.last() else { break };
                    next = last.index + 1;
                    entries += records.len() as u64;
                }
                // Let go of or cut off meanwhile.
                Err(LogError::Missing { first, .. }) if first > next => next = first,
                Err(LogError::Missing { .. }) => break,
                Err(error) => {
                    tracing::error!(%error, "the log could not be read to its end");
                    return Err(ApplyError::Broken("the log could not be read"));
                }
            }
            TypeConfig::sleep(self.pace.page_pause).await;
        }
        Ok(entries)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, ApplyError> + Send + 'static,
    ) -> Result<T, ApplyError> {
        let scan = self.clone();
        let done = TypeConfig::spawn_blocking(move || work(&scan)).await;
        done.unwrap_or(Err(ApplyError::Broken("reading the state panicked")))
    }

    /// Reads a page of rows that no hash is about, for the checksums of their blocks. Gives the place to go on at.
    fn page(&self, family: Family, from: &[u8]) -> Result<Option<Vec<u8>>, ApplyError> {
        let store = self.applied.state().0;
        let (mut bytes, mut next) = (0, None);
        store.read_through(family, from, &[0xff; 64], &mut |key, value| {
            bytes += key.len() + value.len();
            if bytes < self.pace.page_bytes {
                return Step::Next;
            }
            next = Some([key, &[0]].concat());
            Step::Stop
        })?;
        self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(next)
    }
}
