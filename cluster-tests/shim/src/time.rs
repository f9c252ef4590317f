//! Clocks: the truth, plus what the harness says. The harness changes several words at once; readers take them only when they are whole.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};

use libc::{c_int, time_t, timespec, timeval};

use crate::control::{count, word};
use crate::layout::Word;
use crate::real;

const SECOND: i128 = 1_000_000_000;
const MILLION: i128 = 1_000_000;

/// What one clock shows beyond the truth.
#[derive(Clone, Copy)]
struct Lie {
    offset_ns: i128,
    drift_ppm: i128,
    since_ns: i128,
}

/// Nothing when the clock is to show the truth.
fn lie(offset: Word, drift: Word) -> Option<Lie> {
    let load = |at: Word| word(at).map(|word| word.load(Ordering::SeqCst));
    // A harness that died while it wrote does not hang a replica.
    for _ in 0..1_000 {
        let before = load(Word::ClockTurn)?;
        let signed = |word: Option<u64>| Some(i128::from(word?.cast_signed()));
        let lie = Lie {
            offset_ns: signed(load(offset))?,
            drift_ppm: signed(load(drift))?,
            since_ns: signed(load(Word::DriftSinceNs))?,
        };
        if before % 2 == 0 && load(Word::ClockTurn) == Some(before) {
            return (lie.offset_ns != 0 || lie.drift_ppm != 0).then_some(lie);
        }
        std::hint::spin_loop();
    }
    None
}

fn true_ns(clock: libc::clockid_t) -> Option<i128> {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a place for what is written.
    let done = unsafe { real::clock_gettime(clock, &raw mut time) };
    (done == 0).then(|| i128::from(time.tv_sec) * SECOND + i128::from(time.tv_nsec))
}

impl Lie {
    fn of(self, truth_ns: i128) -> Option<i128> {
        let elapsed = true_ns(libc::CLOCK_MONOTONIC)? - self.since_ns;
        Some(truth_ns + self.offset_ns + elapsed.max(0) * self.drift_ppm / MILLION)
    }
}

/// The highest monotonic time shown: whatever the words say, it never goes back.
static HIGHEST: AtomicU64 = AtomicU64::new(0);

fn shown(clock: libc::clockid_t) -> Option<i128> {
    let lie = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => lie(Word::WallOffsetNs, Word::WallDriftPpm)?,
        libc::CLOCK_MONOTONIC | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_BOOTTIME => {
            lie(Word::MonotonicOffsetNs, Word::MonotonicDriftPpm)?
        }
        _other => return None,
    };
    let shown = lie.of(true_ns(clock)?)?.max(0);
    count(Word::ClockLies);
    if clock != libc::CLOCK_MONOTONIC {
        return Some(shown);
    }
    let shown = u64::try_from(shown).ok()?;
    Some(i128::from(HIGHEST.fetch_max(shown, Ordering::SeqCst).max(shown)))
}

/// # Safety
/// As the C library's own.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, to: *mut timespec) -> c_int {
    if let Some(shown) = shown(clock)
        && let (Ok(seconds), Ok(rest)) = (time_t::try_from(shown / SECOND), i64::try_from(shown % SECOND))
    {
        // SAFETY: the caller gives a place for it.
        unsafe { to.write(timespec { tv_sec: seconds, tv_nsec: rest }) };
        return 0;
    }
    // SAFETY: the caller's arguments are handed on.
    unsafe { real::clock_gettime(clock, to) }
}

/// # Safety
/// As the C library's own.
#[unsafe(no_mangle)]
unsafe extern "C" fn gettimeofday(to: *mut timeval, zone: *mut c_void) -> c_int {
    if let Some(shown) = shown(libc::CLOCK_REALTIME)
        && !to.is_null()
        && let (Ok(seconds), Ok(rest)) = (time_t::try_from(shown / SECOND), i64::try_from(shown % SECOND / 1_000))
    {
        // SAFETY: the caller gives a place for it.
        unsafe { to.write(timeval { tv_sec: seconds, tv_usec: rest }) };
        return 0;
    }
    // SAFETY: the caller's arguments are handed on.
    unsafe { real::gettimeofday(to, zone) }
}

/// # Safety
/// As the C library's own.
#[unsafe(no_mangle)]
unsafe extern "C" fn time(to: *mut time_t) -> time_t {
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a place for what is written.
    if unsafe { clock_gettime(libc::CLOCK_REALTIME, &raw mut now) } != 0 {
        return -1;
    }
    if !to.is_null() {
        // SAFETY: the caller gives a place for it.
        unsafe { to.write(now.tv_sec) };
    }
    now.tv_sec
}
