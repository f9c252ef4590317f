//! When a disk is slow, and to whom a leader with such a disk gives leadership. Values in, a decision out.
//!
//! Slow is relative: a disk must take longer than a heartbeat for each sync, half second after half second, *and* several
//! times longer than another voter's. Where all disks are slow, moving helps nobody.

use std::collections::VecDeque;
use std::time::Duration;

/// Half seconds in a row that have to be bad, or good, before anything follows.
const SLOTS: usize = 5;
/// Half seconds without a sync after which what was seen before says nothing any more.
const QUIET_MAX: u32 = 20;
/// How much faster another disk must be.
const TIMES_FASTER: u32 = 3;
/// Who is to lead may lack so many entries: as many as it stores in far less than an election takes.
const LAG_ENTRIES_MAX: u64 = 1_024;

/// The last half seconds in which something was synced.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    slots: VecDeque<Duration>,
    quiet: u32,
}

impl Recent {
    /// Takes in another half second.
    pub(super) fn push(&mut self, sync: Option<Duration>) {
        match sync {
            Some(sync) => {
                self.quiet = 0;
                self.slots.push_back(sync);
                if self.slots.len() > SLOTS {
                    self.slots.pop_front();
                }
            }
            None => {
                self.quiet = self.quiet.saturating_add(1);
                if self.quiet >= QUIET_MAX {
                    self.slots.clear();
                }
            }
        }
    }

    fn whole(&self) -> Option<impl Iterator<Item = Duration>> {
        (self.slots.len() >= SLOTS).then(|| self.slots.iter().copied())
    }

    /// No half second was faster.
    pub(super) fn at_least(&self) -> Option<Duration> {
        self.whole()?.min()
    }

    /// No half second was slower.
    fn at_most(&self) -> Option<Duration> {
        self.whole()?.max()
    }

    /// As it was in most of them.
    pub(super) fn typical(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.slots.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied()
    }
}

/// Another voter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Voter {
    pub(super) id: u64,
    /// What a sync of its log takes, as it said itself a moment ago.
    pub(super) sync: Option<Duration>,
    /// Whether it holds its own disk to be slow.
    pub(super) is_slow: bool,
    /// Whether it answers the leader.
    pub(super) answers: bool,
    /// Entries of the leader's log that it has not stored.
    pub(super) lag_entries: u64,
}

/// Whether `sync` is several times what the best of the others says of itself.
fn others_are_faster(sync: Duration, voters: &[Voter]) -> bool {
    voters.iter().filter_map(|voter| voter.sync).any(|other| other * TIMES_FASTER <= sync)
}

/// Whether a disk is held to be slow. It becomes that by comparison, and stops being that by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slowness {
    /// A sync that takes longer is slow.
    limit: Duration,
    is_slow: bool,
}

impl Slowness {
    pub(super) const fn new(limit: Duration) -> Self {
        Self { limit, is_slow: false }
    }

    pub(super) const fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// Judges anew.
    pub(super) fn judge(&mut self, own: &Recent, voters: &[Voter]) {
        if self.is_slow {
            // Half of the limit: a disk at the limit must not be one thing now and another a moment later.
            self.is_slow = own.at_most().is_none_or(|sync| sync >= self.limit / 2);
        } else {
            let slow = own.at_least().filter(|sync| *sync >= self.limit);
            self.is_slow = slow.is_some_and(|sync| others_are_faster(sync, voters));
        }
    }

