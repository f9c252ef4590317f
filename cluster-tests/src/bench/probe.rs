//! How long the disk takes to make a small write durable, right now.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

const WRITES: usize = 40;

/// Median time of a synced write of one page in `directory`.
///
/// # Errors
/// When the directory cannot be written to.
pub fn sync_time(directory: &Path) -> Result<Duration> {
    let path = directory.join("sync-probe");
    let file = File::create(&path).with_context(|| format!("{} cannot be made", path.display()))?;
    let page = [0x5a; 4096];
    let mut times = Vec::with_capacity(WRITES);
    for n in 0..WRITES {
        let began = Instant::now();
        // Appending, as a log does.
        file.write_all_at(&page, n as u64 * 4096)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    drop(file);
    std::fs::remove_file(&path)?;
    times.sort();
    Ok(times[WRITES / 2])
}
