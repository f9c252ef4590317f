//! How the C library's allocator, which all of a replica's memory comes from, is set ([decision 33](../../../docs/decisions)).
//!
//! A replica's memory is some hundred megabytes that are looked into at random, and finding the pages takes its part of that: less
//! of it on huge ones. The settings are read before the first line of a program runs, so a replica that was
//! started without them starts itself once more in its own place. Must not know what is allocated.

use std::ffi::OsString;
use std::io;
use std::num::NonZero;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Where the C library reads its settings (glibc manual, "Tunables"). Other C libraries read nothing, and lose nothing.
const VARIABLE: &str = "GLIBC_TUNABLES";

/// Processors that share an arena. Only the first arena has huge pages, and in one the gaps are fewest; but it has one lock.
const PROCESSORS_PER_ARENA: usize = 4;

/// Starts the program of this process again, with its arguments and its process id, unless it has been given settings
/// already. To be called before any thread is started and any file opened.
///
/// # Errors
/// It cannot be started again: then the allocator works as everywhere else.
pub(crate) fn settle() -> io::Result<()> {
    if std::env::var_os(VARIABLE).is_some() {
        return Ok(());
    }
    let program = std::env::current_exe()?;
    let mut arguments = std::env::args_os();
    let mut again = Command::new(program);
    again.arg0(arguments.next().unwrap_or_else(|| OsString::from("quiltd"))).args(arguments);
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    Err(again.env(VARIABLE, settings(processors)).exec())
}

/// The settings on a host with so many processors.
fn settings(processors: usize) -> String {
    let arenas = processors.div_ceil(PROCESSORS_PER_ARENA);
    [
        // The heap asks for huge pages, where the system gives them to those who ask.
        "glibc.malloc.hugetlb=1".to_owned(),
        format!("glibc.malloc.arena_max={arenas}"),
        // Small pieces that were given back are kept by each thread, ready to be taken again. The second kind of such a store
        // is joined and emptied whenever a large piece is asked for, which here is all the time.
        "glibc.malloc.tcache_count=64".to_owned(),
        "glibc.malloc.mxfast=0".to_owned(),
    ]
    .join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small hosts have one arena, and no host is without.
    #[test]
    fn arenas_follow_the_processors() {
        let arenas = |processors| {
            let settings = settings(processors);
            let found = settings.split(':').find_map(|setting| setting.strip_prefix("glibc.malloc.arena_max="));
            found.expect("named").parse::<usize>().expect("a number")
        };
        assert_eq!([1, 2, 4, 5, 64].map(arenas), [1, 1, 1, 2, 16]);
    }
}
