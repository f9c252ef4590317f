//! The functions of the C library that were replaced, found behind this library when they are first called.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

/// One replaced function.
pub(crate) struct Real {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Real {
    pub(crate) const fn new(name: &'static CStr) -> Self {
        Self { name, found: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Its address. A C library without a function that was just called through it does not exist, so it is never null for a caller that
    /// came here by that name.
    pub(crate) fn address(&self) -> *mut c_void {
        let found = self.found.load(Ordering::Acquire);
        if !found.is_null() {
            return found;
        }
        // SAFETY: the name is a C string; RTLD_NEXT searches what was loaded after this library.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.found.store(found, Ordering::Release);
        found
    }
}

/// Declares a function of this module that calls the C library's own of the same name.
macro_rules! real {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {$(
        pub(crate) unsafe fn $name($($argument: $type),*) -> $result {
            static REAL: Real = {
                const NAME: &CStr = match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => panic!("a name has no zero byte"),
                };
                Real::new(NAME)
            };
            type Function = unsafe extern "C" fn($($type),*) -> $result;
            // SAFETY: the C library's function of that name has this signature, as its manual page says.
            unsafe { std::mem::transmute::<*mut c_void, Function>(REAL.address())($($argument),*) }
        }
    )*};
}

use libc::{c_char, c_int, iovec, mode_t, off_t, size_t, ssize_t, timespec, timeval};

real! {
    open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    openat(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    openat64(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    fsync(file: c_int) -> c_int;
    fdatasync(file: c_int) -> c_int;
    write(file: c_int, bytes: *const c_void, count: size_t) -> ssize_t;
    pwrite(file: c_int, bytes: *const c_void, count: size_t, at: off_t) -> ssize_t;
    pwrite64(file: c_int, bytes: *const c_void, count: size_t, at: off_t) -> ssize_t;
    writev(file: c_int, parts: *const iovec, count: c_int) -> ssize_t;
    ftruncate(file: c_int, length: off_t) -> c_int;
    ftruncate64(file: c_int, length: off_t) -> c_int;
    fallocate(file: c_int, mode: c_int, at: off_t, length: off_t) -> c_int;
    fallocate64(file: c_int, mode: c_int, at: off_t, length: off_t) -> c_int;
    clock_gettime(clock: libc::clockid_t, to: *mut timespec) -> c_int;
    gettimeofday(to: *mut timeval, zone: *mut c_void) -> c_int;
}
