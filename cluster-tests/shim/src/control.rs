//! The control file, mapped: words that the harness sets and reads, and the table of what is durable.

use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use libc::c_char;

use crate::layout::{LENGTH, LOST, MAGIC, PROBES, SLOTS, SLOTS_AT, Word, first_slot};

/// Names the control file.
const FILE: &CStr = c"QUILT_FAULT_SHIM";
/// Names the data directory: what is outside is left alone.
const ROOT: &CStr = c"QUILT_FAULT_ROOT";

static MAPPED: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());
static ROOT_TEXT: AtomicPtr<c_char> = AtomicPtr::new(std::ptr::null_mut());
static DEVICE: AtomicU64 = AtomicU64::new(0);

/// Run by the dynamic linker before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

extern "C" fn begin() {
    // SAFETY: called once, before any thread exists; the environment is not changed meanwhile, and its strings live as long as the process.
    unsafe {
        let (file, root) = (libc::getenv(FILE.as_ptr()), libc::getenv(ROOT.as_ptr()));
        if file.is_null() || root.is_null() {
            return;
        }
        let mut about: libc::stat = std::mem::zeroed();
        if libc::stat(root, &raw mut about) != 0 {
            return;
        }
        let opened = crate::real::open(file, libc::O_RDWR | libc::O_CLOEXEC, 0);
        if opened < 0 {
            return;
        }
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        let mapped = libc::mmap(std::ptr::null_mut(), LENGTH, access, kind, opened, 0);
        libc::close(opened);
        if mapped == libc::MAP_FAILED {
            return;
        }
        let words = mapped.cast::<AtomicU64>();
        if (*words).load(Ordering::SeqCst) != MAGIC {
            return;
        }
        DEVICE.store(about.st_dev, Ordering::SeqCst);
        ROOT_TEXT.store(root, Ordering::SeqCst);
        MAPPED.store(words, Ordering::SeqCst);
        if let Some(pid) = word(Word::Pid) {
            pid.store(u64::from(std::process::id()), Ordering::SeqCst);
        }
    }
}

fn at(index: usize) -> Option<&'static AtomicU64> {
    let words = MAPPED.load(Ordering::Acquire);
    // SAFETY: the mapping has LENGTH bytes, is never unmapped, and is shared memory that is only touched by atomics here.
    (!words.is_null() && index < LENGTH / 8).then(|| unsafe { &*words.add(index) })
}

/// A word of the head; none when there is no control file.
pub(crate) fn word(word: Word) -> Option<&'static AtomicU64> {
    at(word as usize)
}

/// Counts.
pub(crate) fn count(what: Word) {
    if let Some(word) = word(what) {
        word.fetch_add(1, Ordering::SeqCst);
    }
}

/// What is known of one file.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    durable: &'static AtomicU64,
}

impl Slot {
    /// The slot of an inode, if it has one.
    pub(crate) fn of(inode: u64) -> Option<Self> {
        for probe in 0..PROBES {
            let index = SLOTS_AT / 8 + (first_slot(inode) + probe) % SLOTS * 2;
            match at(index)?.load(Ordering::SeqCst) {
                found if found == inode => return Some(Self { durable: at(index + 1)? }),
                0 => return None,
                _other => {}
            }
        }
        None
    }

    /// The slot of a file that is new: none of it is durable.
    pub(crate) fn fresh(inode: u64) {
        for probe in 0..PROBES {
            let index = SLOTS_AT / 8 + (first_slot(inode) + probe) % SLOTS * 2;
            let (Some(holder), Some(durable)) = (at(index), at(index + 1)) else { return };
            let held = holder.compare_exchange(0, inode, Ordering::SeqCst, Ordering::SeqCst);
            if held.is_ok() || held == Err(inode) {
                durable.store(0, Ordering::SeqCst);
                return;
            }
        }
        count(Word::SlotsMissing);
    }

    /// Its first bytes have become durable, unless an earlier sync has lost them.
    pub(crate) fn synced(self, bytes: u64) {
        if self.is_lost() {
            count(Word::SyncsRetried);
        } else {
            self.durable.fetch_max(bytes, Ordering::SeqCst);
        }
    }

    /// A sync has failed: as with a real disk, later ones succeed and bring nothing back.
    pub(crate) fn lose(self) {
        self.durable.fetch_or(LOST, Ordering::SeqCst);
    }

    /// It has been cut.
    pub(crate) fn cut(self, bytes: u64) {
        let known = self.durable.load(Ordering::SeqCst);
        self.durable.store((known & !LOST).min(bytes) | (known & LOST), Ordering::SeqCst);
    }

    fn is_lost(self) -> bool {
        self.durable.load(Ordering::SeqCst) & LOST != 0
    }
}

/// A regular file on the data directory's device: its slot and its length.
pub(crate) fn file(descriptor: libc::c_int) -> Option<(Slot, u64)> {
    let (inode, length) = look(descriptor)?;
    Some((Slot::of(inode)?, length))
}

fn look(descriptor: libc::c_int) -> Option<(u64, u64)> {
    if MAPPED.load(Ordering::Acquire).is_null() {
        return None;
    }
    // SAFETY: `about` is a place for what fstat writes; a descriptor that is none is an error it tells.
    let about = unsafe {
        let mut about: libc::stat = std::mem::zeroed();
        if libc::fstat(descriptor, &raw mut about) != 0 {
            return None;
        }
        about
    };
    let regular = about.st_mode & libc::S_IFMT == libc::S_IFREG;
    let here = about.st_dev == DEVICE.load(Ordering::SeqCst);
    (regular && here).then(|| (about.st_ino, u64::try_from(about.st_size).unwrap_or(0)))
}

/// Notes a file that was opened for writing: an empty one below the data directory begins with nothing durable.
pub(crate) fn opened(path: *const c_char, flags: libc::c_int, descriptor: libc::c_int) {
    if descriptor < 0 || flags & libc::O_ACCMODE == libc::O_RDONLY || !is_inside(path) {
        return;
    }
    if let Some((inode, 0)) = look(descriptor) {
        Slot::fresh(inode);
    }
}

fn is_inside(path: *const c_char) -> bool {
    let root = ROOT_TEXT.load(Ordering::SeqCst);
    if root.is_null() || path.is_null() {
        return false;
    }
    // SAFETY: both are C strings: one from the environment, the other what a caller of open gave.
    unsafe { libc::strncmp(path, root, libc::strlen(root)) == 0 }
}
