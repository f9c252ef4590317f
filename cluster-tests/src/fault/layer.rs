//! [`Layer`]: the harness's side of the shim between a replica and its disk and clock (`cluster-tests/shim`). Writes what it is to do,
//! reads what it has done, and makes a power cut out of what it noted: bytes that no sync made durable are gone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};

use crate::random::Random;

#[path = "../../shim/src/layout.rs"]
mod layout;

pub(crate) use layout::Word;
use layout::{LENGTH, LOST, MAGIC, PROBES, SLOTS, SLOTS_AT, UNLIMITED, first_slot};

/// Names the control file to the shim.
const FILE: &str = "QUILT_FAULT_SHIM";
/// Names the data directory to it.
const ROOT: &str = "QUILT_FAULT_ROOT";

/// Bytes a disk writes as one.
const SECTOR: u64 = 512;

/// What a power cut leaves behind the last sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Nothing.
    Dropped,
    /// By chance a beginning of it, and by chance with a sector of zeroes in it.
    Torn,
}

/// What a power cut took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Files that lost something.
    pub files: u64,
    /// Bytes that were gone.
    pub bytes: u64,
    /// Sectors that were left zero.
    pub sectors: u64,
}

/// How a clock goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// The wall clock jumps by so many seconds.
    Jump(i64),
    /// Both clocks run so many percent fast, or slow.
    Drift(i64),
    /// The wall clock stands still.
    Frozen,
}

/// The layer under one replica. It outlives the replica's processes: what was not durable before a kill is not so after it.
#[derive(Debug)]
pub struct Layer {
    shim: PathBuf,
    file: File,
    path: PathBuf,
    root: PathBuf,
}

