//! [`Memory`]: what the harness and each replica have in memory over a run, minute by minute, so that it can be seen not to grow.

use std::collections::BTreeMap;

use serde::Serialize;

/// A minute of milliseconds.
const MINUTE_MS: u64 = 60_000;
/// Parts of a run that are held against each other.
const PARTS: usize = 4;
/// Shorter runs say nothing of growth.
const MINUTES_MIN: usize = 8;

/// The most that was in memory within one minute, in MiB.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Minute {
    /// The harness itself.
    pub harness: u64,
    /// Each replica that ran, by its number.
    pub replicas: BTreeMap<u16, u64>,
}

/// All minutes of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Memory {
    minutes: Vec<Minute>,
}

impl Memory {
    /// Takes in a look at all processes.
    pub(super) fn see(&mut self, at_ms: u64, harness: u64, replicas: &BTreeMap<u16, u64>) {
        let minute = usize::try_from(at_ms / MINUTE_MS).unwrap_or(usize::MAX);
        // Hours are some hundred minutes; a clock that jumps adds none.
        if self.minutes.len() <= minute {
            self.minutes.push(Minute::default());
        }
        let Some(last) = self.minutes.last_mut() else { return };
        last.harness = last.harness.max(harness);
        for (id, mib) in replicas {
            let most = last.replicas.entry(*id).or_default();
            *most = (*most).max(*mib);
        }
    }

    /// The most in each quarter of the run: of the harness, and of the replica that had most; nothing of a short run.
    #[must_use]
    pub fn quarters(&self) -> Option<(Vec<u64>, Vec<u64>)> {
        if self.minutes.len() < MINUTES_MIN {
            return None;
        }
        let of = |value: fn(&Minute) -> u64| {
            let quarters = self.minutes.chunks(self.minutes.len().div_ceil(PARTS));
            quarters.map(|minutes| minutes.iter().map(value).max().unwrap_or(0)).collect()
        };
        let largest = |minute: &Minute| minute.replicas.values().copied().max().unwrap_or(0);
        Some((of(|minute| minute.harness), of(largest)))
    }
}

/// What the system says that a process has in memory, in MiB; nothing when there is none.
pub(super) fn resident_mib(process: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * u64::try_from(rustix::param::page_size()).ok()? / (1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The most of each minute is kept, and of a run that is long enough the most of each quarter.
    #[test]
    fn the_most_of_each_quarter_is_told() {
        let mut memory = Memory::default();
        for minute in 0..10_u64 {
            for mib in [minute, 20 + minute, 3] {
                memory.see(minute * MINUTE_MS + mib, 2 * mib, &BTreeMap::from([(1, mib), (2, 5)]));
            }
        }
        assert_eq!(memory.minutes.len(), 10);
        assert_eq!(memory.minutes[4], Minute { harness: 48, replicas: BTreeMap::from([(1, 24), (2, 5)]) });
        assert_eq!(memory.quarters(), Some((vec![44, 50, 56, 58], vec![22, 25, 28, 29])));
        memory.minutes.truncate(MINUTES_MIN - 1);
        assert_eq!(memory.quarters(), None);
        assert!(resident_mib(std::process::id()).is_some_and(|mib| mib > 0));
    }
}