    /// Whom a leader gives leadership to because of its disk, if to anybody: of those whose disks are much faster than its
    /// own, and not much slower than the fastest of them, the one that holds most of the log.
    pub(super) fn successor(&self, own: &Recent, voters: &[Voter]) -> Option<u64> {
        // It was slow before perhaps; now counts.
        let sync = own.at_least().filter(|sync| self.is_slow && *sync >= self.limit)?;
        let able = |voter: &&Voter| voter.answers && !voter.is_slow && voter.lag_entries <= LAG_ENTRIES_MAX;
        let faster: Vec<(Duration, &Voter)> = voters
            .iter()
            .filter(able)
            .filter_map(|voter| Some((voter.sync?, voter)))
            .filter(|(other, _)| *other * TIMES_FASTER <= sync)
            .collect();
        let best = faster.iter().map(|(other, _)| *other).min()?;
        let well = (best * TIMES_FASTER).max(self.limit / 4);
        let wells = faster.into_iter().filter(|(other, _)| *other <= well);
        wells.min_by_key(|(other, voter)| (voter.lag_entries, *other, voter.id)).map(|(_, voter)| voter.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = ms(40);

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn recent(slots: &[u64]) -> Recent {
        let mut recent = Recent::default();
        slots.iter().for_each(|slot| recent.push(Some(ms(*slot))));
        recent
    }

    fn voter(id: u64, sync_ms: u64) -> Voter {
        Voter { id, sync: Some(ms(sync_ms)), is_slow: false, answers: true, lag_entries: 0 }
    }

    fn successor(own: &[u64], voters: &[Voter]) -> Option<u64> {
        let own = recent(own);
        let mut slowness = Slowness::new(LIMIT);
        slowness.judge(&own, voters);
        slowness.successor(&own, voters)
    }

    /// Slow for two and a half seconds without a break, and several times slower than another: then leadership goes, to
    /// one that can take it.
    #[test]
    fn only_a_lasting_and_clear_difference_counts() {
        let voters = [voter(2, 1), voter(3, 2)];
        assert_eq!(successor(&[50, 60, 50, 55, 50], &voters), Some(2));
        assert_eq!(successor(&[5_000, 50, 500, 1_000, 50], &voters), Some(2));
        assert_eq!(successor(&[50, 60, 50, 55], &voters), None, "not long enough");
        assert_eq!(successor(&[900, 900, 1, 900, 900], &voters), None, "a break");
        assert_eq!(successor(&[39, 39, 39, 39, 39], &voters), None, "not slow enough");
        assert_eq!(successor(&[50; 5], &[voter(2, 50), voter(3, 17)]), None, "all are slow");
        assert_eq!(successor(&[50; 5], &[]), None, "alone");
    }

    /// Whoever does not answer, is behind, is slow itself or has said nothing is passed over; of the others the one that
    /// holds most.
    #[test]
    fn the_successor_is_well_and_holds_most() {
        let slow = [2_000; 5];
        let behind = |id, lag_entries| Voter { lag_entries, ..voter(id, 1) };
        assert_eq!(successor(&slow, &[behind(2, 7), behind(3, 4), behind(4, 1_025)]), Some(3));
        assert_eq!(successor(&slow, &[behind(2, 7), Voter { answers: false, ..voter(3, 1) }]), Some(2));
        assert_eq!(successor(&slow, &[behind(2, 7), Voter { is_slow: true, ..voter(3, 1) }]), Some(2));
        assert_eq!(successor(&slow, &[behind(2, 7), Voter { sync: None, ..voter(3, 1) }]), Some(2));
        assert_eq!(successor(&slow, &[behind(2, 7), voter(3, 300)]), Some(2), "it is next to be slow");
        assert_eq!(successor(&slow, &[behind(2, 7), voter(3, 9)]), Some(3), "well enough, and it holds more");
        assert_eq!(successor(&slow, &[behind(2, 1_025), Voter { answers: false, ..voter(3, 1) }]), None);
    }

    /// What was seen before a long silence is forgotten, and short silences are not taken for anything.
    #[test]
    fn silence_says_nothing() {
        let mut own = recent(&[50; 4]);
        (1..QUIET_MAX).for_each(|_| own.push(None));
        own.push(Some(ms(50)));
        assert_eq!(own.at_least(), Some(ms(50)));
        (0..QUIET_MAX).for_each(|_| own.push(None));
        assert_eq!((own.at_least(), own.typical()), (None, None));
    }

    /// A disk that was slow counts as such until it has been well for a while, whatever the others do, and gets no second
    /// chance from a single good moment.
    #[test]
    fn a_slow_disk_recovers_in_its_own_time() {
        let voters = [voter(2, 1)];
        let mut slowness = Slowness::new(LIMIT);
        let mut own = recent(&[50; 5]);
        slowness.judge(&own, &voters);
        assert!(slowness.is_slow());
        for sync in [1, 1, 25, 1, 1, 1, 1] {
            own.push(Some(ms(sync)));
            slowness.judge(&own, &[]);
            assert!(slowness.is_slow(), "{own:?}");
            assert_eq!(slowness.successor(&own, &voters), None, "it is not slow now");
        }
        own.push(Some(ms(1)));
        slowness.judge(&own, &[]);
        assert!(!slowness.is_slow());
        own.push(Some(ms(50)));
        slowness.judge(&own, &voters);
        assert!(!slowness.is_slow());
    }

    /// Over days of disks that change at random: nobody is given leadership whose disk is not several times faster at
    /// that moment, nobody gives it away whose own is not slow, and it does happen.
    #[test]
    fn leadership_never_goes_to_a_worse_disk() {
        let mut bits = 1_u64;
        let mut draw = |below: u64| {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (bits >> 33) % below
        };
        let mut disks = [
            (Recent::default(), Slowness::new(LIMIT)),
            (Recent::default(), Slowness::new(LIMIT)),
            (Recent::default(), Slowness::new(LIMIT)),
        ];
        let (mut habits, mut leader, mut moved) = ([1_u64; 3], 0_usize, 0);
        for _ in 0..500_000 {
            if draw(40) == 0 {
                habits[draw(3) as usize] = [0, 1, 1, 5, 30, 60, 400, 5_000][draw(8) as usize];
            }
            for ((own, _), habit) in disks.iter_mut().zip(habits) {
                own.push((habit > 0).then(|| ms(habit + draw(habit + 1))));
            }
            let voters: Vec<Voter> = (0..3)
                .map(|at| Voter {
                    id: at as u64,
                    sync: disks[at].0.typical(),
                    is_slow: disks[at].1.is_slow(),
                    answers: true,
                    lag_entries: draw(3),
                })
                .collect();
            let others = |at: usize| voters.iter().copied().filter(|voter| voter.id != at as u64).collect::<Vec<_>>();
            for (at, (own, slowness)) in disks.iter_mut().enumerate() {
                slowness.judge(own, &others(at));
            }
            let (own, slowness) = &disks[leader];
            if let Some(next) = slowness.successor(own, &others(leader)) {
                let next = usize::try_from(next).expect("small");
                assert_ne!(next, leader);
                let theirs = disks[next].0.typical().expect("known");
                assert!(own.at_least().is_some_and(|own| own >= LIMIT && own >= theirs * 3));
                (leader, moved) = (next, moved + 1);
            }
        }
        assert!(moved > 1_000, "{moved}");
    }
}