impl Layer {
    /// A layer for the replica of data directory `root`, controlled through a new file at `path`. All that is in the directory counts as
    /// durable.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn new(shim: &Path, path: &Path, root: &Path) -> Result<Self> {
        let root = root.canonicalize().with_context(|| format!("{} is not there", root.display()))?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        file.set_len(LENGTH as u64)?;
        let layer = Self { shim: shim.to_owned(), file, path: path.to_owned(), root };
        layer.set(Word::SpaceLeft, UNLIMITED)?;
        for entry in files(&layer.root)? {
            layer.note_durable(entry.1.ino(), entry.1.len())?;
        }
        // Last: without it the shim takes the file for somebody else's.
        layer.file.write_all_at(&MAGIC.to_ne_bytes(), 0)?;
        Ok(layer)
    }

    /// Environment of the replica's process.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, &Path); 3] {
        [("LD_PRELOAD", &self.shim), (FILE, &self.path), (ROOT, &self.root)]
    }

    /// Shows that process `pid` runs with the shim.
    ///
    /// # Errors
    /// When it does not: a binary that is linked statically ignores it.
    pub fn check_loaded(&self, pid: u32) -> Result<()> {
        let loaded = self.get(Word::Pid)?;
        ensure!(
            loaded == u64::from(pid),
            "process {pid} does not run with the layer under it: is the binary linked statically?"
        );
        Ok(())
    }

    pub(crate) fn get(&self, word: Word) -> Result<u64> {
        self.read(word as usize * 8).context("the layer's file cannot be read")
    }

    pub(crate) fn set(&self, word: Word, value: u64) -> Result<()> {
        self.file.write_all_at(&value.to_ne_bytes(), word as u64 * 8).context("the layer's file cannot be written")
    }

    fn read(&self, at: usize) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, at as u64)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// Ends everything that is set.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn heal(&self) -> Result<()> {
        self.set(Word::SyncDelayUs, 0)?;
        self.set(Word::SyncErrorIn, 0)?;
        self.set(Word::SyncsLie, 0)?;
        self.set(Word::SpaceLeft, UNLIMITED)?;
        self.set_clock(None)
    }

    /// Holds up every sync.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn slow_syncs(&self, by: Duration) -> Result<()> {
        self.set(Word::SyncDelayUs, u64::try_from(by.as_micros())?)
    }

    /// Fails the n-th sync from now.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn fail_sync(&self, nth: u64) -> Result<()> {
        self.set(Word::SyncErrorIn, nth)
    }

    /// Makes every sync say that it is done without being so, as cheap disks do.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn lie_about_syncs(&self) -> Result<()> {
        self.set(Word::SyncsLie, 1)
    }

    /// Leaves space for so many bytes.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn leave_space(&self, bytes: u64) -> Result<()> {
        self.set(Word::SpaceLeft, bytes)
    }

    /// Makes the clocks lie, or tell the truth again. A monotonic clock never goes back: what it has gained it keeps.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_clock(&self, clock: Option<Clock>) -> Result<()> {
        let now = clock_gettime(ClockId::Monotonic);
        let now = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
        let elapsed = now - i128::from(self.get(Word::DriftSinceNs)?);
        let drifted = i128::from(self.get(Word::MonotonicDriftPpm)?.cast_signed()) * elapsed / 1_000_000;
        let monotonic = i128::from(self.get(Word::MonotonicOffsetNs)?.cast_signed()) + drifted;
        let (wall_offset, wall_drift, monotonic_drift) = match clock {
            None => (0, 0, 0),
            Some(Clock::Jump(seconds)) => (seconds * 1_000_000_000, 0, 0),
            Some(Clock::Drift(percent)) => (0, percent * 10_000, percent * 10_000),
            Some(Clock::Frozen) => (0, -1_000_000, 0),
        };
        // A slow clock that ends being slow must not jump forward, a fast one not back: what it gained or lost stays.
        let monotonic = i64::try_from(monotonic)?;
        let turn = self.get(Word::ClockTurn)?;
        self.set(Word::ClockTurn, turn | 1)?;
        let signed = |word: Word, value: i64| self.set(word, value.cast_unsigned());
        signed(Word::WallOffsetNs, wall_offset)?;
        signed(Word::WallDriftPpm, wall_drift)?;
        signed(Word::MonotonicOffsetNs, monotonic)?;
        signed(Word::MonotonicDriftPpm, monotonic_drift)?;
        signed(Word::DriftSinceNs, i64::try_from(now)?)?;
        self.set(Word::ClockTurn, (turn | 1) + 1)
    }

    /// Syncs of its files that were let through since the layer was made.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn syncs(&self) -> Result<u64> {
        self.get(Word::Syncs)
    }

    /// Does to the data directory of a dead replica what a power cut would have done.
    ///
    /// # Errors
    /// When a file cannot be changed, or the shim lost track of what is durable.
    pub fn power_cut(&self, tail: Tail, random: &mut Random) -> Result<Dropped> {
        ensure!(self.get(Word::SlotsMissing)? == 0, "the layer has no place for so many files");
        let mut dropped = Dropped::default();
        for (path, about) in files(&self.root)? {
            let durable = self.durable(about.ino())?;
            if durable >= about.len() {
                continue;
            }
            let file = OpenOptions::new().write(true).open(&path)?;
            let kept = match tail {
                Tail::Dropped => durable,
                Tail::Torn => random.within(durable..about.len() + 1),
            };
            if tail == Tail::Torn && kept > durable + SECTOR && random.percent(50) {
                let sector = random.within(durable.div_ceil(SECTOR)..kept / SECTOR);
                if sector * SECTOR >= durable && (sector + 1) * SECTOR <= kept {
                    file.write_all_at(&[0; SECTOR as usize], sector * SECTOR)?;
                    dropped.sectors += 1;
                }
            }
            file.set_len(kept).with_context(|| format!("{} cannot be cut", path.display()))?;
            dropped.files += 1;
            dropped.bytes += about.len() - kept;
        }
        // What is there now has survived.
        for (_, about) in files(&self.root)? {
            self.note_durable(about.ino(), about.len())?;
        }
        Ok(dropped)
    }

    /// All that is in the directory is durable from now on: somebody else has put it there.
    ///
    /// # Errors
    /// When there are more files than there is place for.
    pub fn all_durable(&self) -> Result<()> {
        for (_, about) in files(&self.root)? {
            self.note_durable(about.ino(), about.len())?;
        }
        Ok(())
    }

    fn durable(&self, inode: u64) -> Result<u64> {
        Ok(match self.slot(inode)? {
            Some((at, true)) => self.read(at + 8)? & !LOST,
            _ => 0,
        })
    }

    fn note_durable(&self, inode: u64, length: u64) -> Result<()> {
        let (at, _) = self.slot(inode)?.context("the layer has no place for so many files")?;
        self.file.write_all_at(&length.to_ne_bytes(), at as u64 + 8)?;
        Ok(self.file.write_all_at(&inode.to_ne_bytes(), at as u64)?)
    }

    /// Where the inode's slot is, and whether it is taken already.
    fn slot(&self, inode: u64) -> Result<Option<(usize, bool)>> {
        for probe in 0..PROBES {
            let at = SLOTS_AT + (first_slot(inode) + probe) % SLOTS * 16;
            match self.read(at)? {
                found if found == inode => return Ok(Some((at, true))),
                0 => return Ok(Some((at, false))),
                _other => {}
            }
        }
        Ok(None)
    }
}

/// All regular files below a directory.
fn files(root: &Path) -> Result<Vec<(PathBuf, fs::Metadata)>> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).with_context(|| format!("{} cannot be read", directory.display()))? {
            let path = entry?.path();
            let about = fs::symlink_metadata(&path)?;
            if about.is_dir() {
                directories.push(path);
            } else if about.is_file() {
                found.push((path, about));
            }
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(found)
}
