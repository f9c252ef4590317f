//! [`Trace`]: a sum over everything that happened, the same for the same world; and each happening as a line of text, for
//! whoever wants to read it.

use xxhash_rust::xxh3::xxh3_64;

use crate::sight::{Mark, Sight, Wrote};

/// A sum over all that happened, in order.
#[derive(Default)]
pub(crate) struct Trace {
    sum: u64,
    lines: u64,
}

impl Trace {
    /// The sum so far.
    pub(crate) const fn hash(&self) -> u64 {
        self.sum
    }

    /// How much happened.
    pub(crate) const fn lines(&self) -> u64 {
        self.lines
    }

    fn mix(&mut self, numbers: &[u64]) {
        for number in numbers {
            let mixed = (self.sum.rotate_left(23) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.sum = mixed ^ (mixed >> 29);
        }
    }

    fn mark(&mut self, kind: u64, replica: u64, mark: &Mark) {
        let Mark { index, term, revision, cluster_ms, hash } = *mark;
        self.mix(&[kind, replica, index, term, revision, cluster_ms, hash.0, hash.1]);
    }

    /// A fault, a phase.
    pub(crate) fn note(&mut self, now_ns: u64, what: &str) {
        self.lines += 1;
        self.mix(&[now_ns, 1, xxh3_64(what.as_bytes())]);
    }

    /// Something that is judged.
    pub(crate) fn see(&mut self, now_ns: u64, sight: &Sight<'_>) {
        self.lines += 1;
        self.mix(&[now_ns]);
        match sight {
            Sight::Booted { replica, vote, bounds, log, mark } => {
                let (term, candidate, leads) = vote.unwrap_or_default();
                let last = bounds.last.unwrap_or_default();
                self.mix(&[2, *replica, term, candidate, u64::from(leads), last.index, last.term, log.len() as u64]);
                if let Some(mark) = mark {
                    self.mark(2, *replica, mark);
                }
            }
            Sight::Voted { replica, term, candidate, leads } => {
                self.mix(&[3, *replica, *term, *candidate, u64::from(*leads)]);
            }
            Sight::Appended { replica, before, records } => {
                let (index, term) = before.unwrap_or_default();
                self.mix(&[4, *replica, index, term]);
                for record in *records {
                    self.mix(&[record.index, record.term, xxh3_64(&record.payload)]);
                }
            }
            Sight::Truncated { replica, after } => self.mix(&[5, *replica, after.map_or(u64::MAX, |after| after)]),
            Sight::Synced { replica, last } => {
                let (index, term) = last.unwrap_or_default();
                self.mix(&[6, *replica, index, term]);
            }
            Sight::Applied { replica, mark, .. } => self.mark(7, *replica, mark),
            Sight::Installed { replica, mark } => self.mark(8, *replica, mark),
            Sight::Asked { request, writes } => {
                self.mix(&[9, *request]);
                for Wrote { key, value, expected } in *writes {
                    let value = value.as_ref().map_or(0, |value| xxh3_64(value));
                    self.mix(&[xxh3_64(key), value, expected.map_or(u64::MAX, |expected| expected)]);
                }
            }
            Sight::Answered { request, ended } => {
                let (kind, first, last) = ended.numbers();
                self.mix(&[10, *request, kind, first, last]);
            }
            Sight::ReadBegan { read } => self.mix(&[11, *read]),
            Sight::ReadEnded { read, replica, revision, .. } => {
                self.mix(&[12, read.unwrap_or_default(), *replica, *revision]);
            }
            Sight::Delivered { replica, from, events, upto, .. } => {
                self.mix(&[13, *replica, *from, events.len() as u64, *upto]);
            }
            Sight::Idle { replica, from, upto, .. } => self.mix(&[14, *replica, *from, *upto]),
            Sight::Promised { replica, term, candidate } => self.mix(&[16, *replica, *term, *candidate]),
            Sight::Compacting { floor } => self.mix(&[17, *floor]),
            Sight::Purged { replica, upto, covered } => self.mix(&[18, *replica, *upto, covered.unwrap_or_default()]),
            Sight::Refused { replica, from, floor } => self.mix(&[15, *replica, *from, *floor]),
        }
    }
}

/// One happening in words.
pub(crate) fn line(sight: &Sight<'_>) -> String {
    match sight {
        // Of what is long only the ends: what it says is compared with what others say.
        Sight::Appended { replica, before, records } => {
            let last = records.last().map(|record| (record.index, record.term));
            format!("Appended {replica} {before:?} {last:?}")
        }
        Sight::Applied { replica, mark, changes, voters } => {
            let revisions = changes.first().map(|first| first.0).zip(changes.last().map(|last| last.0));
            format!("Applied {replica} {mark:?} {revisions:?} {voters:?}")
        }
        Sight::Delivered { replica, from, events, upto, .. } => {
            format!("Delivered {replica} {from} {upto} {}", events.len())
        }
        Sight::Asked { request, writes } => format!("Asked {request} {}", Writes(writes)),
        Sight::Booted { replica, vote, bounds, mark, .. } => {
            format!("Booted {replica} {vote:?} {bounds:?} {mark:?}")
        }
        Sight::ReadEnded { read, replica, revision, .. } => format!("ReadEnded {read:?} {replica} {revision}"),
        short => format!("{short:?}"),
    }
}

/// The writes of a transaction, in one line.
struct Writes<'a>(&'a [Wrote]);

impl std::fmt::Display for Writes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Wrote { key, value, expected } in self.0 {
            let key = String::from_utf8_lossy(key).replace('\0', "/");
            let value = value.as_ref().map(|value| String::from_utf8_lossy(&value[..value.len().min(16)]).into_owned());
            write!(f, "{key} = {value:?} at {expected:?}; ")?;
        }
        Ok(())
    }
}
