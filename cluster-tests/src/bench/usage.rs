//! What processes have used so far, as the kernel accounts it.

use std::fs::read_to_string;
use std::ops::Sub;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// A tick of `/proc` is a hundredth of a second, whatever the kernel's own.
const TICK_US: u64 = 10_000;

/// Used by several processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time, user and system.
    pub cpu_us: u64,
    /// Bytes sent towards the disk (pages made dirty).
    pub written_bytes: u64,
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            cpu_us: self.cpu_us.saturating_sub(before.cpu_us),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }
}

/// Of these processes since they began.
///
/// # Errors
/// When one of them is gone.
pub fn of(pids: &[i32]) -> Result<Usage> {
    let mut sum = Usage::default();
    for pid in pids {
        sum.cpu_us += cpu_us(&format!("/proc/{pid}/stat"))?;
        // Only their owner and root may read it; without it the row is left out.
        if let Ok(io) = read_to_string(format!("/proc/{pid}/io")) {
            sum.written_bytes += field(&io, "write_bytes:").context("no write_bytes")?;
        }
    }
    Ok(sum)
}

/// Of this process.
///
/// # Errors
/// When `/proc` is not there.
pub fn own_cpu_us() -> Result<u64> {
    cpu_us("/proc/self/stat")
}

fn cpu_us(path: &str) -> Result<u64> {
    let stat = read_to_string(path).with_context(|| format!("{path} cannot be read"))?;
    let (_, fields) = stat.rsplit_once(") ").context("a stat line without a name")?;
    // User and system time are the 14th and 15th field, the name being the 2nd.
    let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks * TICK_US)
}

/// The most memory one of these processes has ever had, in KiB.
///
/// # Errors
/// When one of them is gone.
pub fn peak_rss_kib(pids: &[i32]) -> Result<u64> {
    let mut most = 0;
    for pid in pids {
        let status = read_to_string(format!("/proc/{pid}/status"))?;
        most = most.max(field(&status, "VmHWM:").context("no VmHWM")?);
    }
    Ok(most)
}

/// The memory each of these processes has now, in KiB.
///
/// # Errors
/// When one of them is gone.
pub fn rss_kib(pids: &[i32]) -> Result<Vec<u64>> {
    let of = |pid: &i32| field(&read_to_string(format!("/proc/{pid}/status"))?, "VmRSS:").context("no VmRSS");
    pids.iter().map(of).collect()
}

/// Time of all processors of this host so far.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// In which they worked.
    pub busy_us: u64,
    /// In which a virtual machine wanted to work and was not let: its host was busy with others.
    pub stolen_us: u64,
}

/// What the processors of this host have done so far.
///
/// # Errors
/// When `/proc` is not there.
pub fn host() -> Result<Host> {
    let stat = read_to_string("/proc/stat")?;
    let all = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("no cpu line")?;
    let ticks: Vec<u64> = all.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // User, nice, system, idle, waiting for the disk, interrupts, soft interrupts, stolen; guests are in user time.
    let of = |places: &[usize]| places.iter().filter_map(|place| ticks.get(*place)).sum::<u64>() * TICK_US;
    Ok(Host { busy_us: of(&[0, 1, 2, 5, 6]), stolen_us: of(&[7]) })
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
