//! [`View`]: the log as its readers see it: both ends, the vote, and the newest entries decoded.
//!
//! What is enqueued is here at once; what has been evicted is certainly in the database. Knows nothing of threads.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::record::Placed;
use super::{Bounds, LogError, LogPosition, LogRecord, Loss};

/// One decoded entry and the write that carries it.
#[derive(Debug)]
struct TailEntry {
    placed: Placed,
    write: u64,
}

/// The readable state of a log.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) bounds: Bounds,
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    pub(super) loss: Option<Loss>,
    /// Index of the first entry held, if any is.
    first: u64,
    /// Offset at which the first entry held begins, and at which the last one ends.
    start_offset: u64,
    end_offset: u64,
    /// Counts truncations, so that a reader notices one between two looks.
    pub(super) truncations: u64,
    tail: VecDeque<TailEntry>,
    tail_bytes: u64,
}

/// What a truncation does.
pub(super) enum Cut {
    Nothing,
    All,
    /// The log ends with this entry, at this offset.
    After(LogPosition, u64),
}

/// Where an entry is to be found.
enum Held<'a> {
    Tail(&'a Placed),
    Database,
}

impl View {
    /// The view of a log just opened: everything is in the database, nothing decoded.
    pub(super) fn opened(purged: Option<(LogPosition, u64)>, first: Option<u64>, last: Option<&Placed>) -> Self {
        let start = purged.map_or(0, |(_, offset)| offset);
        Self {
            bounds: Bounds {
                purged: purged.map(|(position, _)| position),
                last: last.map(|placed| placed.record.position()).or_else(|| purged.map(|(position, _)| position)),
            },
            first: first.unwrap_or_else(|| purged.map_or(0, |(position, _)| position.index + 1)),
            start_offset: start,
            end_offset: last.map_or(start, |placed| placed.end_offset),
            ..Self::default()
        }
    }

    /// First index behind the last entry.
    pub(super) fn end(&self) -> u64 {
        self.bounds.last.map_or(self.first, |last| last.index + 1)
    }

    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn bytes(&self) -> u64 {
        self.end_offset - self.start_offset
    }

    /// Whether all of a range is held.
    pub(super) fn check_range(&self, range: &Range<u64>) -> Result<(), LogError> {
        let (first, end) = (self.first, self.end());
        if range.is_empty() || (range.start >= first && range.end <= end) {
            return Ok(());
        }
        Err(LogError::Missing { from: range.start, to: range.end, first, end })
    }

    /// Index from which on entries are decoded.
    pub(super) fn decoded_from(&self) -> u64 {
        self.tail.front().map_or_else(|| self.end(), |entry| entry.placed.record.index)
    }

    /// The first decoded entries of a range: at least one, and no more than `max_bytes` beyond it.
    pub(super) fn decoded(&self, range: Range<u64>, max_bytes: u64) -> Vec<LogRecord> {
        let mut bytes = 0;
        let mut records = Vec::new();
        for index in range {
            let Held::Tail(placed) = self.locate(index) else { break };
            bytes += placed.record.size();
            if bytes > max_bytes && !records.is_empty() {
                break;
            }
            records.push(placed.record.clone());
        }
        records
    }

    /// What a truncation behind `index` leaves; `stored` finds entries that are not decoded.
    pub(super) fn cut_after(
        &self,
        index: Option<u64>,
        stored: impl FnOnce(u64) -> Result<Placed, LogError>,
    ) -> Result<Cut, LogError> {
        match (index, self.bounds.purged) {
            (None, None) => Ok(Cut::All),
            (None, Some(purged)) => Err(LogError::Purged { index: 0, purged: purged.index }),
            (Some(index), Some(purged)) if index < purged.index => {
                Err(LogError::Purged { index, purged: purged.index })
            }
            (Some(index), Some(purged)) if index == purged.index => Ok(Cut::After(purged, self.start_offset)),
            (Some(index), _) if index.saturating_add(1) >= self.end() => Ok(Cut::Nothing),
            (Some(index), _) => {
                let placed = self.entry(index, stored)?;
                Ok(Cut::After(placed.record.position(), placed.end_offset))
            }
        }
    }

    /// Offset at which the log begins once everything up to `upto` is purged; `None` when it already is.
    pub(super) fn purged_offset(
        &self,
        upto: LogPosition,
        stored: impl FnOnce(u64) -> Result<Placed, LogError>,
    ) -> Result<Option<u64>, LogError> {
        if self.bounds.purged.is_some_and(|purged| upto.index <= purged.index) {
            return Ok(None);
        }
        if upto.index < self.first {
            return Ok(Some(self.start_offset));
        }
        if upto.index.saturating_add(1) >= self.end() {
            return Ok(Some(self.end_offset));
        }
        Ok(Some(self.entry(upto.index, stored)?.end_offset))
    }

