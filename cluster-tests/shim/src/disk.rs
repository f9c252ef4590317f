//! Files: opening, writing, syncing. Each function does what the C library's does, unless the harness has said otherwise.

use std::sync::atomic::Ordering;

use libc::{c_char, c_int, c_void, iovec, mode_t, off_t, size_t, ssize_t};

use crate::control::{self, Slot, count, word};
use crate::layout::{UNLIMITED, Word};
use crate::real;

fn fail(error: c_int) -> c_int {
    // SAFETY: errno is this thread's own.
    unsafe { *libc::__errno_location() = error };
    -1
}

/// Replaces a function that opens a file. The C functions take `mode` only with some flags; on the machines this is built for an argument
/// that was not given is a register with any content, handed on to a function that does not look at it either.
macro_rules! opens {
    ($($name:ident;)*) => {$(
        /// # Safety
        /// As the C library's own.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
            // SAFETY: the caller's arguments are handed on.
            let descriptor = unsafe { real::$name(path, flags, mode) };
            control::opened(path, flags, descriptor);
            descriptor
        }
    )*};
}

opens! {
    open;
    open64;
}

macro_rules! opens_at {
    ($($name:ident;)*) => {$(
        /// # Safety
        /// As the C library's own.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
            // SAFETY: the caller's arguments are handed on.
            let descriptor = unsafe { real::$name(directory, path, flags, mode) };
            control::opened(path, flags, descriptor);
            descriptor
        }
    )*};
}

opens_at! {
    openat;
    openat64;
}

fn sync(descriptor: c_int, call: unsafe fn(c_int) -> c_int) -> c_int {
    let Some((slot, length)) = control::file(descriptor) else {
        // SAFETY: the caller's argument is handed on.
        return unsafe { call(descriptor) };
    };
    delay();
    if fails() {
        slot.lose();
        count(Word::SyncErrors);
        return fail(libc::EIO);
    }
    if word(Word::SyncsLie).is_some_and(|lie| lie.load(Ordering::SeqCst) != 0) {
        count(Word::SyncLies);
        return 0;
    }
    // SAFETY: the caller's argument is handed on.
    let done = unsafe { call(descriptor) };
    if done == 0 {
        slot.synced(length);
        count(Word::Syncs);
    }
    done
}

fn delay() {
    let micros = word(Word::SyncDelayUs).map_or(0, |word| word.load(Ordering::SeqCst));
    if micros > 0 {
        count(Word::SyncsDelayed);
        std::thread::sleep(std::time::Duration::from_micros(micros));
    }
}

/// Whether this is the sync that was to fail.
fn fails() -> bool {
    let Some(word) = word(Word::SyncErrorIn) else { return false };
    let counted = |left: u64| left.checked_sub(1);
    word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, counted) == Ok(1)
}

/// # Safety
/// As the C library's own.
#[unsafe(no_mangle)]
unsafe extern "C" fn fsync(file: c_int) -> c_int {
    sync(file, real::fsync)
}

/// # Safety
/// As the C library's own.
#[unsafe(no_mangle)]
unsafe extern "C" fn fdatasync(file: c_int) -> c_int {
    sync(file, real::fdatasync)
}

/// Whether so many bytes of a file of the data directory may be written. What is let through is taken off what is left.
fn has_space(descriptor: c_int, bytes: u64) -> bool {
    let Some(left) = word(Word::SpaceLeft) else { return true };
    if left.load(Ordering::Relaxed) == UNLIMITED || control::file(descriptor).is_none() {
        return true;
    }
    let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
        if left == UNLIMITED { Some(left) } else { left.checked_sub(bytes) }
    });
    if taken.is_err() {
        count(Word::WritesRefused);
    }
    taken.is_ok()
}

/// # Safety
/// As the C library's own.
#[unsafe(no_mangle)]
unsafe extern "C" fn write(file: c_int, bytes: *const c_void, count: size_t) -> ssize_t {
    if !has_space(file, count as u64) {
        return fail(libc::ENOSPC) as ssize_t;
    }
    // SAFETY: the caller's arguments are handed on.
    unsafe { real::write(file, bytes, count) }
}

macro_rules! writes_at {
    ($($name:ident;)*) => {$(
        /// # Safety
        /// As the C library's own.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(file: c_int, bytes: *const c_void, count: size_t, at: off_t) -> ssize_t {
            if !has_space(file, count as u64) {
                return fail(libc::ENOSPC) as ssize_t;
            }
            // SAFETY: the caller's arguments are handed on.
            unsafe { real::$name(file, bytes, count, at) }
        }
    )*};
}

writes_at! {
    pwrite;
    pwrite64;
}

/// # Safety
/// As the C library's own.
#[unsafe(no_mangle)]
unsafe extern "C" fn writev(file: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    // Sockets are written this way, files hardly ever: the lengths are added up only while space is short.
    let short = word(Word::SpaceLeft).is_some_and(|left| left.load(Ordering::Relaxed) != UNLIMITED);
    if short && control::file(file).is_some() {
        let each = 0..usize::try_from(count).unwrap_or(0);
        // SAFETY: the caller gives an array of that many parts.
        let bytes: usize = each.map(|n| unsafe { (*parts.add(n)).iov_len }).sum();
        if !has_space(file, bytes as u64) {
            return fail(libc::ENOSPC) as ssize_t;
        }
    }
    // SAFETY: the caller's arguments are handed on.
    unsafe { real::writev(file, parts, count) }
}

macro_rules! truncates {
    ($($name:ident;)*) => {$(
        /// # Safety
        /// As the C library's own.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(file: c_int, length: off_t) -> c_int {
            // SAFETY: the caller's arguments are handed on.
            let done = unsafe { real::$name(file, length) };
            if done == 0 && let (Some((slot, _)), Ok(length)) = (control::file(file), u64::try_from(length)) {
                Slot::cut(slot, length);
            }
            done
        }
    )*};
}

truncates! {
    ftruncate;
    ftruncate64;
}

macro_rules! allocates {
    ($($name:ident;)*) => {$(
        /// # Safety
        /// As the C library's own.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(file: c_int, mode: c_int, at: off_t, length: off_t) -> c_int {
            // Only asks whether there is any: what is then written is counted when it is.
            if mode & libc::FALLOC_FL_PUNCH_HOLE == 0 && !has_space(file, 0) {
                return fail(libc::ENOSPC);
            }
            // SAFETY: the caller's arguments are handed on.
            unsafe { real::$name(file, mode, at, length) }
        }
    )*};
}

allocates! {
    fallocate;
    fallocate64;
}
