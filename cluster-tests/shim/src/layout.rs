//! The words that the harness and the shim inside a replica share: one file, mapped by the shim, written in place by the harness.
//! Compiled into both; knows nothing of either.

/// The file's first word: it is ours and of this layout.
pub(crate) const MAGIC: u64 = 0x5155_494c_5446_4c02;

/// One word of the file's head, after the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Word {
    /// Process that loaded the shim last.
    Pid = 1,
    /// Syncs of files of the data directory that were let through.
    Syncs = 2,
    /// Set by the harness: how long each sync is held up, in microseconds.
    SyncDelayUs = 3,
    /// Syncs that were held up.
    SyncsDelayed = 4,
    /// Set by the harness: the n-th sync from now fails; 0 for none.
    SyncErrorIn = 5,
    /// Syncs that were failed.
    SyncErrors = 6,
    /// Syncs of a file after one of its syncs was failed.
    SyncsRetried = 7,
    /// Set by the harness: bytes that may still be written; [`UNLIMITED`] for any number.
    SpaceLeft = 8,
    /// Writes refused for want of space.
    WritesRefused = 9,
    /// Set by the harness: odd while it changes the clock's words.
    ClockTurn = 10,
    /// Set by the harness: added to the wall clock, in nanoseconds, two's complement.
    WallOffsetNs = 11,
    /// Set by the harness: parts per million by which the wall clock runs fast, two's complement; -1,000,000 freezes it.
    WallDriftPpm = 12,
    /// The same two for the monotonic clock.
    MonotonicOffsetNs = 13,
    /// See above; never negative enough to make it go back.
    MonotonicDriftPpm = 14,
    /// Set by the harness: the true monotonic clock when the drift was set, in nanoseconds.
    DriftSinceNs = 15,
    /// Clock readings that were not the truth.
    ClockLies = 16,
    /// Files that found no slot: what the harness knows of what is durable is then incomplete.
    SlotsMissing = 17,
    /// Set by the harness: syncs say that they are done, and are not.
    SyncsLie = 18,
    /// Syncs that said so.
    SyncLies = 19,
}

/// No limit of space.
pub(crate) const UNLIMITED: u64 = u64::MAX;

/// Where the table of files begins.
pub(crate) const SLOTS_AT: usize = 4096;
/// How many files there is place for. Each slot has two words: the inode (0 when the slot is free) and how many of its bytes are durable.
pub(crate) const SLOTS: usize = 1 << 17;
/// How far a slot may be from where its inode's search begins.
pub(crate) const PROBES: usize = 256;
/// Length of the file.
pub(crate) const LENGTH: usize = SLOTS_AT + SLOTS * 16;
/// Mark in a slot's second word: a sync of the file has failed, and what was not durable then never will be.
pub(crate) const LOST: u64 = 1 << 63;

/// Where the search for an inode's slot begins.
pub(crate) const fn first_slot(inode: u64) -> usize {
    // Inodes of one directory follow each other; the multiplication spreads them.
    let mixed = inode.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (mixed as usize) % SLOTS
}