    /// See [`super::LogEngine::purgeable`].
    pub(super) fn purgeable(
        &self,
        keep_bytes: u64,
        stored: impl Fn(u64) -> Result<Placed, LogError>,
    ) -> Result<Option<u64>, LogError> {
        let Some(limit) = self.end_offset.checked_sub(keep_bytes) else { return Ok(None) };
        // The entries that end at or before the limit are a prefix of the log.
        let (mut low, mut high) = (self.first, self.end());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(middle, &stored)?.end_offset <= limit {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low.checked_sub(1).filter(|index| *index >= self.first))
    }

    fn entry(&self, index: u64, stored: impl FnOnce(u64) -> Result<Placed, LogError>) -> Result<Placed, LogError> {
        self.check_range(&(index..index + 1))?;
        match self.locate(index) {
            Held::Tail(placed) => Ok(placed.clone()),
            Held::Database => stored(index),
        }
    }

    /// Where a held entry is.
    fn locate(&self, index: u64) -> Held<'_> {
        let placed = self.tail.front().and_then(|front| {
            let at = usize::try_from(index.checked_sub(front.placed.record.index)?).ok()?;
            self.tail.get(at)
        });
        placed.map_or(Held::Database, |entry| Held::Tail(&entry.placed))
    }

    /// Adds entries behind the last one. Nothing is added when any of them does not follow.
    pub(super) fn append(&mut self, records: Vec<LogRecord>, write: u64) -> Result<Vec<Placed>, LogError> {
        let Some(start) = records.first().map(|record| record.index) else { return Ok(Vec::new()) };
        // Only a log that never held anything may begin anywhere.
        let next = if self.bounds == Bounds::default() { start } else { self.end() };
        if let Some((expected, record)) = (next..).zip(&records).find(|(expected, record)| record.index != *expected) {
            return Err(LogError::Hole { expected, found: record.index });
        }
        if self.bounds == Bounds::default() {
            self.first = start;
        }
        let mut written = Vec::with_capacity(records.len());
        for record in records {
            self.end_offset += record.size();
            self.tail_bytes += record.size();
            self.bounds.last = Some(record.position());
            let placed = Placed { record, end_offset: self.end_offset };
            written.push(placed.clone());
            self.tail.push_back(TailEntry { placed, write });
        }
        Ok(written)
    }

    /// Cuts the log.
    pub(super) fn truncate(&mut self, cut: &Cut) {
        let (last, end_offset) = match cut {
            Cut::Nothing => return,
            Cut::All => (None, self.start_offset),
            Cut::After(last, end_offset) => (Some(*last), *end_offset),
        };
        let end = last.map_or(self.first, |last| last.index + 1);
        while self.tail.back().is_some_and(|entry| entry.placed.record.index >= end) {
            if let Some(entry) = self.tail.pop_back() {
                self.tail_bytes -= entry.placed.record.size();
            }
        }
        self.bounds.last = last;
        self.end_offset = end_offset;
        self.truncations += 1;
    }

    /// Removes entries up to `upto`, which ends at `offset` if it is held.
    pub(super) fn purge(&mut self, upto: LogPosition, offset: u64) {
        while self.tail.front().is_some_and(|entry| entry.placed.record.index <= upto.index) {
            self.pop_front();
        }
        if self.end() <= upto.index + 1 {
            self.bounds.last = Some(upto);
        }
        self.bounds.purged = Some(upto);
        self.first = upto.index + 1;
        self.start_offset = offset;
    }

    /// Offset at which the log begins once all up to `at` counts as purged, which may be what does so already.
    pub(super) fn good_offset(
        &self,
        at: LogPosition,
        stored: impl FnOnce(u64) -> Result<Placed, LogError>,
    ) -> Result<u64, LogError> {
        match self.bounds.purged {
            Some(purged) if at.index < purged.index => Err(LogError::Purged { index: at.index, purged: purged.index }),
            Some(purged) if at.index == purged.index => Ok(self.start_offset),
            _ => Ok(self.purged_offset(at, stored)?.unwrap_or(self.start_offset)),
        }
    }

    /// What was lost is made good up to `at`, which ends at `offset`.
    pub(super) fn make_good(&mut self, at: LogPosition, offset: u64) {
        self.purge(at, offset);
        // Nothing held: what it ends with is what was made good.
        if self.bounds.last.is_none() {
            self.bounds.last = Some(at);
        }
        self.end_offset = self.end_offset.max(offset);
        self.loss = None;
    }

    /// Drops decoded entries beyond `max_bytes` that writes up to `written` have put into the database.
    pub(super) fn evict(&mut self, written: u64, max_bytes: u64) {
        while self.tail_bytes > max_bytes && self.tail.front().is_some_and(|entry| entry.write <= written) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.tail.pop_front() {
            self.tail_bytes -= entry.placed.record.size();
        }
    }
}
