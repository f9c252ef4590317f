//! A layer between a replica and its disk and clock, put there with `LD_PRELOAD`: it replaces functions of the C library by ones that
//! count, delay, fail or lie as the harness says, and keeps book of which bytes of which file a sync has made durable, so that the harness
//! can drop the others after a kill: a power cut.
//!
//! It must not know what a replica is. Without its control file it changes nothing. It never allocates and never waits for a lock: it runs
//! inside any call of any thread.
//!
//! Not modelled: names. A file that was made or renamed is there after a power cut, even if its directory was not synced.
#![allow(
    unsafe_code,
    reason = "functions of the C library are replaced and called through raw pointers; nothing else can do that"
)]

mod control;
mod disk;
mod layout;
mod real;
mod time;
